//! Batch normalization in candle's operations, for devices without kernels of our own.

use candle_core::Tensor;

use super::{Affine, Statistics};
use crate::kernels::planes::{wide, wide_channels};

/// `(e, r)`: standardized `x` and the reciprocal deviation, broadcastable.
pub(super) fn parts(x: &Tensor, affine: &Affine, at: &Statistics) -> candle_core::Result<(Tensor, Tensor)> {
    let r = (wide_channels(&at.var)? + affine.eps)?.sqrt()?.recip()?;
    Ok((wide(x)?.broadcast_sub(&wide_channels(&at.mean)?)?.broadcast_mul(&r)?, r))
}

pub(super) fn fixed(x: &Tensor, affine: &Affine, at: &Statistics) -> candle_core::Result<Tensor> {
    let (e, _) = parts(x, affine, at)?;
    let y = e.broadcast_mul(&wide_channels(&affine.weight)?)?;
    y.broadcast_add(&wide_channels(&affine.bias)?)?.to_dtype(x.dtype())
}

pub(super) fn fixed_dx(dy: &Tensor, affine: &Affine, at: &Statistics) -> candle_core::Result<Tensor> {
    let r = (wide_channels(&at.var)? + affine.eps)?.sqrt()?.recip()?;
    wide(dy)?.broadcast_mul(&(wide_channels(&affine.weight)? * r)?)?.to_dtype(dy.dtype())
}

pub(super) fn dparams(
    dy: &Tensor,
    x: &Tensor,
    affine: &Affine,
    at: &Statistics,
) -> candle_core::Result<(Tensor, Tensor)> {
    let (e, _) = parts(x, affine, at)?;
    let dy = wide(dy)?;
    let dweight = (&dy * e)?.sum((0, 2, 3))?.to_dtype(affine.weight.dtype())?;
    Ok((dweight, dy.sum((0, 2, 3))?.to_dtype(affine.bias.dtype())?))
}

pub(super) fn statistics(x: &Tensor) -> candle_core::Result<Statistics> {
    let x = wide(x)?;
    let mean = x.mean_keepdim((0, 2, 3))?;
    let var = x.broadcast_sub(&mean)?.sqr()?.mean((0, 2, 3))?;
    Ok(Statistics { mean: mean.flatten_all()?, var })
}

pub(super) fn batch_backward(
    dy: &Tensor,
    x: &Tensor,
    affine: &Affine,
    at: &Statistics,
) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
    let (e, r) = parts(x, affine, at)?;
    let wide_dy = wide(dy)?;
    let shift = wide_dy.mean_keepdim((0, 2, 3))?;
    let slope = (&wide_dy * &e)?.mean_keepdim((0, 2, 3))?;
    let inner = wide_dy.broadcast_sub(&shift)?.sub(&e.broadcast_mul(&slope)?)?;
    let dx = inner.broadcast_mul(&(wide_channels(&affine.weight)? * r)?)?.to_dtype(x.dtype())?;
    let (dweight, dbias) = dparams(dy, x, affine, at)?;
    Ok((dx, dweight, dbias))
}
