//! The phases of a repair and what each holds at its worst moment.

use std::collections::BTreeSet;

use serde::Serialize;

use super::bytes::{folded_bytes, largest_bytes};
use super::counts::Counts;
use crate::data::augment::Augment;
use crate::data::transfer::Transfer;
use crate::engine::grad::Recompute;
use crate::error::Result;
use crate::eval::Deployed;
use crate::fit::Site;
use crate::fit::bytes::step_peak;
use crate::graph::lower::{Lowered, lower};
use crate::graph::op::elements;
use crate::graph::{Graph, Params};
use crate::localize::neurons;
use crate::localize::rank::FAILURES;
use crate::memory::Use;
use crate::memory::plan::{Fate, Peak, Run, Step};
use crate::meter;
use crate::search::worth::held;

/// A phase and its worst moment.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// What is done.
    pub name: &'static str,
    /// Bytes at the worst moment, with what was in use before.
    pub bytes: usize,
    /// What they are for, largest first.
    pub of: Vec<(Use, usize)>,
}

/// The network under a setting.
pub(super) struct Whole<'a> {
    base: &'a Deployed,
    pub(super) graph: Graph,
    lowered: Lowered,
    pub(super) input: Vec<usize>,
    counts: Counts,
    /// Bytes of the lists of one lowered network: nodes, names, shapes.
    list_bytes: usize,
    threads: usize,
}

impl<'a> Whole<'a> {
    pub(super) fn new(base: &'a Deployed, counts: Counts, threads: usize) -> Result<Self> {
        let graph = base.network.joined(0..base.network.parts.len());
        let before = meter::current();
        let lowered = lower(&graph, &base.params)?;
        let list_bytes = meter::current().saturating_sub(before).next_multiple_of(1 << 10);
        let input = base.network.input.shape.clone();
        Ok(Self { base, graph, lowered, input, counts, list_bytes, threads })
    }

    /// `bytes` where weights are on the heap.
    pub(super) fn if_resident(&self, bytes: usize) -> usize {
        if self.base.levers.mapped { 0 } else { bytes }
    }

    fn run(&self, lowered: &Lowered, input: &[usize], batch: usize) -> Result<Peak> {
        Run { lowered, input, batch, mapped: self.base.levers.mapped, threads: self.threads }.peak()
    }

    /// The deployed network on a set of images, in planned memory.
    fn runner(&self, batch: usize) -> Result<Peak> {
        let (input, mapped) = (&self.input, self.base.levers.mapped);
        Run { lowered: &self.lowered, input, batch, mapped, threads: self.threads }.planned()
    }

    /// The network with its batch norms as they are.
    fn unfolded(&self) -> Lowered {
        Lowered { graph: self.graph.clone(), params: self.base.params.clone() }
    }

    fn image_bytes(&self) -> usize {
        4 * elements(&self.input)
    }

    fn image_shape(&self) -> [usize; 3] {
        [0, 1, 2].map(|i| self.input.get(i).copied().unwrap_or(1))
    }

    /// Images that run together of a set of `n`.
    fn batch(&self, n: usize) -> usize {
        self.base.levers.infer_batch.min(n).max(1)
    }

    /// Lists of `n` networks.
    fn lists(&self, n: usize) -> (Use, usize) {
        (Use::Data, n * self.list_bytes)
    }

    /// Checking the failures, re-estimating batch norms, estimating what the field does.
    pub(super) fn prepare(&self) -> Result<Phase> {
        let folded = self.if_resident(folded_bytes(&self.lowered));
        let most = self.counts.failures.max(self.counts.most_held());
        let answers = self.runner(self.batch(most))?;
        let answers = Phase::new("prepare", answers, (Use::Weights, folded));
        // A batch is joined from failures and replay.
        let batch = self.counts.re_estimated(self.base.levers.infer_batch).iter().sum();
        let joined = (Use::Data, batch * self.image_bytes());
        let re_estimated = Phase::new("prepare", self.run(&self.unfolded(), &self.input, batch)?, joined);
        let transfer = Transfer::bytes(self.image_shape(), self.threads);
        let spectra = Phase::new("prepare", Peak::data(transfer), (Use::Data, 0));
        let mut phase = larger(larger(answers, re_estimated), spectra);
        phase.add(self.lists(2));
        Ok(phase)
    }

    /// Activations and gradients of every neuron.
    pub(super) fn evidence(&self) -> Result<Phase> {
        let (batch, layers) =
            (self.batch(self.counts.most_cached()), neurons::layers(self.base, &self.graph));
        let failures = self.counts.trained()[0].min(FAILURES);
        let neurons: usize = layers.iter().map(|layer| layer.n).sum();
        // A byte for each failure, the rows of a batch twice, sums and counts.
        let rows = neurons * (failures + 8 * batch + 64);
        let observed = self.run(&self.unfolded(), &self.input, batch)?;
        let trained: BTreeSet<String> = layers.into_iter().map(|layer| layer.weight).collect();
        let nothing = lower(&self.base.network.joined(0..0), &self.base.params)?;
        let pull = Step {
            graph: &self.graph,
            trained: &trained,
            trained_bytes: 0,
            recompute: &Recompute::NOTHING,
            input: &self.input,
            suffix: &nothing,
            params: self.base.levers.mapped.then_some(&self.base.params),
            gradients: Fate::Dropped,
            mapped: self.base.levers.mapped,
            batch: 1,
            micro_batch: 1,
            states: 0,
            threads: 1,
        };
        let together = batch.min(self.threads);
        let pulled = pull.peak()?.times(together);
        let data = (Use::Data, rows);
        let mut phase = larger(Phase::new("localize", observed, data), Phase::new("localize", pulled, data));
        phase.add(self.lists(2));
        Ok(phase)
    }

    /// Running the network piece by piece for all candidates of a race: where it is cut, what is alive is
    /// what enters the next piece.
    pub(super) fn race_features(&self) -> Result<Phase> {
        let folded = (Use::Weights, self.if_resident(folded_bytes(&self.lowered)));
        let run = self.run(&self.lowered, &self.input, self.batch(self.counts.most_raced()))?;
        let mut phase = Phase::new("localize", run, folded);
        phase.add(self.lists(3));
        Ok(phase)
    }

    /// What all candidates of a race keep besides files: the lists of a part, its weights and two states of an
    /// optimizer are no more than those of the network.
    pub(super) fn race_lists(&self, candidates: usize) -> (Use, usize) {
        (Use::Data, self.counts.race_bytes(candidates) + candidates * self.list_bytes)
    }

    /// Making views of images, running the prefix, and asking the deployed network.
    pub(super) fn features(&self, site: &Site, views: usize) -> Result<Phase> {
        let batch = self.batch(self.counts.most_cached());
        let deployed = lower(&site.graph, &site.params)?;
        let folded = [&site.prefix, &deployed, &site.suffix].map(folded_bytes).iter().sum();
        let prefix = self.run(&site.prefix, &self.input, batch)?;
        let rest = self.run(&deployed, &site.input, batch)?;
        let middle = site.graph.shapes(&site.input)?[site.graph.output()].clone();
        let behind = self.run(&site.suffix, &middle, batch)?;
        let x = 4 * batch * elements(&site.input);
        let weights = (Use::Weights, self.if_resident(folded));
        let mut phase = larger(
            Phase::new("features", prefix, weights),
            larger(Phase::new("features", rest, weights), {
                let mut phase = Phase::new("features", behind, weights);
                phase.add((Use::Data, x));
                phase
            }),
        );
        if views > 1 {
            phase = larger(
                phase,
                Phase::new("features", Peak::data(Augment::bytes(self.image_shape())), weights),
            );
        }
        phase.add(self.lists(2));
        Ok(phase)
    }

    /// Running `graph` at `site` on held-back images.
    pub(super) fn evaluation(&self, site: &Site, graph: &Graph) -> Result<Peak> {
        let batch = self.batch(self.counts.most_held());
        let own = Lowered { graph: graph.clone(), params: Params::default() };
        let mut own =
            Run { lowered: &own, input: &site.input, batch, mapped: false, threads: self.threads }.peak()?;
        if self.base.levers.mapped {
            // Its tensors are in a file, and widened one at a time.
            own.add(Use::Weights, largest_bytes(graph, &site.input)?);
        }
        let middle = graph.shapes(&site.input)?[graph.output()].clone();
        let mut behind = self.run(&site.suffix, &middle, batch)?;
        behind.add(Use::Data, 4 * batch * elements(&site.input));
        let mut peak = if own.bytes >= behind.bytes { own } else { behind };
        peak.add(Use::Data, 2 * self.list_bytes);
        Ok(peak)
    }

    /// Asking what alternatives in the relaxed `graph` at `site` are worth: no less than it takes, since a pass
    /// counts what is held before a mixture, too.
    pub(super) fn worth(&self, site: &Site, graph: &Graph) -> Result<Peak> {
        let mut peak = self.evaluation(site, graph)?;
        peak.add(Use::Values, 4 * self.batch(self.counts.most_held()) * held(graph, &site.input)?);
        Ok(peak)
    }

    /// A training step of `graph` at `site`, in which the tensors change of which `changes` says so;
    /// the optimizer remembers all.
    pub(super) fn step(
        &self,
        site: &Site,
        graph: &Graph,
        (batch, changes): (usize, &dyn Fn(&str) -> bool),
    ) -> Result<Peak> {
        let mut peak = step_peak(site, graph, (batch, self.threads), changes)?;
        peak.add(Use::Data, 2 * self.list_bytes);
        Ok(peak)
    }

    /// Writing, reading and judging a patch of `own` bytes of tensors, `largest` of them the
    /// largest's. For each image the repaired network has `added` bytes of values more alive than
    /// the base.
    pub(super) fn judge(&self, [own, largest, added]: [usize; 3]) -> Result<Phase> {
        let batch = self.batch(self.counts.most_judged());
        let mut run = self.runner(batch)?;
        run.add(Use::Values, batch * added);
        if self.base.levers.mapped {
            // The trained part's weights are no halves, and widened one at a time.
            run.add(Use::Weights, largest);
        }
        // The trained and the repaired part are on the heap or in files; a patch has half as many bytes.
        let (trained, stored) = (self.if_resident(own), own / 2);
        let folded = self.if_resident(folded_bytes(&self.lowered));
        let phase = |peak, bytes| Phase::new("judge", peak, (Use::Weights, trained + bytes));
        // Drawn weights while the last is made from two others; all of them beside their patch; those
        // that were read from it.
        let drawn = phase(Peak::default(), own + 2 * largest);
        let stored_beside = phase(Peak::default(), own + stored + largest);
        let compared = phase(run, stored + trained + folded);
        let mut phase = larger(larger(drawn, stored_beside), compared);
        phase.add(self.lists(6));
        Ok(phase)
    }
}

impl Phase {
    pub(super) fn new(name: &'static str, peak: Peak, more: (Use, usize)) -> Self {
        let mut phase = Self { name, bytes: peak.bytes, of: peak.of.into_iter().collect() };
        phase.add(more);
        phase
    }

    pub(super) fn add(&mut self, (what, bytes): (Use, usize)) {
        self.bytes += bytes;
        match self.of.iter_mut().find(|(of, _)| *of == what) {
            Some((_, sum)) => *sum += bytes,
            None => self.of.push((what, bytes)),
        }
        self.of.retain(|(_, bytes)| *bytes > 0);
        self.of.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    }
}

fn larger(a: Phase, b: Phase) -> Phase {
    if a.bytes >= b.bytes { a } else { b }
}
