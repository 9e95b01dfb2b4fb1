//! Depthwise convolutions, and the epilogue behind the products of others, as single kernels.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::{Epilogue, Finish, Sizes};
#[cfg(feature = "cuda")]
use crate::kernels::fused::cuda;
use crate::kernels::fused::{rounded, widened};
use crate::kernels::planes::wide;
use crate::kernels::{slice, tensor};

/// A depthwise convolution with its epilogue.
pub(super) fn depthwise(
    sizes: &Sizes,
    x: &Tensor,
    w: &Tensor,
    epilogue: Epilogue,
) -> candle_core::Result<Tensor> {
    let bias = bias(epilogue)?;
    let epilogue = Epilogue { bias: bias.as_ref(), ..epilogue };
    x.apply_op1_no_bwd(&Forward { sizes, w, epilogue })
}

/// Its gradient by the input.
pub(super) fn depthwise_dx(sizes: &Sizes, dy: &Tensor, w: &Tensor) -> candle_core::Result<Tensor> {
    dy.apply_op1_no_bwd(&Dx { sizes, w })
}

/// Its gradient by the weight, in `f32`.
pub(super) fn depthwise_dw(sizes: &Sizes, dy: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
    let parts = dy.apply_op1_no_bwd(&Dw { sizes, x })?;
    parts.sum(1)?.reshape(sizes.conv.weight_shape(sizes.c))
}

/// `sums` `[n, outputs, oh, ow]` with the epilogue.
pub(super) fn finished(sizes: &Sizes, sums: &Tensor, epilogue: Epilogue) -> candle_core::Result<Tensor> {
    let bias = bias(epilogue)?;
    sums.apply_op1_no_bwd(&Finished { sizes, epilogue: Epilogue { bias: bias.as_ref(), ..epilogue } })
}

/// Kernels add an `f32` for each channel.
fn bias(epilogue: Epilogue) -> candle_core::Result<Option<Tensor>> {
    epilogue.bias.map(wide).transpose()
}

struct Forward<'a> {
    sizes: &'a Sizes,
    w: &'a Tensor,
    epilogue: Epilogue<'a>,
}

struct Dx<'a> {
    sizes: &'a Sizes,
    w: &'a Tensor,
}

struct Dw<'a> {
    sizes: &'a Sizes,
    x: &'a Tensor,
}

struct Finished<'a> {
    sizes: &'a Sizes,
    epilogue: Epilogue<'a>,
}

/// candle's error of ours.
fn refused(error: crate::Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

impl CustomOp1 for Forward<'_> {
    fn name(&self) -> &'static str {
        "depthwise convolution"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let residual = self.epilogue.residual.map(wide).transpose()?;
        let epilogue = Epilogue { residual: residual.as_ref(), ..self.epilogue };
        let y = super::forward_cpu::<f32>(self.sizes, &widened(x, layout)?, &wide(self.w)?, epilogue);
        rounded(&y.map_err(refused)?, x)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let finish = on_device(self.sizes, self.epilogue);
        let y = cuda::depthwise((x, layout), self.w, finish, windows(self.sizes))?;
        Ok((y, self.sizes.y_shape().as_slice().into()))
    }
}

impl CustomOp1 for Dx<'_> {
    fn name(&self) -> &'static str {
        "depthwise convolution backward by the input"
    }

    fn cpu_fwd(&self, dy: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let dx = super::dx_cpu::<f32>(self.sizes, &widened(dy, layout)?, &wide(self.w)?);
        rounded(&dx.map_err(refused)?, dy)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        dy: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let dx = cuda::depthwise_dx((dy, layout), self.w, windows(self.sizes))?;
        Ok((dx, self.sizes.x_shape().as_slice().into()))
    }
}

/// The shares of each weight's sum, `[weights, shares]`; on the CPU one.
impl CustomOp1 for Dw<'_> {
    fn name(&self) -> &'static str {
        "depthwise convolution backward by the weight"
    }

    fn cpu_fwd(&self, dy: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let dw = super::dw_cpu::<f32>(self.sizes, &widened(dy, layout)?, &wide(self.x)?);
        let dw = dw.map_err(refused)?.flatten_all()?.to_vec1::<f32>()?;
        Ok((CpuStorage::F32(dw), (self.sizes.weight_len(), 1).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        dy: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let (parts, shares) = cuda::depthwise_dw((dy, layout), self.x, windows(self.sizes))?;
        Ok((parts, (self.sizes.weight_len(), shares).into()))
    }
}

impl CustomOp1 for Finished<'_> {
    fn name(&self) -> &'static str {
        "end of a convolution"
    }

    fn cpu_fwd(&self, sums: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Self { sizes, epilogue } = self;
        let residual = epilogue.residual.map(wide).transpose()?;
        let mut y: Vec<f32> = widened(sums, layout)?.flatten_all()?.to_vec1()?;
        let read = |tensor: Option<&Tensor>| tensor.map(|t| slice::<f32>(t).map(|t| t.to_vec())).transpose();
        let [bias, residual] = [epilogue.bias, residual.as_ref()].map(read);
        let (bias, residual) = (bias.map_err(refused)?, residual.map_err(refused)?);
        let activation = sizes.conv.activation;
        let finish = Finish { activation, bias: bias.as_deref(), residual: residual.as_deref() };
        let pixels = (sizes.unfold.oh * sizes.unfold.ow).max(1);
        for (plane, y) in y.chunks_mut(pixels).enumerate() {
            finish.apply(y, plane % sizes.conv.outputs, plane * pixels);
        }
        rounded(&tensor(y, &sizes.y_shape()).map_err(refused)?, sums)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        sums: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let [_, channels, oh, ow] = self.sizes.y_shape();
        let finish = on_device(self.sizes, self.epilogue);
        let y = cuda::epilogue((sums, layout), finish, [channels, oh * ow])?;
        Ok((y, layout.shape().clone()))
    }
}

#[cfg(feature = "cuda")]
fn on_device<'a>(sizes: &Sizes, epilogue: Epilogue<'a>) -> cuda::Epilogue<'a> {
    use crate::graph::op::Activation;

    let activation = match sizes.conv.activation {
        None => 0,
        Some(Activation::HardSwish) => 1,
        Some(Activation::Relu) => 2,
        Some(Activation::Relu6) => 3,
        Some(Activation::Sigmoid) => 4,
        Some(Activation::Silu) => 5,
        Some(Activation::HardSigmoid) => 6,
    };
    cuda::Epilogue { bias: epilogue.bias, residual: epilogue.residual, activation }
}

#[cfg(feature = "cuda")]
fn windows(sizes: &Sizes) -> cuda::Windows {
    cuda::Windows::of(&sizes.unfold, [sizes.n, sizes.c, sizes.conv.outputs])
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::slow;
    use super::*;
    use crate::graph::op::{Activation, Conv2d};
    use crate::kernels::check::{CLOSE, HALVES, assert_close, cast, normal};
    use crate::rng::Rng;

    const ACTIVATIONS: [Option<Activation>; 7] = [
        None,
        Some(Activation::HardSigmoid),
        Some(Activation::HardSwish),
        Some(Activation::Relu),
        Some(Activation::Relu6),
        Some(Activation::Sigmoid),
        Some(Activation::Silu),
    ];

    /// In `f64` there are no kernels here: `slow` computes in candle's operations.
    #[test]
    fn kernels_give_what_tensor_operations_give() {
        let rng = &mut Rng::new(1);
        let windows = [(3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 4, 2), (1, 1, 0, 1), (2, 3, 0, 1)];
        let settings =
            windows.into_iter().flat_map(|window| ACTIVATIONS.map(|activation| (window, activation)));
        for (i, ((k, stride, padding, dilation), activation)) in settings.enumerate() {
            let (c, multiplier) = (3, 1 + i % 2);
            let conv = Conv2d {
                padding,
                dilation,
                groups: c,
                activation,
                ..Conv2d::valid(c * multiplier, k, stride)
            };
            let sizes = Sizes::new(&conv, &[2, c, 7, 6], &conv.weight_shape(c)).unwrap();
            let drawn = [&sizes.x_shape()[..], &conv.weight_shape(c), &sizes.y_shape(), &sizes.y_shape()];
            let drawn = drawn.map(|shape| normal(shape, rng));
            let bias = cast(&normal(&[conv.outputs], rng), DType::F32);
            for (dtype, tolerance) in [(DType::F32, CLOSE), (DType::F16, HALVES)] {
                let narrow = drawn.each_ref().map(|t| cast(t, dtype));
                let wide = narrow.each_ref().map(|t| cast(t, DType::F64));
                let ([x, w, dy, residual], [wide_x, wide_w, wide_dy, wide_residual]) = (&narrow, &wide);
                let epilogue = |bias, residual| Epilogue {
                    bias: (i % 3 > 0).then_some(bias),
                    residual: (i % 4 > 1).then_some(residual),
                };
                let wide_bias = &cast(&bias, DType::F64);
                let (of, wide_of) = (epilogue(&bias, residual), epilogue(wide_bias, wide_residual));
                let y = depthwise(&sizes, x, w, of).unwrap();
                assert_eq!(y.dtype(), dtype);
                assert_close(&y, &slow::forward(&sizes, wide_x, wide_w, wide_of).unwrap(), tolerance);
                let end = finished(&sizes, dy, of).unwrap();
                assert_close(&end, &slow::finished(&sizes, wide_dy, wide_of).unwrap(), tolerance);
                let dx = depthwise_dx(&sizes, dy, w).unwrap();
                assert_close(&dx, &slow::dx(&sizes, wide_dy, wide_w).unwrap(), tolerance);
                let dw = depthwise_dw(&sizes, dy, x).unwrap();
                assert_close(&dw, &slow::dw(&sizes, wide_dy, wide_x).unwrap(), tolerance);
            }
        }
    }
}
