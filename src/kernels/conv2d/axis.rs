//! Where windows lie along one axis, for outputs of a convolution and for gradients by its input.

use std::ops::Range;

use crate::graph::op::{Conv2d, Window};

/// Along one axis, output `i` is the sum over taps `t` of `weight[first + step t]` times
/// `source[stride i + offset + advance t]`, and is written to position `to_start + to_step i`.
/// What lies outside of the source is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) outputs: usize,
    pub(super) stride: usize,
    pub(super) taps: usize,
    pub(super) first: usize,
    pub(super) step: usize,
    offset: isize,
    pub(super) advance: isize,
    pub(super) to_start: usize,
    pub(super) to_step: usize,
}

impl Axis {
    /// The outputs of a convolution, `y[i] = sum over t of w[t] x[stride i + dilation t - padding]`.
    pub(super) fn forward(window: Window, outputs: usize) -> Self {
        let Window { k, stride, padding, dilation } = window;
        let (offset, advance) = (-(padding as isize), dilation as isize);
        Self { outputs, stride, taps: k, first: 0, step: 1, offset, advance, to_start: 0, to_step: 1 }
    }

    /// The gradients by inputs `phase`, `phase + stride`, ... of `pixels`. Input `i` was read for output
    /// `(i + padding - dilation t) / stride`, where that is whole.
    pub(super) fn backward(conv: &Conv2d, pixels: usize, phase: usize) -> Self {
        let Window { k, stride, padding, dilation } = conv.window();
        let at = |t: usize| (phase + padding) as isize - (dilation * t) as isize;
        let is_whole = |t: &usize| at(*t).rem_euclid(stride as isize) == 0;
        let mut whole = (0..k).filter(is_whole);
        let first = whole.next().unwrap_or(0);
        let step = whole.next().map_or(1, |second| second - first);
        let taps = (0..k).filter(is_whole).count();
        let offset = at(first).div_euclid(stride as isize);
        let advance = -((dilation * step / stride) as isize);
        let outputs = pixels.saturating_sub(phase).div_ceil(stride);
        Self { outputs, stride: 1, taps, first, step, offset, advance, to_start: phase, to_step: stride }
    }

    /// The source positions that these outputs read, some of which may lie outside.
    pub(super) fn reads(&self, outputs: &Range<usize>) -> Range<isize> {
        let reach = self.advance * self.taps.saturating_sub(1) as isize;
        let start = (outputs.start * self.stride) as isize + self.offset + reach.min(0);
        let span = outputs.len().saturating_sub(1) * self.stride + reach.unsigned_abs() + 1;
        start..start + span as isize
    }

    /// From a row that is read to the next: those between are not, where a window is one row.
    pub(super) fn row_step(&self) -> usize {
        if self.taps == 1 { self.stride } else { 1 }
    }

    /// What the first tap of the first of some outputs reads, counted from the first that they read.
    pub(super) fn first_read(&self) -> usize {
        (self.advance * self.taps.saturating_sub(1) as isize).min(0).unsigned_abs()
    }

    /// How far apart taps are, forward or backward, where every output is written and is a sum over `taps`
    /// taps that begin a position after those of the output before.
    pub(super) fn window_of(&self, taps: usize) -> Option<usize> {
        let reads = (self.taps, self.first, self.step, self.stride);
        let is_one = reads == (taps, 0, 1, 1) && (self.to_start, self.to_step) == (0, 1);
        is_one.then_some(self.advance.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum that [`Axis`] documents.
    fn sum(axis: &Axis, i: usize, w: &[f64], source: &[f64]) -> f64 {
        let term = |t: usize| {
            let at = (axis.stride * i) as isize + axis.offset + axis.advance * t as isize;
            let read = usize::try_from(at).ok().and_then(|at| source.get(at)).copied().unwrap_or(0.0);
            w[axis.first + axis.step * t] * read
        };
        (0..axis.taps).map(term).sum()
    }

    #[test]
    fn gradients_along_an_axis_are_the_adjoint_of_outputs() {
        for (k, stride, padding, dilation) in
            [(3, 1, 1, 1), (3, 2, 1, 1), (3, 2, 2, 2), (5, 3, 0, 2), (1, 2, 0, 1), (4, 2, 3, 3), (2, 4, 0, 1)]
        {
            let conv = Conv2d { padding, dilation, ..Conv2d::valid(1, k, stride) };
            let pixels = 13;
            let outputs = conv.window().count(pixels).unwrap();
            let forward = Axis::forward(conv.window(), outputs);
            let w: Vec<f64> = (1..=k).map(|t| t as f64).collect();
            for j in 0..outputs {
                let dy: Vec<f64> = (0..outputs).map(|i| f64::from(u8::from(i == j))).collect();
                let mut dx = vec![0.0; pixels];
                for phase in 0..stride {
                    let axis = Axis::backward(&conv, pixels, phase);
                    for i in 0..axis.outputs {
                        dx[axis.to_start + axis.to_step * i] += sum(&axis, i, &w, &dy);
                    }
                }
                for (p, &dx) in dx.iter().enumerate() {
                    let x: Vec<f64> = (0..pixels).map(|i| f64::from(u8::from(i == p))).collect();
                    assert_eq!(dx, sum(&forward, j, &w, &x), "{k} {stride} {padding} {dilation}: {j} by {p}");
                }
            }
        }
    }

    #[test]
    fn reads_begin_at_the_first_tap_or_at_the_last() {
        let conv = Conv2d::same(1, 3, 1);
        let forward = Axis::forward(conv.window(), 8);
        assert_eq!((forward.reads(&(0..8)), forward.first_read()), (-1..9, 0));
        let backward = Axis::backward(&conv, 8, 0);
        assert_eq!((backward.reads(&(2..4)), backward.first_read()), (1..5, 2));
    }
}
