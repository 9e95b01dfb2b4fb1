//! A pass without numbers: the same steps as the engine's, on counts of bytes.
//!
//! `Tally` follows a [`Schedule`](crate::engine::grad::schedule) as the engine does, through
//! the same code; where the engine makes a tensor, it enters a `Block` of as many bytes, which
//! is struck out when its last owner lets it go. What an operation needs for itself is entered
//! and struck out at once. The highest sum is the peak that the engine will reach.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Use;
use crate::engine::grad::Wanted;
use crate::engine::grad::pass::{Machine, Shared};
use crate::engine::grad::schedule::{Schedule, kept_bytes};
use crate::error::Result;
use crate::graph::op::{Activation, Op, Shape, elements};
use crate::graph::{Graph, Params, Value};
use crate::kernels::{Pass, scratch_bytes};

/// What becomes of the gradient of a trained tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is turned into something small at once.
    Dropped,
    /// It changes its tensor, when the gradients by the node's inputs are there.
    Stepped,
    /// It is added to those of other micro-batches.
    Summed,
}

/// What is kept about a tensor besides its numbers: shape, type, locks, name, places in lists.
pub(super) const BOOKKEEPING: usize = 640;

/// Bytes by use.
pub type Bytes = BTreeMap<Use, usize>;

#[derive(Debug, Default)]
struct Sums {
    now: Bytes,
    total: usize,
    peak: usize,
    at_peak: Bytes,
}

/// Sums of what is entered and not yet struck out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Rc<RefCell<Sums>>);

/// An entry; struck out when dropped.
#[derive(Debug)]
pub(crate) struct Block {
    ledger: Ledger,
    of: Use,
    bytes: usize,
}

/// A shared entry, as a tensor's storage is shared by its clones.
pub(crate) type Entry = Rc<Block>;

impl Ledger {
    /// Enters a tensor of `bytes`.
    pub(crate) fn enter(&self, of: Use, bytes: usize) -> Entry {
        let bytes = bytes + BOOKKEEPING;
        let mut sums = self.0.borrow_mut();
        *sums.now.entry(of).or_default() += bytes;
        sums.total += bytes;
        if sums.total > sums.peak {
            sums.peak = sums.total;
            sums.at_peak = sums.now.clone();
        }
        Rc::new(Block { ledger: self.clone(), of, bytes })
    }

    /// The highest sum so far.
    pub(crate) fn peak(&self) -> usize {
        self.0.borrow().peak
    }

    /// What it was made of.
    pub(crate) fn at_peak(&self) -> Bytes {
        self.0.borrow().at_peak.clone()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut sums = self.ledger.0.borrow_mut();
        sums.total -= self.bytes;
        if let Some(now) = sums.now.get_mut(&self.of) {
            *now -= self.bytes;
        }
    }
}

/// Runs units on byte counts.
pub(crate) struct Tally<'a> {
    pub(crate) graph: &'a Graph,
    /// Tensors that are widened when they are read; none when all are there.
    pub(crate) params: Option<&'a Params>,
    pub(crate) wanted: Wanted<'a>,
    pub(crate) schedule: &'a Schedule,
    /// For each value its shape, images first.
    pub(crate) shapes: &'a [Shape],
    pub(crate) threads: usize,
    pub(crate) ledger: Ledger,
    /// Gradients of trained tensors, by name.
    pub(crate) grads: BTreeMap<String, Entry>,
    /// What becomes of them.
    pub(crate) fate: Fate,
}

impl Tally<'_> {
    fn value(&self, of: Use, v: Value) -> Entry {
        self.ledger.enter(of, 4 * elements(&self.shapes[v]))
    }

    /// The tensors of a node that only exist while it runs.
    fn widened(&self, node: usize) -> Entry {
        let Some(params) = self.params else { return self.ledger.enter(Use::Weights, 0) };
        let node = &self.graph.nodes[node];
        let inputs: Vec<Shape> = node.inputs.iter().map(|&v| self.shapes[v][1..].to_vec()).collect();
        let bytes = node.op.params(&inputs).iter().map(|p| params.widened_bytes(&node.param(p.suffix))).sum();
        self.ledger.enter(Use::Weights, bytes)
    }

    fn scratch(&self, node: usize, pass: Pass) -> Result<Entry> {
        let op = &self.graph.nodes[node].op;
        let x = &self.shapes[self.graph.nodes[node].inputs[0]];
        Ok(self.ledger.enter(Use::Scratch, scratch_bytes(op, x, pass, self.threads)?))
    }

    /// Whether the gradient by input `i` is computed.
    fn needs(&self, node: usize, i: usize) -> bool {
        self.schedule.reads.of(node).get(i).is_some_and(|&v| self.schedule.needed[v])
    }

    /// Enters the gradients of a node's trained tensors; they are added to those that are there.
    fn train(&mut self, node: usize) -> Result<()> {
        let of = &self.graph.nodes[node];
        let inputs: Vec<Shape> = of.inputs.iter().map(|&v| self.shapes[v][1..].to_vec()).collect();
        for param in of.op.params(&inputs) {
            let name = of.param(param.suffix);
            if !param.trainable || !(self.wanted.trained)(&name) {
                continue;
            }
            let pass = self.scratch(node, Pass::Dw)?;
            let new = self.ledger.enter(Use::Gradients, 4 * elements(&param.shape));
            drop(pass);
            // What is there already takes the new one up in place.
            if self.fate == Fate::Summed {
                self.grads.entry(name).or_insert(new);
            }
        }
        Ok(())
    }

    fn dx(&self, node: usize, i: usize) -> Option<Entry> {
        self.needs(node, i).then(|| self.value(Use::Gradients, self.graph.nodes[node].inputs[i]))
    }
}

impl Machine for Tally<'_> {
    type Value = Entry;
    /// What is kept, and for some activations a value besides.
    type Kept = Vec<Entry>;

    fn forward(&mut self, node: usize, xs: &[&Entry], keep: bool) -> Result<(Entry, Vec<Entry>)> {
        let op = &self.graph.nodes[node].op;
        if matches!(op, Op::Flatten | Op::Identity) {
            return Ok((xs[0].clone(), Vec::new()));
        }
        let (_weights, _scratch) = (self.widened(node), self.scratch(node, Pass::Forward)?);
        let y = self.value(Use::Values, node + 1);
        let kept = match op {
            _ if !keep => Vec::new(),
            Op::Activation { kind: Activation::HardSwish | Activation::Silu } => vec![xs[0].clone()],
            Op::Activation { kind: Activation::HardSigmoid | Activation::Sigmoid } => vec![y.clone()],
            _ => vec![self.ledger.enter(Use::Kept, kept_bytes(op, elements(&self.shapes[node + 1])))],
        };
        Ok((y, kept))
    }

    fn term(&mut self, (node, _): (usize, usize), _: Option<Entry>, _: &[&Entry]) -> Result<Entry> {
        Ok(self.value(Use::Values, node + 1))
    }

    fn backward(
        &mut self,
        node: usize,
        _: Vec<Entry>,
        _: &[Option<&Entry>],
        dy: Entry,
    ) -> Result<Vec<Option<Entry>>> {
        let of = &self.graph.nodes[node];
        let shares = |i: usize| self.shapes[of.inputs[i]] == self.shapes[node + 1];
        let dxs = match &of.op {
            Op::Flatten | Op::Identity => vec![Some(dy)],
            Op::Add => (0..2)
                .map(|i| if self.needs(node, i) && shares(i) { Some(dy.clone()) } else { self.dx(node, i) })
                .collect(),
            Op::Conv2d(conv) => {
                let before =
                    if conv.activation.is_some() { self.value(Use::Gradients, node + 1) } else { dy };
                if self.fate != Fate::Stepped {
                    self.train(node)?;
                }
                let mut dx = None;
                if self.needs(node, 0) {
                    let (_weights, _scratch) = (self.widened(node), self.scratch(node, Pass::Dx)?);
                    dx = Some(self.value(Use::Gradients, of.inputs[0]));
                }
                if self.fate == Fate::Stepped {
                    self.train(node)?;
                }
                vec![dx, self.needs(node, 1).then_some(before)]
            }
            Op::Mix => {
                let n = of.inputs.len();
                let mut dxs = vec![None; n];
                for i in std::iter::once(0).chain((1..n).rev()) {
                    dxs[i] = self.term_backward((node, i), &[], dy.clone())?;
                }
                dxs
            }
            Op::Mul => (0..2)
                .map(|i| {
                    let product = self.needs(node, i).then(|| self.value(Use::Gradients, node + 1))?;
                    if shares(i) { Some(product) } else { self.dx(node, i) }
                })
                .collect(),
            Op::Zero { .. } => vec![None],
            _ => {
                if self.fate != Fate::Stepped {
                    self.train(node)?;
                }
                let (_weights, _scratch) = (self.widened(node), self.scratch(node, Pass::Dx)?);
                let dxs = (0..of.inputs.len()).map(|i| self.dx(node, i)).collect();
                if self.fate == Fate::Stepped {
                    self.train(node)?;
                }
                dxs
            }
        };
        Ok(dxs)
    }

    fn term_backward(
        &mut self,
        (node, i): (usize, usize),
        _: &[Option<&Entry>],
        _: Entry,
    ) -> Result<Option<Entry>> {
        let gate = self.schedule.reads.gate(self.graph, node, i);
        let dx = {
            let _share = gate.map(|gate| self.scratch(gate, Pass::Dx)).transpose()?;
            self.dx(node, i)
        };
        self.train(node)?;
        gate.map_or(Ok(()), |gate| self.train(gate))?;
        Ok(dx)
    }

    fn add(&mut self, (sum, shared): (Entry, Shared), x: Entry) -> Result<Entry> {
        Ok(match shared {
            Shared::Maybe => self.ledger.enter(Use::Gradients, sum.bytes.max(x.bytes)),
            Shared::No => sum,
        })
    }
}
