//! A forward pass in planned memory: after the first call nothing is allocated.
//!
//! [`infer`](super::infer::infer) makes a tensor for each node. An [`Executor`] has one block,
//! laid out by a [`Layout`], and computes on slices of it by the same kernels: its results have
//! the bits of [`infer`](super::infer::infer), for any number of images and threads.

mod carve;
mod compute;

use std::ops::Range;

use self::carve::carve;
use super::layout::{Layout, is_alias};
use crate::error::{Error, Result};
use crate::meter;

/// What runs one graph, in `f32` on the CPU.
///
/// # Examples
///
/// ```
/// use archrepair::engine::layout::Layout;
/// use archrepair::graph::op::{Activation, Op};
/// use archrepair::graph::{Graph, INPUT, Params};
///
/// let (mut graph, params) = (Graph::default(), Params::default());
/// graph.push("relu", Op::Activation { kind: Activation::Relu }, &[INPUT]);
/// let mut executor = Layout::new((&graph, &params), (&[2], 8), 1)?.executor()?;
/// executor.input(1)?.copy_from_slice(&[-1.0, 2.0]);
/// assert_eq!(executor.run(1)?, [0.0, 2.0]);
/// # Ok::<(), archrepair::Error>(())
/// ```
#[derive(Debug)]
pub struct Executor<'a> {
    layout: Layout<'a>,
    memory: Vec<f32>,
    /// The first number of `memory` that begins a cache line.
    start: usize,
}

impl<'a> Executor<'a> {
    pub(super) fn new(layout: Layout<'a>) -> Result<Self> {
        meter::reserve("memory for inference", layout.memory_bytes())?;
        let memory = vec![0.0f32; layout.memory_len()];
        let start = memory.as_ptr().align_offset(size_of::<[f32; super::layout::LINE]>());
        // What cannot be told is not aligned, and as right.
        let start = start.min(memory.len() - layout.len);
        Ok(Self { layout, memory, start })
    }

    /// Where the input of `n` images belongs, `n` times the numbers of one. It holds anything:
    /// passes write over it.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when `n` is over the batch of the layout.
    pub fn input(&mut self, n: usize) -> Result<&mut [f32]> {
        let range = self.checked(self.layout.input().range(n), n)?;
        Ok(&mut self.memory[range])
    }

    /// The output for `n` images, one after another. They are read from [`Executor::input`], where
    /// each call finds them only once: write them anew for the next.
    ///
    /// Nothing is allocated but what each thread keeps from its first matrix product on, and in a
    /// call from outside of the thread pool what its queue needs: a small block in some dozen calls.
    ///
    /// # Errors
    ///
    /// As [`Executor::input`], and [`Error::Tensor`] when a weight cannot be read.
    pub fn run(&mut self, n: usize) -> Result<&[f32]> {
        self.observe(n, |_| ())
    }

    /// As [`Executor::run`], and shows the number of each node of the graph as its output is there,
    /// in their order: whoever takes the time knows what each node needs.
    ///
    /// # Errors
    ///
    /// As [`Executor::run`].
    pub fn observe(&mut self, n: usize, mut show: impl FnMut(usize) + Send) -> Result<&[f32]> {
        let range = self.checked(self.layout.output().range(n), n)?;
        if n > 0 {
            rayon::scope(|_| {
                (0..self.layout.steps.len()).try_for_each(|i| {
                    self.step(i, n)?;
                    show(i);
                    Ok::<_, Error>(())
                })
            })?;
        }
        Ok(&self.memory[range])
    }

    /// The layout it runs in.
    #[must_use]
    pub fn layout(&self) -> &Layout<'a> {
        &self.layout
    }

    fn step(&mut self, i: usize, n: usize) -> Result<()> {
        let step = &self.layout.steps[i];
        if is_alias(&step.node.op) {
            return Ok(());
        }
        let memory = &mut self.memory[self.start..];
        for operand in step.weights.iter().flatten() {
            if let Some(range) = &operand.widened {
                operand.weight.widen_into(&mut memory[range.clone()]);
            }
        }
        let y = self.layout.place(i + 1).range(n);
        let (written, read) = carve(memory, [y, step.scratch.clone()]);
        compute::compute(step, (&self.layout, n), &read, written)
    }

    fn checked(&self, range: Range<usize>, n: usize) -> Result<Range<usize>> {
        let batch = self.layout.batch;
        if n <= batch {
            return Ok(range.start + self.start..range.end + self.start);
        }
        Err(Error::Config { field: "images", got: n.to_string(), want: format!("at most {batch}") })
    }
}
