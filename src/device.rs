//! Where tensors live and what they take there. Backends and Cargo features are named here, and where
//! kernels for a device are our own.

pub mod compute;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)] // calls into the driver
mod pool;

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use serde::Serialize;

pub use self::compute::{Compute, Precision, to_host};
use crate::error::{Error, Result};

/// The device the user asked for, known in every build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The processor; always there.
    #[default]
    Cpu,
    /// The CUDA device with this ordinal, counted from 0.
    Cuda(usize),
    /// The Metal device with this ordinal, counted from 0.
    Metal(usize),
}

impl DeviceChoice {
    /// Opens the device, and nothing else: asking for CUDA never yields the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceNotBuilt`] without the Cargo feature, [`Error::Tensor`] when the driver
    /// or the device is missing.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => open_cuda(ordinal),
            Self::Metal(ordinal) => open_metal(ordinal),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Metal(ordinal) => write!(f, "metal:{ordinal}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::UnknownName {
            kind: "device",
            got: text.into(),
            known: "cpu, cuda, cuda:N, metal, metal:N".into(),
        };
        let (name, ordinal) = text.split_once(':').unwrap_or((text, "0"));
        let ordinal = ordinal.parse().map_err(|_| unknown())?;
        match name {
            "cpu" if text == "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(ordinal)),
            "metal" => Ok(Self::Metal(ordinal)),
            _ => Err(unknown()),
        }
    }
}

/// What a device is called: `cpu`, `cuda` or `metal`.
#[must_use]
pub fn kind(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

/// The most that this process has taken on a device since it opened it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceMemory {
    /// By tensors, at once.
    pub used: usize,
    /// By the pool that the driver cuts tensors from, at once: what others could not have.
    pub reserved: usize,
}

/// Marks of `device`: of CUDA devices whose driver keeps pools (`cuMemAllocAsync`). The CPU's bytes
/// are counted elsewhere, by the program's allocator; Metal keeps no marks.
///
/// # Errors
///
/// [`Error::Tensor`] when the driver does not answer.
pub fn memory(device: &Device) -> Result<Option<DeviceMemory>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(on) => {
            use crate::error::During;

            pool::marks(on).map_err(candle_core::Error::wrap).during("reading the memory of the CUDA device")
        }
        _ => Ok(None),
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<Device> {
    use crate::error::During;

    // As it is from the start: products of halves, and of singles, are summed in `f32`.
    candle_core::cuda::set_gemm_reduced_precision_f16(false);
    candle_core::cuda::set_gemm_reduced_precision_f32(false);
    Device::new_cuda(ordinal).during("opening the CUDA device")
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_ordinal: usize) -> Result<Device> {
    Err(Error::DeviceNotBuilt { device: "cuda" })
}

#[cfg(feature = "metal")]
fn open_metal(ordinal: usize) -> Result<Device> {
    use crate::error::During;

    Device::new_metal(ordinal).during("opening the Metal device")
}

#[cfg(not(feature = "metal"))]
fn open_metal(_ordinal: usize) -> Result<Device> {
    Err(Error::DeviceNotBuilt { device: "metal" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_print_as_they_are_read() {
        for text in ["cpu", "cuda:0", "cuda:3", "metal:1"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        assert_eq!("cpu:1".parse::<DeviceChoice>().unwrap_err().code(), 23);
    }

    #[test]
    fn the_cpu_has_no_marks_of_its_own() {
        assert_eq!(memory(&Device::Cpu).unwrap(), None);
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn asking_for_cuda_never_yields_the_cpu() {
        let error = DeviceChoice::Cuda(0).open().unwrap_err();
        assert_eq!(error.to_string(), "no cuda in this build, rebuild with `--features cuda`");
    }
}
