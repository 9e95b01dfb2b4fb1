//! The loss of a classification, and its gradient by the logits, in one pass.
//!
//! For logits `z` and a row of probabilities `t` (one-hot, smoothed, or those of a teacher):
//!
//! ```text
//! loss_i = -sum_k t_k log softmax(z)_k        dlogits = weight_i (softmax(z) - t)
//! ```
//!
//! The gradient is that of the sum of `weight_i loss_i`, for rows of `t` that sum to 1.
//! Shapes: `logits` `targets` `dlogits` `[n, classes]`, weights and losses one an image.

use candle_core::{DType, Device, Tensor};

use super::planes::{same_shape, wide};
use super::share::room;
use super::{Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

const LOSS: &str = "cross entropy";

/// The loss of every image, and `dlogits` of the weighted sum.
pub fn forward_backward(logits: &Tensor, targets: &Tensor, weights: &[f64]) -> Result<(Vec<f64>, Tensor)> {
    let (n, _) = logits.dims2().during(LOSS)?;
    same_shape(logits, targets, LOSS)?;
    if weights.len() != n {
        let problem = format!("{} weights for {n} images", weights.len());
        return Err(candle_core::Error::Msg(problem)).during(LOSS);
    }
    if is_slow_path(logits) {
        return slow(logits, targets, weights).during(LOSS);
    }
    by_dtype!(logits, T => fast::<T>(logits, targets, weights))
}

/// The probabilities of the classes: every row positive and of sum 1.
pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    let (_, classes) = logits.dims2().during(LOSS)?;
    if is_slow_path(logits) {
        return slow_log_softmax(logits).and_then(|p| p.exp()?.to_dtype(logits.dtype())).during(LOSS);
    }
    by_dtype!(logits, T => {
        let z = slice::<T>(logits)?;
        let mut p = room(LOSS, z.len())?;
        p.extend(z.chunks(classes.max(1)).flat_map(probabilities).map(|p| p as T));
        tensor(p, logits.dims())
    })
}

fn probabilities<T: Real>(z: &[T]) -> impl Iterator<Item = f64> {
    let normalizer = log_sum_exp(z);
    z.iter().map(move |z| (z.to_f64() - normalizer).exp())
}

// In f64 and on one thread: logits are few beside the activations that made them.
fn fast<T: Real>(logits: &Tensor, targets: &Tensor, weights: &[f64]) -> Result<(Vec<f64>, Tensor)> {
    let classes = logits.dims()[1].max(1);
    let (z, t) = (slice::<T>(logits)?, slice::<T>(targets)?);
    let mut losses = Vec::with_capacity(weights.len());
    let mut dlogits = room(LOSS, z.len())?;
    for ((z, t), &weight) in z.chunks(classes).zip(t.chunks(classes)).zip(weights) {
        let normalizer = log_sum_exp(z);
        let mut loss = 0.0;
        for (z, t) in z.iter().zip(t) {
            let (log_p, t) = (z.to_f64() - normalizer, t.to_f64());
            // 0 log 0 is 0 here.
            if t != 0.0 {
                loss -= t * log_p;
            }
            dlogits.push(T::from_f64(weight * (log_p.exp() - t)));
        }
        losses.push(loss);
    }
    Ok((losses, tensor(dlogits, logits.dims())?))
}

/// `log sum exp z`, without overflow.
fn log_sum_exp<T: Real>(z: &[T]) -> f64 {
    let greatest = z.iter().map(|z| z.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|z| (z.to_f64() - greatest).exp()).sum();
    greatest + sum.ln()
}

fn slow(logits: &Tensor, targets: &Tensor, weights: &[f64]) -> candle_core::Result<(Vec<f64>, Tensor)> {
    let log_p = slow_log_softmax(logits)?;
    let t = wide(targets)?;
    // 0 log 0 is 0 here.
    let terms = t.ne(0.0)?.where_cond(&(&t * &log_p)?, &t.zeros_like()?)?;
    let losses = terms.sum(1)?.neg()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let weights = Tensor::from_slice(weights, (weights.len(), 1), &Device::Cpu)?;
    let weights = weights.to_dtype(t.dtype())?.to_device(t.device())?;
    let dlogits = (log_p.exp()? - t)?.broadcast_mul(&weights)?;
    Ok((losses, dlogits.to_dtype(logits.dtype())?))
}

fn slow_log_softmax(logits: &Tensor) -> candle_core::Result<Tensor> {
    candle_nn::ops::log_softmax(&wide(logits)?, 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn both_bodies_agree_and_gradients_are_those_of_differences(
            n in 1usize..6,
            classes in 1usize..9,
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let logits = (normal(&[n, classes], rng) * 3.0).unwrap();
            let targets = softmax(&normal(&[n, classes], rng)).unwrap();
            let weights = values(&normal(&[n], rng));
            for dtype in REALS {
                let (logits, targets) = (cast(&logits, dtype), cast(&targets, dtype));
                let (losses, dlogits) = forward_backward(&logits, &targets, &weights).unwrap();
                let (slow_losses, slow_dlogits) = slow(&logits, &targets, &weights).unwrap();
                prop_assert!(losses.iter().zip(&slow_losses).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + b)));
                assert_close(&dlogits, &slow_dlogits, CLOSE);
                let p = softmax(&logits).unwrap();
                assert_close(&p, &slow_log_softmax(&logits).unwrap().exp().unwrap(), CLOSE);
            }
            let losses = |z: &Tensor| tensor(forward_backward(z, &targets, &weights)?.0, &[n]);
            let numeric = numeric_gradient(losses, &logits, &tensor(weights.clone(), &[n]).unwrap());
            let (_, dlogits) = forward_backward(&logits, &targets, &weights).unwrap();
            assert_close(&dlogits, &numeric, DIFFERENCE);
        }
    }

    #[test]
    fn two_equal_logits_cost_the_logarithm_of_two_however_large() {
        let logits = tensor(vec![1e4f32, 1e4, f32::NEG_INFINITY], &[1, 3]).unwrap();
        let targets = tensor(vec![1.0f32, 0.0, 0.0], &[1, 3]).unwrap();
        for body in [forward_backward, |z: &_, t: &_, w: &_| Ok(slow(z, t, w).unwrap())] {
            let (losses, dlogits) = body(&logits, &targets, &[2.0]).unwrap();
            assert!((losses[0] - 2.0f64.ln()).abs() < 1e-6);
            assert_eq!(values(&dlogits), [-1.0, 1.0, 0.0]);
        }
        assert!(forward_backward(&logits, &targets, &[]).is_err());
    }
}
