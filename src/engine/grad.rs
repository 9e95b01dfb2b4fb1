//! Forward and backward passes by hand-written vector-Jacobian products.
//!
//! Rules:
//!
//! 1. A gradient is computed only if it leads to something wanted: a trained tensor, or the
//!    input when `input` asks for it. A frozen suffix thus passes gradients and forms none for
//!    its weights; a frozen prefix is not visited.
//! 2. Of the forward pass a node keeps what its wanted gradients read, no more. A ReLU of a
//!    frozen suffix keeps one bit an element; a frozen convolution keeps nothing.
//! 3. A forward pass writes nothing: batch statistics are returned, the caller decides.

mod node;

use candle_core::Tensor;

use self::node::{Context, Kept};
use super::infer::inputs;
use crate::error::{Error, Result};
use crate::graph::{Graph, INPUT, Params};
use crate::kernels::batch_norm::Statistics;
use crate::kernels::elementwise;

/// Which gradients a pass is for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Whether the tensor of this full name is trained.
    pub trained: &'a dyn Fn(&str) -> bool,
    /// Whether the gradient by the graph's input is asked for.
    pub input: bool,
    /// Which statistics batch norms use.
    pub norms: Norms,
}

/// Statistics of batch norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Of the batch, as in training from scratch.
    Batch,
    /// The stored ones.
    Fixed,
}

impl Wanted<'_> {
    /// A frozen graph that passes gradients on to its input.
    pub const INPUT_ONLY: Wanted<'static> = Wanted { trained: &|_| false, input: true, norms: Norms::Fixed };
}

/// A forward pass and what its backward pass will read.
#[derive(Debug)]
pub struct Trace {
    /// The graph's output.
    pub y: Tensor,
    /// Batch statistics by name of the batch-norm node, with [`Norms::Batch`].
    pub statistics: Vec<(String, Statistics)>,
    /// For each node what it keeps.
    kept: Vec<Kept>,
    /// For each value its shape.
    shapes: Vec<Vec<usize>>,
    /// For each value whether its gradient is computed.
    needed: Vec<bool>,
}

/// Gradients of a loss.
#[derive(Debug, Default)]
pub struct Gradients {
    /// By the input, if asked for.
    pub input: Option<Tensor>,
    /// By the trained tensors.
    pub params: Params,
}

impl Trace {
    /// Bytes kept for the backward pass; a value that several nodes keep counts once.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let mut seen = std::collections::BTreeSet::new();
        let tensors = self
            .kept
            .iter()
            .flat_map(|kept| kept.inputs.iter().flatten().chain(&kept.activation).chain(&kept.argmax));
        tensors
            .filter(|t| seen.insert(format!("{:?}", t.id())))
            .map(|t| t.elem_count() * t.dtype().size_in_bytes())
            .sum()
    }
}

/// The output of `graph` for `x`, with what [`backward`] needs.
///
/// # Errors
///
/// As [`super::infer::infer`].
pub fn forward(graph: &Graph, params: &Params, x: &Tensor, wanted: Wanted) -> Result<Trace> {
    let needed = needed(graph, &x.dims()[1..], wanted)?;
    let last_use = graph.last_uses();
    let mut values = vec![Some(x.clone())];
    let (mut kept, mut shapes, mut statistics) = (Vec::new(), vec![x.dims().to_vec()], Vec::new());
    for (i, node) in graph.nodes.iter().enumerate() {
        let xs = inputs(node, &values)?;
        let context = Context { node, params, wanted, needed: &needed };
        let (y, keep) = context.forward(&xs, needed[i + 1])?;
        statistics.extend(keep.statistics.clone().map(|found| (node.name.clone(), found)));
        shapes.push(y.dims().to_vec());
        values.push(Some(y));
        kept.push(keep);
        for &v in &node.inputs {
            if last_use[v] == Some(i) {
                values[v] = None;
            }
        }
    }
    let y = values
        .pop()
        .flatten()
        .ok_or_else(|| Error::Graph { node: "output".into(), problem: "is missing".into() })?;
    Ok(Trace { y, statistics, kept, shapes, needed })
}

/// Gradients for `dy`, the gradient of the loss by the output of `trace`.
///
/// # Errors
///
/// As [`forward`]; `graph`, `params` and `wanted` must be those of the forward pass.
pub fn backward(
    graph: &Graph,
    params: &Params,
    wanted: Wanted,
    (trace, dy): (Trace, Tensor),
) -> Result<Gradients> {
    let Trace { mut kept, shapes, needed, .. } = trace;
    let mut by_value: Vec<Option<Tensor>> = vec![None; shapes.len()];
    by_value[graph.output()] = Some(dy);
    let mut gradients = Gradients::default();
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        let (Some(dy), Some(kept)) = (by_value[i + 1].take(), kept.pop()) else { continue };
        if !needed[i + 1] {
            continue;
        }
        let context = Context { node, params, wanted, needed: &needed };
        let x_shapes: Vec<&[usize]> = node.inputs.iter().map(|&v| shapes[v].as_slice()).collect();
        let dxs = context.backward(&kept, &dy, &x_shapes, &mut gradients.params)?;
        for (&v, dx) in node.inputs.iter().zip(dxs) {
            let Some(dx) = dx else { continue };
            by_value[v] = Some(match by_value[v].take() {
                Some(sum) => elementwise::add(&sum, &dx)?,
                None => dx,
            });
        }
    }
    gradients.input = by_value.swap_remove(INPUT).filter(|_| wanted.input);
    Ok(gradients)
}

/// For each value whether a gradient through it leads to something wanted.
fn needed(graph: &Graph, input: &[usize], wanted: Wanted) -> Result<Vec<bool>> {
    let shapes = graph.shapes(input)?;
    let mut needed = vec![wanted.input];
    for node in &graph.nodes {
        let inputs: Vec<_> = node.inputs.iter().map(|&v| shapes[v].clone()).collect();
        let own =
            node.op.params(&inputs).iter().any(|p| p.trainable && (wanted.trained)(&node.param(p.suffix)));
        needed.push(own || node.inputs.iter().any(|&v| needed[v]));
    }
    Ok(needed)
}
