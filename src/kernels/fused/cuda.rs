//! Calls of the kernels in `kernels.cu`.
//!
//! Whoever calls has checked shapes; here it is made sure that operands are contiguous, on the device and of
//! the type of the kernel. An address is valid as long as the tensor it was taken from: everything runs in
//! the one queue of the device, frees of memory too.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Storage, Tensor};
use half::f16;

use super::TERMS;
use crate::graph::op::Window;
use crate::kernels::unfold::Unfold;

/// What the compiler made of `kernels.cu`; see `build.rs`.
const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// What candle keeps them under.
const MODULE: &str = "archrepair";

/// Threads of a block, and blocks at most: threads take elements in turns.
const THREADS: usize = 256;
const BLOCKS: usize = 1 << 16;

/// Shares of the sum of one weight of a depthwise convolution.
const LANES: usize = 64;

/// Shares of a sum of products.
const SHARES: usize = 1 << 12;

/// Sizes of windows, as in `kernels.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::kernels) struct Windows {
    n: i32,
    c: i32,
    outputs: i32,
    h: i32,
    w: i32,
    oh: i32,
    ow: i32,
    k: i32,
    stride: i32,
    padding: i32,
    dilation: i32,
}

impl Windows {
    /// Those of so many images, channels and outputs.
    pub(in crate::kernels) fn of(unfold: &Unfold, images: [usize; 3]) -> Self {
        let Unfold { window, h, w, oh, ow } = *unfold;
        let Window { k, stride, padding, dilation } = window;
        let [n, c, outputs] = images.map(|size| size as i32);
        let [h, w, oh, ow] = [h, w, oh, ow].map(|size| size as i32);
        let [k, stride, padding, dilation] = [k, stride, padding, dilation].map(|size| size as i32);
        Self { n, c, outputs, h, w, oh, ow, k, stride, padding, dilation }
    }
}

// SAFETY: the structure of `kernels.cu`, number by number.
unsafe impl DeviceRepr for Windows {}

/// What is added and applied to sums, as in `kernels.cu`; an address is 0 for nothing.
#[derive(Clone, Copy)]
#[repr(C)]
struct Finish {
    bias: u64,
    residual: u64,
    activation: i32,
}

// SAFETY: the structure of `kernels.cu`, where addresses are of 64 bits.
unsafe impl DeviceRepr for Finish {}

#[derive(Clone, Copy)]
#[repr(C)]
struct Terms {
    x: [u64; TERMS],
    p: [f32; TERMS],
    n: i32,
}

// SAFETY: as that of `Finish`.
unsafe impl DeviceRepr for Terms {}

/// A value on the device.
pub(in crate::kernels) type Value<'a> = (&'a CudaStorage, &'a Layout);

/// What is added to sums and applied to them: an `f32` for each channel, a tensor of the result's shape, and
/// the number that `kernels.cu` has for an activation.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Epilogue<'a> {
    pub(in crate::kernels) bias: Option<&'a Tensor>,
    pub(in crate::kernels) residual: Option<&'a Tensor>,
    pub(in crate::kernels) activation: i32,
}

impl Epilogue<'_> {
    fn addresses(&self, dtype: DType) -> Result<Finish> {
        let address =
            |tensor: Option<&Tensor>, dtype| tensor.map_or(Ok(0), |tensor| address_of(tensor, dtype));
        let (bias, residual) = (address(self.bias, DType::F32)?, address(self.residual, dtype)?);
        Ok(Finish { bias, residual, activation: self.activation })
    }
}

/// The epilogue on `x`, planes of `pixels` numbers.
pub(in crate::kernels) fn epilogue(
    x: Value,
    finish: Epilogue,
    [channels, pixels]: [usize; 2],
) -> Result<CudaStorage> {
    let (device, dtype, n) = (x.0.device(), x.0.dtype(), x.1.shape().elem_count());
    let (y, to) = room(device, dtype, n)?;
    let (from, finish) = (address(x, dtype)?, finish.addresses(dtype)?);
    let (channels, pixels) = (channels as i32, pixels as i32);
    let kernel = device.get_or_load_custom_func(&named("epilogue", dtype), MODULE, KERNELS)?;
    let mut call = kernel.builder();
    call.arg(&from).arg(&finish).arg(&to).arg(&channels).arg(&pixels).arg(&n);
    // SAFETY: the kernel takes these operands, and writes `n` numbers, as many as there is room for.
    unsafe { call.launch(threads(n)) }.w()?;
    Ok(y)
}

/// A depthwise convolution with its epilogue.
pub(in crate::kernels) fn depthwise(
    x: Value,
    w: &Tensor,
    finish: Epilogue,
    at: Windows,
) -> Result<CudaStorage> {
    let (device, dtype, n) = (x.0.device(), x.0.dtype(), product([at.n, at.outputs, at.oh, at.ow]));
    let (y, to) = room(device, dtype, n)?;
    let (from, w, finish) = (address(x, dtype)?, address_of(w, dtype)?, finish.addresses(dtype)?);
    let kernel = device.get_or_load_custom_func(&named("depthwise", dtype), MODULE, KERNELS)?;
    let mut call = kernel.builder();
    call.arg(&from).arg(&w).arg(&finish).arg(&to).arg(&at);
    // SAFETY: the kernel takes these operands, and writes a number for each output.
    unsafe { call.launch(threads(n)) }.w()?;
    Ok(y)
}

/// Its gradient by the input.
pub(in crate::kernels) fn depthwise_dx(dy: Value, w: &Tensor, at: Windows) -> Result<CudaStorage> {
    let (device, dtype, n) = (dy.0.device(), dy.0.dtype(), product([at.n, at.c, at.h, at.w]));
    let (dx, to) = room(device, dtype, n)?;
    let (from, w) = (address(dy, dtype)?, address_of(w, dtype)?);
    let kernel = device.get_or_load_custom_func(&named("depthwise_dx", dtype), MODULE, KERNELS)?;
    let mut call = kernel.builder();
    call.arg(&from).arg(&w).arg(&to).arg(&at);
    // SAFETY: the kernel takes these operands, and writes a number for each input.
    unsafe { call.launch(threads(n)) }.w()?;
    Ok(dx)
}

/// Its gradient by the weight, each number in shares that are still to be added: the storage, and how many
/// shares a number has.
pub(in crate::kernels) fn depthwise_dw(dy: Value, x: &Tensor, at: Windows) -> Result<(CudaStorage, usize)> {
    let (device, dtype, n) = (dy.0.device(), dy.0.dtype(), product([at.outputs, at.k, at.k]) * LANES);
    let (parts, to) = room(device, DType::F32, n)?;
    let (from, x) = (address(dy, dtype)?, address_of(x, dtype)?);
    let kernel = device.get_or_load_custom_func(&named("depthwise_dw", dtype), MODULE, KERNELS)?;
    let lanes = LANES as i32;
    let mut call = kernel.builder();
    call.arg(&from).arg(&x).arg(&to).arg(&lanes).arg(&at);
    // SAFETY: the kernel takes these operands, and writes `LANES` numbers for each weight.
    unsafe { call.launch(threads(n)) }.w()?;
    Ok((parts, LANES))
}

/// What lies under the taps of windows, by the kernel `columns`, or where what lies there goes, by
/// `adjoint_columns`: `n` numbers.
pub(in crate::kernels) fn columns(kernel: &str, x: Value, n: usize, at: Windows) -> Result<CudaStorage> {
    let (device, dtype) = (x.0.device(), x.0.dtype());
    if u32::try_from(n).is_err() {
        candle_core::bail!("{n} numbers of columns in one kernel, {} at most", u32::MAX);
    }
    let (y, to) = room(device, dtype, n)?;
    let from = address(x, dtype)?;
    let kernel = device.get_or_load_custom_func(&named(kernel, dtype), MODULE, KERNELS)?;
    let mut call = kernel.builder();
    call.arg(&from).arg(&to).arg(&at);
    // SAFETY: the kernel takes these operands, and writes a number for each place of the columns.
    unsafe { call.launch(threads(n)) }.w()?;
    Ok(y)
}

/// The sum of `p` times `xs`, of which the first is `x`; [`TERMS`] at most.
pub(in crate::kernels) fn mixture(x: Value, (xs, p): (&[&Tensor], &[f64])) -> Result<CudaStorage> {
    let (device, dtype, n) = (x.0.device(), x.0.dtype(), x.1.shape().elem_count());
    let mut terms = Terms { x: [0; TERMS], p: [0.0; TERMS], n: xs.len() as i32 };
    if xs.len() > TERMS {
        candle_core::bail!("{} candidates in one kernel, {TERMS} at most", xs.len());
    }
    for (i, (x, p)) in xs.iter().zip(p).enumerate() {
        (terms.x[i], terms.p[i]) = (address_of(x, dtype)?, *p as f32);
    }
    let (y, to) = room(device, dtype, n)?;
    let kernel = device.get_or_load_custom_func(&named("mixture", dtype), MODULE, KERNELS)?;
    let mut call = kernel.builder();
    call.arg(&terms).arg(&to).arg(&n);
    // SAFETY: the kernel takes these operands, of `n` numbers each, and writes as many.
    unsafe { call.launch(threads(n)) }.w()?;
    Ok(y)
}

/// The sum of the products of two values in shares that are still to be added: the storage, and how many.
pub(in crate::kernels) fn products(a: Value, b: &Tensor) -> Result<(CudaStorage, usize)> {
    let (device, dtype, n) = (a.0.device(), a.0.dtype(), a.1.shape().elem_count());
    let (parts, to) = room(device, DType::F32, SHARES)?;
    let (a, b) = (address(a, dtype)?, address_of(b, dtype)?);
    let kernel = device.get_or_load_custom_func(&named("products", dtype), MODULE, KERNELS)?;
    let mut call = kernel.builder();
    call.arg(&a).arg(&b).arg(&to).arg(&n).arg(&SHARES);
    // SAFETY: the kernel takes these operands, of `n` numbers each, and writes `SHARES`.
    unsafe { call.launch(threads(SHARES)) }.w()?;
    Ok((parts, SHARES))
}

fn product<const N: usize>(sizes: [i32; N]) -> usize {
    sizes.into_iter().map(|size| size as usize).product()
}

fn threads(n: usize) -> LaunchConfig {
    let blocks = n.div_ceil(THREADS).clamp(1, BLOCKS);
    LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 }
}

/// The name of a kernel for numbers of this type.
fn named(kernel: &str, dtype: DType) -> String {
    format!("{kernel}_{}", dtype.as_str())
}

/// Memory for `n` numbers, which nothing was written to yet, and its address.
fn room(device: &CudaDevice, dtype: DType, n: usize) -> Result<(CudaStorage, u64)> {
    let storage = match dtype {
        DType::F16 => of_type::<f16>(device, n)?,
        _ => of_type::<f32>(device, n)?,
    };
    let at = address((&storage, &Layout::contiguous(n)), dtype)?;
    Ok((storage, at))
}

fn of_type<T: CudaDType + DeviceRepr>(device: &CudaDevice, n: usize) -> Result<CudaStorage> {
    // SAFETY: every kernel writes all of its result before anything reads it.
    let slice = unsafe { device.alloc::<T>(n) }?;
    Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
}

/// Where a contiguous value begins, whose numbers are of this type.
fn address((storage, layout): Value, dtype: DType) -> Result<u64> {
    let Some((start, _)) = layout.contiguous_offsets() else {
        return Err(candle_core::Error::RequiresContiguous { op: "a fused kernel" });
    };
    let stream = storage.device().cuda_stream();
    let first = match dtype {
        DType::F16 => storage.as_cuda_slice::<f16>()?.device_ptr(&stream).0,
        DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
        _ => candle_core::bail!("a fused kernel takes f16 or f32"),
    };
    Ok(first + (start * dtype.size_in_bytes()) as u64)
}

fn address_of(x: &Tensor, dtype: DType) -> Result<u64> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => address((storage, layout), dtype),
        _ => candle_core::bail!("an operand of a fused kernel is not on its device"),
    }
}
