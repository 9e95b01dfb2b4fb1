//! Bytes before they are there: what a pass will hold at its worst moment.
//!
//! [`Step`] is one update of a trained part, [`Run`] a pass that trains nothing. Both follow the
//! schedule that the engine will follow, by the same code, on counts of bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::Use;
pub use super::ledger::Fate;
use super::ledger::{BOOKKEEPING, Bytes, Entry, Ledger, Tally};
use crate::engine::grad::pass::Pass;
use crate::engine::grad::schedule::Schedule;
use crate::engine::grad::{Norms, Recompute, Wanted};
use crate::engine::layout::Layout;
use crate::error::Result;
use crate::graph::lower::Lowered;
use crate::graph::op::{Shape, elements};
use crate::graph::{Graph, Params};

/// What a schedule keeps about a node.
const NODE_BYTES: usize = 320;

/// Bytes of a phase at its worst moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// All of them.
    pub bytes: usize,
    /// What they are for.
    pub of: Bytes,
}

impl Peak {
    fn of(ledger: &Ledger) -> Self {
        Self { bytes: ledger.peak(), of: ledger.at_peak() }
    }

    /// A list or a batch alone.
    #[must_use]
    pub fn data(bytes: usize) -> Self {
        Self { bytes, of: Bytes::from([(Use::Data, bytes)]) }
    }

    /// `n` of these at once.
    #[must_use]
    pub fn times(mut self, n: usize) -> Self {
        self.bytes *= n;
        self.of.values_mut().for_each(|bytes| *bytes *= n);
        self
    }

    /// This and `bytes` more.
    pub fn add(&mut self, of: Use, bytes: usize) {
        self.bytes += bytes;
        *self.of.entry(of).or_default() += bytes;
    }
}

/// One update of a trained part in front of a frozen suffix.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What is trained.
    pub graph: &'a Graph,
    /// Names of those that change.
    pub trained: &'a BTreeSet<String>,
    /// Bytes of these.
    pub trained_bytes: usize,
    /// What it computes again.
    pub recompute: &'a Recompute,
    /// Shape of its input, without images.
    pub input: &'a [usize],
    /// Its tensors, where they are widened when they are read.
    pub params: Option<&'a Params>,
    /// What becomes of its gradients.
    pub gradients: Fate,
    /// What stands behind it.
    pub suffix: &'a Lowered,
    /// Whether the weights behind it are widened when they are read.
    pub mapped: bool,
    /// Images of a batch.
    pub batch: usize,
    /// Images whose gradients are taken at once.
    pub micro_batch: usize,
    /// Tensors of optimizer state for each trained one.
    pub states: usize,
    /// Threads that compute.
    pub threads: usize,
}

impl Step<'_> {
    /// What the step holds, beside the tensors that are there before and after it.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when a graph is not sound.
    pub fn peak(&self) -> Result<Peak> {
        let ledger = Ledger::default();
        let n = self.micro_batch.min(self.batch).max(1);
        let headers = self.trained.len() * BOOKKEEPING;
        let _state = ledger.enter(Use::Optimizer, (self.trained_bytes + headers) * self.states);
        let classes = self.classes()?;
        let nodes = self.graph.nodes.len() + self.suffix.graph.nodes.len();
        let _lists = ledger.enter(Use::Data, self.batch * 24 + nodes * NODE_BYTES);
        let x = ledger.enter(Use::Data, 4 * n * elements(self.input));
        let _targets = ledger.enter(Use::Data, n * (4 * classes + 8));
        let trained = |name: &str| self.trained.contains(name);
        let wanted = Wanted { trained: &trained, input: false, norms: Norms::Fixed };
        let own = Simulated::new((self.graph, self.params), (self.input, n), (wanted, self.recompute))?;
        let shapes = self.graph.shapes(self.input)?;
        let middle = &shapes[self.graph.output()];
        let Lowered { graph, params } = self.suffix;
        let behind = Simulated::new(
            (graph, self.mapped.then_some(params)),
            (middle, n),
            (Wanted::INPUT_ONLY, &Recompute::NOTHING),
        )?;
        let mut own_pass = Pass::new(self.graph, x);
        let mut own_tally = own.tally(&ledger, self.threads);
        own_tally.fate = self.gradients;
        if n < self.batch && self.gradients == Fate::Summed {
            // From the second micro-batch on, the sums of gradients so far are there.
            own_tally.grads = self.sums(&ledger)?;
        }
        let y = own_pass.forward(self.graph, &own.schedule, &mut own_tally)?;
        let mut behind_pass = Pass::new(graph, y.clone());
        let mut behind_tally = behind.tally(&ledger, self.threads);
        let logits = behind_pass.forward(graph, &behind.schedule, &mut behind_tally)?;
        let dlogits = ledger.enter(Use::Gradients, n * (4 * classes + 8));
        drop(logits);
        let dy = behind_pass.backward(graph, &behind.schedule, &mut behind_tally, dlogits)?;
        drop((behind_pass, y));
        let dy = dy.unwrap_or_else(|| ledger.enter(Use::Gradients, 0));
        own_pass.backward(self.graph, &own.schedule, &mut own_tally, dy)?;
        Ok(Peak::of(&ledger))
    }

    /// A gradient for each trained tensor.
    fn sums(&self, ledger: &Ledger) -> Result<BTreeMap<String, Entry>> {
        let named = self.graph.params(self.input)?.into_iter();
        let trained = named.filter(|named| self.trained.contains(&named.name));
        Ok(trained.map(|p| (p.name, ledger.enter(Use::Gradients, 4 * elements(&p.param.shape)))).collect())
    }

    fn classes(&self) -> Result<usize> {
        let shapes = self.graph.shapes(self.input)?;
        let behind = self.suffix.graph.shapes(&shapes[self.graph.output()])?;
        Ok(elements(&behind[self.suffix.graph.output()]))
    }
}

/// A pass that trains nothing.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What runs.
    pub lowered: &'a Lowered,
    /// Shape of its input, without images.
    pub input: &'a [usize],
    /// Images that run together.
    pub batch: usize,
    /// Whether weights are widened when they are read.
    pub mapped: bool,
    /// Threads that compute.
    pub threads: usize,
}

impl Run<'_> {
    /// What the pass holds, its input among it.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when the graph is not sound.
    pub fn peak(&self) -> Result<Peak> {
        let ledger = Ledger::default();
        let Lowered { graph, params } = self.lowered;
        let wanted = Wanted { trained: &|_| false, input: false, norms: Norms::Fixed };
        let run = Simulated::new(
            (graph, self.mapped.then_some(params)),
            (self.input, self.batch),
            (wanted, &Recompute::NOTHING),
        )?;
        let x = ledger.enter(Use::Data, 4 * self.batch * elements(self.input));
        // The caller holds its input until the pass is over.
        let mut pass = Pass::new(graph, x.clone());
        let y = pass.forward(graph, &run.schedule, &mut run.tally(&ledger, self.threads))?;
        drop((x, y));
        Ok(Peak::of(&ledger))
    }

    /// What the pass holds in planned memory, its input among it: exactly.
    ///
    /// # Errors
    ///
    /// As [`Layout::new`].
    pub fn planned(&self) -> Result<Peak> {
        let Lowered { graph, params } = self.lowered;
        let (network, images) = ((graph, params), (self.input, self.batch));
        let bytes = if self.mapped {
            Layout::new(network, images, self.threads)?.bytes()
        } else {
            Layout::resident_bytes(network, images, self.threads)?
        };
        let mut peak = Peak::default();
        peak.add(Use::Values, bytes);
        Ok(peak)
    }
}

/// A graph, its schedule and its shapes with images.
struct Simulated<'a> {
    graph: &'a Graph,
    /// Tensors that are widened when they are read.
    params: Option<&'a Params>,
    wanted: Wanted<'a>,
    schedule: Schedule,
    shapes: Vec<Shape>,
}

impl<'a> Simulated<'a> {
    fn new(
        (graph, params): (&'a Graph, Option<&'a Params>),
        (input, n): (&[usize], usize),
        (wanted, recompute): (Wanted<'a>, &Recompute),
    ) -> Result<Self> {
        let schedule = Schedule::new(graph, input, wanted, recompute)?;
        let of_all = |shape: Shape| std::iter::once(n).chain(shape).collect();
        let shapes = graph.shapes(input)?.into_iter().map(of_all).collect();
        Ok(Self { graph, params, wanted, schedule, shapes })
    }

    fn tally(&self, ledger: &Ledger, threads: usize) -> Tally<'_> {
        Tally {
            graph: self.graph,
            params: self.params,
            wanted: self.wanted,
            schedule: &self.schedule,
            shapes: &self.shapes,
            threads,
            ledger: ledger.clone(),
            grads: BTreeMap::new(),
            fate: Fate::Dropped,
        }
    }
}
