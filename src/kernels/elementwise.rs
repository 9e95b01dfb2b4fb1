//! Sums and products of two values, where one may be per channel.
//!
//! Shapes: equal, or `[n, c, 1, 1]` beside `[n, c, h, w]` in either order; the smaller is
//! repeated over the pixels. The gradient of a repeated value is the sum over its pixels:
//! for `y = a + b`, `da = reduce_to(dy, a)`; for `y = a b`, `da = reduce_to(dy b, a)`.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::in_place::Each;
use super::planes::{change, changed, each, mismatch, plane, sum, wide};
use super::{Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

/// `a + b`, of the shape of the larger.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (full, other) = ordered(a, b, "adding")?;
    if is_slow_path(full) {
        return full.broadcast_add(other).during("adding");
    }
    by_dtype!(full, T => combine::<T>("adding", [full, other], |full, other| full + other))
}

/// `sum + x`, both of one shape: in the memory of `sum` where that is `f32` on the CPU, which
/// no one else may read any more.
pub fn add_to(sum: Tensor, x: &Tensor) -> Result<Tensor> {
    if is_slow_path(&sum) || sum.dtype() != DType::F32 {
        return (sum + x).during("adding");
    }
    sum.inplace_op2(x, &Each(|sum: &mut f32, [x]: [f32; 1]| *sum += x)).during("adding")?;
    Ok(sum)
}

/// `a * b`, element by element, of the shape of the larger.
pub fn mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (full, other) = ordered(a, b, "multiplying")?;
    if is_slow_path(full) {
        return full.broadcast_mul(other).during("multiplying");
    }
    by_dtype!(full, T => combine::<T>("multiplying", [full, other], |full, other| full * other))
}

/// `dy` for an operand of `shape`: summed over the pixels if it was per channel, else itself.
pub fn reduce_to(dy: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if dy.dims() == shape {
        return Ok(dy.clone());
    }
    match (dy.dims(), shape) {
        (&[n, c, h, w], &[n_to, c_to, 1, 1]) if (n, c) == (n_to, c_to) => {
            if is_slow_path(dy) {
                return slow_pixel_sum(dy).during("summing over pixels");
            }
            by_dtype!(dy, T => {
                let (pixels, dy) = (h * w, slice::<T>(dy)?);
                let sums = each(n * c, pixels, |i| sum([plane(&dy, i, pixels)], |[dy]| dy) as T);
                tensor(sums, shape)
            })
        }
        (from, _) => {
            let problem = format!("{from:?} is no repetition of {shape:?}");
            Err(candle_core::Error::Msg(problem)).during("summing over pixels")
        }
    }
}

/// The operands with the larger first; both operations give the same bits in either order.
fn ordered<'a>(a: &'a Tensor, b: &'a Tensor, op: &'static str) -> Result<(&'a Tensor, &'a Tensor)> {
    let per_channel = |b: &Tensor, a: &Tensor| match (b.dims(), a.dims()) {
        (&[n, c, 1, 1], &[a_n, a_c, _, _]) => (n, c) == (a_n, a_c),
        _ => false,
    };
    if a.dims() == b.dims() || per_channel(b, a) {
        return Ok((a, b));
    }
    if per_channel(a, b) {
        return Ok((b, a));
    }
    Err(mismatch(a, b, op)).during(op)
}

/// Fills `y` with the sum of the larger operand and the other; without a larger one, it is in `y`.
pub(crate) fn add_into<T: Real>(full: Option<&[T]>, other: &[T], y: &mut [T]) {
    let (pixels, n) = (pixels(y.len(), other), y.len());
    change(y, full, pixels, combining(n, other, |full, other| full + other));
}

/// As [`add_into`], the product.
pub(crate) fn mul_into<T: Real>(full: Option<&[T]>, other: &[T], y: &mut [T]) {
    let (pixels, n) = (pixels(y.len(), other), y.len());
    change(y, full, pixels, combining(n, other, |full, other| full * other));
}

fn combine<T: Real>(what: &str, [full, other]: [&Tensor; 2], f: impl Fn(T, T) -> T + Sync) -> Result<Tensor> {
    let (elements, other) = (slice::<T>(full)?, slice::<T>(other)?);
    let pixels = pixels(elements.len(), &other);
    tensor(changed(what, &elements, pixels, combining(elements.len(), &other, f))?, full.dims())
}

/// Pixels for each number of the other operand; those of an equally long one are a plane.
fn pixels<T>(full: usize, other: &[T]) -> usize {
    if full == other.len() { full } else { full / other.len().max(1) }
}

/// Changes pixels of an operand of `full` elements by the other.
fn combining<T: Real>(
    full: usize,
    other: &[T],
    f: impl Fn(T, T) -> T + Sync,
) -> impl Fn(usize, Range<usize>, &mut [T]) + Sync {
    move |plane, at, y| {
        if full == other.len() {
            y.iter_mut().zip(&other[at]).for_each(|(y, &other)| *y = f(*y, other));
        } else {
            let other = other[plane];
            y.iter_mut().for_each(|y| *y = f(*y, other));
        }
    }
}

fn slow_pixel_sum(dy: &Tensor) -> candle_core::Result<Tensor> {
    wide(dy)?.sum_keepdim((2, 3))?.to_dtype(dy.dtype())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn both_bodies_agree_and_gradients_are_those_of_differences(
            [n, c, h, w] in images(),
            first_is_per_channel in any::<bool>(),
            equal in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let (a, dy) = (normal(&[n, c, h, w], rng), normal(&[n, c, h, w], rng));
            let b = if equal { normal(&[n, c, h, w], rng) } else { normal(&[n, c, 1, 1], rng) };
            let (a, b) = if first_is_per_channel { (b, a) } else { (a, b) };
            for dtype in REALS {
                let (a, b, dy) = (cast(&a, dtype), cast(&b, dtype), cast(&dy, dtype));
                assert_close(&add(&a, &b).unwrap(), &a.broadcast_add(&b).unwrap(), EXACT);
                assert_close(&mul(&a, &b).unwrap(), &a.broadcast_mul(&b).unwrap(), EXACT);
                let sums = reduce_to(&dy, &[n, c, 1, 1]).unwrap();
                assert_close(&sums, &slow_pixel_sum(&dy).unwrap(), CLOSE);
            }
            let da = reduce_to(&dy, a.dims()).unwrap();
            assert_close(&da, &numeric_gradient(|a| add(a, &b), &a, &dy), DIFFERENCE);
            let da = reduce_to(&mul(&dy, &b).unwrap(), a.dims()).unwrap();
            assert_close(&da, &numeric_gradient(|a| mul(a, &b), &a, &dy), DIFFERENCE);
            let db = reduce_to(&mul(&dy, &a).unwrap(), b.dims()).unwrap();
            assert_close(&db, &numeric_gradient(|b| mul(&a, b), &b, &dy), DIFFERENCE);
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let x = |shape: &[usize]| normal(shape, &mut Rng::new(1));
        assert!(add(&x(&[2, 3, 4, 4]), &x(&[1, 3, 1, 1])).is_err());
        assert!(mul(&x(&[2, 3]), &x(&[2, 1])).is_err());
        assert!(reduce_to(&x(&[2, 3, 4, 4]), &[2, 1, 4, 4]).is_err());
        assert_eq!(add(&x(&[2, 3]), &x(&[2, 3])).unwrap().dims(), [2, 3]);
    }
}
