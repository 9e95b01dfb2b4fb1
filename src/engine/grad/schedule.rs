//! The steps of a training pass, decided before it runs.
//!
//! A schedule says in which order nodes run forward and backward, which of them run a second
//! time because what they gave was let go, and after which step each value is dropped. The
//! engine follows it with tensors, the memory planner with byte counts: both see the same pass.
//!
//! A mixture can be *streamed*: each alternative is added to the sum as soon as it is there,
//! so that alternatives need not be alive together. The sum is taken in the same order either
//! way, and so are sums of gradients: every schedule of a graph gives the same bits.

use std::ops::Range;

use candle_core::DType;

use super::units::{Reads, Unit};
use super::{Norms, Wanted};
use crate::error::Result;
use crate::graph::op::Op;
use crate::graph::{Graph, Value};
use crate::kernels::activation;

/// What is let go in the forward pass and computed again in the backward pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recompute {
    /// Whether mixtures are streamed.
    pub streamed: bool,
    /// Ranges of units, disjoint and rising, whose inside is let go.
    pub segments: Vec<Range<usize>>,
}

impl Recompute {
    /// Everything is kept.
    pub const NOTHING: Self = Self { streamed: false, segments: Vec::new() };
}

/// What a step does with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Runs forward; with `keep`, what its backward pass needs besides values is kept.
    Forward { keep: bool },
    /// Runs backward; with `last`, nothing needs the gradient of its output afterwards.
    Backward { last: bool },
}

/// One step, and the values that nothing needs after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) unit: Unit,
    pub(crate) action: Action,
    pub(crate) drops: Vec<Value>,
}

/// A pass.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Steps of the forward pass, then those of the backward pass.
    pub(crate) steps: Vec<Step>,
    /// How many of them are the forward pass.
    pub(crate) turn: usize,
    /// For each value whether its gradient is computed.
    pub(crate) needed: Vec<bool>,
    /// What its units read.
    pub(crate) reads: Reads,
    /// Whether the backward pass reads the output.
    pub(crate) reads_output: bool,
}

impl Schedule {
    /// The pass through `graph` for an input of this shape, without the number of images.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when the graph is not sound or segments do not fit it.
    pub(crate) fn new(graph: &Graph, input: &[usize], wanted: Wanted, recompute: &Recompute) -> Result<Self> {
        let (needed, reads) = (needed(graph, input, wanted)?, Reads::new(graph));
        let units = reads.units(graph, recompute.streamed);
        let planner = Planner { graph, wanted, needed, reads };
        let mut steps: Vec<Step> = Vec::new();
        let mut inside = vec![false; units.len()];
        let mut end = 0;
        for segment in &recompute.segments {
            if segment.start < end || segment.end > units.len() {
                let problem = format!("segment {segment:?} overlaps another or passes {} units", units.len());
                return Err(crate::Error::Graph { node: "recompute".into(), problem });
            }
            inside[segment.clone()].fill(true);
            end = segment.end;
        }
        for (unit, inside) in units.iter().zip(&inside) {
            steps.push(step(*unit, Action::Forward { keep: planner.is_needed(unit) && !inside }));
        }
        let turn = steps.len();
        let mut open: Vec<&Range<usize>> = recompute.segments.iter().collect();
        for i in (0..units.len()).rev() {
            if open.last().is_some_and(|segment| segment.end == i + 1) {
                let again = open.pop().map_or(i..i, Clone::clone);
                steps.extend(planner.again(&units[again]));
            }
            planner.backward(units[i], &mut steps);
        }
        let reads_output = planner.set_drops(&mut steps, turn);
        let Planner { needed, reads, .. } = planner;
        Ok(Self { steps, turn, needed, reads, reads_output })
    }
}

fn step(unit: Unit, action: Action) -> Step {
    Step { unit, action, drops: Vec::new() }
}

struct Planner<'a> {
    graph: &'a Graph,
    wanted: Wanted<'a>,
    needed: Vec<bool>,
    reads: Reads,
}

impl Planner<'_> {
    fn is_needed(&self, unit: &Unit) -> bool {
        self.needed[unit.node + 1]
    }

    /// The steps of a mixture's terms stand in the order in which a whole mixture takes its
    /// inputs going backward: the first, then from the last down.
    fn backward(&self, unit: Unit, steps: &mut Vec<Step>) {
        if !self.is_needed(&unit) {
            return;
        }
        let last = self.graph.nodes[unit.node].inputs.len() - 1;
        match unit.term {
            None => steps.push(step(unit, Action::Backward { last: true })),
            Some(i) => {
                if i == last {
                    let first = Unit { term: Some(0), ..unit };
                    steps.push(step(first, Action::Backward { last: last == 0 }));
                }
                if i > 0 {
                    steps.push(step(unit, Action::Backward { last: i == 1 }));
                }
            }
        }
    }

    fn reads_backward(&self, unit: Unit) -> Vec<Value> {
        self.reads.backward(self.graph, unit, self.wanted, &self.needed)
    }

    /// The forward steps of a segment that its backward steps depend on.
    fn again(&self, units: &[Unit]) -> Vec<Step> {
        let mut wanted = vec![false; self.graph.nodes.len() + 1];
        for unit in units.iter().filter(|unit| self.is_needed(unit)) {
            self.reads_backward(*unit).into_iter().for_each(|v| wanted[v] = true);
        }
        // A sum that began before the segment cannot be taken again: it is kept.
        let begun = |unit: &Unit| unit.adds() && !units.contains(&Unit { term: Some(0), ..*unit });
        let mut steps = Vec::new();
        for unit in units.iter().rev() {
            let keep = self.is_needed(unit) && keeps_more(&self.graph.nodes[unit.node].op, self.wanted);
            if (!wanted[unit.node + 1] && !keep) || begun(unit) {
                continue;
            }
            wanted[unit.node + 1] = wanted[unit.node + 1] && unit.adds();
            self.reads.forward(self.graph, *unit).into_iter().for_each(|v| wanted[v] = true);
            steps.push(step(*unit, Action::Forward { keep }));
        }
        steps.reverse();
        steps
    }

    /// Drops each value after the last step that reads it before it is computed again.
    /// Returns whether the backward pass reads the output.
    fn set_drops(&self, steps: &mut [Step], turn: usize) -> bool {
        let mut reads_output = false;
        let mut alive = vec![false; self.graph.nodes.len() + 1];
        for i in (0..steps.len()).rev() {
            let unit = steps[i].unit;
            let y = unit.node + 1;
            let mut drops = Vec::new();
            let mut read = |v: Value, alive: &mut Vec<bool>| {
                if !alive[v] {
                    alive[v] = true;
                    drops.push(v);
                }
            };
            if i + 1 == turn {
                // The caller reads the output between the passes.
                reads_output = alive[self.graph.output()];
                alive[self.graph.output()] = true;
            }
            match steps[i].action {
                Action::Backward { .. } => {
                    self.reads_backward(unit).into_iter().for_each(|v| read(v, &mut alive));
                }
                Action::Forward { .. } => {
                    if !alive[y] {
                        read(y, &mut alive);
                    }
                    alive[y] = false;
                    if unit.adds() {
                        alive[y] = true;
                    }
                    self.reads.forward(self.graph, unit).into_iter().for_each(|v| read(v, &mut alive));
                }
            }
            steps[i].drops = drops;
        }
        reads_output
    }
}

/// Whether going backward through `op` needs more than values: a mask, positions, statistics.
fn keeps_more(op: &Op, wanted: Wanted) -> bool {
    match op {
        Op::Activation { .. } | Op::MaxPool(_) => true,
        Op::BatchNorm { .. } => wanted.norms == Norms::Batch,
        Op::Conv2d(conv) => conv.activation.is_some(),
        _ => false,
    }
}

/// Bytes that `op` keeps of `n` outputs in `f32`, besides values and statistics.
pub(crate) fn kept_bytes(op: &Op, n: usize) -> usize {
    match op {
        Op::Activation { kind } => activation::kept_bytes(*kind, n, DType::F32),
        Op::Conv2d(conv) => conv.activation.map_or(0, |kind| activation::kept_bytes(kind, n, DType::F32)),
        Op::MaxPool(_) => n * size_of::<u32>(),
        _ => 0,
    }
}

/// For each value whether a gradient through it leads to something wanted.
pub(crate) fn needed(graph: &Graph, input: &[usize], wanted: Wanted) -> Result<Vec<bool>> {
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
