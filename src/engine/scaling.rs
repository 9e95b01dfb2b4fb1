//! A factor of the loss that keeps gradients among the numbers that halves have.
//!
//! The smallest half is 6e-8 and the largest 65,504; most gradients of a trained network are nearer to the
//! first. So the gradient by the logits is taken `factor` times, and those by the weights are divided by it
//! again in `f32`. Where one of them is not finite the step is left out and the factor halved; after a
//! hundred steps that were made it is doubled. It is a power of two: no number is rounded otherwise.
//!
//! # Source
//!
//! Micikevicius et al., "Mixed Precision Training", 2018 (arXiv:1710.03740), section 3.2.

use candle_core::Tensor;

use crate::device::Precision;
use crate::error::{During, Error, Result};
use crate::graph::Params;

/// Factor that halves begin with, and the most that there is.
const FIRST: f64 = (1u32 << 15) as f64;
const MOST: f64 = (1u32 << 24) as f64;

/// Steps between two doublings.
const PATIENCE: usize = 100;

/// The factor, and how long it has been good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    factor: f64,
    made: usize,
}

impl LossScale {
    /// Where a training in this precision begins; others have the factor 1 and keep it.
    #[must_use]
    pub fn of(precision: Precision) -> Self {
        let factor = match precision {
            Precision::F16 => FIRST,
            Precision::Bf16 | Precision::F32 => 1.0,
        };
        Self { factor, made: 0 }
    }

    /// What the loss is multiplied with.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// A step was made with finite gradients.
    pub fn made(&mut self) {
        self.made += 1;
        if self.made == PATIENCE {
            *self = Self { factor: (2.0 * self.factor).min(MOST), made: 0 };
        }
    }

    /// Gradients were not finite: they are to be left out.
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`] when the factor was 1 or less: then it is not to blame.
    pub fn overflowed(&mut self) -> Result<()> {
        if self.factor <= 1.0 {
            return Err(Error::Overflow { precision: "f16" });
        }
        *self = Self { factor: self.factor / 2.0, made: 0 };
        Ok(())
    }

    /// `gradients` of the scaled loss as those of the loss.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn unscaled(&self, gradients: Params) -> Result<Params> {
        if self.factor == 1.0 {
            return Ok(gradients);
        }
        let divided = |gradient: Tensor| (gradient / self.factor).during("unscaling gradients");
        gradients.tensors()?.into_iter().map(|(name, gradient)| Ok((name, divided(gradient)?))).collect()
    }
}

/// Whether all numbers of these `f32` tensors are finite.
///
/// # Errors
///
/// [`Error::Tensor`] when the device refuses.
pub fn are_finite(gradients: &Params) -> Result<bool> {
    if gradients.is_empty() {
        return Ok(true);
    }
    let mut sums = Vec::with_capacity(gradients.len());
    for (_, gradient) in gradients.iter() {
        // Halves are too small for finite ones to leave the numbers of `f32` together.
        sums.push(gradient.tensor()?.sum_all().during("looking for infinite gradients")?);
    }
    // One answer for all, since a device is waited for.
    let all = Tensor::stack(&sums, 0).and_then(|sums| sums.to_vec1::<f32>());
    Ok(all.during("looking for infinite gradients")?.iter().all(|sum| sum.is_finite()))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_factor_is_halved_by_an_overflow_and_doubled_by_patience() {
        let mut scale = LossScale::of(Precision::F16);
        (0..PATIENCE - 1).for_each(|_| scale.made());
        scale.overflowed().unwrap();
        assert_eq!(scale.factor(), FIRST / 2.0);
        (0..PATIENCE).for_each(|_| scale.made());
        assert_eq!(scale.factor(), FIRST);
        (0..20 * PATIENCE).for_each(|_| scale.made());
        assert_eq!(scale.factor(), MOST);
    }

    #[test]
    fn an_overflow_without_a_factor_is_an_error() {
        let mut scale = LossScale { factor: 2.0, made: 0 };
        scale.overflowed().unwrap();
        assert_eq!(scale.overflowed().unwrap_err().code(), 32);
        assert_eq!(LossScale::of(Precision::F32).overflowed().unwrap_err().code(), 32);
    }

    #[test]
    fn one_infinite_number_among_all_is_found() {
        let of = |numbers: &[f32]| {
            Params::from_iter([
                ("a".to_owned(), Tensor::new(&[65504f32; 9], &Device::Cpu).unwrap()),
                ("b".to_owned(), Tensor::new(numbers, &Device::Cpu).unwrap()),
            ])
        };
        assert!(are_finite(&of(&[1.0, -2.0])).unwrap());
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            assert!(!are_finite(&of(&[1.0, bad])).unwrap());
            assert!(!are_finite(&of(&[-bad, bad])).unwrap());
        }
        let halved = LossScale { factor: 2.0, made: 0 }.unscaled(of(&[3.0])).unwrap();
        assert_eq!(halved.get("b").unwrap().to_vec1::<f32>().unwrap(), [1.5]);
    }
}
