//! What a repair will hold, phase by phase, before anything of it runs.
//!
//! The levers that trade time for memory are tried from the cheapest to the dearest, those that
//! change what is learned last of all; the first setting under which every phase fits the limit
//! is the plan. If none fits, the least limit that would do is named.

use serde::Serialize;

use super::bytes::{added_bytes, convolution_bytes, folded_bytes, largest_bytes};
use super::config::{Config, Method, Target};
use super::counts::Counts;
use super::patching::deploy_mapped;
use super::phases::{Phase, Whole};
use super::settings::{INFER_BATCHES, depths, micro_batches, settings, time_factor};
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::fit::bytes::own_bytes;
use crate::fit::{Level, Site};
use crate::graph::Graph;
use crate::kernels::missing_thread_bytes;
use crate::memory::Levers;
use crate::memory::Use;
use crate::memory::plan::Peak;
use crate::meter;
use crate::search::candidate::CleanStatistics;
use crate::search::paths::{n_paths, path_graph};
use crate::search::space::{is_choice_weight, relaxed_graph, trial_graph};
use crate::zoo::Model;

/// What was decided.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Where the repair happens: `auto`, or a level.
    pub target: String,
    /// The limit in bytes; `None` for none.
    pub limit: Option<usize>,
    /// Bytes that were in use when the plan was made, and what graphs and lists will take.
    pub before: usize,
    /// The most bytes of any phase; 0 where there are none.
    pub peak: usize,
    /// The least limit under which this repair can run; 0 where it is not known.
    pub least: usize,
    /// How many times as long a training step takes as in a run without a limit: an estimate.
    pub time_factor: f64,
    /// What was decided.
    pub levers: Levers,
    /// Every phase under these levers; none where bytes are not known beforehand.
    pub phases: Vec<Phase>,
}

/// Bytes that are not followed one by one: names, JSON, what libraries keep.
const SMALL: usize = 48 << 10;

/// How many times the bytes of its graph a relaxed part takes for nodes, names and shapes, its copies
/// among them.
const RELAXED: usize = 7;

/// What is in use before is rounded up to this: the same command then names the same limit each
/// time, though libraries keep a few bytes more or less.
const BEFORE_STEP: usize = 4 << 10;

/// Plans the repair of `model`. Nothing is allocated that counts. Where passes do not compute in `f32` on the
/// CPU nothing is known beforehand, and the plan has no phases.
///
/// # Errors
///
/// [`Error::Limit`] when no setting fits [`Config::memory`], [`Error::Config`] for a setting
/// outside its range, [`Error::UnknownName`] for a block that is not there.
pub fn plan(model: &Model, config: &Config, counts: Counts) -> Result<Plan> {
    config.check()?;
    let threads = missing_thread_bytes();
    let base = deploy_mapped(model, None)?;
    let before = (meter::current() + threads).next_multiple_of(BEFORE_STEP) + SMALL;
    let planner = Planner::new(&base, config, (counts, before))?;
    if !config.compute.is_host() {
        return Ok(planner.unknown());
    }
    let tightest = planner.tightest()?;
    let least = highest(&tightest.1);
    let limit = config.memory;
    let chosen = match limit {
        None => Some((Levers::FASTEST, planner.phases(Levers::FASTEST)?)),
        Some(limit) if limit < least => None,
        Some(limit) => Some(planner.cheapest(limit)?.unwrap_or(tightest)),
    };
    let Some((levers, phases)) = chosen else {
        let what = format!("the repair ({})", planner.target());
        return Err(Error::Limit { what, limit: limit.unwrap_or(0), least });
    };
    Ok(Plan {
        target: planner.target(),
        limit,
        before: planner.before,
        peak: highest(&phases),
        least: least.min(highest(&phases)),
        time_factor: time_factor(&levers, config.fit.batch),
        levers,
        phases,
    })
}

fn highest(phases: &[Phase]) -> usize {
    phases.iter().map(|phase| phase.bytes).max().unwrap_or(0)
}

struct Planner<'a> {
    base: &'a Deployed,
    config: &'a Config,
    counts: Counts,
    /// Every place where training may happen.
    levels: Vec<Level>,
    /// Bytes that every phase has besides its own.
    before: usize,
    threads: usize,
}

impl<'a> Planner<'a> {
    fn new(base: &'a Deployed, config: &'a Config, (counts, before): (Counts, usize)) -> Result<Self> {
        let blocks = || base.network.blocks().map(|part| Level::Block(part.name.clone())).collect();
        let levels = match &config.target {
            _ if config.method == Method::BatchNorm => Vec::new(),
            Target::Auto => blocks(),
            Target::Fixed(level) => vec![level.clone()],
        };
        levels.iter().try_for_each(|level| level.parts(&base.network).map(drop))?;
        let threads = rayon::current_num_threads();
        Ok(Self { base, config, counts, levels, before, threads })
    }

    /// The plan of a repair whose bytes are not known.
    fn unknown(&self) -> Plan {
        let (limit, levers) = (None, Levers::FASTEST);
        let (before, phases) = (self.before, Vec::new());
        Plan { target: self.target(), limit, before, peak: 0, least: 0, time_factor: 1.0, levers, phases }
    }

    fn target(&self) -> String {
        match &self.config.target {
            Target::Auto => "block auto".into(),
            Target::Fixed(level) => level.to_string(),
        }
    }

    /// The setting with the smallest peak.
    fn tightest(&self) -> Result<(Levers, Vec<Phase>)> {
        let mut best: Option<(Levers, Vec<Phase>)> = None;
        // One image at a time is not always least: some kernels cut work of few images more finely.
        let micro_batches = micro_batches(self.config.fit.batch).into_iter().flat_map(depths);
        let settings = micro_batches.flat_map(|(micro_batch, depth)| {
            [1, 8].map(|infer_batch| Levers { micro_batch, depth, infer_batch, ..Levers::LEANEST })
        });
        for levers in settings {
            let phases = self.phases(levers)?;
            if best.as_ref().is_none_or(|(_, best)| highest(&phases) < highest(best)) {
                best = Some((levers, phases));
            }
        }
        best.ok_or_else(|| Error::Graph { node: "plan".into(), problem: "has no setting".into() })
    }

    /// The cheapest setting that fits `limit`.
    fn cheapest(&self, limit: usize) -> Result<Option<(Levers, Vec<Phase>)>> {
        for levers in settings(self.config.fit.batch) {
            // With one image at a time all else is at its least: what does not fit then, never will.
            let least = Levers { infer_batch: 1, ..levers };
            if highest(&self.phases(least)?) > limit {
                continue;
            }
            for infer_batch in INFER_BATCHES {
                let levers = Levers { infer_batch, ..levers };
                let phases = self.phases(levers)?;
                if highest(&phases) <= limit {
                    return Ok(Some((levers, phases)));
                }
            }
        }
        Ok(None)
    }

    fn phases(&self, levers: Levers) -> Result<Vec<Phase>> {
        let base = Deployed { levers, ..self.base.clone() };
        let network = Whole::new(&base, self.counts, self.threads)?;
        let mut phases = vec![network.prepare()?];
        if self.config.target == Target::Auto && !self.levels.is_empty() {
            phases.extend([network.evidence()?, network.race_features()?]);
        }
        for level in &self.levels {
            let site = Site::new(&base, level.clone())?;
            phases.extend(self.training(&network, &site)?);
        }
        phases.push(network.judge([0; 3])?);
        let rest = self.at_rest(&network)?;
        let mut worst: Vec<Phase> = Vec::new();
        for mut phase in phases {
            phase.add(rest);
            phase.bytes += self.before;
            match worst.iter_mut().find(|other| other.name == phase.name) {
                Some(other) if other.bytes >= phase.bytes => {}
                Some(other) => *other = phase,
                None => worst.push(phase),
            }
        }
        Ok(worst)
    }

    /// The phases of training at one site.
    fn training(&self, network: &Whole, site: &Site) -> Result<Vec<Phase>> {
        let frozen = network.if_resident(folded_bytes(&site.prefix) + folded_bytes(&site.suffix));
        let own = own_bytes(&site.graph, &site.input)?;
        let mut phases = Vec::new();
        let features = network.features(site, self.config.views)?;
        let batch = self.config.fit.batch;
        let part = |name, graph: &Graph, beside| {
            let beside = own_bytes(graph, &site.input)? + frozen + beside;
            // Choice weights change in steps of their own.
            let weights = network.step(site, graph, (batch, &|name| !is_choice_weight(name)))?;
            let choices = network.step(site, graph, (batch, &is_choice_weight))?;
            let peak = if weights.bytes >= choices.bytes { weights } else { choices };
            Ok::<_, Error>(Phase::new(name, peak, (Use::Weights, beside)))
        };
        // A part that is judged is in a file, or on the heap with a copy of its folded convolutions.
        let judged = |name, (graph, peak): (&Graph, Peak), beside| {
            let resident = own_bytes(graph, &site.input)? + convolution_bytes(graph, &site.input)?;
            let beside = network.if_resident(resident) + frozen + beside;
            Ok::<_, Error>(Phase::new(name, peak, (Use::Weights, beside)))
        };
        if self.config.target == Target::Auto {
            phases.extend(self.trial(network, site, frozen)?);
        }
        phases.extend([features, part("weights", &site.graph, 0)?]);
        let (mut repaired, mut added) = (own, 0);
        if self.config.method == Method::Search {
            // The part with trained weights waits for the searched one, in a file if weights are.
            let waits = network.if_resident(own);
            let before = meter::current();
            let graph = relaxed_graph(site)?;
            let lists = RELAXED * meter::current().saturating_sub(before).next_multiple_of(1 << 10);
            let waits = waits + lists;
            let trained: Vec<Graph> = match site.levers.by_path {
                true => (0..n_paths(&graph)).map(|i| path_graph(&graph, i)).collect(),
                false => vec![graph.clone()],
            };
            for graph in &trained {
                phases.extend([
                    part("search", graph, waits)?,
                    judged("search", (graph, network.worth(site, graph)?), waits)?,
                ]);
                if site.levers.by_path {
                    // A new tensor, or a trained one, on its way to its file.
                    let moved = own_bytes(graph, &site.input)? + 2 * largest_bytes(graph, &site.input)?;
                    phases.push(Phase::new(
                        "search",
                        Peak::default(),
                        (Use::Weights, moved + frozen + waits),
                    ));
                }
            }
            let seen = Peak::data(CleanStatistics::bytes(&site.input));
            phases.push(Phase::new("search", seen, (Use::Weights, own + frozen + waits)));
            let grown = (own as f64 * self.config.search.max_growth) as usize;
            repaired = grown.min(own_bytes(&graph, &site.input)?);
            added = added_bytes(&site.graph, &site.input)?;
        }
        let largest = largest_bytes(&site.graph, &site.input)?;
        phases.push(network.judge([repaired, largest, added])?);
        Ok(phases)
    }

    /// The phases of a trial repair at one site, beside `frozen` bytes of folded weights.
    fn trial(&self, network: &Whole, site: &Site, frozen: usize) -> Result<Vec<Phase>> {
        let race = &self.config.localize;
        let n = race.candidates.min(self.levels.len());
        let graph = trial_graph(site)?;
        let (own, largest) = (own_bytes(&graph, &site.input)?, largest_bytes(&graph, &site.input)?);
        let step = network.step(site, &graph, (race.fit.batch, &|_| true))?;
        let states = own * site.levers.rule().states();
        let phase = |peak, bytes| Phase::new("localize", peak, (Use::Weights, frozen + bytes));
        let mut phases = vec![
            phase(step, own),
            // To a file, a tensor at a time, and back.
            phase(Peak::default(), own + states + largest),
            // It is judged where it is then, in the file.
            phase(network.evaluation(site, &graph)?, network.if_resident(largest)),
        ];
        phases.iter_mut().for_each(|phase| phase.add(network.race_lists(n)));
        Ok(phases)
    }

    /// Weights and lists of images that are there all the time.
    fn at_rest(&self, network: &Whole) -> Result<(Use, usize)> {
        let weights = network.if_resident(own_bytes(&network.graph, &network.input)?);
        let lists = self.counts.list_bytes() + self.counts.view_bytes(self.config.views);
        Ok((Use::Weights, weights + lists))
    }
}
