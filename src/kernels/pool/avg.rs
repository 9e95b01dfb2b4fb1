//! The mean of each window.

use candle_core::{Device, Tensor};

use super::max::{planes_of_task, tasks};
use super::{Axis, POOLING, Windows, avg_scratch_len};
use crate::error::{During, Result};
use crate::graph::op::{Pool, Window};
use crate::kernels::conv2d::Around;
use crate::kernels::share::{self, pieces, zeros};
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
pub(crate) fn avg_into<T: Real>(windows: &Windows, x: &[T], (y, shares): (&mut [T], &mut [T])) {
    windows.shares(shares);
    pieces(y, windows.outputs(), &|i, y| {
        windows.sum(&x[i * windows.pixels()..][..windows.pixels()], y);
        widened(|| y.iter_mut().zip(&*shares).for_each(|(y, &share)| *y *= share));
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
        let (dy, outputs) = (slice::<T>(dy)?, windows.outputs());
        let (planes, at_once) = (dy.len() / outputs, planes_of_task(&windows));
        let threads = rayon::current_num_threads();
        let len = avg_scratch_len(&windows) + share::scratch_len(tasks(&windows, planes), outputs, threads);
        let mut scratch = zeros::<T>(POOLING, len)?;
        let (shares, scaled) = scratch.split_at_mut(outputs);
        windows.shares(shares);
        let mut dx = zeros::<T>(POOLING, x_shape.iter().product())?;
        let work = dx.chunks_mut(at_once * windows.pixels()).zip(dy.chunks(at_once * outputs));
        share::share((scaled, outputs), (tasks(&windows, planes), work), |scaled, (dx, dy)| {
            for (dx, dy) in dx.chunks_mut(windows.pixels()).zip(dy.chunks(outputs)) {
                let all = scaled.iter_mut().zip(dy).zip(&*shares);
                widened(|| all.for_each(|((scaled, &dy), &share)| *scaled = dy * share));
                windows.spread(scaled, dx);
            }
        });
        tensor(dx, x_shape)
    })
}

impl Windows {
    /// One over the pixels of each window.
    fn shares<T: Real>(&self, shares: &mut [T]) {
        for (shares, rows) in shares.chunks_exact_mut(self.w.count()).zip(self.h.windows()) {
            let windows = shares.iter_mut().zip(self.w.windows());
            windows
                .for_each(|(share, columns)| *share = T::from_f64(1.0 / (rows.len() * columns.len()) as f64));
        }
    }

    /// Fills `y` with the sum of each window of a plane.
    fn sum<T: Real>(&self, x: &[T], y: &mut [T]) {
        if let Some(around) = self.around() {
            return around.sum_of_ones(x, y);
        }
        widened(|| {
            for (row, y) in y.chunks_mut(self.w.count()).enumerate() {
                sum_row(self, row, x, y);
            }
        });
    }

    /// Fills a plane, which was cleared, with the gradients of the windows' sums.
    fn spread<T: Real>(&self, dy: &[T], dx: &mut [T]) {
        if let Some(around) = self.around() {
            return around.spread_ones(dy, dx);
        }
        widened(|| {
            for (row, dy) in dy.chunks(self.w.count()).enumerate() {
                spread_row(self, row, dx, dy);
            }
        });
    }

    /// The windows, if a depthwise convolution has a kernel for them.
    fn around(&self) -> Option<Around> {
        let window = Window { k: self.k, stride: self.w.stride, padding: self.w.padding, dilation: 1 };
        Around::of(window, [self.h.pixels, self.w.pixels])
    }
}

/// One row of windows: `y` gets the sums. Taps are added one after the other for all windows, which
/// are runs of pixels. (Inlined into a caller that is compiled for wide registers, as the next.)
#[inline(always)]
fn sum_row<T: Real>(windows: &Windows, row: usize, x: &[T], y: &mut [T]) {
    let (w, rows) = (windows.w.pixels, windows.h.window(row));
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
}

/// One row of windows: `dx` gets their gradients added.
#[inline(always)]
fn spread_row<T: Real>(windows: &Windows, row: usize, dx: &mut [T], dy: &[T]) {
    let w = windows.w.pixels;
    for line in windows.h.window(row) {
        let dx = &mut dx[line * w..][..w];
        for tap in 0..windows.k {
            let (outputs, first) = windows.w.of_tap(tap);
            let dy = &dy[outputs];
            match windows.w.stride {
                1 => dx[first..].iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy),
                stride => dx[first..].iter_mut().step_by(stride).zip(dy).for_each(|(dx, &dy)| *dx += dy),
            }
        }
    }
}

impl Axis {
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
