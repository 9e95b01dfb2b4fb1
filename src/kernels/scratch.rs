//! What an operation needs beside inputs and outputs, by operation: for the planner of memory.

use super::conv2d::Sizes;
use super::pool::Windows;
use super::{Pass, batch_norm, conv2d, gate, instance_norm, mix, pool};
use crate::error::Result;
use crate::graph::op::Op;

/// Most bytes that one pass of `op` in `f32` on the CPU allocates beside its results, for a first
/// input of shape `x` (images first) on `threads` threads. They are free again when it returns.
///
/// Not counted: what matrix products keep for each thread, and the few hundred bytes of shapes
/// and headers that any call handles, [`CALL_BYTES`] at most.
///
/// # Errors
///
/// [`crate::Error::Graph`] and [`crate::Error::Tensor`] when the shape does not fit.
pub fn scratch_bytes(op: &Op, x: &[usize], pass: Pass, threads: usize) -> Result<usize> {
    Ok(match op {
        Op::AvgPool(window) | Op::MaxPool(window) => pool::scratch_bytes(window, x, threads)?,
        Op::BatchNorm { .. } => batch_norm::scratch_bytes(x, pass, threads),
        Op::Conv2d(conv) => conv2d::scratch_bytes(conv, x, pass, threads)?,
        Op::Gate => gate::scratch_bytes(x, pass),
        Op::InstanceNorm { .. } => instance_norm::scratch_bytes(x, pass),
        Op::Mix => mix::scratch_bytes(x, pass),
        Op::Activation { .. }
        | Op::Add
        | Op::Concat
        | Op::Flatten
        | Op::GlobalAvgPool
        | Op::GlobalStdPool { .. }
        | Op::Identity
        | Op::Linear { .. }
        | Op::Mul
        | Op::Pad(_)
        | Op::Zero { .. } => 0,
    })
}

/// Numbers of scratch that the forward pass of `op` on slices takes, for a first input of shape
/// `[n, c, h, w]` on `threads` threads; for fewer images no thread needs more.
///
/// # Errors
///
/// As [`scratch_bytes`].
pub(crate) fn forward_scratch_len(op: &Op, x: [usize; 4], threads: usize) -> Result<usize> {
    let [n, c, h, w] = x;
    Ok(match op {
        Op::AvgPool(window) => pool::avg_scratch_len(&Windows::sized(window, [h, w])?),
        Op::Conv2d(conv) => conv2d::scratch_len::<f32>(&Sizes::of(conv, x)?, threads),
        Op::MaxPool(window) => pool::max_scratch_len(&Windows::sized(window, [h, w])?, n * c, threads),
        _ => 0,
    })
}

/// Most bytes of shapes, of headers of tensors and of the thread pool's queue that a call
/// allocates beside results and [`scratch_bytes`].
pub const CALL_BYTES: usize = 8 << 10;
