//! A branch that enters through a gate, `y = x + g (z - x)` with one gate `g` a channel.
//!
//! At `g = 0` the result is `x`, so a new branch changes nothing before it is trained.
//! `x`, `z`, `y`: `[n, c, h, w]` or `[n, c]`; `gate`: `[c]`.

use std::ops::Range;

use candle_core::Tensor;

use super::planes::{change, changed, channel_sums, collect, one_a_channel, plane, same_shape, wide};
use super::{Pass, Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

const GATING: &str = "applying a gate";

/// `x + gate (z - x)`. Where the gate is 0, the bits of `x`, even beside an infinite `z`.
pub fn forward(x: &Tensor, z: &Tensor, gate: &Tensor) -> Result<Tensor> {
    same_shape(x, z, GATING)?;
    let [_, pixels] = channels(x, gate)?;
    if is_slow_path(x) {
        return slow(x, z, gate).during(GATING);
    }
    by_dtype!(x, T => {
        let (z, gate) = (slice::<T>(z)?, slice::<T>(gate)?);
        tensor(changed(GATING, &slice(x)?, pixels, moving([&z, &gate], pixels))?, x.dims())
    })
}

/// Fills `y`, of planes of `pixels` elements; without an `x`, it is in `y`.
pub(crate) fn forward_into<T: Real>([z, gate]: [&[T]; 2], pixels: usize, x: Option<&[T]>, y: &mut [T]) {
    change(y, x, pixels, moving([z, gate], pixels));
}

/// Changes pixels of a plane.
fn moving<T: Real>([z, gate]: [&[T]; 2], pixels: usize) -> impl Fn(usize, Range<usize>, &mut [T]) + Sync {
    move |i, at, y| {
        let g = gate[i % gate.len()];
        if g != T::zero() {
            let z = &plane(z, i, pixels)[at];
            y.iter_mut().zip(z).for_each(|(y, &z)| *y = *y + g * (z - *y));
        }
    }
}

/// `dx = (1 - gate) dy`.
pub fn dx(dy: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let rest = gate.affine(-1.0, 1.0).during(GATING)?;
    dz(dy, &rest)
}

/// `dz = gate dy`.
pub fn dz(dy: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let [c, pixels] = channels(dy, gate)?;
    if is_slow_path(dy) {
        return slow_dz(dy, gate).during(GATING);
    }
    by_dtype!(dy, T => {
        let (elements, gate) = (slice::<T>(dy)?, slice::<T>(gate)?);
        let dz = collect(GATING, [elements.len() / pixels.max(1), pixels], |i, at| {
            let g = gate[i % c];
            plane(&elements, i, pixels)[at].iter().map(move |&dy| g * dy)
        });
        tensor(dz?, dy.dims())
    })
}

/// `dgate = sum dy (z - x)` over images and pixels: `[c]`.
pub fn dgate(dy: &Tensor, x: &Tensor, z: &Tensor) -> Result<Tensor> {
    same_shape(x, z, GATING)?;
    same_shape(dy, x, GATING)?;
    if is_slow_path(dy) {
        return slow_dgate(dy, x, z).during(GATING);
    }
    let c = x.dim(1).during(GATING)?;
    let pixels: usize = x.dims()[2..].iter().product();
    by_dtype!(dy, T => {
        let (dy, x, z) = (slice::<T>(dy)?, slice::<T>(x)?, slice::<T>(z)?);
        // Two sums of products would cancel where z is near x.
        let term = |_, [dy, x, z]: [T; 3]| [dy * (z - x)];
        let sums = channel_sums([&dy[..], &x, &z], [c, pixels], term, |_, [sum]| sum as T);
        tensor(sums, &[c])
    })
}

/// Most bytes that a pass in `f32` on the CPU allocates beside its result, for `x` of shape
/// `[n, c, ..]`: the rest of the gate in [`dx`].
#[must_use]
pub fn scratch_bytes(x_shape: &[usize], pass: Pass) -> usize {
    let c = x_shape.get(1).copied().unwrap_or(0);
    if pass == Pass::Dx { c * size_of::<f32>() } else { 0 }
}

/// Channels and pixels of a plane, for a gate that fits.
fn channels(x: &Tensor, gate: &Tensor) -> Result<[usize; 2]> {
    let c = x.dim(1).during(GATING)?;
    one_a_channel(gate, c, GATING)?;
    Ok([c, x.dims()[2..].iter().product()])
}

/// The gate, of the type of `x` and shaped to broadcast over it.
fn spread(gate: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    shape[1] = gate.elem_count();
    gate.to_dtype(x.dtype())?.reshape(shape)
}

fn slow(x: &Tensor, z: &Tensor, gate: &Tensor) -> candle_core::Result<Tensor> {
    let gate = spread(gate, x)?;
    let moved = (x + (z - x)?.broadcast_mul(&gate)?)?;
    gate.ne(0.0)?.broadcast_as(x.shape())?.contiguous()?.where_cond(&moved, x)
}

fn slow_dz(dy: &Tensor, gate: &Tensor) -> candle_core::Result<Tensor> {
    dy.broadcast_mul(&spread(gate, dy)?)
}

fn slow_dgate(dy: &Tensor, x: &Tensor, z: &Tensor) -> candle_core::Result<Tensor> {
    let product = (wide(dy)? * (wide(z)? - wide(x)?)?)?;
    let by_pixel = if product.rank() == 4 { product.sum((2, 3))? } else { product };
    by_pixel.sum(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn both_bodies_agree_and_gradients_are_those_of_differences(
            shape in prop_oneof![images().prop_map(Vec::from), images().prop_map(|[n, c, ..]| vec![n, c])],
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let [x, z, dy, gate] = [&shape[..], &shape, &shape, &shape[1..2]].map(|shape| normal(shape, rng));
            for dtype in REALS {
                let [x, z, dy, gate] = [&x, &z, &dy, &gate].map(|t| cast(t, dtype));
                assert_close(&forward(&x, &z, &gate).unwrap(), &slow(&x, &z, &gate).unwrap(), CLOSE);
                assert_close(&dz(&dy, &gate).unwrap(), &slow_dz(&dy, &gate).unwrap(), EXACT);
                assert_close(&dgate(&dy, &x, &z).unwrap(), &slow_dgate(&dy, &x, &z).unwrap(), CLOSE);
            }
            let numeric = numeric_gradient(|x| forward(x, &z, &gate), &x, &dy);
            assert_close(&dx(&dy, &gate).unwrap(), &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|z| forward(&x, z, &gate), &z, &dy);
            assert_close(&dz(&dy, &gate).unwrap(), &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|gate| forward(&x, &z, gate), &gate, &dy);
            assert_close(&dgate(&dy, &x, &z).unwrap(), &numeric, DIFFERENCE);
        }
    }

    #[test]
    fn a_gate_of_zero_is_the_identity_whatever_enters() {
        let x = normal(&[1, 2, 2, 2], &mut Rng::new(1));
        let z = (x.ones_like().unwrap() * f64::INFINITY).unwrap();
        let gate = tensor(vec![0.0, 0.0], &[2]).unwrap();
        assert_close(&forward(&x, &z, &gate).unwrap(), &x, EXACT);
        assert_close(&slow(&x, &z, &gate).unwrap(), &x, EXACT);
        assert!(forward(&x, &z, &tensor(vec![0.0], &[1]).unwrap()).is_err());
    }
}
