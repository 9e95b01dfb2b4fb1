//! Follows a schedule, with tensors or with whatever else a [`Machine`] computes on.

use std::ops::Range;

use super::schedule::{Action, Schedule};
use super::units::Unit;
use crate::error::{Error, Result};
use crate::graph::{Graph, INPUT, Value};

/// What runs the units of a schedule: tensors in the engine, byte counts in the planner.
pub(crate) trait Machine {
    /// A value or a gradient; a clone shares it.
    type Value: Clone;
    /// What a node keeps besides values.
    type Kept: Default;

    /// The output of a node, and what is kept if `keep`.
    fn forward(&mut self, node: usize, xs: &[&Self::Value], keep: bool) -> Result<(Self::Value, Self::Kept)>;

    /// `sum`, if there is one, and term `i` of a mixture.
    fn term(
        &mut self,
        at: (usize, usize),
        sum: Option<Self::Value>,
        xs: &[&Self::Value],
    ) -> Result<Self::Value>;

    /// The gradients by the values that a node reads, in order.
    fn backward(
        &mut self,
        node: usize,
        kept: Self::Kept,
        xs: &[Option<&Self::Value>],
        dy: Self::Value,
    ) -> Result<Vec<Option<Self::Value>>>;

    /// The gradient by the value of term `i` of a mixture.
    fn term_backward(
        &mut self,
        at: (usize, usize),
        xs: &[Option<&Self::Value>],
        dy: Self::Value,
    ) -> Result<Option<Self::Value>>;

    /// The sum of two gradients: a new value, or in the place of the first if nobody else has it.
    fn add(&mut self, sum: (Self::Value, Shared), x: Self::Value) -> Result<Self::Value>;
}

/// Whether others may have a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// It may be the gradient of other values, too.
    Maybe,
    /// It is a sum that was made for one value.
    No,
}

/// A pass on its way: what is alive.
#[derive(Debug)]
pub(crate) struct Pass<V, K> {
    /// For each value of the graph itself.
    pub(crate) values: Vec<Option<V>>,
    /// For each node.
    pub(crate) kept: Vec<K>,
    /// For each value its gradient so far.
    grads: Vec<Option<(V, Shared)>>,
}

impl<V: Clone, K: Default> Pass<V, K> {
    /// A pass over `x`, before its first step.
    pub(crate) fn new(graph: &Graph, x: V) -> Self {
        let n = graph.nodes.len();
        let mut pass = Self {
            values: (0..=n).map(|_| None).collect(),
            kept: std::iter::repeat_with(K::default).take(n).collect(),
            grads: (0..=n).map(|_| None).collect(),
        };
        pass.values[INPUT] = Some(x);
        pass
    }

    /// The forward pass: the output.
    pub(crate) fn forward<M>(&mut self, graph: &Graph, schedule: &Schedule, machine: &mut M) -> Result<V>
    where
        M: Machine<Value = V, Kept = K>,
    {
        self.run(graph, schedule, 0..schedule.turn, machine)?;
        let output = &mut self.values[graph.output()];
        let y = if schedule.reads_output { output.clone() } else { output.take() };
        y.ok_or_else(|| lost("output"))
    }

    /// The backward pass: the gradient by the input, if it was computed.
    pub(crate) fn backward<M>(
        &mut self,
        graph: &Graph,
        schedule: &Schedule,
        machine: &mut M,
        dy: V,
    ) -> Result<Option<V>>
    where
        M: Machine<Value = V, Kept = K>,
    {
        self.grads[graph.output()] = Some((dy, Shared::Maybe));
        self.run(graph, schedule, schedule.turn..schedule.steps.len(), machine)?;
        Ok(self.grads[INPUT].take().map(|(dx, _)| dx))
    }

    fn run<M>(
        &mut self,
        graph: &Graph,
        schedule: &Schedule,
        steps: Range<usize>,
        machine: &mut M,
    ) -> Result<()>
    where
        M: Machine<Value = V, Kept = K>,
    {
        for step in &schedule.steps[steps] {
            let reads = schedule.reads.forward(graph, step.unit);
            match step.action {
                Action::Forward { keep } => self.step_forward((step.unit, &reads), keep, machine)?,
                Action::Backward { last } => self.step_backward((step.unit, &reads), last, machine)?,
            }
            step.drops.iter().for_each(|&v| self.values[v] = None);
        }
        Ok(())
    }

    fn step_forward<M>(&mut self, (unit, reads): (Unit, &[Value]), keep: bool, machine: &mut M) -> Result<()>
    where
        M: Machine<Value = V, Kept = K>,
    {
        let y = unit.node + 1;
        let sum = if unit.adds() { self.values[y].take() } else { None };
        let xs = reads.iter().map(|&v| self.values[v].as_ref().ok_or_else(|| lost("value")));
        let xs = xs.collect::<Result<Vec<_>>>()?;
        let value = match unit.term {
            Some(i) => machine.term((unit.node, i), sum, &xs)?,
            None => {
                let (value, kept) = machine.forward(unit.node, &xs, keep)?;
                self.kept[unit.node] = kept;
                value
            }
        };
        self.values[y] = Some(value);
        Ok(())
    }

    fn step_backward<M>(&mut self, (unit, reads): (Unit, &[Value]), last: bool, machine: &mut M) -> Result<()>
    where
        M: Machine<Value = V, Kept = K>,
    {
        let y = unit.node + 1;
        let dy = if last { self.grads[y].take() } else { self.grads[y].clone() };
        let Some((dy, _)) = dy else { return Ok(()) };
        let xs: Vec<Option<&V>> = reads.iter().map(|&v| self.values[v].as_ref()).collect();
        let (by, dxs) = match unit.term {
            Some(i) => (&reads[reads.len() - 1..], vec![machine.term_backward((unit.node, i), &xs, dy)?]),
            None => {
                let kept = std::mem::take(&mut self.kept[unit.node]);
                (reads, machine.backward(unit.node, kept, &xs, dy)?)
            }
        };
        for (&v, dx) in by.iter().zip(dxs) {
            self.accumulate(v, dx, machine)?;
        }
        Ok(())
    }

    fn accumulate<M>(&mut self, v: Value, dx: Option<V>, machine: &mut M) -> Result<()>
    where
        M: Machine<Value = V, Kept = K>,
    {
        let Some(dx) = dx else { return Ok(()) };
        self.grads[v] = Some(match self.grads[v].take() {
            Some(sum) => (machine.add(sum, dx)?, Shared::No),
            None => (dx, Shared::Maybe),
        });
        Ok(())
    }
}

fn lost(what: &str) -> Error {
    Error::Graph { node: what.into(), problem: "is not there when it is read".into() }
}
