//! Where passes compute, and in which numbers.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use serde::Serialize;

use crate::error::{During, Error, Result};

/// How a number is kept or computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Half the bytes, 8 bits of mantissa, the range of `f32`. In passes on the CPU: the products of
    /// convolutions, two at once, while all else is `f32`.
    Bf16,
    /// Half the bytes, 11 bits of mantissa, nothing above 65,504.
    F16,
    /// Single precision.
    F32,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// `bf16`, `f16` or `f32`.
    fn from_str(text: &str) -> Result<Self> {
        let found =
            [Self::Bf16, Self::F16, Self::F32].into_iter().find(|precision| precision.to_string() == text);
        found.ok_or_else(|| Error::UnknownName {
            kind: "precision",
            got: text.into(),
            known: "bf16, f16, f32".into(),
        })
    }
}

/// Where passes compute, and in which numbers.
///
/// Weights rest in `f32` on the CPU and results return to it; a pass works on copies. With
/// [`Precision::F16`] values, gradients and weights of two axes or more are halves; weights of one number
/// a channel, choices among alternatives, what an optimizer remembers, and the loss stay `f32`, and so do
/// the sums in which halves are added up, wherever a device allows it.
#[derive(Clone, Debug)]
pub struct Compute {
    /// The device, which is open.
    pub device: Device,
    /// The precision of values.
    pub precision: Precision,
}

impl Compute {
    /// The CPU in `f32`: kernels of our own, in memory that is planned.
    pub const HOST: Self = Self { device: Device::Cpu, precision: Precision::F32 };

    /// Whether values are `f32` on the CPU, as in [`Compute::HOST`].
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.device.is_cpu() && self.precision != Precision::F16
    }

    /// A value as a pass reads it.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn value(&self, x: &Tensor) -> Result<Tensor> {
        let dtype = match self.precision {
            Precision::F16 => DType::F16,
            Precision::Bf16 | Precision::F32 => DType::F32,
        };
        x.to_device(&self.device).and_then(|x| x.to_dtype(dtype)).during("moving values")
    }

    /// A weight as a pass reads it.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn weight(&self, w: &Tensor) -> Result<Tensor> {
        if w.rank() > 1 { self.value(w) } else { self.master(w) }
    }

    /// A weight as an optimizer changes it: in `f32`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn master(&self, w: &Tensor) -> Result<Tensor> {
        w.to_device(&self.device).and_then(|w| w.to_dtype(DType::F32)).during("moving weights")
    }
}

impl PartialEq for Compute {
    fn eq(&self, other: &Self) -> bool {
        self.device.same_device(&other.device) && self.precision == other.precision
    }
}

/// What a pass gave, back on the CPU in `f32`; shared where it is there already.
///
/// # Errors
///
/// [`Error::Tensor`] when the device refuses.
pub fn to_host(x: &Tensor) -> Result<Tensor> {
    Compute::HOST.value(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_are_read_from_text() {
        assert_eq!("f32".parse::<Precision>().unwrap(), Precision::F32);
        let error = "f64".parse::<Precision>().unwrap_err().to_string();
        assert_eq!(error, "unknown precision `f64`, expected one of bf16, f16, f32");
    }

    #[test]
    fn matrices_become_halves_and_numbers_of_channels_stay() {
        let halves = Compute { precision: Precision::F16, ..Compute::HOST };
        let [matrix, channels] =
            [&[2, 3][..], &[6]].map(|s| Tensor::ones(s, DType::F32, &Device::Cpu).unwrap());
        assert_eq!(halves.weight(&matrix).unwrap().dtype(), DType::F16);
        assert_eq!(halves.weight(&channels).unwrap().dtype(), DType::F32);
        assert_eq!(halves.master(&matrix).unwrap().dtype(), DType::F32);
        assert_eq!(halves.value(&channels).unwrap().dtype(), DType::F16);
        assert_eq!(to_host(&halves.value(&matrix).unwrap()).unwrap().dtype(), DType::F32);
        assert!(Compute::HOST.is_host() && !halves.is_host() && halves != Compute::HOST);
    }

    #[test]
    fn nothing_is_copied_on_the_host() {
        let x = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
        for same in [Compute::HOST.value(&x), Compute::HOST.weight(&x), to_host(&x)] {
            assert_eq!(same.unwrap().id(), x.id());
        }
    }
}
