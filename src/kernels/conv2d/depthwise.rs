//! Convolution with one input channel for each output: sums of shifted planes.
//!
//! Each tap adds the plane, shifted and scaled, so the inner loop is a run along a row and
//! needs no columns. Work is split by plane.

use rayon::prelude::*;

use super::{CONVOLVING, Finish, Sizes};
use crate::error::Result;
use crate::kernels::Real;
use crate::kernels::share::zeros;

impl Sizes {
    fn planes(&self) -> [usize; 2] {
        [self.unfold.h * self.unfold.w, self.unfold.oh * self.unfold.ow]
    }

    /// Outputs that read one input channel.
    fn multiplier(&self) -> usize {
        self.conv.outputs / self.c
    }
}

/// Fills `y`.
pub(super) fn forward_into<T: Real>(sizes: &Sizes, [x, w]: [&[T]; 2], finish: &Finish<T>, y: &mut [T]) {
    let ([x_len, y_len], taps) = (sizes.planes(), sizes.unfold.taps());
    let (stride, outputs) = (sizes.conv.stride, sizes.conv.outputs);
    y.par_chunks_mut(y_len).enumerate().for_each(|(index, y)| {
        let o = index % outputs;
        y.fill(T::zero());
        let x = &x[index / sizes.multiplier() * x_len..][..x_len];
        for (tap, &weight) in w[o * taps..][..taps].iter().enumerate() {
            sizes.unfold.runs(tap, &(0..sizes.unfold.oh), |to, from| {
                add_scaled(&mut y[to], x[from..].iter().step_by(stride), weight);
            });
        }
        finish.apply(y, o, index * y_len);
    });
}

pub(super) fn dx<T: Real>(sizes: &Sizes, dy: &[T], w: &[T]) -> Result<Vec<T>> {
    let ([x_len, y_len], taps) = (sizes.planes(), sizes.unfold.taps());
    let (stride, multiplier) = (sizes.conv.stride, sizes.multiplier());
    let mut dx = zeros(CONVOLVING, sizes.n * sizes.x_len())?;
    dx.par_chunks_mut(x_len).enumerate().for_each(|(index, dx)| {
        for m in 0..multiplier {
            let dy = &dy[(index * multiplier + m) * y_len..][..y_len];
            let kernel = &w[(index % sizes.c * multiplier + m) * taps..][..taps];
            for (tap, &weight) in kernel.iter().enumerate() {
                sizes.unfold.runs(tap, &(0..sizes.unfold.oh), |from, to| {
                    let to = dx[to..].iter_mut().step_by(stride);
                    to.zip(&dy[from]).for_each(|(t, &d)| *t += weight * d);
                });
            }
        }
    });
    Ok(dx)
}

pub(super) fn dw<T: Real>(sizes: &Sizes, dy: &[T], x: &[T]) -> Result<Vec<T>> {
    let ([x_len, y_len], taps) = (sizes.planes(), sizes.unfold.taps());
    let (stride, outputs) = (sizes.conv.stride, sizes.conv.outputs);
    let mut dw = zeros(CONVOLVING, sizes.weight_len())?;
    dw.par_chunks_mut(taps).enumerate().for_each(|(o, dw)| {
        for i in 0..sizes.n {
            let dy = &dy[(i * outputs + o) * y_len..][..y_len];
            let x = &x[(i * sizes.c + o / sizes.multiplier()) * x_len..][..x_len];
            for (tap, sum) in dw.iter_mut().enumerate() {
                sizes.unfold.runs(tap, &(0..sizes.unfold.oh), |of_y, of_x| {
                    *sum += dot(&dy[of_y], x[of_x..].iter().step_by(stride));
                });
            }
        }
    });
    Ok(dw)
}

fn add_scaled<'a, T: Real>(to: &mut [T], from: impl Iterator<Item = &'a T>, by: T) {
    to.iter_mut().zip(from).for_each(|(t, &f)| *t += by * f);
}

fn dot<'a, T: Real>(a: &[T], b: impl Iterator<Item = &'a T>) -> T {
    a.iter().zip(b).fold(T::zero(), |sum, (&a, &b)| sum + a * b)
}
