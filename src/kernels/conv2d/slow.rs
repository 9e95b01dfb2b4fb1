//! Convolution on devices that are not the CPU: products with gathered columns in candle's operations, a
//! part of the images at a time, between kernels of our own where there are some.
//!
//! Every product sums in `f32` where its operands are halves; sums over images are taken in `f32`.

use candle_core::{DType, Tensor};

use super::{Epilogue, Sizes, fused};
use crate::error::{During, Result};
use crate::kernels::activation;
use crate::kernels::fused::has_kernels;
use crate::kernels::planes::wide;
use crate::kernels::unfold::Unfold;

/// Numbers of columns that are there at once, unless a single image has more; few in tests, whose images are
/// few too.
const TOGETHER: usize = if cfg!(test) { 1 << 11 } else { 1 << 26 };

pub(super) fn forward(sizes: &Sizes, x: &Tensor, w: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
    if has_kernels(x) && sizes.is_depthwise() {
        return fused::depthwise(sizes, x, w, epilogue).during("convolving");
    }
    finished(sizes, &sums(sizes, x, w).during("convolving")?, epilogue)
}

/// `[n, outputs, oh, ow]`, nothing added and nothing applied.
fn sums(sizes: &Sizes, x: &Tensor, w: &Tensor) -> candle_core::Result<Tensor> {
    let groups = sizes.conv.groups;
    let w = w.reshape((groups, sizes.conv.outputs / groups, sizes.depth()))?;
    let sums = by_images(sizes, |start, n| product(&w, &columns(sizes, &x.narrow(0, start, n)?)?))?;
    joined(sums)?.reshape(&sizes.y_shape())
}

pub(super) fn finished(sizes: &Sizes, sums: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
    let plain = epilogue.bias.is_none() && epilogue.residual.is_none() && sizes.conv.activation.is_none();
    if has_kernels(sums) && !plain {
        return fused::finished(sizes, sums, epilogue).during("ending a convolution");
    }
    let add = || {
        let mut y = sums.clone();
        if let Some(bias) = epilogue.bias {
            y = y.broadcast_add(&bias.to_dtype(y.dtype())?.reshape((1, sizes.conv.outputs, 1, 1))?)?;
        }
        match epilogue.residual {
            Some(residual) => y + residual,
            None => Ok(y),
        }
    };
    let y = add().during("convolving")?;
    match sizes.conv.activation {
        Some(kind) => activation::forward(kind, &y),
        None => Ok(y),
    }
}

pub(super) fn dx(sizes: &Sizes, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    if has_kernels(dy) && sizes.is_depthwise() {
        return fused::depthwise_dx(sizes, dy, w).during("convolving backward");
    }
    let groups = sizes.conv.groups;
    let (inputs, outputs, taps) = (sizes.c / groups, sizes.conv.outputs / groups, sizes.unfold.taps());
    let run = || {
        // An input gets from each output of its group under each tap.
        let w = w.reshape((groups, outputs, inputs, taps))?.transpose(1, 2)?.contiguous()?;
        let w = w.reshape((groups, inputs, outputs * taps))?;
        let of_images = |start, n| {
            let dy = dy.narrow(0, start, n)?;
            let columns = if sizes.unfold.is_plain() { dy } else { sizes.unfold.adjoint_columns(&dy)? };
            product(&w, &columns.reshape((n, groups, outputs * taps, ()))?)
        };
        joined(by_images(sizes, of_images)?)?.reshape(&sizes.x_shape())
    };
    run().during("convolving backward")
}

pub(super) fn dw(sizes: &Sizes, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    if has_kernels(dy) && sizes.is_depthwise() {
        return fused::depthwise_dw(sizes, dy, x).during("convolving backward");
    }
    let groups = sizes.conv.groups;
    let Unfold { oh, ow, .. } = sizes.unfold;
    let run = || {
        let sums = by_images(sizes, |start, n| {
            let dy = dy.narrow(0, start, n)?.reshape((n, groups, sizes.conv.outputs / groups, oh * ow))?;
            let columns = columns(sizes, &x.narrow(0, start, n)?)?.t()?.contiguous()?;
            wide(&dy.matmul(&columns)?)?.sum(0)
        })?;
        let sum = sums.into_iter().map(Ok).reduce(|sum, part| sum? + part?);
        let none = || Tensor::zeros(sizes.weight_len(), accumulated(dy.dtype()), dy.device());
        sum.unwrap_or_else(none)?.reshape(sizes.conv.weight_shape(sizes.c))
    };
    run().during("convolving backward")
}

/// Gradients of weights are kept in full precision.
fn accumulated(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// `[n, groups, depth, pixels]`
fn columns(sizes: &Sizes, x: &Tensor) -> candle_core::Result<Tensor> {
    let columns = if sizes.unfold.is_plain() { x.clone() } else { sizes.unfold.columns(x)? };
    columns.reshape((x.dim(0)?, sizes.conv.groups, sizes.depth(), ()))
}

/// `w` `[groups, rows, depth]` times `columns` `[n, groups, depth, pixels]`: `[n, groups, rows, pixels]`.
fn product(w: &Tensor, columns: &Tensor) -> candle_core::Result<Tensor> {
    let (groups, rows, depth) = w.dims3()?;
    let (n, _, _, pixels) = columns.dims4()?;
    if groups > 1 || columns.device().is_metal() {
        return w.unsqueeze(0)?.broadcast_matmul(columns);
    }
    // One weight for all images, without a copy for each; Metal takes contiguous operands only.
    let columns = columns.reshape((n, depth, pixels))?;
    w.broadcast_as((n, rows, depth))?.matmul(&columns)?.reshape((n, 1, rows, pixels))
}

/// What `f` gives for images from a first one on, as many at a time as may have columns at once.
fn by_images(
    sizes: &Sizes,
    f: impl Fn(usize, usize) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Vec<Tensor>> {
    let Unfold { h, w, oh, ow, .. } = sizes.unfold;
    let channels = sizes.c.max(sizes.conv.outputs);
    let of_image = channels * sizes.unfold.taps() * (h * w).max(oh * ow);
    let most = (TOGETHER / of_image.max(1)).max(1);
    (0..sizes.n).step_by(most).map(|start| f(start, most.min(sizes.n - start))).collect()
}

fn joined(mut parts: Vec<Tensor>) -> candle_core::Result<Tensor> {
    if parts.len() == 1 { Ok(parts.swap_remove(0)) } else { Tensor::cat(&parts, 0) }
}
