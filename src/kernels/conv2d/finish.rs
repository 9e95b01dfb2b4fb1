//! What happens to sums when they are complete.

use crate::graph::op::Activation;
use crate::kernels::{Real, activation};

/// The epilogue on slices.
pub(crate) struct Finish<'a, T> {
    pub(crate) activation: Option<Activation>,
    pub(crate) bias: Option<&'a [T]>,
    pub(crate) residual: Option<&'a [T]>,
}

impl<T: Real> Finish<'_, T> {
    pub(super) const NONE: Self = Self { activation: None, bias: None, residual: None };

    /// Finishes a run of sums of output channel `channel` that starts at element `at` of `y`.
    pub(super) fn apply(&self, sums: &mut [T], channel: usize, at: usize) {
        if let Some(bias) = self.bias {
            let b = bias[channel];
            sums.iter_mut().for_each(|y| *y += b);
        }
        if let Some(residual) = self.residual {
            sums.iter_mut().zip(&residual[at..]).for_each(|(y, &r)| *y += r);
        }
        if let Some(kind) = self.activation {
            activation::apply(kind, sums);
        }
    }
}
