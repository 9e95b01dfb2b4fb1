//! Mixtures whose alternatives enter through [gates](crate::kernels::gate) beside the first value, without a
//! value for any gate.
//!
//! ```text
//! y      = p_0 x + sum_i p_i (x + g_i (z_i - x))
//! dx     = (p_0 + sum_i p_i (1 - g_i)) dy
//! dz_i   = p_i g_i dy
//! dg_i   = p_i s_i                                    with s_i = sum dy (z_i - x), one a channel
//! d_i    = sum dy x + sum over channels of  g_i s_i   (see `mix` for dalpha)
//! ```
//!
//! Each is `sum_i p_i x_i` with `x_i = x + g_i (z_i - x)`, taken apart; where there is no gate, `x_i = z_i`.
//!
//! # Source
//!
//! Ours.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::{MIXING, check, choice, choices, parts};
use crate::error::{During, Result};
use crate::kernels::planes::{build, changed, one_a_channel, plane, wide};
use crate::kernels::{Real, by_dtype, gate, is_slow_path, slice, tensor};

/// `y` for `xs`, the first value and those that enter, each with its gate or none. It has the bits of
/// [`super::forward`] of what gates give.
pub fn forward(xs: &[&Tensor], gates: &[Option<&Tensor>], alpha: &Tensor) -> Result<Tensor> {
    if gates.iter().all(Option::is_none) || is_slow_path(xs[0]) {
        let entering = xs.iter().zip(gates).map(|(&z, gate)| match gate {
            Some(gate) => gate::forward(xs[0], z, gate),
            None => Ok(z.clone()),
        });
        let entering = entering.collect::<Result<Vec<_>>>()?;
        return super::forward(&entering.iter().collect::<Vec<_>>(), alpha);
    }
    let p = choices(alpha, Some(xs.len()))?;
    check(xs[0], xs)?;
    by_dtype!(xs[0], T => fast::<T>(xs, gates, &p))
}

fn fast<T: Real>(xs: &[&Tensor], gates: &[Option<&Tensor>], p: &[f64]) -> Result<Tensor> {
    let [planes, c, pixels] = planes(xs[0])?;
    gates.iter().flatten().try_for_each(|gate| one_a_channel(gate, c, MIXING))?;
    let slices = xs.iter().map(|x| slice::<T>(x)).collect::<Result<Vec<_>>>()?;
    let gates = gates.iter().map(|gate| gate.map(slice::<T>).transpose()).collect::<Result<Vec<_>>>()?;
    let y = build(MIXING, [planes, pixels], |i, at, y| {
        let x = &plane(&slices[0], i, pixels)[at.clone()];
        for ((z, gate), p) in slices.iter().zip(&gates).zip(p).filter(|(_, p)| **p != 0.0) {
            let z = &plane(z, i, pixels)[at.clone()];
            let g = gate.as_ref().map(|gate| gate[i % c]);
            add(y, [x, z], (T::from_f64(*p), g));
        }
    });
    tensor(y?, xs[0].dims())
}

/// Adds `p (x + g (z - x))`, and without a gate `p z`.
#[inline(always)]
fn add<T: Real>(y: &mut [T], [x, z]: [&[T]; 2], (p, g): (T, Option<T>)) {
    match g {
        None => y.iter_mut().zip(z).for_each(|(y, &z)| *y += p * z),
        Some(g) if g == T::zero() => y.iter_mut().zip(x).for_each(|(y, &x)| *y += p * x),
        Some(g) => {
            let terms = x.iter().zip(z).map(|(&x, &z)| p * (x + g * (z - x)));
            y.iter_mut().zip(terms).for_each(|(y, term)| *y += term);
        }
    }
}

/// `sum + p_i (x + g_i (z - x))`, as [`super::add_term`].
pub fn add_term(
    sum: &Tensor,
    [x, z]: [&Tensor; 2],
    gate: &Tensor,
    (alpha, i): (&Tensor, usize),
) -> Result<Tensor> {
    let p = choice(alpha, i)?;
    if p == 0.0 || is_slow_path(x) {
        return super::add_term(Some(sum), &gate::forward(x, z, gate)?, alpha, i);
    }
    check(sum, &[x, z])?;
    let [_, c, pixels] = planes(x)?;
    one_a_channel(gate, c, MIXING)?;
    by_dtype!(x, T => {
        let (x, z, gate) = (slice::<T>(x)?, slice::<T>(z)?, slice::<T>(gate)?);
        let more = |i: usize, at: Range<usize>, y: &mut [T]| {
            let of = |x| &plane(x, i, pixels)[at.clone()];
            add(y, [of(&x), of(&z)], (p as T, Some(gate[i % c])));
        };
        tensor(changed(MIXING, &slice(sum)?, pixels, more)?, sum.dims())
    })
}

/// `dx`, the gradient by the first value, which stands behind every gate.
pub fn first_dx(dy: &Tensor, gates: &[Option<&Tensor>], alpha: &Tensor) -> Result<Tensor> {
    let p = choices(alpha, Some(gates.len()))?;
    let shares = gates.iter().zip(&p).filter_map(|(gate, &p)| gate.map(|gate| wide(gate)?.affine(-p, p)));
    let share = shares.reduce(|sum, share| sum? + share?);
    match share {
        Some(share) => gate::dz(dy, &share.and_then(|share| share.affine(1.0, p[0])).during(MIXING)?),
        None => super::dx(dy, alpha, 0),
    }
}

/// `dz_i`, the gradient by what enters as alternative `i`.
pub fn dz(dy: &Tensor, gate: &Tensor, (alpha, i): (&Tensor, usize)) -> Result<Tensor> {
    let p = choice(alpha, i)?;
    gate::dz(dy, &wide(gate).and_then(|gate| gate.affine(p, 0.0)).during(MIXING)?)
}

/// `s_i`: `[c]`. What was ruled out is not read, and has zeros.
pub fn sums(dy: &Tensor, [x, z]: [&Tensor; 2], (alpha, i): (&Tensor, usize)) -> Result<Tensor> {
    match choice(alpha, i)? {
        0.0 => Tensor::zeros(dy.dim(1).during(MIXING)?, dy.dtype(), dy.device()).during(MIXING),
        _ => gate::dgate(dy, x, z),
    }
}

/// `dg_i` of its `s_i`.
pub fn dgate(sums: &Tensor, (alpha, i): (&Tensor, usize)) -> Result<Tensor> {
    sums.affine(choice(alpha, i)?, 0.0).during(MIXING)
}

/// The part that alternative `i` has in the gradient by `alpha`, as [`super::dalpha`], of its `s_i` and gate.
pub fn dalpha(
    (dy, x): (&Tensor, &Tensor),
    [sums, gate]: [&Tensor; 2],
    (alpha, i): (&Tensor, usize),
) -> Result<Tensor> {
    let entering = || {
        let products = (wide(sums)?.to_dtype(DType::F32)? * wide(gate)?.to_dtype(DType::F32)?)?;
        Ok::<_, candle_core::Error>(f64::from(products.sum_all()?.to_scalar::<f32>()?))
    };
    let d = match choice(alpha, i)? {
        0.0 => 0.0,
        _ => super::products(dy, x)? + entering().during(MIXING)?,
    };
    parts(d, alpha, i)
}

/// Planes, channels, and pixels of a plane.
fn planes(x: &Tensor) -> Result<[usize; 3]> {
    let (n, c) = (x.dim(0).during(MIXING)?, x.dim(1).during(MIXING)?);
    Ok([n * c, c, x.dims()[2..].iter().product()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    /// What gates give, mixed: the definition.
    fn apart(xs: &[&Tensor], gates: &[Option<&Tensor>], alpha: &Tensor) -> Tensor {
        let entering = xs.iter().zip(gates).map(|(&z, gate)| match gate {
            Some(gate) => gate::forward(xs[0], z, gate).unwrap(),
            None => z.clone(),
        });
        crate::kernels::mix::forward(&entering.collect::<Vec<_>>().iter().collect::<Vec<_>>(), alpha).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn it_is_the_mixture_of_what_gates_give_and_gradients_are_those_of_differences(
            shape in images(),
            closed in 0usize..4,
            ruled_out in 0usize..4,
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let xs: Vec<Tensor> = (0..4).map(|_| normal(&shape, rng)).collect();
            let dy = normal(&shape, rng);
            let opened = |i: usize| if i == closed { 0.0 } else { 1.0 };
            let gates: Vec<Tensor> =
                (0..4).map(|i| normal(&shape[1..2], rng).affine(opened(i), 0.0).unwrap()).collect();
            let mut weights = values(&normal(&[4], rng));
            weights[ruled_out] = if ruled_out > 0 { f64::NEG_INFINITY } else { 0.0 };
            let alpha = Tensor::new(weights, &candle_core::Device::Cpu).unwrap();
            // The third is not gated.
            let entry = |gates: &[Tensor]| [None, Some(gates[1].clone()), None, Some(gates[3].clone())];
            for dtype in REALS {
                let xs: Vec<Tensor> = xs.iter().map(|x| cast(x, dtype)).collect();
                let refs: Vec<&Tensor> = xs.iter().collect();
                let alpha = cast(&alpha, dtype);
                let gates = entry(&gates).map(|gate| gate.map(|gate| cast(&gate, dtype)));
                let gates = [0, 1, 2, 3].map(|i| gates[i].as_ref());
                let y = forward(&refs, &gates, &alpha).unwrap();
                assert_close(&y, &apart(&refs, &gates, &alpha), EXACT);
                let mut sum = crate::kernels::mix::add_term(None, refs[0], &alpha, 0).unwrap();
                for i in 1..4 {
                    sum = match gates[i] {
                        Some(gate) => add_term(&sum, [refs[0], refs[i]], gate, (&alpha, i)).unwrap(),
                        None => crate::kernels::mix::add_term(Some(&sum), refs[i], &alpha, i).unwrap(),
                    };
                }
                assert_close(&sum, &y, EXACT);
            }
            let refs: Vec<&Tensor> = xs.iter().collect();
            let all = entry(&gates);
            let all = [0, 1, 2, 3].map(|i| all[i].as_ref());
            let numeric = numeric_gradient(
                |x| {
                    let mut xs = refs.clone();
                    xs[0] = x;
                    forward(&xs, &all, &alpha)
                },
                &xs[0],
                &dy,
            );
            assert_close(&first_dx(&dy, &all, &alpha).unwrap(), &numeric, DIFFERENCE);
            let plain = |i: usize| crate::kernels::mix::dalpha(&dy, refs[i], &alpha, i).unwrap();
            let mut dalphas = [0, 2].map(plain).to_vec();
            for i in [1, 3] {
                let numeric = numeric_gradient(
                    |z| {
                        let mut xs = refs.clone();
                        xs[i] = z;
                        forward(&xs, &all, &alpha)
                    },
                    &xs[i],
                    &dy,
                );
                assert_close(&dz(&dy, &gates[i], (&alpha, i)).unwrap(), &numeric, DIFFERENCE);
                let sums = sums(&dy, [refs[0], refs[i]], (&alpha, i)).unwrap();
                let numeric = numeric_gradient(
                    |gate| {
                        let mut all = all;
                        all[i] = Some(gate);
                        forward(&refs, &all, &alpha)
                    },
                    &gates[i],
                    &dy,
                );
                assert_close(&dgate(&sums, (&alpha, i)).unwrap(), &numeric, DIFFERENCE);
                dalphas.push(dalpha((&dy, refs[0]), [&sums, &gates[i]], (&alpha, i)).unwrap());
            }
            let numeric = numeric_gradient(|alpha| forward(&refs, &all, alpha), &alpha, &dy);
            let dalpha = dalphas.into_iter().reduce(|a, b| (a + b).unwrap()).unwrap();
            assert_close(&dalpha, &numeric, DIFFERENCE);
        }
    }

    #[test]
    fn what_is_ruled_out_or_behind_a_closed_gate_is_not_read() {
        let x = normal(&[1, 2, 3, 3], &mut Rng::new(1));
        let bad = (x.ones_like().unwrap() * f64::NAN).unwrap();
        let [open, shut] = [1.0, 0.0].map(|gate| tensor(vec![gate; 2], &[2]).unwrap());
        let alpha = tensor(vec![0.3, f64::NEG_INFINITY, 0.3], &[3]).unwrap();
        let y = forward(&[&x, &bad, &bad], &[None, Some(&open), Some(&shut)], &alpha).unwrap();
        assert_close(&y, &x, CLOSE);
        let sums = sums(&x, [&x, &bad], (&alpha, 1)).unwrap();
        assert_eq!(values(&sums), [0.0, 0.0]);
        assert_eq!(values(&dalpha((&x, &bad), [&sums, &open], (&alpha, 1)).unwrap()), [0.0; 3]);
        assert!(forward(&[&x, &x, &x], &[None, Some(&alpha), None], &alpha).is_err());
    }
}
