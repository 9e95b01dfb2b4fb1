//! Instance normalization: each plane brought to mean 0 and deviation 1, then
//! `y = weight e + bias` with `e = (x - mean) r` and `r = 1 / sqrt(variance + eps)`.
//!
//! It takes contrast and brightness out of each image, whatever the others in the batch are.
//! Shapes: `x` `y` `dy` `dx` `[n, c, h, w]`, `weight` `bias` `[c]`. The backward pass takes the
//! moments from `x` again. With `m = h w` and sums over the pixels of a plane:
//!
//! ```text
//! dbias = sum_n sum dy      dweight = sum_n sum dy e
//! dx = weight r (dy - sum dy / m - e sum dy e / m)
//! ```
//!
//! # Source
//!
//! Ulyanov et al., "Instance Normalization", 2016 (arXiv:1607.08022).

use candle_core::Tensor;

use super::planes::{
    Moments, collect, each, image_dims, moments, one_a_channel, plane, same_shape, sums, wide, wide_channels,
    write_whole,
};
use super::share::zeros;
use super::{Pass, Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

const NORMALIZING: &str = "instance normalization";

/// `y`, of the shape of `x`.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let [_, c, ..] = image_dims(x)?;
    one_a_channel(weight, c, NORMALIZING)?;
    one_a_channel(bias, c, NORMALIZING)?;
    if is_slow_path(x) {
        return slow(x, weight, bias, eps).during(NORMALIZING);
    }
    by_dtype!(x, T => fast::<T>(x, weight, bias, eps))
}

/// `(dx, dweight, dbias)`.
pub fn backward(dy: &Tensor, x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor, Tensor)> {
    let [_, c, ..] = image_dims(x)?;
    same_shape(dy, x, NORMALIZING)?;
    one_a_channel(weight, c, NORMALIZING)?;
    if is_slow_path(x) {
        return slow_backward(dy, x, weight, eps).during(NORMALIZING);
    }
    by_dtype!(x, T => fast_backward::<T>(dy, x, weight, eps))
}

fn fast<T: Real>(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let [_, _, h, w] = image_dims(x)?;
    let mut y = zeros::<T>(NORMALIZING, x.elem_count())?;
    let affine = ([&*slice(weight)?, &*slice(bias)?], eps);
    forward_into(affine, h * w, Some(&slice(x)?), &mut y);
    tensor(y, x.dims())
}

/// Fills `y`, of planes of `pixels` elements; without an `x`, it is in `y`.
pub(crate) fn forward_into<T: Real>(
    ([weight, bias], eps): ([&[T]; 2], f64),
    pixels: usize,
    x: Option<&[T]>,
    y: &mut [T],
) {
    let c = weight.len();
    write_whole(y, pixels, |i, y| {
        let (mean, r) = standard(x.map_or(&*y, |x| plane(x, i, pixels)), eps);
        let (scale, bias) = (T::from_f64(weight[i % c].to_f64() * r), bias[i % c]);
        let normed = |x: T| (x - mean) * scale + bias;
        match x {
            Some(x) => y.iter_mut().zip(plane(x, i, pixels)).for_each(|(y, &x)| *y = normed(x)),
            None => y.iter_mut().for_each(|y| *y = normed(*y)),
        }
    });
}

fn fast_backward<T: Real>(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let [n, c, h, w] = image_dims(x)?;
    let (dys, xs, weight) = (slice::<T>(dy)?, slice::<T>(x)?, slice::<T>(weight)?);
    let pixels = h * w;
    let sums = each(n * c, pixels, |i| {
        let (dy, x) = (plane(&dys, i, pixels), plane(&xs, i, pixels));
        let (mean, r) = standard(x, eps);
        let [by_e, total] = sums([dy, x], |[dy, x]| [dy * (x - mean), dy]);
        Sums { by_e: by_e * r, total, mean, r }
    });
    let dx = collect(NORMALIZING, [n * c, pixels], |i, at| {
        let Sums { by_e, total, mean, r } = sums[i];
        let scale = T::from_f64(weight[i % c].to_f64() * r);
        let (shift, slope) = (T::from_f64(total / pixels as f64), T::from_f64(by_e / pixels as f64 * r));
        let (dy, x) = (&plane(&dys, i, pixels)[at.clone()], &plane(&xs, i, pixels)[at]);
        dy.iter().zip(x).map(move |(&dy, &x)| scale * (dy - shift - slope * (x - mean)))
    });
    let of_channel = |j: usize| sums.iter().skip(j).step_by(c);
    let dweight = (0..c).map(|j| T::from_f64(of_channel(j).map(|sums| sums.by_e).sum::<f64>()));
    let dbias = (0..c).map(|j| T::from_f64(of_channel(j).map(|sums| sums.total).sum::<f64>()));
    let (dweight, dbias) = (tensor(dweight.collect(), &[c])?, tensor(dbias.collect(), &[c])?);
    Ok((tensor(dx?, x.dims())?, dweight, dbias))
}

/// What the backward pass needs of a plane.
#[derive(Clone, Copy)]
struct Sums<T> {
    /// `sum dy e`
    by_e: f64,
    /// `sum dy`
    total: f64,
    mean: T,
    r: f64,
}

/// Mean and reciprocal deviation of a plane.
#[inline(always)]
fn standard<T: Real>(x: &[T], eps: f64) -> (T, f64) {
    let Moments { mean, var } = moments(x);
    (T::from_f64(mean), (var + eps).sqrt().recip())
}

/// Most bytes that a pass in `f32` on the CPU allocates beside its results, for `x` of shape
/// `[n, c, h, w]`: the sums of each plane in the backward pass.
#[must_use]
pub fn scratch_bytes(x_shape: &[usize], pass: Pass) -> usize {
    match pass {
        Pass::Forward => 0,
        Pass::Dw | Pass::Dx => x_shape.iter().take(2).product::<usize>() * size_of::<Sums<f32>>(),
    }
}

/// `(e, r)`: standardized `x` and the reciprocal deviation `[n, c, 1, 1]`.
fn slow_parts(x: &Tensor, eps: f64) -> candle_core::Result<(Tensor, Tensor)> {
    let x = wide(x)?;
    let centered = x.broadcast_sub(&x.mean_keepdim((2, 3))?)?;
    let r = (centered.sqr()?.mean_keepdim((2, 3))? + eps)?.sqrt()?.recip()?;
    Ok((centered.broadcast_mul(&r)?, r))
}

fn slow(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
    let (e, _) = slow_parts(x, eps)?;
    let y = e.broadcast_mul(&wide_channels(weight)?)?;
    y.broadcast_add(&wide_channels(bias)?)?.to_dtype(x.dtype())
}

fn slow_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
    let (e, r) = slow_parts(x, eps)?;
    let dy = wide(dy)?;
    let product = (&dy * &e)?;
    let inner = dy
        .broadcast_sub(&dy.mean_keepdim((2, 3))?)?
        .sub(&e.broadcast_mul(&product.mean_keepdim((2, 3))?)?)?;
    let dx = inner.broadcast_mul(&r.broadcast_mul(&wide_channels(weight)?)?)?.to_dtype(x.dtype())?;
    let dweight = product.sum((0, 2, 3))?.to_dtype(weight.dtype())?;
    Ok((dx, dweight, dy.sum((0, 2, 3))?.to_dtype(weight.dtype())?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    const EPS: f64 = 0.1;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn both_bodies_agree_and_gradients_are_those_of_differences(
            [n, c, h, w] in images(),
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let [x, dy] = [(); 2].map(|()| normal(&[n, c, h, w], rng));
            let [weight, bias] = [(); 2].map(|()| normal(&[c], rng));
            for dtype in REALS {
                let [x, dy, weight, bias] = [&x, &dy, &weight, &bias].map(|t| cast(t, dtype));
                let y = forward(&x, &weight, &bias, EPS).unwrap();
                assert_close(&y, &slow(&x, &weight, &bias, EPS).unwrap(), CLOSE);
                let got = backward(&dy, &x, &weight, EPS).unwrap();
                let want = slow_backward(&dy, &x, &weight, EPS).unwrap();
                assert_close(&got.0, &want.0, CLOSE);
                assert_close(&got.1, &want.1, CLOSE);
                assert_close(&got.2, &want.2, CLOSE);
            }
            let (dx, dweight, dbias) = backward(&dy, &x, &weight, EPS).unwrap();
            let numeric = numeric_gradient(|x| forward(x, &weight, &bias, EPS), &x, &dy);
            assert_close(&dx, &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|weight| forward(&x, weight, &bias, EPS), &weight, &dy);
            assert_close(&dweight, &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|bias| forward(&x, &weight, bias, EPS), &bias, &dy);
            assert_close(&dbias, &numeric, DIFFERENCE);
        }
    }

    #[test]
    fn brightness_and_contrast_of_an_image_do_not_matter() {
        let x = normal(&[2, 3, 4, 5], &mut Rng::new(1));
        let [weight, bias] = [(); 2].map(|()| normal(&[3], &mut Rng::new(2)));
        let y = |x: &Tensor| forward(x, &weight, &bias, 0.0).unwrap();
        assert_close(&y(&x.affine(3.0, 0.5).unwrap()), &y(&x), CLOSE);
    }
}
