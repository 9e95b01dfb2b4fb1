//! Which values lie in one place: aliases, and results that are written over an input.

use super::is_alias;
use crate::graph::op::{Op, Shape};
use crate::graph::{Graph, Node, Value};

/// For each value the first of those that lie where it does, and how long they are needed.
#[derive(Debug)]
pub(super) struct Sharing {
    /// For each value the root of its group.
    pub(super) roots: Vec<Value>,
    /// For each root the last node that reads one of its group; `usize::MAX` for the output.
    pub(super) last: Vec<usize>,
    /// For each node the input that its output is written over.
    pub(super) in_place: Vec<Option<usize>>,
}

impl Sharing {
    pub(super) fn new(graph: &Graph, shapes: &[Shape]) -> Self {
        let uses = graph.last_uses();
        // What nothing reads lives while it is made.
        let made = |v: Value| v.saturating_sub(1);
        let last = (0..uses.len()).map(|v| uses[v].unwrap_or(made(v))).collect();
        let mut sharing = Self { roots: vec![0], last, in_place: Vec::new() };
        for (i, node) in graph.nodes.iter().enumerate() {
            let in_place = sharing.dying(i, node, shapes);
            let shared = if is_alias(&node.op) { Some(0) } else { in_place };
            let root = shared.map_or(i + 1, |input| sharing.roots[node.inputs[input]]);
            sharing.last[root] = sharing.last[root].max(sharing.last[i + 1]);
            sharing.roots.push(root);
            sharing.in_place.push(in_place);
        }
        sharing
    }

    /// The input of node `i` that it may write over: read for the last time, by this node once,
    /// and of the output's shape.
    fn dying(&self, i: usize, node: &Node, shapes: &[Shape]) -> Option<usize> {
        let root = |&v: &Value| self.roots[v];
        candidates(&node.op).find(|&input| {
            node.inputs.get(input).is_some_and(|v| {
                let readers = node.inputs.iter().filter(|other| root(other) == root(v));
                shapes[*v] == shapes[i + 1] && self.last[root(v)] == i && readers.count() == 1
            })
        })
    }
}

/// Inputs of which an operation reads an element, or a plane, before it writes there.
fn candidates(op: &Op) -> std::ops::Range<usize> {
    match op {
        Op::Activation { .. } | Op::BatchNorm { .. } | Op::Gate | Op::InstanceNorm { .. } => 0..1,
        // Both give the same bits in either order.
        Op::Add | Op::Mul => 0..2,
        _ => 0..0,
    }
}
