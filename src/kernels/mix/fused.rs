//! Mixtures as single kernels: all candidates are read once.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use crate::kernels::fused::{rounded, widened};
use crate::kernels::planes::{dot, wide};
use crate::kernels::slice;

/// `sum_i p_i x_i`, of at most as many candidates as one kernel mixes.
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

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::kernels::check::{CLOSE, HALVES, assert_close, cast, normal, values};
    use crate::rng::Rng;

    #[test]
    fn kernels_give_what_tensor_operations_give() {
        let rng = &mut Rng::new(1);
        let xs: Vec<Tensor> = (0..3).map(|_| normal(&[2, 3, 5], rng)).collect();
        let p = [0.25, 0.0, 1.5];
        for (dtype, tolerance) in [(DType::F32, CLOSE), (DType::F16, HALVES)] {
            let xs: Vec<Tensor> = xs.iter().map(|x| cast(x, dtype)).collect();
            // Of the numbers as they were rounded.
            let wide: Vec<Tensor> = xs.iter().map(|x| cast(x, DType::F64)).collect();
            let got = sum(&xs.iter().collect::<Vec<_>>(), &p).unwrap();
            assert_eq!(got.dtype(), dtype);
            assert_close(
                &got,
                &((&wide[0] * p[0]).unwrap() + (&wide[2] * p[2]).unwrap()).unwrap(),
                tolerance,
            );
            let want: f64 = values(&xs[0]).iter().zip(values(&xs[1])).map(|(a, b)| a * b).sum();
            assert!((products(&xs[0], &xs[1]).unwrap() - want).abs() < 1e-5);
        }
    }
}
