//! Convolution: `y = act(x * w + bias + residual)` and its gradients.
//!
//! Plain version, for one image and one group:
//!
//! ```text
//! y[o][oy, ox]  = sum over c, ky, kx of  w[o][c, ky, kx] * x[c][oy s + ky d - p][ox s + kx d - p]
//! ```
//!
//! Bodies: `correlate`, which computes outputs and gradients by inputs, and `dw`, both on images as they are;
//! `pointwise`, the first for windows of one tap; `winograd`, both with a quarter of the products, for the windows most networks have; `depthwise`, where an
//! output has one input channel; and for other devices `slow`, candle's products with gathered columns, and
//! `fused`. The epilogue's gradient is the activation's, taken before these functions.
//!
//! Reading order: `tile`, the innermost loops; `axis`, where windows lie; `source`, what is read; `weights`, in
//! which order; `correlation`, how work is cut; `sums`; `correlate` and `dw`, the loops around; `winograd`.

mod axis;
#[allow(unsafe_code)] // addresses of tiles, and tasks that write to one slice
mod correlate;
mod correlation;
#[allow(unsafe_code)] // addresses of tiles
mod depthwise;
#[allow(unsafe_code)] // addresses of tiles
mod dw;
mod finish;
mod fused;
mod packed;
#[allow(unsafe_code)] // addresses of tiles, and tasks that write to one slice
mod pointwise;
mod sizes;
mod slow;
#[allow(unsafe_code)] // vector instructions
mod source;
#[allow(unsafe_code)] // addresses of tiles, and tasks that write to one slice
mod spread;
#[allow(unsafe_code)] // tasks that write to one slice
mod sums;
#[allow(unsafe_code)] // vector instructions
mod tile;
#[allow(unsafe_code)] // addresses of taps
mod weights;
mod winograd;

use std::mem::MaybeUninit;

use candle_core::Tensor;

use self::correlation::{Correlation, phase_pairs};
pub(super) use self::depthwise::Around;
pub(crate) use self::finish::Finish;
pub(crate) use self::packed::{packed, pairs, unpacked, unpaired};
pub(crate) use self::sizes::{Sizes, reads_panels};
use self::spread::Spread;
use self::sums::Sums;
pub(crate) use self::weights::Weights;
use super::share::{self, Scratch};
pub(crate) use super::simd::has_pairs;
use super::{Pass, Real, by_dtype, is_slow_path, planes, slice, tensor};
use crate::error::{During, Result};
use crate::graph::op::Conv2d;

const CONVOLVING: &str = "a convolution";

/// What is added and applied to the sums of a convolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[outputs]`
    pub bias: Option<&'a Tensor>,
    /// Of the output's shape.
    pub residual: Option<&'a Tensor>,
}

/// The result of a convolution, `[n, outputs, oh, ow]`, for `x` `[n, c, h, w]` and `w`
/// `[outputs, c / groups, k, k]`.
///
/// # Errors
///
/// [`crate::Error::Graph`] when the shapes do not fit, [`crate::Error::Tensor`] when the device refuses.
pub fn forward(conv: &Conv2d, x: &Tensor, w: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
    let sizes = Sizes::new(conv, x.dims(), w.dims())?;
    if is_slow_path(x) {
        return slow::forward(&sizes, x, w, epilogue);
    }
    by_dtype!(x, T => forward_cpu::<T>(&sizes, x, w, epilogue))
}

/// The gradient by the input, of shape `x_shape`.
///
/// # Errors
///
/// As [`forward`].
pub fn dx(conv: &Conv2d, dy: &Tensor, w: &Tensor, x_shape: &[usize]) -> Result<Tensor> {
    let sizes = Sizes::new(conv, x_shape, w.dims())?;
    if is_slow_path(dy) {
        return slow::dx(&sizes, dy, w);
    }
    by_dtype!(dy, T => dx_cpu::<T>(&sizes, dy, w))
}

/// The gradient by the weight.
///
/// # Errors
///
/// As [`forward`].
pub fn dw(conv: &Conv2d, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let c = x.dims().get(1).copied().unwrap_or(0);
    let sizes = Sizes::new(conv, x.dims(), &conv.weight_shape(c))?;
    if is_slow_path(dy) {
        return slow::dw(&sizes, dy, x);
    }
    by_dtype!(dy, T => dw_cpu::<T>(&sizes, dy, x))
}

/// The gradient by the bias, `[outputs]`: the sum of `dy` over images and pixels.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when the device refuses.
pub fn dbias(dy: &Tensor) -> Result<Tensor> {
    if is_slow_path(dy) {
        return planes::wide(dy).and_then(|dy| dy.sum((0, 2, 3))).during("summing a bias gradient");
    }
    let [_, c, h, w] = planes::image_dims(dy)?;
    by_dtype!(dy, T => {
        let dy = slice::<T>(dy)?;
        tensor(planes::channel_sums([&dy[..]], [c, h * w], |_, dy| dy, |_, [sum]| sum as T), &[c])
    })
}

/// Most bytes that a pass in `f32` on the CPU allocates beside its result, for `x` of shape
/// `[n, c, h, w]` on `threads` threads; what matrix products keep for each thread is not counted.
///
/// For each thread copies of a part of the weight and of the input rows that a task reads, and its
/// sums; for `dw` a block of at most 128 KiB (more only where a single input channel needs more), twice, and
/// copies of the rows it reads; over tiles about a MiB. How much depends on the processor's registers.
/// [`dbias`] needs none.
///
/// # Errors
///
/// [`crate::Error::Graph`] when the shape does not fit.
pub fn scratch_bytes(conv: &Conv2d, x_shape: &[usize], pass: Pass, threads: usize) -> Result<usize> {
    let c = x_shape.get(1).copied().unwrap_or(0);
    let sizes = Sizes::new(conv, x_shape, &conv.weight_shape(c))?;
    Ok(match pass {
        Pass::Dw if sizes.is_depthwise() => {
            share::scratch_bytes::<f32>(depthwise::dw_scratch_len::<f32>(&sizes, threads))
        }
        Pass::Dw => dw::scratch_bytes::<f32>(&sizes, threads),
        Pass::Dx => share::scratch_bytes::<f32>(dx_scratch_len::<f32>(&sizes, threads)),
        Pass::Forward => share::scratch_bytes::<f32>(scratch_len::<f32>(&sizes, threads)),
    })
}

/// Elements of scratch that [`forward_into`] takes on `threads` threads.
pub(crate) fn scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    if sizes.is_depthwise() {
        return depthwise::scratch_len::<T>(sizes, threads);
    }
    sums::scratch_len::<T>(&Correlation::forward(sizes), threads)
}

/// Elements of scratch for a gradient by the input.
fn dx_scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    if sizes.is_depthwise() {
        return depthwise::dx_scratch_len::<T>(sizes, threads);
    }
    match Spread::of(sizes) {
        Some(how) => how.scratch_len::<T>(threads),
        None => sums::scratch_len::<T>(&Correlation::backward(sizes), threads),
    }
}

fn forward_cpu<T: Real>(sizes: &Sizes, x: &Tensor, w: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
    let bias = epilogue.bias.map(slice::<T>).transpose()?;
    let residual = epilogue.residual.map(slice::<T>).transpose()?;
    let finish =
        Finish { activation: sizes.conv.activation, bias: bias.as_deref(), residual: residual.as_deref() };
    let (x, w) = (slice::<T>(x)?, slice::<T>(w)?);
    let mut scratch = Scratch::new(CONVOLVING, scratch_len::<T>(sizes, rayon::current_num_threads()))?;
    let of = (&*x, Weights::Plain(&w));
    let fill = |y: &mut [MaybeUninit<T>]| forward_new(sizes, of, &finish, (y, scratch.numbers()));
    // SAFETY: a convolution writes all of its outputs.
    #[allow(unsafe_code)]
    let y = unsafe { share::filled(CONVOLVING, sizes.n * sizes.y_len(), fill) };
    tensor(y?, &sizes.y_shape())
}

/// Fills `y`, with [`scratch_len`] elements of scratch.
pub(crate) fn forward_into<T: Real>(
    sizes: &Sizes,
    of: (&[T], Weights<T>),
    finish: &Finish<T>,
    (y, scratch): (&mut [T], &mut [T]),
) {
    forward_new(sizes, of, finish, (share::unwritten(y), scratch));
}

/// As [`forward_into`], to memory that nothing was written to yet.
fn forward_new<T: Real>(
    sizes: &Sizes,
    (source, weights): (&[T], Weights<T>),
    finish: &Finish<T>,
    (target, scratch): (&mut [MaybeUninit<T>], &mut [T]),
) {
    match weights {
        Weights::Plain(w) if sizes.is_depthwise() => {
            depthwise::forward_into(sizes, [source, w], finish, (target, scratch));
        }
        _ => {
            let how = &Correlation::forward(sizes);
            Sums { how, source, weights, finish, target, scratch }.fill();
        }
    }
}

fn dx_cpu<T: Real>(sizes: &Sizes, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (dy, w) = (slice::<T>(dy)?, slice::<T>(w)?);
    let mut scratch = Scratch::new(CONVOLVING, dx_scratch_len::<T>(sizes, rayon::current_num_threads()))?;
    let fill = |dx: &mut [MaybeUninit<T>]| {
        if sizes.is_depthwise() {
            return depthwise::dx_into(sizes, [&dy, &w], (dx, scratch.numbers()));
        }
        let (source, weights, finish) = (&*dy, Weights::Plain(&w), &Finish::NONE);
        let (target, scratch) = (dx, scratch.numbers());
        match &Spread::of(sizes) {
            Some(how) => Sums { how, source, weights, finish, target, scratch }.dispatch(),
            None => {
                let how = &Correlation::backward(sizes);
                Sums { how, source, weights, finish, target, scratch }.fill();
            }
        }
    };
    // SAFETY: both ways write every input.
    #[allow(unsafe_code)]
    let dx = unsafe { share::filled(CONVOLVING, sizes.n * sizes.x_len(), fill) };
    tensor(dx?, &sizes.x_shape())
}

fn dw_cpu<T: Real>(sizes: &Sizes, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (dy, x) = (slice::<T>(dy)?, slice::<T>(x)?);
    let sums = if sizes.is_depthwise() { depthwise::dw(sizes, &dy, &x) } else { dw::dw(sizes, &dy, &x) };
    tensor(sums?, &sizes.conv.weight_shape(sizes.c))
}

#[cfg(test)]
mod tests;
