//! The greatest value of each window.

use candle_core::Tensor;
use rayon::prelude::*;

use super::greatest::Frame;
use super::{Axis, POOLING, Windows, max_scratch_len};
use crate::error::{During, Result};
use crate::graph::op::Pool;
use crate::kernels::planes::{mismatch, wide};
use crate::kernels::share::{self, Scratch, zeros};
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
    let frame = Frame::new(windows);
    share::share((scratch, frame.scratch()), (tasks, work), |scratch, (y, x)| {
        let mut lines = frame.lines(scratch);
        let planes = y.chunks_mut(outputs).zip(x.chunks(pixels));
        widened(|| planes.for_each(|(y, x)| frame.greatest(x, (y, &mut []), &mut lines)));
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
        let mut dx = zeros::<T>(POOLING, x_shape.iter().product())?;
        let planes = dx.par_chunks_mut(pixels).zip(dy.par_chunks(outputs)).zip(at.par_chunks(outputs));
        let are_within = planes.with_min_len(TASK.div_ceil(pixels)).all(|((dx, dy), at)| {
            let is_within = widened(|| at.iter().fold(true, |all, &at| all & ((at as usize) < pixels)));
            if is_within {
                at.iter().zip(dy).for_each(|(&at, &dy)| dx[at as usize] += dy);
            }
            is_within
        });
        if !are_within {
            let problem = format!("positions beyond the {pixels} pixels of a plane");
            return Err(candle_core::Error::Msg(problem)).during(POOLING);
        }
        tensor(dx, x_shape)
    })
}

fn fast_max<T: Real>(windows: &Windows, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let (elements, shape) = (slice::<T>(x)?, windows.shape(x));
    let (outputs, pixels, planes) = (windows.outputs(), windows.pixels(), planes_of_task(windows));
    let mut y = zeros::<T>(POOLING, shape.iter().product())?;
    let mut at = zeros(POOLING, y.len())?;
    let (frame, tasks) = (Frame::new(windows), tasks(windows, y.len() / outputs));
    let threads = rayon::current_num_threads();
    let mut scratch = Scratch::new(POOLING, max_scratch_len(windows, y.len() / outputs, threads))?;
    let each = y.chunks_mut(planes * outputs).zip(at.chunks_mut(planes * outputs));
    let work = each.zip(elements.chunks(planes * pixels));
    share::share((scratch.numbers(), frame.scratch()), (tasks, work), |scratch, ((y, at), x)| {
        let mut lines = frame.lines(scratch);
        let planes = y.chunks_mut(outputs).zip(at.chunks_mut(outputs)).zip(x.chunks(pixels));
        widened(|| planes.for_each(|(of, x)| frame.greatest(x, of, &mut lines)));
    });
    Ok((tensor(y, &shape)?, tensor(at, &shape)?))
}

/// Numbers of scratch of a worker.
pub(super) fn worker_len(windows: &Windows) -> usize {
    Frame::new(windows).scratch()
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
