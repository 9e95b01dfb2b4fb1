//! What operations compute: for each a forward pass and hand-written vector-Jacobian
//! products, one file an operation.
//!
//! Every public function takes contiguous tensors and gives a contiguous tensor. It has two
//! bodies. On the CPU it works on the storage's slices, in `f32` or `f64`, with sums in an
//! order that does not depend on the number of threads. On any other device it is written in
//! candle's tensor operations, and in kernels of our own where a device has some (`fused`); that body runs
//! on the CPU too, where tests hold it against the first, and always for half precision. `is_slow_path`
//! decides. Sums of half precision are taken in `f32`.
//!
//! On the CPU a forward pass is a function `..._into` that writes to a slice and allocates nothing:
//! the tensor function makes a vector for it, `engine::executor` has planned all slices. Where such
//! a function takes an optional `x` and there is none, it changes what the slice holds.
//!
//! Shapes that do not meet, and whatever candle refuses, are [`Error::Tensor`](crate::Error).
//!
//! Legend: `x` input, `y` output, `dx` `dy` gradients of the loss by them, `dw` by the weight.

pub mod activation;
pub mod bandwidth;
pub mod batch_norm;
pub mod concat;
pub mod conv2d;
pub mod cross_entropy;
pub mod elementwise;
pub mod gate;
pub mod global_pool;
pub mod instance_norm;
pub mod instructions;
pub mod linear;
pub mod mix;
pub mod pad;
#[allow(unsafe_code)] // vector instructions
pub mod peak;
pub mod pool;

#[cfg(test)]
mod check;
mod exp;
mod fused;
pub(crate) mod in_place;
// Pointers and vector instructions: the unsafe part of the kernels.
#[allow(unsafe_code)]
pub(crate) mod matmul;
mod planes;
mod scratch;
mod share;
#[allow(unsafe_code)]
pub(crate) mod simd;
mod unfold;

pub(crate) use scratch::forward_scratch_len;
pub use scratch::{CALL_BYTES, scratch_bytes};

use std::marker::PhantomData;
use std::ops::{Deref, Range};

use candle_core::{DType, Device, Storage, Tensor, WithDType};

use crate::error::{During, Result};

/// Bytes that the threads which compute here have still to allocate for good, at their first
/// matrix product.
#[must_use]
pub fn missing_thread_bytes() -> usize {
    let missing = |_: rayon::BroadcastContext| usize::from(!matmul::has_scratch()) * matmul::SCRATCH;
    rayon::broadcast(missing).into_iter().sum()
}

/// One computation of an operation, as a planner of memory counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Gradients by the parameters.
    Dw,
    /// Gradients by the inputs; where a function returns all gradients together, those.
    Dx,
    /// The output.
    Forward,
}

/// Numbers the CPU kernels compute in.
pub(crate) trait Real: WithDType + simd::Element {
    /// `e^self`
    fn exp(self) -> Self;

    /// A position as bits, in a register beside the number that stands there. It is no number to compute with.
    fn from_position(position: u32) -> Self;

    /// The position of [`from_position`](Self::from_position).
    fn position(self) -> u32;
}

impl Real for f32 {
    fn exp(self) -> Self {
        exp::exp(self)
    }

    fn from_position(position: u32) -> Self {
        Self::from_bits(position)
    }

    fn position(self) -> u32 {
        self.to_bits()
    }
}

impl Real for f64 {
    fn exp(self) -> Self {
        self.exp()
    }

    fn from_position(position: u32) -> Self {
        Self::from_bits(position.into())
    }

    fn position(self) -> u32 {
        self.to_bits() as u32
    }
}

/// Whether `x` must be computed with candle's tensor operations: it is not on the CPU, or of a
/// type the CPU kernels do not know.
pub(crate) fn is_slow_path(x: &Tensor) -> bool {
    !matches!(x.device(), Device::Cpu) || !matches!(x.dtype(), DType::F32 | DType::F64)
}

/// Runs `$body` with the type `$T` that `$x` holds, `f32` or `f64`.
macro_rules! by_dtype {
    ($x:expr, $T:ident => $body:expr) => {
        match $x.dtype() {
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}
pub(crate) use by_dtype;

/// The elements of a contiguous CPU tensor behind a lock guard `G`, readable while this is alive.
struct Elements<G, T> {
    storage: G,
    range: Range<usize>,
    of: PhantomData<T>,
}

/// Borrows the elements of `x`, which must be contiguous, on the CPU and of type `T`.
pub(crate) fn slice<T: WithDType>(x: &Tensor) -> Result<impl Deref<Target = [T]> + '_> {
    let (storage, layout) = x.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(candle_core::Error::RequiresContiguous { op: "slice" }).during("reading a tensor");
    };
    let Storage::Cpu(cpu) = &*storage else {
        return Err(candle_core::Error::Msg("not on the CPU".into())).during("reading a tensor");
    };
    // Checks the type once, so that `deref` cannot fail.
    T::cpu_storage_as_slice(cpu).during("reading a tensor")?;
    Ok(Elements { storage, range: start..end, of: PhantomData })
}

impl<G: Deref<Target = Storage>, T: WithDType> Deref for Elements<G, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let Storage::Cpu(cpu) = &*self.storage else { return &[] };
        T::cpu_storage_as_slice(cpu).map_or(&[], |all| &all[self.range.clone()])
    }
}

/// A CPU tensor of these elements; the vector is moved, not copied.
pub(crate) fn tensor<T: WithDType>(elements: Vec<T>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(elements, shape, &Device::Cpu).during("wrapping a result")
}
