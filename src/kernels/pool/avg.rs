//! The mean of each window.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{Axis, POOLING, Windows, avg_scratch_len};
use crate::error::{During, Result};
use crate::graph::op::Pool;
use crate::kernels::share::zeros;
use crate::kernels::simd::widened;
use crate::kernels::{Real, by_dtype, is_slow_path, slice, tensor};

/// The mean of each window.
pub fn avg(pool: &Pool, x: &Tensor) -> Result<Tensor> {
    let windows = Windows::new(pool, x)?;
    if is_slow_path(x) {
        return slow_avg(&windows, x).during(POOLING);
    }
    by_dtype!(x, T => {
        let shape = windows.shape(x);
        let mut y = zeros::<T>(POOLING, shape.iter().product())?;
        let mut scratch = zeros(POOLING, avg_scratch_len(&windows))?;
        avg_into(&windows, &slice(x)?, (&mut y, &mut scratch));
        tensor(y, &shape)
    })
}

/// Fills `y`, with [`avg_scratch_len`] elements of scratch.
pub(crate) fn avg_into<T: Real>(windows: &Windows, x: &[T], (y, scratch): (&mut [T], &mut [T])) {
    windows.w.shares(scratch);
    let shares = &*scratch;
    let planes = y.par_chunks_mut(windows.outputs()).zip(x.par_chunks(windows.pixels()));
    planes.for_each(|(y, x)| {
        widened(|| {
            for (row, y) in y.chunks_mut(windows.w.count()).enumerate() {
                avg_row(windows, row, x, (y, shares));
            }
        });
    });
}

/// `dx` of [`avg`] for an `x` of this shape: each window's gradient in equal shares.
pub fn avg_dx(pool: &Pool, dy: &Tensor, x_shape: &[usize]) -> Result<Tensor> {
    let &[_, _, h, w] = x_shape else {
        return Err(candle_core::Error::Msg(format!("no images: {x_shape:?}"))).during(POOLING);
    };
    let windows = Windows::sized(pool, [h, w])?;
    if dy.dims() != [x_shape[0], x_shape[1], windows.h.count(), windows.w.count()] {
        let problem = format!("{:?} is not what {pool:?} makes of {x_shape:?}", dy.dims());
        return Err(candle_core::Error::Msg(problem)).during(POOLING);
    }
    if is_slow_path(dy) {
        return slow_avg_dx(&windows, dy).during(POOLING);
    }
    by_dtype!(dy, T => {
        let elements = slice::<T>(dy)?;
        let mut shares = zeros::<T>(POOLING, avg_scratch_len(&windows))?;
        windows.w.shares(&mut shares);
        let mut dx = zeros::<T>(POOLING, x_shape.iter().product())?;
        let planes = dx.par_chunks_mut(windows.pixels()).zip(elements.par_chunks(windows.outputs()));
        planes.for_each(|(dx, dy)| {
            widened(|| {
                for (row, dy) in dy.chunks(windows.w.count()).enumerate() {
                    spread_row(&windows, row, dx, (dy, &shares));
                }
            });
        });
        tensor(dx, x_shape)
    })
}

/// One row of windows: `y` gets the means. Taps are added one after the other for all windows, which
/// are runs of pixels. (Inlined into a caller that is compiled for wide registers, as the next.)
#[inline(always)]
fn avg_row<T: Real>(windows: &Windows, row: usize, x: &[T], (y, shares): (&mut [T], &[T])) {
    let (w, rows) = (windows.w.pixels, windows.h.window(row));
    let share = T::from_f64(1.0 / rows.len() as f64);
    y.fill(T::zero());
    for x in rows.map(|line| &x[line * w..][..w]) {
        for tap in 0..windows.k {
            let (outputs, first) = windows.w.of_tap(tap);
            let (y, x) = (&mut y[outputs], &x[first..]);
            match windows.w.stride {
                1 => y.iter_mut().zip(x).for_each(|(y, &x)| *y += x),
                stride => y.iter_mut().zip(x.iter().step_by(stride)).for_each(|(y, &x)| *y += x),
            }
        }
    }
    y.iter_mut().zip(shares).for_each(|(y, &across)| *y = *y * share * across);
}

/// One row of windows: `dx` gets the shares of their gradients added.
#[inline(always)]
fn spread_row<T: Real>(windows: &Windows, row: usize, dx: &mut [T], (dy, shares): (&[T], &[T])) {
    let (w, rows) = (windows.w.pixels, windows.h.window(row));
    let share = T::from_f64(1.0 / rows.len() as f64);
    for line in rows {
        let dx = &mut dx[line * w..][..w];
        for tap in 0..windows.k {
            let (outputs, first) = windows.w.of_tap(tap);
            let parts =
                dy[outputs.clone()].iter().zip(&shares[outputs]).map(|(dy, across)| *dy * share * *across);
            match windows.w.stride {
                1 => dx[first..].iter_mut().zip(parts).for_each(|(dx, part)| *dx += part),
                stride => {
                    dx[first..].iter_mut().step_by(stride).zip(parts).for_each(|(dx, part)| *dx += part)
                }
            }
        }
    }
}

impl Axis {
    /// One over the pixels of each window.
    fn shares<T: Real>(&self, shares: &mut [T]) {
        let windows = shares.iter_mut().zip(self.windows());
        windows.for_each(|(share, window)| *share = T::from_f64(1.0 / window.len() as f64));
    }

    /// The matrix `[count, pixels]` that takes means along this axis.
    fn means(&self, like: &Tensor) -> candle_core::Result<Tensor> {
        let mut means = vec![0.0; self.count() * self.pixels];
        for (row, window) in means.chunks_mut(self.pixels).zip(self.windows()) {
            let share = 1.0 / window.len() as f64;
            row[window].fill(share);
        }
        let host = Tensor::from_vec(means, (self.count(), self.pixels), &Device::Cpu)?;
        host.to_dtype(like.dtype())?.to_device(like.device())
    }
}

pub(super) fn slow_avg(windows: &Windows, x: &Tensor) -> candle_core::Result<Tensor> {
    let [n, c, _, _] = windows.shape(x);
    let across =
        x.reshape((n * c * windows.h.pixels, windows.w.pixels))?.matmul(&windows.w.means(x)?.t()?)?;
    let planes = across.reshape((n * c, windows.h.pixels, windows.w.count()))?;
    windows.h.means(x)?.broadcast_matmul(&planes)?.reshape(&windows.shape(x))
}

pub(super) fn slow_avg_dx(windows: &Windows, dy: &Tensor) -> candle_core::Result<Tensor> {
    let (n, c, h, w) = dy.dims4()?;
    let across = dy.reshape((n * c * h, w))?.matmul(&windows.w.means(dy)?)?;
    let planes = across.reshape((n * c, h, windows.w.pixels))?;
    let shape = (n, c, windows.h.pixels, windows.w.pixels);
    windows.h.means(dy)?.t()?.broadcast_matmul(&planes)?.reshape(shape)
}
