//! The repair itself, from images to a judged patch.

use serde::Serialize;

use super::batch_norm;
use super::config::{Config, Method, Target};
use super::counts::Counts;
use super::gate::Verdict;
use super::patching::{deploy_mapped, place};
use super::plan::{Plan, plan};
use super::sets::{Cached, Inputs, Split, prepare};
use crate::data::Images;
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::fit::samples::Store;
use crate::fit::{self, Level, Part, Sets, Site, fit};
use crate::localize::{self, Ranking, localize};
use crate::meter;
use crate::rng::Rng;
use crate::search::bilevel::Data;
use crate::search::candidate::CleanStatistics;
use crate::search::discretize::{Choice, HeldBack};
use crate::search::search;
use crate::storage::Bytes;
use crate::zoo::Model;

/// What a repair came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Where it happened; `None` for batch-norm statistics, which are everywhere.
    pub level: Option<Level>,
    /// The ranking, if a block was looked for.
    pub ranking: Option<Ranking>,
    /// The choices of a search.
    pub choices: Vec<Choice>,
    /// The decision and its numbers.
    pub verdict: Verdict,
    /// Share of the way from the deployed to the trained weights that was taken.
    pub share: f64,
    /// The network as trained, before the gate drew it back.
    pub trained: Deployed,
    /// The network as the patch gives it.
    pub repaired: Deployed,
    /// The patch's bytes; worth writing when the verdict is accepted.
    pub patch: Bytes,
}

/// Stages of a repair, told to the caller's progress display in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// The sets, and the statistics of batch norms.
    Prepare,
    /// Evidence and trial repairs.
    Localize,
    /// What the trained part sees.
    Features,
    /// The part as deployed, and after a search the chosen one.
    Fit,
    /// The relaxed part.
    Search,
    /// The gate.
    Judge,
}

impl Stage {
    /// The name of its phase in a [`Plan`].
    #[must_use]
    pub fn phase(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Localize => "localize",
            Self::Features => "features",
            Self::Fit => "weights",
            Self::Search => "search",
            Self::Judge => "judge",
        }
    }
}

/// Is told the stage, what it works on, and how many steps are done: 0 when it begins.
pub type Progress<'a> = &'a mut dyn FnMut(Stage, &str, usize);

/// Repairs `model`.
///
/// # Errors
///
/// Those of [`prepare`] for sets that do not fit, [`Error::Diverged`] when training leaves the
/// finite numbers, [`Error::File`] when a working file cannot be written. A repair that the gate
/// refuses is no error: it is in [`Outcome::verdict`]. [`Error::Limit`] when it cannot be done
/// under the limit; then nothing was begun.
pub fn repair(model: &Model, inputs: Inputs, config: &Config, progress: Progress) -> Result<Outcome> {
    let plan = plan(model, config, Counts::of(&inputs))?;
    repair_as_planned(model, inputs, (config, &plan), progress)
}

/// As [`repair`], under a plan that was made before by [`plan`](fn@plan) for the same settings.
///
/// # Errors
///
/// As [`repair`], and [`Error::Memory`] where the plan's limit would be passed.
pub fn repair_as_planned(
    model: &Model,
    inputs: Inputs,
    (config, plan): (&Config, &Plan),
    progress: Progress,
) -> Result<Outcome> {
    config.check()?;
    let _limit = plan.limit.map(meter::limit);
    let base = deploy_mapped(model, None)?.under(plan.levers)?.on(&config.compute);
    progress(Stage::Prepare, "images", 0);
    let split = prepare(&base, inputs, config.seed)?;
    let repair = Repair { model, inputs, config, split, base };
    let (start, re_estimated) = repair.start()?;
    let (level, ranking) = repair.level(&start, progress)?;
    let (trained, choices) = match &level {
        Some(level) => repair.train(&start, level, progress)?,
        None => (re_estimated, Vec::new()),
    };
    progress(Stage::Judge, "guard set", 0);
    repair.finish(trained, (level, ranking, choices))
}

pub(super) struct Repair<'a> {
    pub(super) model: &'a Model,
    pub(super) inputs: Inputs<'a>,
    pub(super) config: &'a Config,
    pub(super) split: Split,
    pub(super) base: Deployed,
}

impl Repair<'_> {
    fn store(&self) -> Store<'_> {
        Store { folder: self.inputs.folder, precision: self.config.features }
    }

    /// The network to start from, and the one with re-estimated statistics: the second is the
    /// first where it is better on held-back failures and on held-back replay.
    fn start(&self) -> Result<(Deployed, Deployed)> {
        let Split { failures, replay, held_failures, held_replay, .. } = &self.split;
        let re_estimated = batch_norm::re_estimate(&self.base, failures, replay, self.config.seed)?;
        // One after the other, so that only one network is folded at a time.
        let right = |network: &Deployed| {
            let runner = network.runner()?;
            let right = |images: &Images| {
                let right = runner.classes(images)?.into_iter().zip(images.targets());
                Ok::<_, Error>(right.filter(|(class, label)| class == label).count())
            };
            Ok::<_, Error>([right(held_replay)?, right(held_failures)?])
        };
        let (before, after) = (right(&self.base)?, right(&re_estimated)?);
        let better = after.iter().zip(before).all(|(after, before)| *after >= before);
        let start = if better { &re_estimated } else { &self.base };
        Ok((start.clone(), re_estimated))
    }

    fn level(&self, start: &Deployed, progress: Progress) -> Result<(Option<Level>, Option<Ranking>)> {
        if self.config.method == Method::BatchNorm {
            return Ok((None, None));
        }
        if let Target::Fixed(level) = &self.config.target {
            return Ok((Some(level.clone()), None));
        }
        progress(Stage::Localize, "spectrum and gradients", 0);
        let field = self.split.field();
        let settings = localize::Config { seed: self.config.seed, ..self.config.localize.clone() };
        let mut tell = |what: &str, step| progress(Stage::Localize, what, step);
        let ranking = localize(start, field, (&settings, self.store()), &mut tell)?;
        let first = ranking.blocks.first().map(|block| Level::Block(block.block.clone()));
        Ok((first, Some(ranking)))
    }

    /// The network with its trained part, and the choices of a search.
    fn train(&self, start: &Deployed, level: &Level, progress: Progress) -> Result<(Deployed, Vec<Choice>)> {
        progress(Stage::Features, &level.to_string(), 0);
        let site = Site::new(start, level.clone())?;
        let sets = Cached::new(&site, &self.split, self.config, (&start.normalize()?, self.store()))?;
        progress(Stage::Fit, &level.to_string(), 0);
        let as_deployed = Part::new(site.graph.clone(), site.params.clone(), &site)?;
        let mut weights = self.fit(&site, as_deployed, sets.training(), (self.config.fit.steps, progress))?;
        weights.set_aside(&site, self.inputs.folder)?;
        if self.config.method == Method::Weights {
            return Ok((place(start, &site, &weights)?, Vec::new()));
        }
        progress(Stage::Search, &level.to_string(), 0);
        let clean = CleanStatistics::measure(&sets.replay)?;
        let data = Data {
            training: sets.training(),
            validation: sets.validation(),
            clean: &clean,
            folder: self.inputs.folder,
        };
        let mut rng = Rng::new(self.config.seed);
        let mut tell = |step, _| progress(Stage::Search, &level.to_string(), step + 1);
        let (found, mut choices) =
            search(&site, data, (&self.config.search, &self.config.fit), &mut rng, &mut tell)?;
        let steps = self.config.fit.steps - self.config.search.steps;
        let mut found = self.fit(&site, found, sets.training(), (steps, progress))?;
        found.set_aside(&site, self.inputs.folder)?;
        // An architecture stays only if it is worth more than the deployed one with as many steps.
        let held_back = |part: &Part| HeldBack::measure(&site, part, sets.validation());
        if held_back(&found)?.is_better_than(&held_back(&weights)?) {
            return Ok((place(start, &site, &found)?, choices));
        }
        choices.iter_mut().for_each(|choice| choice.chosen = None);
        Ok((place(start, &site, &weights)?, choices))
    }

    fn fit(&self, site: &Site, part: Part, sets: Sets, (steps, progress): (usize, Progress)) -> Result<Part> {
        let config = fit::Config { steps, ..self.config.fit.clone() };
        let mut tell = |step, _| progress(Stage::Fit, &site.level.to_string(), step + 1);
        fit(site, part, sets, (&config, Rng::new(self.config.seed)), &mut tell)
    }
}
