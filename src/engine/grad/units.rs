//! What runs as one in a training pass, and what it reads.
//!
//! A unit is a node, or one term of a streamed mixture. A mixture applies the gates of its alternatives
//! itself: a gate between the mixture's first value and something else, which nothing but the mixture reads,
//! is no unit, and its output is never there. Such a gate would read two values and write a third, only for
//! the mixture to add it up; and of the gradient by the first value, which all gates share, each would make
//! its own part.

use super::{Norms, Wanted};
use crate::graph::op::Op;
use crate::graph::{Graph, INPUT, Node, Value};

/// What runs as one: a node, or one term of a streamed mixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Index of the node.
    pub node: usize,
    /// Which input of a mixture; `None` for a whole node.
    pub term: Option<usize>,
}

impl Unit {
    /// Whether this adds to a sum that is there already.
    pub(crate) fn adds(&self) -> bool {
        self.term.is_some_and(|i| i > 0)
    }
}

/// The units of `graph` in the order in which they run.
#[must_use]
pub fn units(graph: &Graph, streamed: bool) -> Vec<Unit> {
    Reads::new(graph).units(graph, streamed)
}

/// What the nodes of a graph read.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    /// For each node its inputs; in the place of a gate that the node applies itself, what enters through it.
    of: Vec<Vec<Value>>,
    /// For each node whether it is a gate that a mixture applies.
    applied: Vec<bool>,
}

impl Reads {
    pub(crate) fn new(graph: &Graph) -> Self {
        let uses = graph.uses();
        let mut applied = vec![false; graph.nodes.len()];
        let mut of = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let mut reads = node.inputs.clone();
            for v in reads.iter_mut().skip(1).filter(|v| node.op == Op::Mix && **v != INPUT && uses[**v] == 1)
            {
                let gate = &graph.nodes[*v - 1];
                if gate.op == Op::Gate && gate.inputs[0] == node.inputs[0] {
                    applied[*v - 1] = true;
                    *v = gate.inputs[1];
                }
            }
            of.push(reads);
        }
        Self { of, applied }
    }

    /// The values that a node reads, as many as it has inputs.
    pub(crate) fn of(&self, node: usize) -> &[Value] {
        &self.of[node]
    }

    /// The gate through which input `i` of a mixture enters, where the mixture applies it.
    pub(crate) fn gate(&self, graph: &Graph, node: usize, i: usize) -> Option<usize> {
        let v = graph.nodes[node].inputs[i];
        (v != self.of[node][i]).then(|| v - 1)
    }

    /// As [`units`].
    pub(crate) fn units(&self, graph: &Graph, streamed: bool) -> Vec<Unit> {
        let is_streamed = |node: usize| streamed && graph.nodes[node].op == Op::Mix;
        let mut behind: Vec<Vec<Unit>> = vec![Vec::new(); graph.nodes.len() + 1];
        for node in (0..graph.nodes.len()).filter(|&node| is_streamed(node)) {
            let mut at = INPUT;
            for (i, &v) in self.of[node].iter().enumerate() {
                // A term stands behind its value and behind the term before it.
                at = at.max(v);
                behind[at].push(Unit { node, term: Some(i) });
            }
        }
        let mut units = behind[INPUT].clone();
        for node in 0..graph.nodes.len() {
            if !is_streamed(node) && !self.applied[node] {
                units.push(Unit { node, term: None });
            }
            units.extend(&behind[node + 1]);
        }
        units
    }

    /// The values that a unit reads going forward, without a mixture's sum so far. The last of a term is its
    /// own; before it stands the mixture's first, if it enters through a gate.
    pub(crate) fn forward(&self, graph: &Graph, unit: Unit) -> Vec<Value> {
        let of = &self.of[unit.node];
        match unit.term {
            None => of.clone(),
            Some(i) if self.gate(graph, unit.node, i).is_some() => vec![of[0], of[i]],
            Some(i) => vec![of[i]],
        }
    }

    /// The values that a unit reads going backward.
    pub(crate) fn backward(&self, graph: &Graph, unit: Unit, wanted: Wanted, needed: &[bool]) -> Vec<Value> {
        let (node, of) = (&graph.nodes[unit.node], &self.of[unit.node]);
        let terms = unit.term.map_or(0..of.len(), |i| i..i + 1);
        let read = terms.filter(|&i| match self.gate(graph, unit.node, i) {
            Some(gate) => trains(node, "alpha", wanted) || trains(&graph.nodes[gate], "gate", wanted),
            None => reads_input(node, i, wanted, needed),
        });
        let read: Vec<usize> = read.collect();
        let first = read.iter().any(|&i| self.gate(graph, unit.node, i).is_some()).then_some(of[0]);
        first.into_iter().chain(read.into_iter().map(|i| of[i])).collect()
    }
}

fn trains(node: &Node, suffix: &str, wanted: Wanted) -> bool {
    (wanted.trained)(&node.param(suffix))
}

/// Whether the backward pass reads input `i`.
fn reads_input(node: &Node, i: usize, wanted: Wanted, needed: &[bool]) -> bool {
    let trains = |suffix| trains(node, suffix, wanted);
    let needs = |i: usize| node.inputs.get(i).is_some_and(|&v: &Value| needed[v]);
    match &node.op {
        Op::BatchNorm { .. } => wanted.norms == Norms::Batch || trains("weight") || trains("bias"),
        Op::Conv2d(_) | Op::Linear { .. } => i == 0 && trains("weight"),
        Op::Gate => trains("gate"),
        Op::GlobalStdPool { .. } | Op::InstanceNorm { .. } => true,
        Op::Mix => trains("alpha"),
        Op::Mul => needs(1 - i),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Mix(x, Gate(x, b), Gate(x, c), Gate(b, c), x)` over `b` and `c` of `x`, and a second reader of the
    /// second gate.
    #[test]
    fn a_mixture_applies_gates_that_are_its_own() {
        let mut graph = Graph::default();
        let b = graph.push("b", Op::Identity, &[INPUT]);
        let c = graph.push("c", Op::Identity, &[INPUT]);
        let own = graph.push("own", Op::Gate, &[INPUT, b]);
        let shared = graph.push("shared", Op::Gate, &[INPUT, c]);
        let apart = graph.push("apart", Op::Gate, &[b, c]);
        let mix = graph.push("mix", Op::Mix, &[INPUT, own, shared, apart, INPUT]);
        graph.push("sum", Op::Add, &[mix, shared]);
        let reads = Reads::new(&graph);
        assert_eq!(reads.of(mix - 1), [INPUT, b, shared, apart, INPUT]);
        let gates = [0, 1, 2, 3, 4].map(|i| reads.gate(&graph, mix - 1, i));
        assert_eq!(gates, [None, Some(own - 1), None, None, None]);
        assert!(units(&graph, false).iter().all(|unit| unit.node != own - 1));
        assert_eq!(units(&graph, false).len(), graph.nodes.len() - 1);
        let term = Unit { node: mix - 1, term: Some(1) };
        assert_eq!(reads.forward(&graph, term), [INPUT, b]);
        let trained = |name: &str| name == "own.gate";
        let wanted = Wanted { trained: &trained, input: false, norms: Norms::Fixed };
        assert_eq!(reads.backward(&graph, term, wanted, &[]), [INPUT, b]);
        assert!(reads.backward(&graph, Unit { term: Some(2), ..term }, wanted, &[]).is_empty());
    }
}
