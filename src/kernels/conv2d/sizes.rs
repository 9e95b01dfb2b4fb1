//! Sizes of one convolution.

use super::depthwise::MOST_TAPS;
use crate::error::{Error, Result};
use crate::graph::op::Conv2d;
use crate::kernels::unfold::Unfold;

/// Sizes of one convolution, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(super) conv: Conv2d,
    pub(super) unfold: Unfold,
    /// Images.
    pub(super) n: usize,
    /// Channels in.
    pub(super) c: usize,
}

impl Sizes {
    pub(super) fn new(conv: &Conv2d, x: &[usize], w: &[usize]) -> Result<Self> {
        let &[n, c, h, width] = x else { return Err(problem(format!("takes [n, c, h, w], got {x:?}"))) };
        let sizes = Self::of(conv, [n, c, h, width])?;
        if w != conv.weight_shape(c) {
            return Err(problem(format!("weight {w:?}, expected {:?}", conv.weight_shape(c))));
        }
        Ok(sizes)
    }

    /// The sizes for `x` of this shape and a weight that fits. Allocates nothing.
    pub(crate) fn of(conv: &Conv2d, [n, c, h, width]: [usize; 4]) -> Result<Self> {
        if conv.groups == 0 || !c.is_multiple_of(conv.groups) || !conv.outputs.is_multiple_of(conv.groups) {
            return Err(problem(format!("{} groups do not divide {c} channels", conv.groups)));
        }
        if c == 0 || conv.outputs == 0 {
            return Err(problem(format!("{c} channels in and {} out: there must be some", conv.outputs)));
        }
        let unfold = Unfold::new(conv.window(), h, width)
            .filter(|_| h > 0 && width > 0)
            .ok_or_else(|| problem(format!("no window fits into {h} x {width} pixels")))?;
        Ok(Self { conv: *conv, unfold, n, c })
    }

    pub(super) fn is_depthwise(&self) -> bool {
        !reads_panels(&self.conv, self.c)
    }

    pub(super) fn x_shape(&self) -> [usize; 4] {
        [self.n, self.c, self.unfold.h, self.unfold.w]
    }

    pub(super) fn y_shape(&self) -> [usize; 4] {
        [self.n, self.conv.outputs, self.unfold.oh, self.unfold.ow]
    }

    /// Elements of one image.
    pub(super) fn x_len(&self) -> usize {
        self.c * self.unfold.h * self.unfold.w
    }

    pub(super) fn y_len(&self) -> usize {
        self.conv.outputs * self.unfold.oh * self.unfold.ow
    }

    /// Weights of an output: input channels of its group times taps.
    pub(super) fn depth(&self) -> usize {
        self.c / self.conv.groups * self.unfold.taps()
    }

    pub(super) fn weight_len(&self) -> usize {
        self.conv.outputs * self.depth()
    }
}

/// Whether outputs of this convolution of `c` channels read [`Weights`](super::Weights) of every kind; else only plain ones.
pub(crate) fn reads_panels(conv: &Conv2d, c: usize) -> bool {
    conv.groups != c || c == 1 || conv.k * conv.k > MOST_TAPS
}

fn problem(problem: String) -> Error {
    Error::Graph { node: "conv2d".into(), problem }
}
