//! Batch normalization: `y = weight (x - mean) / sqrt(var + eps) + bias`, channel by channel.
//!
//! With fixed statistics (`fixed...`) the running ones of the network are used, as in
//! inference and in the gradients of a repair. With batch statistics (`batch...`) mean and
//! variance are those of the batch itself, as in training. Nothing here writes running
//! statistics: a recomputed segment must not count a batch twice.
//!
//! Shapes: `x` `y` `dy` `dx` `[n, c, h, w]`, everything else `[c]`. With `r = 1 / sqrt(var + eps)`,
//! `e = (x - mean) r` and `m = n h w`:
//!
//! ```text
//! dbias = sum dy      dweight = sum dy e
//! fixed: dx = weight r dy
//! batch: dx = weight r (dy - dbias / m - e dweight / m)
//! ```
//!
//! # Source
//!
//! Ioffe and Szegedy, "Batch Normalization", 2015 (arXiv:1502.03167), section 3.

mod seen;
mod slow;

use std::ops::Range;

use candle_core::Tensor;

pub use self::seen::Seen;
use super::planes::{
    Moments, change, changed, channel_sums, collect, each, image_dims, moments, of_channel, one_a_channel,
    plane, rounded, same_shape,
};
use super::{Pass, Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

const NORMALIZING: &str = "batch normalization";

/// What is learned, and the constant under the root.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Factor of each channel, `[c]`.
    pub weight: Tensor,
    /// Summand of each channel, `[c]`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

/// Mean and biased variance over images and pixels, `[c]` each.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// The mean.
    pub mean: Tensor,
    /// The mean squared deviation: divided by the count, not by the count less one.
    pub var: Tensor,
}

/// `y` with these statistics.
pub fn fixed(x: &Tensor, affine: &Affine, at: &Statistics) -> Result<Tensor> {
    let [_, _, h, w] = checked(x, affine, at)?;
    if is_slow_path(x) {
        return slow::fixed(x, affine, at).during(NORMALIZING);
    }
    by_dtype!(x, T => {
        let (weight, bias) = (slice::<T>(&affine.weight)?, slice::<T>(&affine.bias)?);
        let (mean, var) = (slice::<T>(&at.mean)?, slice::<T>(&at.var)?);
        let numbers = Numbers { weight: &weight, bias: &bias, mean: &mean, var: &var, eps: affine.eps };
        tensor(changed(NORMALIZING, &slice(x)?, h * w, normalizing(numbers))?, x.dims())
    })
}

/// Fills `y`, of planes of `pixels` elements; without an `x`, it is in `y`.
pub(crate) fn fixed_into<T: Real>(numbers: Numbers<T>, pixels: usize, x: Option<&[T]>, y: &mut [T]) {
    change(y, x, pixels, normalizing(numbers));
}

/// Changes pixels of a plane.
fn normalizing<T: Real>(numbers: Numbers<T>) -> impl Fn(usize, Range<usize>, &mut [T]) + Sync {
    move |plane, _, y| {
        let Channel { scale, mean, bias, .. } = numbers.channel(plane % numbers.weight.len());
        y.iter_mut().for_each(|y| *y = (*y - mean) * scale + bias);
    }
}

/// `dx` with these statistics, which do not depend on `x`.
pub fn fixed_dx(dy: &Tensor, affine: &Affine, at: &Statistics) -> Result<Tensor> {
    let [_, c, h, w] = checked(dy, affine, at)?;
    if is_slow_path(dy) {
        return slow::fixed_dx(dy, affine, at).during(NORMALIZING);
    }
    by_dtype!(dy, T => {
        let (channels, elements) = (Channel::<T>::all(affine, at)?, slice::<T>(dy)?);
        let pixels = h * w;
        let dx = collect(NORMALIZING, [elements.len() / pixels.max(1), pixels], |i, at| {
            let scale = channels[i % c].scale;
            plane(&elements, i, pixels)[at].iter().map(move |&dy| dy * scale)
        });
        tensor(dx?, dy.dims())
    })
}

/// `(dweight, dbias)` with these statistics. They are the same for batch statistics.
pub fn fixed_dparams(dy: &Tensor, x: &Tensor, affine: &Affine, at: &Statistics) -> Result<(Tensor, Tensor)> {
    let [_, c, h, w] = checked(x, affine, at)?;
    same_shape(dy, x, NORMALIZING)?;
    if is_slow_path(x) {
        return slow::dparams(dy, x, affine, at).during(NORMALIZING);
    }
    by_dtype!(x, T => {
        let channels = Channel::<T>::all(affine, at)?;
        let sums = dparams(&slice::<T>(dy)?, &slice::<T>(x)?, h * w, &channels);
        params::<T>(&sums, c)
    })
}

/// The statistics of a batch.
pub fn statistics(x: &Tensor) -> Result<Statistics> {
    let [n, c, h, w] = image_dims(x)?;
    if is_slow_path(x) {
        return slow::statistics(x).during(NORMALIZING);
    }
    by_dtype!(x, T => {
        let x = slice::<T>(x)?;
        let joined = each(c, n * h * w, |j| {
            join(&of_channel(&x, j, c, h * w).map(moments).collect::<Vec<_>>())
        });
        Ok(Statistics {
            mean: rounded::<T>(joined.iter().map(|m| m.mean), &[c])?,
            var: rounded::<T>(joined.iter().map(|m| m.var), &[c])?,
        })
    })
}

/// `y` with the statistics of `x` itself, and those statistics.
pub fn batch(x: &Tensor, affine: &Affine) -> Result<(Tensor, Statistics)> {
    let statistics = statistics(x)?;
    Ok((fixed(x, affine, &statistics)?, statistics))
}

/// `(dx, dweight, dbias)` of [`batch`], given the statistics it returned.
pub fn batch_backward(
    dy: &Tensor,
    x: &Tensor,
    affine: &Affine,
    at: &Statistics,
) -> Result<(Tensor, Tensor, Tensor)> {
    checked(x, affine, at)?;
    same_shape(dy, x, NORMALIZING)?;
    if is_slow_path(x) {
        return slow::batch_backward(dy, x, affine, at).during(NORMALIZING);
    }
    by_dtype!(x, T => fast_batch_backward(dy, x, &Channel::<T>::all(affine, at)?))
}

fn fast_batch_backward<T: Real>(
    dy: &Tensor,
    x: &Tensor,
    channels: &[Channel<T>],
) -> Result<(Tensor, Tensor, Tensor)> {
    let [n, c, h, w] = image_dims(x)?;
    let (dys, xs, pixels) = (slice::<T>(dy)?, slice::<T>(x)?, h * w);
    let sums = dparams(&dys, &xs, pixels, channels);
    let count = (n * pixels) as f64;
    // dx = scale (dy - shift - slope (x - mean))
    let line = |([dweight, dbias], channel): (&[f64; 2], &Channel<T>)| {
        [dbias / count, dweight / count * channel.r].map(T::from_f64)
    };
    let lines: Vec<[T; 2]> = sums.iter().zip(channels).map(line).collect();
    let dx = collect(NORMALIZING, [n * c, pixels], |i, at| {
        let Channel { scale, mean, .. } = channels[i % c];
        let [shift, slope] = lines[i % c];
        let (dy, x) = (&plane(&dys, i, pixels)[at.clone()], &plane(&xs, i, pixels)[at]);
        dy.iter().zip(x).map(move |(&dy, &x)| scale * (dy - shift - slope * (x - mean)))
    });
    let (dweight, dbias) = params::<T>(&sums, c)?;
    Ok((tensor(dx?, x.dims())?, dweight, dbias))
}

/// Most bytes that a pass in `f32` on the CPU allocates beside its results, for `x` of shape
/// `[n, c, h, w]` on `threads` threads; the greater of fixed and batch statistics.
///
/// A few numbers for each channel, and for batch statistics those of the planes of one channel
/// a thread. Where [`Pass::Dw`] is computed alone it needs no more than [`Pass::Dx`].
#[must_use]
pub fn scratch_bytes(x_shape: &[usize], pass: Pass, threads: usize) -> usize {
    let [n, c] = [0, 1].map(|i| x_shape.get(i).copied().unwrap_or(0));
    let channels = c * size_of::<Channel<f32>>();
    match pass {
        Pass::Forward => channels.max((n * threads.min(c) + c) * size_of::<Moments>()),
        Pass::Dw | Pass::Dx => channels + c * (size_of::<[f64; 2]>() + size_of::<[f32; 2]>()),
    }
}

/// What is learned and what was measured, one number a channel.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<'a, T> {
    pub(crate) weight: &'a [T],
    pub(crate) bias: &'a [T],
    pub(crate) mean: &'a [T],
    pub(crate) var: &'a [T],
    pub(crate) eps: f64,
}

impl<T: Real> Numbers<'_, T> {
    fn channel(&self, c: usize) -> Channel<T> {
        let r = (self.var[c].to_f64() + self.eps).sqrt().recip();
        let scale = T::from_f64(self.weight[c].to_f64() * r);
        Channel { scale, mean: self.mean[c], bias: self.bias[c], r }
    }
}

/// The numbers of a channel that inner loops need.
#[derive(Clone, Copy)]
struct Channel<T> {
    /// `weight * r`
    scale: T,
    mean: T,
    bias: T,
    /// `1 / sqrt(var + eps)`
    r: f64,
}

impl<T: Real> Channel<T> {
    fn all(affine: &Affine, at: &Statistics) -> Result<Vec<Self>> {
        let (weight, bias) = (slice::<T>(&affine.weight)?, slice::<T>(&affine.bias)?);
        let (mean, var) = (slice::<T>(&at.mean)?, slice::<T>(&at.var)?);
        let numbers = Numbers { weight: &weight, bias: &bias, mean: &mean, var: &var, eps: affine.eps };
        Ok((0..weight.len()).map(|c| numbers.channel(c)).collect())
    }
}

/// `[n, c, h, w]` of `x`, if all parameters have `c` numbers.
fn checked(x: &Tensor, affine: &Affine, at: &Statistics) -> Result<[usize; 4]> {
    let dims = image_dims(x)?;
    for param in [&affine.weight, &affine.bias, &at.mean, &at.var] {
        one_a_channel(param, dims[1], NORMALIZING)?;
    }
    Ok(dims)
}

/// `[dweight, dbias]` of every channel.
fn dparams<T: Real>(dy: &[T], x: &[T], pixels: usize, channels: &[Channel<T>]) -> Vec<[f64; 2]> {
    let terms = |j: usize, [dy, x]: [T; 2]| [dy * (x - channels[j].mean), dy];
    let end = |j: usize, [dweight, dbias]: [f64; 2]| [dweight * channels[j].r, dbias];
    channel_sums([dy, x], [channels.len(), pixels], terms, end)
}

fn params<T: Real>(sums: &[[f64; 2]], c: usize) -> Result<(Tensor, Tensor)> {
    let dweight = rounded::<T>(sums.iter().map(|sum| sum[0]), &[c])?;
    Ok((dweight, rounded::<T>(sums.iter().map(|sum| sum[1]), &[c])?))
}

/// Moments of a channel from those of its planes, which are equally long: the variance is
/// the mean variance of the planes plus the variance of their means.
fn join(planes: &[Moments]) -> Moments {
    let n = planes.len() as f64;
    let mean = planes.iter().map(|plane| plane.mean).sum::<f64>() / n;
    let spread = |plane: &Moments| plane.var + (plane.mean - mean).powi(2);
    Moments { mean, var: planes.iter().map(spread).sum::<f64>() / n }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    const EPS: f64 = 0.1;

    /// What the terms of `dweight` and `dbias` come to, were they all positive.
    fn terms(dy: &Tensor, x: &Tensor, affine: &Affine, at: &Statistics) -> [Tensor; 2] {
        let (e, _) = slow::parts(x, affine, at).unwrap();
        let dy = dy.abs().unwrap();
        [(&dy * e.abs().unwrap()).unwrap(), dy].map(|terms| terms.sum((0, 2, 3)).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn both_bodies_agree([n, c, h, w] in images(), seed in any::<u64>()) {
            let rng = &mut Rng::new(seed);
            let [x, dy] = [(); 2].map(|()| normal(&[n, c, h, w], rng));
            let [weight, bias, mean, var] = [(); 4].map(|()| normal(&[c], rng));
            for dtype in REALS {
                let [x, dy, weight, bias] = [&x, &dy, &weight, &bias].map(|t| cast(t, dtype));
                let affine = Affine { weight, bias, eps: EPS };
                let at = Statistics { mean: cast(&mean, dtype), var: cast(&var.abs().unwrap(), dtype) };
                let y = fixed(&x, &affine, &at).unwrap();
                assert_close(&y, &slow::fixed(&x, &affine, &at).unwrap(), CLOSE);
                let dx = fixed_dx(&dy, &affine, &at).unwrap();
                assert_close(&dx, &slow::fixed_dx(&dy, &affine, &at).unwrap(), CLOSE);
                let got = fixed_dparams(&dy, &x, &affine, &at).unwrap();
                let want = slow::dparams(&dy, &x, &affine, &at).unwrap();
                let [dweight, dbias] = terms(&dy, &x, &affine, &at);
                assert_sums(&got.0, &want.0, &dweight);
                assert_sums(&got.1, &want.1, &dbias);

                let (_, own) = batch(&x, &affine).unwrap();
                let want = slow::statistics(&x).unwrap();
                assert_sums(&own.mean, &want.mean, &x.abs().unwrap().mean((0, 2, 3)).unwrap());
                assert_close(&own.var, &want.var, CLOSE);
                let got = batch_backward(&dy, &x, &affine, &own).unwrap();
                let want = slow::batch_backward(&dy, &x, &affine, &own).unwrap();
                assert_close(&got.0, &want.0, CLOSE);
                let [dweight, dbias] = terms(&dy, &x, &affine, &own);
                assert_sums(&got.1, &want.1, &dweight);
                assert_sums(&got.2, &want.2, &dbias);
            }
        }

        #[test]
        fn gradients_are_those_of_differences([n, c, h, w] in images(), seed in any::<u64>()) {
            let rng = &mut Rng::new(seed);
            let [x, dy] = [(); 2].map(|()| normal(&[n, c, h, w], rng));
            let [weight, bias, mean, var] = [(); 4].map(|()| normal(&[c], rng));
            let affine = Affine { weight, bias, eps: EPS };
            let with = |w: &Tensor, b: &Tensor| Affine { weight: w.clone(), bias: b.clone(), eps: EPS };
            let at = Statistics { mean, var: var.abs().unwrap() };
            let (_, own) = batch(&x, &affine).unwrap();

            let numeric = numeric_gradient(|x| fixed(x, &affine, &at), &x, &dy);
            assert_close(&fixed_dx(&dy, &affine, &at).unwrap(), &numeric, DIFFERENCE);
            let (dweight, dbias) = fixed_dparams(&dy, &x, &affine, &at).unwrap();
            let numeric = numeric_gradient(|w| fixed(&x, &with(w, &affine.bias), &at), &affine.weight, &dy);
            assert_close(&dweight, &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|b| fixed(&x, &with(&affine.weight, b), &at), &affine.bias, &dy);
            assert_close(&dbias, &numeric, DIFFERENCE);

            let (dx, dweight, dbias) = batch_backward(&dy, &x, &affine, &own).unwrap();
            let y = |x: &Tensor, affine: &Affine| batch(x, affine).map(|(y, _)| y);
            assert_close(&dx, &numeric_gradient(|x| y(x, &affine), &x, &dy), DIFFERENCE);
            let numeric = numeric_gradient(|w| y(&x, &with(w, &affine.bias)), &affine.weight, &dy);
            assert_close(&dweight, &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|b| y(&x, &with(&affine.weight, b)), &affine.bias, &dy);
            assert_close(&dbias, &numeric, DIFFERENCE);
        }
    }

    #[test]
    fn a_batch_is_brought_to_mean_bias_and_deviation_weight() {
        // Values 1 and 3: mean 2, variance 1; eps 0.
        let x = tensor(vec![1.0f32, 3.0], &[2, 1, 1, 1]).unwrap();
        let [weight, bias] = [5.0f32, 7.0].map(|v| tensor(vec![v], &[1]).unwrap());
        let (y, at) = batch(&x, &Affine { weight, bias, eps: 0.0 }).unwrap();
        assert_eq!((values(&y), values(&at.mean), values(&at.var)), (vec![2.0, 12.0], vec![2.0], vec![1.0]));
    }
}
