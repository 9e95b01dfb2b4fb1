//! Networks as data: graphs of primitive operations, joined into named blocks.
//!
//! Zoo models, repaired blocks, search spaces and lowered networks are all [`Graph`]s, so
//! everything that reads a graph (engine, planner, patch, exporter) works on all of them.
//!
//! Reading order: [`op`], [`shape`], this file, [`network`], [`lower`].

pub mod lower;
pub mod network;
pub mod op;
pub mod params;
pub mod shape;
pub mod weight;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use op::{Op, Shape, elements};
use shape::Param;

pub use network::{Network, Part};
pub use params::Params;
pub use weight::Weight;

/// A value of a graph: 0 is the graph's input, `i + 1` the output of node `i`.
pub type Value = usize;

/// The input of a graph.
pub const INPUT: Value = 0;

/// Nodes in an order in which each uses only what stands before it. One input, one output: the
/// last node's. No nodes: the identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Graph {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// One operation and where its inputs come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// First part of the names of its tensors: `layer1.0.conv1` has `layer1.0.conv1.weight`.
    pub name: String,
    /// What it computes.
    #[serde(rename = "do")]
    pub op: Op,
    /// Where its inputs come from.
    #[serde(rename = "of")]
    pub inputs: Vec<Value>,
}

/// A parameter of a node, by its full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedParam {
    /// Name of the tensor.
    pub name: String,
    /// Shape and kind.
    pub param: Param,
}

/// Size of a graph at inference, for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Elements of all tensors, statistics included.
    pub params: u64,
    /// Multiply-adds.
    pub macs: u64,
    /// Elements of the largest set of values alive at once.
    pub live: u64,
}

impl Graph {
    /// Adds a node and returns its output.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[Value]) -> Value {
        self.nodes.push(Node { name: name.into(), op, inputs: inputs.to_vec() });
        self.output()
    }

    /// The graph's output.
    #[must_use]
    pub fn output(&self) -> Value {
        self.nodes.len()
    }

    /// Shapes of all values for an input of this shape; also the check that the graph is sound.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] naming the first node that uses a later value or whose inputs do not fit.
    pub fn shapes(&self, input: &[usize]) -> Result<Vec<Shape>> {
        let mut shapes = vec![input.to_vec()];
        for node in &self.nodes {
            let found: Option<Vec<Shape>> = node.inputs.iter().map(|&v| shapes.get(v).cloned()).collect();
            let inputs = found.ok_or_else(|| node.error(format!("uses a later value: {:?}", node.inputs)))?;
            shapes.push(node.op.output_shape(&inputs).map_err(|problem| node.error(problem))?);
        }
        Ok(shapes)
    }

    /// All parameters in the order of their nodes.
    ///
    /// # Errors
    ///
    /// As [`Graph::shapes`].
    pub fn params(&self, input: &[usize]) -> Result<Vec<NamedParam>> {
        let shapes = self.shapes(input)?;
        let of = |node: &Node| node.op.params(&inputs_of(node, &shapes));
        let named = |node: &Node, param: Param| NamedParam { name: node.param(param.suffix), param };
        Ok(self.nodes.iter().flat_map(|node| of(node).into_iter().map(move |p| named(node, p))).collect())
    }

    /// Parameters, multiply-adds and live values.
    ///
    /// # Errors
    ///
    /// As [`Graph::shapes`].
    pub fn cost(&self, input: &[usize]) -> Result<Cost> {
        let shapes = self.shapes(input)?;
        let mut cost = Cost { live: elements(input) as u64, ..Cost::default() };
        let last_use = self.last_uses();
        for (i, node) in self.nodes.iter().enumerate() {
            let inputs = inputs_of(node, &shapes);
            cost.params += node.op.params(&inputs).iter().map(|p| elements(&p.shape) as u64).sum::<u64>();
            cost.macs += node.op.macs(&inputs, &shapes[i + 1]);
            let alive = (0..=i + 1).filter(|&v| v == i + 1 || last_use[v].is_some_and(|last| last >= i));
            cost.live = cost.live.max(alive.map(|v| elements(&shapes[v]) as u64).sum());
        }
        Ok(cost)
    }

    /// For each value the index of the last node that uses it; the output lives on.
    #[must_use]
    pub fn last_uses(&self) -> Vec<Option<usize>> {
        let mut last = vec![None; self.nodes.len() + 1];
        for (i, node) in self.nodes.iter().enumerate() {
            for &v in &node.inputs {
                last[v] = Some(i);
            }
        }
        last[self.output()] = Some(usize::MAX);
        last
    }

    /// How often each value is used; the output counts once more.
    #[must_use]
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len() + 1];
        self.nodes.iter().flat_map(|node| &node.inputs).for_each(|&v| uses[v] += 1);
        uses[self.output()] += 1;
        uses
    }

    /// The nodes that `output` depends on; `output` becomes the graph's output.
    #[must_use]
    pub fn reaching(&self, output: Value) -> Self {
        let mut needed = vec![false; self.nodes.len() + 1];
        needed[output] = true;
        for (i, node) in self.nodes.iter().enumerate().rev().filter(|(i, _)| *i < output) {
            if needed[i + 1] {
                node.inputs.iter().for_each(|&v| needed[v] = true);
            }
        }
        let mut kept = Self::default();
        let mut of = vec![INPUT; self.nodes.len() + 1];
        for (i, node) in self.nodes.iter().enumerate().filter(|(i, _)| needed[i + 1]) {
            let inputs: Vec<Value> = node.inputs.iter().map(|&v| of[v]).collect();
            of[i + 1] = kept.push(node.name.clone(), node.op.clone(), &inputs);
        }
        kept
    }

    /// Appends `next`, whose input becomes this graph's output.
    pub fn append(&mut self, next: &Self) {
        let offset = self.output();
        for node in &next.nodes {
            let inputs: Vec<Value> = node.inputs.iter().map(|&v| v + offset).collect();
            self.push(node.name.clone(), node.op.clone(), &inputs);
        }
    }
}

impl Node {
    /// Full name of this node's tensor `suffix`.
    #[must_use]
    pub fn param(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    pub(crate) fn error(&self, problem: impl Into<String>) -> Error {
        Error::Graph { node: self.name.clone(), problem: problem.into() }
    }
}

fn inputs_of(node: &Node, shapes: &[Shape]) -> Vec<Shape> {
    node.inputs.iter().map(|&v| shapes[v].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::op::{Activation, Conv2d};
    use super::*;

    fn residual() -> Graph {
        let mut graph = Graph::default();
        let a = graph.push("a", Op::Conv2d(Conv2d::same(4, 3, 1)), &[INPUT]);
        let b = graph.push("b", Op::Activation { kind: Activation::Relu }, &[a]);
        graph.push("c", Op::Add, &[b, INPUT]);
        graph
    }

    #[test]
    fn shapes_follow_the_nodes() {
        let shapes = residual().shapes(&[4, 6, 5]).unwrap();
        assert_eq!(shapes, vec![vec![4, 6, 5]; 4]);
        let error = residual().shapes(&[3, 6, 5]).unwrap_err();
        assert_eq!(error.to_string(), "node `c`: cannot combine [4, 6, 5] and [3, 6, 5]");
    }

    #[test]
    fn a_node_cannot_use_a_later_value() {
        let mut graph = residual();
        graph.nodes[0].inputs = vec![2];
        assert_eq!(graph.shapes(&[4, 6, 5]).unwrap_err().to_string(), "node `a`: uses a later value: [2]");
    }

    #[test]
    fn cost_counts_the_worst_moment() {
        let cost = residual().cost(&[4, 6, 5]).unwrap();
        assert_eq!(cost.params, 4 * 4 * 9);
        assert_eq!(cost.macs, 4 * 4 * 9 * 30);
        // At the activation its input, its output and the graph's input (used by `c`) are alive.
        assert_eq!(cost.live, 3 * 120);
    }

    #[test]
    fn text_reads_back() {
        let text = serde_json::to_string(&residual()).unwrap();
        assert!(text.starts_with(r#"[{"name":"a","do":{"op":"conv2d""#));
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), residual());
    }

    #[test]
    fn appending_joins_output_to_input() {
        let mut twice = residual();
        twice.append(&residual());
        assert_eq!(twice.nodes[5].inputs, [5, 3]);
        assert_eq!(twice.uses(), [2, 1, 1, 2, 1, 1, 1]);
    }
}
