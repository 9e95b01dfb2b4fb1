//! Convolution in candle's operations, for devices without kernels of our own.

use candle_core::{DType, Tensor};

use super::{Epilogue, Sizes};
use crate::error::{During, Result};
use crate::kernels::activation;
use crate::kernels::unfold::Unfold;

pub(super) fn forward(sizes: &Sizes, x: &Tensor, w: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
    let y = product(sizes, x, w, epilogue).during("convolving")?;
    match sizes.conv.activation {
        Some(kind) => activation::forward(kind, &y),
        None => Ok(y),
    }
}

fn product(sizes: &Sizes, x: &Tensor, w: &Tensor, epilogue: Epilogue) -> candle_core::Result<Tensor> {
    let columns = grouped_columns(sizes, x)?;
    let groups = sizes.conv.groups;
    let w = w.reshape((1, groups, sizes.conv.outputs / groups, sizes.depth()))?;
    let mut y = w.broadcast_matmul(&columns)?.reshape(&sizes.y_shape())?;
    if let Some(bias) = epilogue.bias {
        y = y.broadcast_add(&bias.reshape((1, sizes.conv.outputs, 1, 1))?)?;
    }
    match epilogue.residual {
        Some(residual) => y + residual,
        None => Ok(y),
    }
}

pub(super) fn dx(sizes: &Sizes, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    let groups = sizes.conv.groups;
    let run = || {
        let w = w.reshape((1, groups, sizes.conv.outputs / groups, sizes.depth()))?;
        let columns = w.t()?.contiguous()?.broadcast_matmul(&grouped(sizes, dy)?)?;
        let Unfold { oh, ow, .. } = sizes.unfold;
        sizes.unfold.scatter(&columns.reshape((sizes.n, sizes.c, sizes.unfold.taps(), oh * ow))?)
    };
    run().during("convolving backward")
}

pub(super) fn dw(sizes: &Sizes, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let run = || {
        let columns = grouped_columns(sizes, x)?.t()?.contiguous()?;
        let dw = grouped(sizes, dy)?.matmul(&columns)?.sum(0)?;
        dw.reshape(sizes.conv.weight_shape(sizes.c))?.to_dtype(accumulated(dy.dtype()))
    };
    run().during("convolving backward")
}

/// Gradients of weights are kept in full precision.
fn accumulated(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// `[n, groups, depth, pixels]`
fn grouped_columns(sizes: &Sizes, x: &Tensor) -> candle_core::Result<Tensor> {
    let columns = sizes.unfold.gather(x, 0.0)?;
    let Unfold { oh, ow, .. } = sizes.unfold;
    columns.reshape((sizes.n, sizes.conv.groups, sizes.depth(), oh * ow))
}

/// `[n, groups, outputs / groups, pixels]`
fn grouped(sizes: &Sizes, dy: &Tensor) -> candle_core::Result<Tensor> {
    let groups = sizes.conv.groups;
    let Unfold { oh, ow, .. } = sizes.unfold;
    dy.reshape((sizes.n, groups, sizes.conv.outputs / groups, oh * ow))
}
