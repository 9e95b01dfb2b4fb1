//! The continuous choice of a search: `y = sum_i p_i x_i` with `p = softmax(alpha)`.
//!
//! A candidate that was ruled out has `alpha_i = -inf`, so `p_i` is exactly 0: its `x_i` is
//! not read, and may hold anything.
//!
//! ```text
//! dx_i     = p_i dy
//! dalpha_i = p_i (d_i - sum_j p_j d_j)    with d_i = sum dy x_i
//!          = sum over j of  p_j d_j ((i = j) - p_i)
//! ```
//!
//! # Source
//!
//! Liu et al., "DARTS: Differentiable Architecture Search", 2019 (arXiv:1806.09055), equation 2.

mod fused;
pub mod gated;

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::fused::{TERMS, has_kernels};
use super::planes::{build, dot, dot_scratch_bytes, map, mismatch, wide, write, zip};
use super::{Pass, Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

const MIXING: &str = "mixing candidates";

/// `softmax(alpha)`; all zeros if every `alpha` is `-inf`.
///
/// # Examples
///
/// ```
/// use archrepair::kernels::mix::softmax;
///
/// assert_eq!(softmax(&[1.0, f64::NEG_INFINITY, 1.0]), [0.5, 0.0, 0.5]);
/// ```
#[must_use]
pub fn softmax(alpha: &[f64]) -> Vec<f64> {
    let softmax = Softmax::of(alpha.iter().copied());
    alpha.iter().map(|&a| softmax.p(a)).collect()
}

/// What the probabilities of all candidates share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax {
    greatest: f64,
    /// Of `e^(alpha - greatest)`.
    sum: f64,
}

impl Softmax {
    pub(crate) fn of(alpha: impl Iterator<Item = f64> + Clone) -> Self {
        let greatest = alpha.clone().fold(f64::NEG_INFINITY, f64::max);
        Self { greatest, sum: alpha.map(|a| (a - greatest).exp()).sum() }
    }

    /// The probability of a candidate.
    pub(crate) fn p(&self, alpha: f64) -> f64 {
        if self.greatest == f64::NEG_INFINITY { 0.0 } else { (alpha - self.greatest).exp() / self.sum }
    }
}

/// `sum_i softmax(alpha)_i x_i`: of the shape every `x_i` has; `alpha` is `[k]`.
pub fn forward(xs: &[&Tensor], alpha: &Tensor) -> Result<Tensor> {
    let p = choices(alpha, Some(xs.len()))?;
    check(xs[0], xs)?;
    if is_slow_path(xs[0]) {
        return slow(xs, &p).during(MIXING);
    }
    by_dtype!(xs[0], T => fast::<T>(xs, &p))
}

/// The gradient `p_i dy` of candidate `i`, counted from 0.
pub fn dx(dy: &Tensor, alpha: &Tensor, i: usize) -> Result<Tensor> {
    let p = choice(alpha, i)?;
    if is_slow_path(dy) {
        return slow_dx(dy, p).during(MIXING);
    }
    by_dtype!(dy, T => {
        // Rounded to T once, as in the forward pass.
        let p = p as T;
        tensor(map(MIXING, &slice::<T>(dy)?, |dy| p * dy)?, dy.dims())
    })
}

/// The sum of a mixture that is taken term by term: `sum + p_i x`, or `p_i x` for the first.
/// Taken in the order of the candidates, the last sum has the bits of [`forward`], except in
/// half precision, which rounds each sum.
pub fn add_term(sum: Option<&Tensor>, x: &Tensor, alpha: &Tensor, i: usize) -> Result<Tensor> {
    let p = choice(alpha, i)?;
    match sum {
        Some(sum) if p == 0.0 => Ok(sum.clone()),
        Some(sum) => {
            check(sum, &[x])?;
            if is_slow_path(x) {
                return slow_term(sum, x, p).during(MIXING);
            }
            by_dtype!(x, T => tensor(zip(MIXING, [&slice::<T>(sum)?, &slice::<T>(x)?], |sum, x| sum + p as T * x)?, x.dims()))
        }
        None if is_slow_path(x) => slow(&[x], &[p]).during(MIXING),
        None => by_dtype!(x, T => fast::<T>(&[x], &[p])),
    }
}

/// The part that candidate `i`, of value `x`, has in the gradient by `alpha`: `[k]`, of its
/// type. The gradient is the sum of all parts:
///
/// ```text
/// part_ij = p_i d_i ((i = j) - p_j)
/// ```
pub fn dalpha(dy: &Tensor, x: &Tensor, alpha: &Tensor, i: usize) -> Result<Tensor> {
    check(dy, &[x])?;
    let d = if choice(alpha, i)? == 0.0 { 0.0 } else { products(dy, x)? };
    parts(d, alpha, i)
}

/// `sum dy x` over all elements.
fn products(dy: &Tensor, x: &Tensor) -> Result<f64> {
    if is_slow_path(dy) {
        return slow_dot(dy, x).during(MIXING);
    }
    Ok(by_dtype!(dy, T => dot::<T>(&slice(dy)?, &slice(x)?)))
}

/// The part that candidate `i` has in the gradient by `alpha`, of its `d_i`.
fn parts(d: f64, alpha: &Tensor, i: usize) -> Result<Tensor> {
    let (all, p) = (choices(alpha, None)?, choice(alpha, i)?);
    let parts = all.iter().enumerate().map(|(j, p_j)| p * d * (f64::from(i == j) - p_j));
    place(parts.collect(), alpha).during(MIXING)
}

/// Most bytes that a pass in `f32` on the CPU allocates beside its result, for values of this
/// shape: partial sums of [`dalpha`].
#[must_use]
pub fn scratch_bytes(shape: &[usize], pass: Pass) -> usize {
    if pass == Pass::Dw { dot_scratch_bytes(shape.iter().product()) } else { 0 }
}

fn fast<T: Real>(xs: &[&Tensor], p: &[f64]) -> Result<Tensor> {
    let slices = xs.iter().map(|x| slice::<T>(x)).collect::<Result<Vec<_>>>()?;
    let y = build(MIXING, [1, xs[0].elem_count()], |_, at, y| {
        add_all((p.len(), &|i| p[i], &|i| &slices[i]), at, y);
    });
    tensor(y?, xs[0].dims())
}

/// Fills `y` with the sum of `p(i)` times `x(i)` for `i` below `n`.
pub(crate) fn forward_into<'a, T: Real>(
    n: usize,
    p: impl Fn(usize) -> f64 + Sync,
    x: impl Fn(usize) -> &'a [T] + Sync,
    y: &mut [T],
) {
    let pixels = y.len();
    write(y, pixels, |_, at, y| {
        y.fill(T::zero());
        add_all((n, &p, &x), at, y);
    });
}

/// Adds to `y` what stands at these places of all candidates.
#[inline(always)]
fn add_all<'a, T: Real>(
    (n, p, x): (usize, &impl Fn(usize) -> f64, &impl Fn(usize) -> &'a [T]),
    at: Range<usize>,
    y: &mut [T],
) {
    for (i, p) in (0..n).map(|i| (i, p(i))).filter(|(_, p)| *p != 0.0) {
        let p = T::from_f64(p);
        y.iter_mut().zip(&x(i)[at.clone()]).for_each(|(y, &x)| *y += p * x);
    }
}

/// The weight of candidate `i`.
fn choice(alpha: &Tensor, i: usize) -> Result<f64> {
    let p = choices(alpha, None)?.get(i).copied();
    p.ok_or_else(|| candle_core::Error::Msg(format!("no candidate {i}"))).during(MIXING)
}

/// The weights of the candidates, on the host.
fn choices(alpha: &Tensor, k: Option<usize>) -> Result<Vec<f64>> {
    let read = || alpha.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
    // Metal has no f64: the cast is made on the host there.
    let alpha: Vec<f64> = match alpha.device() {
        candle_core::Device::Cpu => read(),
        _ => wide(alpha).and_then(|alpha| alpha.flatten_all()?.to_vec1::<f32>()).map(widened),
    }
    .during(MIXING)?;
    if alpha.is_empty() || k.is_some_and(|k| k != alpha.len()) {
        let problem = format!("{} choice weights for {} candidates", alpha.len(), k.unwrap_or(1));
        return Err(candle_core::Error::Msg(problem)).during(MIXING);
    }
    Ok(softmax(&alpha))
}

fn widened(x: Vec<f32>) -> Vec<f64> {
    x.into_iter().map(f64::from).collect()
}

fn check(shape: &Tensor, xs: &[&Tensor]) -> Result<()> {
    match xs.iter().find(|x| x.dims() != shape.dims()) {
        Some(x) => Err(mismatch(shape, x, "mix")).during(MIXING),
        None => Ok(()),
    }
}

/// Numbers of the host as a tensor like `alpha`.
fn place(numbers: Vec<f64>, alpha: &Tensor) -> candle_core::Result<Tensor> {
    let host = Tensor::from_vec(numbers, alpha.shape(), &candle_core::Device::Cpu)?;
    host.to_dtype(alpha.dtype())?.to_device(alpha.device())
}

fn slow(xs: &[&Tensor], p: &[f64]) -> candle_core::Result<Tensor> {
    if has_kernels(xs[0]) && xs.len() <= TERMS {
        return fused::sum(xs, p);
    }
    let mut y = xs[0].zeros_like()?;
    for (x, &p) in xs.iter().zip(p).filter(|(_, p)| **p != 0.0) {
        y = (y + (*x * p)?)?;
    }
    Ok(y)
}

fn slow_term(sum: &Tensor, x: &Tensor, p: f64) -> candle_core::Result<Tensor> {
    if has_kernels(x) {
        return fused::sum(&[sum, x], &[1.0, p]);
    }
    sum + (x * p)?
}

fn slow_dx(dy: &Tensor, p: f64) -> candle_core::Result<Tensor> {
    if has_kernels(dy) {
        return fused::sum(&[dy], &[p]);
    }
    dy * p
}

fn slow_dot(dy: &Tensor, x: &Tensor) -> candle_core::Result<f64> {
    if has_kernels(dy) {
        return fused::products(dy, x);
    }
    let sum = (wide(dy)? * wide(x)?)?.sum_all()?;
    match sum.dtype() {
        DType::F64 => sum.to_scalar::<f64>(),
        _ => sum.to_scalar::<f32>().map(f64::from),
    }
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
            shape in images(),
            k in 1usize..5,
            ruled_out in 0usize..5,
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let xs: Vec<Tensor> = (0..k).map(|_| normal(&shape, rng)).collect();
            let dy = normal(&shape, rng);
            let mut weights = values(&normal(&[k], rng));
            if ruled_out < k && k > 1 {
                weights[ruled_out] = f64::NEG_INFINITY;
            }
            let alpha = Tensor::new(weights, &candle_core::Device::Cpu).unwrap();
            for dtype in REALS {
                let xs: Vec<Tensor> = xs.iter().map(|x| cast(x, dtype)).collect();
                let refs: Vec<&Tensor> = xs.iter().collect();
                let (dy, alpha) = (cast(&dy, dtype), cast(&alpha, dtype));
                let p = choices(&alpha, None).unwrap();
                assert_close(&forward(&refs, &alpha).unwrap(), &slow(&refs, &p).unwrap(), CLOSE);
                let d = dot::<f64>(&values(&dy), &values(&xs[0]));
                prop_assert!((d - slow_dot(&dy, &xs[0]).unwrap()).abs() < 1e-4);
            }
            let refs: Vec<&Tensor> = xs.iter().collect();
            let parts = (0..k).map(|i| dalpha(&dy, refs[i], &alpha, i).unwrap());
            let dalpha = parts.reduce(|a, b| (a + b).unwrap()).unwrap();
            let sum = (0..k).fold(None, |sum, i| Some(add_term(sum.as_ref(), refs[i], &alpha, i).unwrap()));
            assert_close(&sum.unwrap(), &forward(&refs, &alpha).unwrap(), EXACT);
            let numeric = numeric_gradient(|alpha| forward(&refs, alpha), &alpha, &dy);
            assert_close(&dalpha, &numeric, DIFFERENCE);
            for i in 0..k {
                let through = |x: &Tensor| {
                    let mut xs = refs.clone();
                    xs[i] = x;
                    forward(&xs, &alpha)
                };
                let dx = dx(&dy, &alpha, i).unwrap();
                assert_close(&dx, &numeric_gradient(through, &xs[i], &dy), DIFFERENCE);
                assert_close(&dx, &slow_dx(&dy, choices(&alpha, None).unwrap()[i]).unwrap(), EXACT);
            }
        }
    }

    #[test]
    fn a_candidate_ruled_out_is_not_read() {
        let x = normal(&[2, 3], &mut Rng::new(1));
        let bad = (x.ones_like().unwrap() * f64::NAN).unwrap();
        let alpha = tensor(vec![0.3, f64::NEG_INFINITY], &[2]).unwrap();
        assert_close(&forward(&[&x, &bad], &alpha).unwrap(), &x, EXACT);
        assert_eq!(values(&dalpha(&x, &bad, &alpha, 1).unwrap()), [0.0, 0.0]);
        assert_eq!(softmax(&[f64::NEG_INFINITY]), [0.0]);
        assert!(forward(&[&x], &alpha).is_err());
        assert!(dx(&x, &alpha, 2).is_err());
    }
}
