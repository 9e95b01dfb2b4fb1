//! A plane reduced to one number: its mean, or its standard deviation.
//!
//! Shapes: `x` `dx` `[n, c, h, w]`, `y` `dy` `[n, c, 1, 1]`. The deviation of a plane tells
//! how strong its contrast is, whatever its brightness. With `m = h w`:
//!
//! ```text
//! avg: y = sum x / m                                   dx = dy / m
//! std: y = sqrt(sum (x - mean)^2 / m + eps)            dx = dy (x - mean) / (m y)
//! ```

use candle_core::Tensor;

use super::planes::{Moments, build_whole, collect, image_dims, mismatch, moments, plane, reduce, sum, wide};
use super::share::zeros;
use super::{Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

const POOLING: &str = "global pooling";

/// The mean of each plane.
pub fn avg(x: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = checked(x)?;
    if is_slow_path(x) {
        return slow_avg(x).during(POOLING);
    }
    by_dtype!(x, T => {
        let mut y = zeros::<T>(POOLING, n * c)?;
        avg_into(h * w, &slice(x)?, &mut y);
        tensor(y, &[n, c, 1, 1])
    })
}

/// Fills `y` with the mean of each plane of `pixels` elements.
pub(crate) fn avg_into<T: Real>(pixels: usize, x: &[T], y: &mut [T]) {
    reduce(y, pixels, |i| T::from_f64(sum([plane(x, i, pixels)], |[x]| x) / pixels as f64));
}

/// `dx` of [`avg`] for planes of `[h, w]` pixels.
pub fn avg_dx(dy: &Tensor, [h, w]: [usize; 2]) -> Result<Tensor> {
    let [n, c, 1, 1] = image_dims(dy)? else {
        return Err(candle_core::Error::Msg(format!("not [n, c, 1, 1]: {:?}", dy.dims()))).during(POOLING);
    };
    if is_slow_path(dy) {
        return slow_avg_dx(dy, [h, w]).during(POOLING);
    }
    by_dtype!(dy, T => {
        let (dy, share) = (slice::<T>(dy)?, ((h * w) as T).recip());
        let dx = collect(POOLING, [n * c, h * w], |i, at| std::iter::repeat_n(dy[i] * share, at.len()));
        tensor(dx?, &[n, c, h, w])
    })
}

/// The standard deviation of each plane, with `eps` under the root.
pub fn std(x: &Tensor, eps: f64) -> Result<Tensor> {
    let [n, c, h, w] = checked(x)?;
    if is_slow_path(x) {
        return slow_std(x, eps).during(POOLING);
    }
    by_dtype!(x, T => {
        let mut y = zeros::<T>(POOLING, n * c)?;
        std_into(h * w, eps, &slice(x)?, &mut y);
        tensor(y, &[n, c, 1, 1])
    })
}

/// Fills `y` with the standard deviation of each plane of `pixels` elements.
pub(crate) fn std_into<T: Real>(pixels: usize, eps: f64, x: &[T], y: &mut [T]) {
    reduce(y, pixels, |i| T::from_f64((moments(plane(x, i, pixels)).var + eps).sqrt()));
}

/// `dx` of [`std()`]. 0 for a plane without contrast, also where `eps` is 0.
pub fn std_dx(dy: &Tensor, x: &Tensor, eps: f64) -> Result<Tensor> {
    let [n, c, ..] = checked(x)?;
    if dy.dims() != [n, c, 1, 1] {
        return Err(mismatch(dy, x, "std_dx")).during(POOLING);
    }
    if is_slow_path(x) {
        return slow_std_dx(dy, x, eps).during(POOLING);
    }
    by_dtype!(x, T => fast_std_dx::<T>(dy, x, eps))
}

fn fast_std_dx<T: Real>(dy: &Tensor, x: &Tensor, eps: f64) -> Result<Tensor> {
    let [n, c, h, w] = image_dims(x)?;
    let (dys, xs, pixels) = (slice::<T>(dy)?, slice::<T>(x)?, h * w);
    let dx = build_whole(POOLING, [n * c, pixels], |i, out: &mut [T]| {
        let x = plane(&xs, i, pixels);
        let Moments { mean, var } = moments(x);
        let deviation = (var + eps).sqrt();
        if deviation == 0.0 {
            return;
        }
        let mean = T::from_f64(mean);
        let slope = T::from_f64(dys[i].to_f64() / (pixels as f64 * deviation));
        for (out, &x) in out.iter_mut().zip(x) {
            *out = slope * (x - mean);
        }
    });
    tensor(dx?, x.dims())
}

/// `[n, c, h, w]` of images with pixels.
fn checked(x: &Tensor) -> Result<[usize; 4]> {
    let dims = image_dims(x)?;
    if dims[2] * dims[3] == 0 {
        return Err(candle_core::Error::Msg(format!("no pixels in {dims:?}"))).during(POOLING);
    }
    Ok(dims)
}

fn slow_avg(x: &Tensor) -> candle_core::Result<Tensor> {
    wide(x)?.mean_keepdim((2, 3))?.to_dtype(x.dtype())
}

fn slow_avg_dx(dy: &Tensor, [h, w]: [usize; 2]) -> candle_core::Result<Tensor> {
    let (n, c, _, _) = dy.dims4()?;
    (dy * ((h * w) as f64).recip())?.broadcast_as((n, c, h, w))?.contiguous()
}

/// Deviations from the mean, and the standard deviation.
fn slow_parts(x: &Tensor, eps: f64) -> candle_core::Result<(Tensor, Tensor)> {
    let x = wide(x)?;
    let centered = x.broadcast_sub(&x.mean_keepdim((2, 3))?)?;
    let deviation = (centered.sqr()?.mean_keepdim((2, 3))? + eps)?.sqrt()?;
    Ok((centered, deviation))
}

fn slow_std(x: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
    slow_parts(x, eps)?.1.to_dtype(x.dtype())
}

fn slow_std_dx(dy: &Tensor, x: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
    let (centered, deviation) = slow_parts(x, eps)?;
    let pixels: usize = x.dims()[2..].iter().product();
    let flat = deviation.eq(0.0)?;
    let safe = flat.where_cond(&deviation.ones_like()?, &deviation)?;
    let slope = (wide(dy)? / (safe * pixels as f64)?)?;
    centered.broadcast_mul(&slope)?.to_dtype(x.dtype())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    const EPS: f64 = 0.1;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn both_bodies_agree_and_gradients_are_those_of_differences(
            [n, c, h, w] in images(),
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let (x, dy) = (normal(&[n, c, h, w], rng), normal(&[n, c, 1, 1], rng));
            for dtype in REALS {
                let (x, dy) = (cast(&x, dtype), cast(&dy, dtype));
                assert_close(&avg(&x).unwrap(), &slow_avg(&x).unwrap(), CLOSE);
                assert_close(&avg_dx(&dy, [h, w]).unwrap(), &slow_avg_dx(&dy, [h, w]).unwrap(), CLOSE);
                assert_close(&std(&x, EPS).unwrap(), &slow_std(&x, EPS).unwrap(), CLOSE);
                assert_close(&std_dx(&dy, &x, EPS).unwrap(), &slow_std_dx(&dy, &x, EPS).unwrap(), CLOSE);
            }
            assert_close(&avg_dx(&dy, [h, w]).unwrap(), &numeric_gradient(avg, &x, &dy), DIFFERENCE);
            let numeric = numeric_gradient(|x| std(x, EPS), &x, &dy);
            assert_close(&std_dx(&dy, &x, EPS).unwrap(), &numeric, DIFFERENCE);
        }
    }

    #[test]
    fn the_deviation_of_one_and_three_is_one() {
        let x = tensor(vec![1.0f32, 3.0, 5.0, 5.0], &[1, 2, 1, 2]).unwrap();
        assert_eq!(values(&std(&x, 0.0).unwrap()), [1.0, 0.0]);
        let dy = tensor(vec![4.0f32, 4.0], &[1, 2, 1, 1]).unwrap();
        for dx in [std_dx(&dy, &x, 0.0).unwrap(), slow_std_dx(&dy, &x, 0.0).unwrap()] {
            assert_eq!(values(&dx), [-2.0, 2.0, 0.0, 0.0]);
        }
        assert!(std_dx(&x, &x, 0.0).is_err() && avg_dx(&x, [2, 2]).is_err());
    }
}
