//! Operations that are one kernel where candle has none, or several with passes over memory between them.
//!
//! CUDA devices run `kernels.cu`. On the CPU the same calls, with halves, run the CPU's own body in `f32`
//! between two roundings: what tests run on halves is what a GPU runs, but for that file, which
//! `.ci/kernels` holds against plain loops. Metal computes in candle's operations.
//!
//! Sums are taken in `f32` and rounded once.

#[cfg(feature = "cuda")]
#[allow(unsafe_code)] // calls into the driver
pub(super) mod cuda;

use candle_core::{CpuStorage, DType, Device, Layout, Shape, Tensor};
use half::f16;

/// Candidates that one kernel mixes at most, as in `kernels.cu`.
pub(super) const TERMS: usize = 16;

/// Whether `x` is computed with by the operations that are one kernel.
pub(super) fn has_kernels(x: &Tensor) -> bool {
    match x.device() {
        Device::Cpu => x.dtype() == DType::F16,
        Device::Cuda(_) => matches!(x.dtype(), DType::F16 | DType::F32),
        Device::Metal(_) => false,
    }
}

/// What an operation reads on the CPU, in `f32`.
pub(super) fn widened(storage: &CpuStorage, layout: &Layout) -> candle_core::Result<Tensor> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(candle_core::Error::RequiresContiguous { op: "a fused kernel" });
    };
    let numbers: Vec<f32> = match storage {
        CpuStorage::F16(halves) => halves[start..end].iter().map(|x| x.to_f32()).collect(),
        CpuStorage::F32(singles) => singles[start..end].to_vec(),
        _ => candle_core::bail!("a fused kernel takes f16 or f32"),
    };
    Tensor::from_vec(numbers, layout.shape(), &Device::Cpu)
}

/// What an operation gives on the CPU, rounded as `like` is.
pub(super) fn rounded(y: &Tensor, like: &CpuStorage) -> candle_core::Result<(CpuStorage, Shape)> {
    let numbers = y.flatten_all()?;
    let storage = match like {
        CpuStorage::F16(_) => CpuStorage::F16(numbers.to_dtype(DType::F16)?.to_vec1::<f16>()?),
        _ => CpuStorage::F32(numbers.to_vec1()?),
    };
    Ok((storage, y.shape().clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_mix_as_many_candidates() {
        assert!(include_str!("fused/kernels.cu").contains(&format!("#define TERMS {TERMS}\n")));
    }

    #[test]
    fn halves_are_rounded_once_and_other_types_refused() {
        let layout = Layout::contiguous(2);
        let halves = CpuStorage::F16(vec![f16::from_f32(0.5), f16::from_f32(3.0)]);
        let x = widened(&halves, &layout).unwrap();
        assert_eq!(x.to_vec1::<f32>().unwrap(), [0.5, 3.0]);
        // 2,049 lies between the halves 2,048 and 2,050; the even one of equally near ones is taken.
        let (y, _) = rounded(&Tensor::new(&[2049f32, 1e6], &Device::Cpu).unwrap(), &halves).unwrap();
        let CpuStorage::F16(y) = y else { panic!("no halves") };
        assert_eq!(y.iter().map(|y| y.to_f32()).collect::<Vec<_>>(), [2048.0, f32::INFINITY]);
        assert!(widened(&CpuStorage::F64(vec![0.0; 2]), &layout).is_err());
    }
}
