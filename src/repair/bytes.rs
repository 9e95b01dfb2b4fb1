//! Bytes of the tensors and values of a graph.

use crate::error::Result;
use crate::graph::lower::Lowered;
use crate::graph::op::{Op, elements};
use crate::graph::{Graph, Node};

/// Bytes of values that a search can add to what is alive in `graph`, for each image: the output of
/// an alternative and one inside of it.
pub(super) fn added_bytes(graph: &Graph, input: &[usize]) -> Result<usize> {
    let most = graph.shapes(input)?.iter().map(|shape| elements(shape)).max();
    Ok(2 * 4 * most.unwrap_or(0))
}

/// Bytes of the largest tensor of `graph` in `f32`.
pub(super) fn largest_bytes(graph: &Graph, input: &[usize]) -> Result<usize> {
    Ok(graph.params(input)?.iter().map(|p| 4 * elements(&p.param.shape)).max().unwrap_or(0))
}

/// Bytes of the convolutions of `graph`, with a bias each.
pub(super) fn convolution_bytes(graph: &Graph, input: &[usize]) -> Result<usize> {
    let shapes = graph.shapes(input)?;
    let bytes = |node: &Node| match &node.op {
        Op::Conv2d(conv) => 4 * (elements(&conv.weight_shape(shapes[node.inputs[0]][0])) + conv.outputs),
        _ => 0,
    };
    Ok(graph.nodes.iter().map(bytes).sum())
}

/// Bytes of the convolutions that folding copies.
pub(super) fn folded_bytes(lowered: &Lowered) -> usize {
    let convs = lowered.graph.nodes.iter().filter(|node| matches!(node.op, Op::Conv2d(_)));
    let bytes = |name: &str| lowered.params.shape(name).map_or(0, |shape| 4 * elements(shape));
    convs.map(|node| ["weight", "bias"].map(|suffix| bytes(&node.param(suffix))).iter().sum::<usize>()).sum()
}
