//! Weights in the order in which the innermost loops read them, from wherever they are.
//!
//! A *panel* is the output channels that a tile holds side by side: `width` of them, filled up to whole
//! registers. Its weights lie `[c][taps][width]`. They are copied into that order a part at a time, or
//! once and for all where a network runs often: [`packed`].

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use super::Sizes;
use super::correlation::Correlation;
use crate::error::Result;
use crate::kernels::Real;
use crate::kernels::matmul::Matrix;
use crate::kernels::matmul::pack::{self, Columns, Run};
use crate::kernels::share::zeros;
use crate::kernels::simd::{Isa, Job, Lanes, widened};

/// The weights of a convolution.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a, T> {
    /// `[outputs, inputs of a group, k, k]` in half precision, and lists of factors for each output,
    /// which apply one after another.
    Halves(&'a [f16], &'a [Arc<[T]>]),
    /// `[outputs, inputs of a group, k, k]`
    Plain(&'a [T]),
    /// What [`packed`] made of them.
    Packed(&'a [T]),
}

impl<T> Weights<'_, T> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Halves(halves, _) => halves.len(),
            Self::Plain(numbers) | Self::Packed(numbers) => numbers.len(),
        }
    }
}

impl Correlation {
    /// Elements that these weights must have.
    pub(super) fn weight_len<T: Real>(&self, weights: &Weights<T>) -> usize {
        let of_output = self.inputs * self.k * self.k;
        match weights {
            Weights::Packed(_) => self.groups * self.group_width::<T>() * of_output,
            Weights::Halves(..) | Weights::Plain(_) => self.groups * self.outputs * of_output,
        }
    }

    /// Widths of all panels of a group together.
    fn group_width<T: Real>(&self) -> usize {
        let [lanes, widest] = T::widths();
        let panel = self.panel(widest);
        let whole = self.outputs / panel;
        whole * panel.next_multiple_of(lanes) + (self.outputs % panel).next_multiple_of(lanes)
    }

    /// The weights of a panel, some output channels of a group, and a part of its input channels where they
    /// lie `[c][taps][width]` already.
    pub(super) fn taps<'a, T: Real>(
        &self,
        weights: Weights<'a, T>,
        ((group, outputs), part): ((usize, &Range<usize>), &Range<usize>),
    ) -> Option<&'a [T]> {
        let Weights::Packed(all) = weights else { return None };
        let ([lanes, widest], taps) = (T::widths(), self.k * self.k);
        let (panel, width) = (self.panel(widest), outputs.len().next_multiple_of(lanes));
        let before = group * self.group_width::<T>() + outputs.start / panel * panel.next_multiple_of(lanes);
        Some(&all[(before * self.inputs + part.start * width) * taps..][..part.len() * taps * width])
    }

    /// Copies them to the start of `to`, from wherever they are.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn copy_taps<T: Real, S: Isa<Register: Lanes<Element = T>>>(
        &self,
        weights: Weights<T>,
        (panel, part): ((usize, &Range<usize>), &Range<usize>),
        to: &mut [T],
    ) {
        let (taps, (group, outputs)) = (self.k * self.k, panel);
        let width = outputs.len().next_multiple_of(S::Register::LANES);
        let to = &mut to[..part.len() * taps * width];
        let [output, input] = self.strides;
        let first = group * self.inputs * self.outputs * taps + outputs.start * output;
        match weights {
            Weights::Halves(all, factors) => {
                let from = &all[first + part.start * input..];
                let from = Run { from, stride: output, n: outputs.len() };
                let columns = Columns { to: to.as_mut_ptr(), stride: width, whole: true };
                // SAFETY: the caller promises the processor; there is a row of `width` for each tap.
                unsafe { pack::transposed_halves::<S>(from, taps * part.len(), columns) };
                let channels = group * self.outputs + outputs.start..group * self.outputs + outputs.end;
                for factors in factors.iter().map(|all| &all[channels.clone()]) {
                    widened(|| multiply(to, width, factors));
                }
            }
            Weights::Packed(_) => {
                self.taps(weights, (panel, part)).into_iter().for_each(|taps| to.copy_from_slice(taps));
            }
            // SAFETY: the caller promises the processor.
            Weights::Plain(all) => unsafe { self.pack::<T, S>(&all[first..], (outputs, part), to, width) },
        }
    }

    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn pack<T: Real, S: Isa<Register: Lanes<Element = T>>>(
        &self,
        weight: &[T],
        (outputs, part): (&Range<usize>, &Range<usize>),
        to: &mut [T],
        width: usize,
    ) {
        let taps = self.k * self.k;
        let ([output, input], cols) = (self.strides, outputs.len());
        if output == 1 {
            // Single taps whose outputs stand side by side already.
            let (data, rows) = (&weight[part.start * input..], part.len());
            let matrix = Matrix { data, rows, cols, row_stride: input, col_stride: 1 };
            // SAFETY: the caller promises the processor.
            return unsafe { pack::rows::<S>(to, matrix, width) };
        }
        // Where taps of all channels follow one another, they are rows of one matrix.
        let (rows, at_once) = if input == taps { (taps * part.len(), part.len()) } else { (taps, 1) };
        let channels = part.clone().step_by(at_once.max(1));
        for (c, to) in channels.zip(to.chunks_exact_mut(rows * width)) {
            let data = &weight[c * input..];
            let matrix = Matrix { data, rows, cols, row_stride: 1, col_stride: output };
            // SAFETY: the caller promises the processor.
            unsafe { pack::rows::<S>(to, matrix, width) };
        }
    }
}

/// Multiplies the columns of rows of `width` elements.
fn multiply<T: Real>(rows: &mut [T], width: usize, factors: &[T]) {
    for row in rows.chunks_exact_mut(width) {
        row.iter_mut().zip(factors).for_each(|(x, &factor)| *x *= factor);
    }
}

/// `weight` `[outputs, inputs of a group, k, k]` as [`Weights::Packed`] has it, for outputs; none for
/// convolutions that do not read weights so.
///
/// # Errors
///
/// [`crate::Error::Memory`] when the limit does not allow it.
pub(crate) fn packed<T: Real>(sizes: &Sizes, weight: &[T]) -> Result<Option<Vec<T>>> {
    if sizes.is_depthwise() || weight.len() != sizes.weight_len() {
        return Ok(None);
    }
    let how = &Correlation::forward(sizes);
    let mut to = zeros("packing a weight", how.weight_len::<T>(&Weights::Packed(&[])))?;
    // SAFETY: the job demands nothing beside its processor.
    unsafe { T::dispatch(Pack { how, weight, to: &mut to }) };
    Ok(Some(to))
}

struct Pack<'a, T> {
    how: &'a Correlation,
    weight: &'a [T],
    to: &'a mut [T],
}

impl<T: Real> Job<T> for Pack<'_, T> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let Self { how, weight, mut to } = self;
        let panel = how.panel(S::PANEL * S::Register::LANES);
        let depth = how.inputs * how.k * how.k;
        for group in 0..how.groups {
            for first in (0..how.outputs).step_by(panel) {
                let outputs = first..how.outputs.min(first + panel);
                let of = ((group, &outputs), &(0..how.inputs));
                // SAFETY: the caller promises the processor.
                unsafe { how.copy_taps::<T, S>(Weights::Plain(weight), of, to) };
                let width = outputs.len().next_multiple_of(S::Register::LANES);
                to = &mut std::mem::take(&mut to)[depth * width..];
            }
        }
    }
}

/// The weight that [`packed`] was given.
pub(crate) fn unpacked<T: Real>(sizes: &Sizes, packed: &[T]) -> Vec<T> {
    let how = &Correlation::forward(sizes);
    let [lanes, widest] = T::widths();
    let (panel, depth) = (how.panel(widest), how.inputs * how.k * how.k);
    let mut weight = vec![T::zero(); sizes.weight_len()];
    let mut from = packed;
    for weight in weight.chunks_exact_mut((how.outputs * depth).max(1)) {
        for outputs in weight.chunks_mut((panel * depth).max(1)) {
            let width = (outputs.len() / depth).next_multiple_of(lanes);
            for (i, output) in outputs.chunks_exact_mut(depth).enumerate() {
                output.iter_mut().zip(from[i..].iter().step_by(width)).for_each(|(to, &x)| *to = x);
            }
            from = &from[width * depth..];
        }
    }
    weight
}
