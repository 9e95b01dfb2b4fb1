//! Mixtures as single kernels: all candidates are read once.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use crate::kernels::fused::{rounded, widened};
use crate::kernels::planes::{dot, wide};
use crate::kernels::slice;

/// Candidates that are mixed at once.
pub(super) const MOST: usize = 16;

/// `sum_i p_i x_i`, of [`MOST`] candidates at most.
pub(super) fn sum(xs: &[&Tensor], p: &[f64]) -> candle_core::Result<Tensor> {
    xs[0].apply_op1_no_bwd(&Mixture { xs, p })
}

/// `sum a b` over all elements.
pub(super) fn products(a: &Tensor, b: &Tensor) -> candle_core::Result<f64> {
    let parts = a.apply_op1_no_bwd(&Products { b })?.to_vec1::<f32>()?;
    Ok(parts.into_iter().map(f64::from).sum())
}

struct Mixture<'a> {
    xs: &'a [&'a Tensor],
    p: &'a [f64],
}

struct Products<'a> {
    b: &'a Tensor,
}

impl CustomOp1 for Mixture<'_> {
    fn name(&self) -> &'static str {
        "mixture"
    }

    fn cpu_fwd(&self, first: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let xs = self.xs.iter().map(|x| wide(x)).collect::<candle_core::Result<Vec<_>>>()?;
        let y = super::fast::<f32>(&xs.iter().collect::<Vec<_>>(), self.p);
        rounded(&y.map_err(candle_core::Error::wrap)?, first)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        first: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let y = crate::kernels::fused::cuda::mixture((first, layout), (self.xs, self.p))?;
        Ok((y, layout.shape().clone()))
    }
}

/// Shares of the sum; on the CPU one.
impl CustomOp1 for Products<'_> {
    fn name(&self) -> &'static str {
        "sum of products"
    }

    fn cpu_fwd(&self, a: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (a, b) = (widened(a, layout)?, wide(self.b)?);
        let read = |x| slice::<f32>(x).map_err(candle_core::Error::wrap);
        let sum = dot::<f32>(&read(&a)?, &read(&b)?) as f32;
        Ok((CpuStorage::F32(vec![sum]), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let (parts, shares) = crate::kernels::fused::cuda::products((a, layout), self.b)?;
        Ok((parts, shares.into()))
    }
}
