//! The greatest value of each window.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use super::{Axis, POOLING, Windows, max_scratch_len};
use crate::error::{During, Result};
use crate::graph::op::Pool;
use crate::kernels::planes::{mismatch, wide};
use crate::kernels::share::{self, zeros};
use crate::kernels::simd::widened;
use crate::kernels::{Real, by_dtype, is_slow_path, slice, tensor};

/// Elements of a task at least.
const TASK: usize = 1 << 12;

/// The greatest value of each window, and its position `row * w + column` in the plane of `x`
/// as `U32`. The first of equals wins; NaN is greater than every number.
pub fn max(pool: &Pool, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let windows = Windows::new(pool, x)?;
    if is_slow_path(x) {
        return slow_max(&windows, x).during(POOLING);
    }
    by_dtype!(x, T => fast_max::<T>(&windows, x))
}

/// What [`max`] gives without the positions: for inference.
pub fn max_only(pool: &Pool, x: &Tensor) -> Result<Tensor> {
    let windows = Windows::new(pool, x)?;
    if is_slow_path(x) {
        return slow_max(&windows, x).map(|(y, _)| y).during(POOLING);
    }
    by_dtype!(x, T => {
        let shape = windows.shape(x);
        let mut y = zeros::<T>(POOLING, shape.iter().product())?;
        let threads = rayon::current_num_threads();
        let mut scratch = zeros(POOLING, max_scratch_len(&windows, shape[0] * shape[1], threads))?;
        max_into(&windows, &slice(x)?, (&mut y, &mut scratch));
        tensor(y, &shape)
    })
}

/// Fills `y` with the greatest values, with [`max_scratch_len`] elements of scratch.
pub(crate) fn max_into<T: Real>(windows: &Windows, x: &[T], (y, scratch): (&mut [T], &mut [T])) {
    let (outputs, pixels) = (windows.outputs(), windows.pixels());
    let tasks = tasks(windows, y.len() / outputs);
    let planes = planes_of_task(windows);
    let work = y.chunks_mut(planes * outputs).zip(x.chunks(planes * pixels));
    share::share((scratch, windows.w.pixels), (tasks, work), |line, (y, x)| {
        widened(|| {
            for (y, x) in y.chunks_mut(outputs).zip(x.chunks(pixels)) {
                for (row, y) in y.chunks_mut(windows.w.count()).enumerate() {
                    greatest_row(windows, row, x, (y, line));
                }
            }
        });
    });
}

/// Planes that are worth asking for together.
pub(super) fn planes_of_task(windows: &Windows) -> usize {
    TASK.div_ceil(windows.pixels())
}

/// Tasks of `planes` planes.
pub(super) fn tasks(windows: &Windows, planes: usize) -> usize {
    planes.div_ceil(planes_of_task(windows))
}

/// `dx` of [`max`], given the positions it returned and the shape of `x`.
pub fn max_dx(dy: &Tensor, argmax: &Tensor, x_shape: &[usize]) -> Result<Tensor> {
    if dy.dims() != argmax.dims() || x_shape.len() != 4 || dy.dims()[..2] != x_shape[..2] {
        return Err(mismatch(dy, argmax, "max_dx")).during(POOLING);
    }
    if is_slow_path(dy) {
        return slow_max_dx(dy, argmax, x_shape).during(POOLING);
    }
    let outputs = dy.dims()[2..].iter().product::<usize>().max(1);
    let pixels = x_shape[2..].iter().product::<usize>().max(1);
    by_dtype!(dy, T => {
        let (dy, at) = (slice::<T>(dy)?, slice::<u32>(argmax)?);
        if at.iter().any(|&at| at as usize >= pixels) {
            let problem = format!("positions beyond the {pixels} pixels of a plane");
            return Err(candle_core::Error::Msg(problem)).during(POOLING);
        }
        let mut dx = zeros::<T>(POOLING, x_shape.iter().product())?;
        let planes = dx.par_chunks_mut(pixels).zip(dy.par_chunks(outputs)).zip(at.par_chunks(outputs));
        planes.for_each(|((dx, dy), at)| {
            for (&dy, &at) in dy.iter().zip(at) {
                dx[at as usize] += dy;
            }
        });
        tensor(dx, x_shape)
    })
}

fn fast_max<T: Real>(windows: &Windows, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let (elements, shape) = (slice::<T>(x)?, windows.shape(x));
    let mut y = zeros::<T>(POOLING, shape.iter().product())?;
    let mut at = zeros(POOLING, y.len())?;
    let planes = y.par_chunks_mut(windows.outputs()).zip(at.par_chunks_mut(windows.outputs()));
    let planes = planes.zip(elements.par_chunks(windows.pixels()));
    planes.for_each_init(
        || Lines::new(&windows.w),
        |lines, ((y, at), x)| {
            widened(|| {
                let rows = y.chunks_mut(windows.w.count()).zip(at.chunks_mut(windows.w.count()));
                for (row, (y, at)) in rows.enumerate() {
                    lines.down(x, windows.h.window(row), windows.w.padding);
                    lines.across(windows.k);
                    let starts = (0..windows.w.count()).map(|i| i * windows.w.stride);
                    for ((y, at), start) in y.iter_mut().zip(at).zip(starts) {
                        (*y, *at) = (lines.best[0].values[start], lines.best[0].at[start]);
                    }
                }
            });
        },
    );
    Ok((tensor(y, &shape)?, tensor(at, &shape)?))
}

/// Values and their positions in a plane.
#[derive(Clone)]
struct Line<T> {
    values: Vec<T>,
    at: Vec<u32>,
}

/// One row of windows on its way to the greatest values.
///
/// Plainly: for every window, a loop over its rows and columns that remembers the best. Which
/// value wins cannot be predicted, so the branches of that loop cost more than its work. Here
/// all columns go down the rows together, then all possible windows across the columns
/// together (also those that the stride skips): loops without branches, in vector registers.
/// Each step writes to a second line: stores in place would be made conditional again.
struct Lines<T> {
    /// The greatest of each column; padded columns hold -inf at a position after all others.
    columns: [Line<T>; 2],
    /// The greatest of the window that begins at each column.
    best: [Line<T>; 2],
}

impl<T: Real> Lines<T> {
    fn new(axis: &Axis) -> Self {
        let lines = |n: usize| {
            let line = Line { values: vec![T::from_f64(f64::NEG_INFINITY); n], at: vec![u32::MAX; n] };
            [line.clone(), line]
        };
        let reach = (axis.count() - 1) * axis.stride + 1;
        Self { columns: lines(axis.pixels + 2 * axis.padding), best: lines(reach) }
    }

    /// Goes down these rows of a plane.
    #[inline]
    fn down(&mut self, x: &[T], rows: Range<usize>, padding: usize) {
        let within = padding..self.columns[0].values.len() - padding;
        let w = within.len();
        self.columns[0].values[within.clone()].copy_from_slice(&x[rows.start * w..][..w]);
        self.columns[0].at[within.clone()].fill((rows.start * w) as u32);
        for row in rows.skip(1) {
            let begin = (row * w) as u32;
            let [from, to] = &mut self.columns;
            let from = from.values[within.clone()].iter().zip(&from.at[within.clone()]);
            let to = to.values[within.clone()].iter_mut().zip(&mut to.at[within.clone()]);
            for (((&best, &at), (to, to_at)), &x) in from.zip(to).zip(&x[row * w..][..w]) {
                let wins = beats(x, best);
                *to = if wins { x } else { best };
                *to_at = if wins { begin } else { at };
            }
            self.columns.swap(0, 1);
        }
        let columns = self.columns[0].at[within].iter_mut().zip(0..w as u32);
        columns.for_each(|(at, column)| *at += column);
    }

    /// Goes across `k` columns. Of equals the one at the lowest position wins.
    #[inline]
    fn across(&mut self, k: usize) {
        let columns = &self.columns[0];
        let n = self.best[0].values.len();
        self.best[0].values.copy_from_slice(&columns.values[..n]);
        self.best[0].at.copy_from_slice(&columns.at[..n]);
        for tap in 1..k {
            let [from, to] = &mut self.best;
            let from = from.values.iter().zip(&from.at);
            let to = to.values.iter_mut().zip(&mut to.at);
            let rivals = columns.values[tap..][..n].iter().zip(&columns.at[tap..][..n]);
            for (((&best, &at), (to, to_at)), (&x, &position)) in from.zip(to).zip(rivals) {
                let wins = beats(x, best) | (!beats(best, x) & (position < at));
                *to = if wins { x } else { best };
                *to_at = if wins { position } else { at };
            }
            self.best.swap(0, 1);
        }
    }
}

/// Whether `x` comes before `best`: greater, or the first that is not a number.
#[allow(clippy::eq_op)] // A number equals itself, NaN does not.
fn beats<T: Real>(x: T, best: T) -> bool {
    (x > best) | ((x != x) & (best == best))
}

/// One row of windows: `y` gets the greatest values, by way of those down each column.
#[inline(always)]
fn greatest_row<T: Real>(windows: &Windows, row: usize, x: &[T], (y, line): (&mut [T], &mut [T])) {
    let w = line.len();
    let rows = windows.h.window(row);
    line.copy_from_slice(&x[rows.start * w..][..w]);
    for row in rows.skip(1) {
        for (best, &x) in line.iter_mut().zip(&x[row * w..][..w]) {
            *best = if beats(x, *best) { x } else { *best };
        }
    }
    for (y, Range { start, end }) in y.iter_mut().zip(windows.w.windows()) {
        let greatest = |best, x: &T| if beats(*x, best) { *x } else { best };
        *y = line[start + 1..end].iter().fold(line[start], greatest);
    }
}

/// Bytes of the lines that a thread keeps, in `f32`.
pub(super) fn line_bytes(w: &Axis) -> usize {
    let reach = (w.count() - 1) * w.stride + 1;
    2 * (w.pixels + 2 * w.padding + reach) * (size_of::<f32>() + size_of::<u32>())
}

impl Axis {
    /// The pixel under tap `tap` of each window, its last pixel where the window is shorter.
    fn tap(&self, tap: usize) -> Vec<u32> {
        self.windows().map(|window| (window.start + tap).min(window.end - 1) as u32).collect()
    }
}

pub(super) fn slow_max(windows: &Windows, x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    let shape = windows.shape(x);
    let row = |indices: Vec<u32>| Tensor::new(indices, x.device());
    let mut best: Option<(Tensor, Tensor)> = None;
    // Windows cut at the border see their last pixel again, which changes no maximum.
    for (i, j) in (0..windows.k).flat_map(|i| (0..windows.k).map(move |j| (i, j))) {
        let (lines, columns) = (windows.h.tap(i), windows.w.tap(j));
        let position =
            |line: &u32| columns.iter().map(|column| line * windows.w.pixels as u32 + column).collect();
        let positions: Vec<u32> = lines.iter().flat_map(|line| -> Vec<u32> { position(line) }).collect();
        let at = row(positions)?.reshape((1, 1, shape[2], shape[3]))?.broadcast_as(&shape)?.contiguous()?;
        let value = x.index_select(&row(lines)?, 2)?.index_select(&row(columns)?, 3)?;
        best = Some(match best {
            None => (value, at),
            Some((greatest, best)) => {
                let enters = (value.ne(&value)? * greatest.eq(&greatest)?)?;
                let wins = (value.gt(&greatest)? + enters)?;
                (wins.where_cond(&value, &greatest)?, wins.where_cond(&at, &best)?)
            }
        });
    }
    best.ok_or_else(|| candle_core::Error::Msg("a window without taps".into()))
}

pub(super) fn slow_max_dx(dy: &Tensor, argmax: &Tensor, x_shape: &[usize]) -> candle_core::Result<Tensor> {
    let planes = x_shape[0] * x_shape[1];
    let (at, wide_dy) = (argmax.reshape((planes, ()))?, wide(dy)?.reshape((planes, ()))?);
    let zeros = Tensor::zeros((planes, x_shape[2] * x_shape[3]), wide_dy.dtype(), dy.device())?;
    zeros.scatter_add(&at, &wide_dy, 1)?.reshape(x_shape)?.to_dtype(dy.dtype())
}
