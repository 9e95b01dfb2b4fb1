//! The repair itself, from images to a judged patch.

use serde::Serialize;
use serde_json::json;

use super::batch_norm;
use super::config::{Config, Method, Target};
use super::gate::{Evidence, Verdict};
use super::patching::{Origin, deploy_mapped, deploy_on, difference, place};
use super::plan::{Counts, Plan, plan};
use super::sets::{Cached, Inputs, Split, prepare};
use crate::data::Images;
use crate::error::{During, Error, Result};
use crate::eval::{Change, Deployed};
use crate::fit::samples::Store;
use crate::fit::{self, Level, Part, Sets, Site, fit};
use crate::graph::{Params, Weight};
use crate::localize::{self, Ranking, localize};
use crate::memory::cache::Precision;
use crate::meter;
use crate::rng::Rng;
use crate::search::bilevel::Data;
use crate::search::candidate::CleanStatistics;
use crate::search::discretize::{Choice, HeldBack};
use crate::search::{Genotype, search};
use crate::storage::{Bytes, Patch, Storage};
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
    pub patch: Vec<u8>,
}

/// Stages of a repair, told to the caller's progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// Evidence and trial repairs.
    Localize,
    /// The relaxed part.
    Search,
    /// The chosen part.
    Fit,
    /// The gate.
    Judge,
}

/// Is told the stage, what it works on, and the step.
pub type Progress<'a> = &'a mut dyn FnMut(Stage, &str, usize);

/// Shares of the way back towards the deployed weights that the gate is asked about.
const SHARES: [f64; 6] = [1.0, 0.9, 0.8, 0.65, 0.5, 0.35];

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
    let base = deploy_mapped(model, None)?.under(plan.levers)?;
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

struct Repair<'a> {
    model: &'a Model,
    inputs: Inputs<'a>,
    config: &'a Config,
    split: Split,
    base: Deployed,
}

impl Repair<'_> {
    fn store(&self) -> Store<'_> {
        Store { folder: self.inputs.folder, precision: Precision::F16 }
    }

    /// The network to start from, and the one with re-estimated statistics: the second is the
    /// first where it is better on held-back failures and on held-back replay.
    fn start(&self) -> Result<(Deployed, Deployed)> {
        let Split { failures, replay, held_failures, held_replay, .. } = &self.split;
        let re_estimated = batch_norm::re_estimate(&self.base, failures, replay, self.config.seed)?;
        let (before, after) = (self.base.runner()?, re_estimated.runner()?);
        let better = |images: &Images| {
            let labels = images.targets();
            let change = Change::new(&before.classes(images)?, &after.classes(images)?, &labels);
            Ok::<_, Error>(change.right_after >= change.right_before)
        };
        let start = if better(held_replay)? && better(held_failures)? { &re_estimated } else { &self.base };
        Ok((start.clone(), re_estimated))
    }

    fn level(&self, start: &Deployed, progress: Progress) -> Result<(Option<Level>, Option<Ranking>)> {
        if self.config.method == Method::BatchNorm {
            return Ok((None, None));
        }
        if let Target::Fixed(level) = &self.config.target {
            return Ok((Some(level.clone()), None));
        }
        let field = self.split.field();
        let settings = localize::Config { seed: self.config.seed, ..self.config.localize.clone() };
        let mut tell = |what: &str, step| progress(Stage::Localize, what, step);
        let ranking = localize(start, field, (&settings, self.store()), &mut tell)?;
        let first = ranking.blocks.first().map(|block| Level::Block(block.block.clone()));
        Ok((first, Some(ranking)))
    }

    /// The network with its trained part, and the choices of a search.
    fn train(&self, start: &Deployed, level: &Level, progress: Progress) -> Result<(Deployed, Vec<Choice>)> {
        let site = Site::new(start, level.clone())?;
        let sets = Cached::new(&site, &self.split, (&start.normalize()?, self.store()))?;
        let as_deployed = Part::new(site.graph.clone(), site.params.clone(), &site)?;
        let mut weights = self.fit(&site, as_deployed, sets.training(), (self.config.fit.steps, progress))?;
        self.set_aside(&mut weights)?;
        if self.config.method == Method::Weights {
            return Ok((place(start, &site, &weights)?, Vec::new()));
        }
        let clean = CleanStatistics::measure(&sets.replay)?;
        let data = Data { training: sets.training(), validation: sets.validation(), clean: &clean };
        let mut rng = Rng::new(self.config.seed);
        let mut tell = |step, _| progress(Stage::Search, &level.to_string(), step);
        let (found, mut choices) =
            search(&site, data, (&self.config.search, &self.config.fit), &mut rng, &mut tell)?;
        let steps = self.config.fit.steps - self.config.search.steps;
        let mut found = self.fit(&site, found, sets.training(), (steps, progress))?;
        self.set_aside(&mut found)?;
        // An architecture stays only if it is worth more than the deployed one with as many steps.
        let held_back = |part: &Part| HeldBack::measure(&site, part, sets.validation());
        if held_back(&found)?.is_better_than(&held_back(&weights)?) {
            return Ok((place(start, &site, &found)?, choices));
        }
        choices.iter_mut().for_each(|choice| choice.chosen = None);
        Ok((place(start, &site, &weights)?, choices))
    }

    fn fit(
        &self,
        site: &Site,
        mut part: Part,
        sets: Sets,
        (steps, progress): (usize, Progress),
    ) -> Result<Part> {
        let config = fit::Config { steps, ..self.config.fit.clone() };
        let mut tell = |step, _| progress(Stage::Fit, &site.level.to_string(), step);
        fit(site, &mut part, sets, (&config, &mut Rng::new(self.config.seed)), &mut tell)?;
        Ok(part)
    }

    /// Moves a part that waits into a file, where weights are in files.
    fn set_aside(&self, part: &mut Part) -> Result<()> {
        if self.base.levers.mapped {
            part.params = part.params.spooled(self.inputs.folder)?;
        }
        Ok(())
    }

    /// Rounds, judges, and draws back until the gate is content; the last and mildest result
    /// stands for a refusal.
    fn finish(
        &self,
        trained: Deployed,
        (level, ranking, choices): (Option<Level>, Option<Ranking>, Vec<Choice>),
    ) -> Result<Outcome> {
        let mut first: Option<Outcome> = None;
        for share in SHARES {
            let drawn = drawn_back(&self.base, &trained, share)?;
            let origin = Origin {
                genotype: json!(Genotype::new(&choices)),
                provenance: self.provenance(level.as_ref(), share),
            };
            let patch =
                difference(self.model.file.digest(), &self.base, &drawn, origin)?.to_bytes(Storage::F16)?;
            let repaired = self.read_back(&patch)?;
            let verdict = self.config.gate.judge(self.evidence(&repaired)?);
            let (level, ranking, choices) = (level.clone(), ranking.clone(), choices.clone());
            let trained = trained.clone();
            let outcome = Outcome { level, ranking, choices, verdict, share, trained, repaired, patch };
            if outcome.verdict.accepted {
                return Ok(outcome);
            }
            first.get_or_insert(outcome);
        }
        first.ok_or_else(|| Error::Graph { node: "gate".into(), problem: "was not asked".into() })
    }

    fn read_back(&self, patch: &[u8]) -> Result<Deployed> {
        let name = std::path::Path::new("new patch");
        let patch = Patch::read(Bytes::from(patch.to_vec()), name)?;
        let deployed = deploy_on(&self.base, self.model.file.digest(), (&patch, name))?;
        if !self.base.levers.mapped {
            return Ok(deployed);
        }
        Ok(Deployed { params: deployed.params.spooled(self.inputs.folder)?, ..deployed })
    }

    /// What the patch tells of itself; nothing that changes from run to run.
    fn provenance(&self, level: Option<&Level>, share: f64) -> serde_json::Value {
        let digest = |images: &Images| crate::storage::Digest::of(&images.pixels()).to_string();
        json!({
            "program": concat!("archrepair ", env!("CARGO_PKG_VERSION")),
            "seed": self.config.seed,
            "method": self.config.method.to_string(),
            "level": level.map(ToString::to_string),
            "steps": self.config.fit.steps,
            "share": share,
            "failures": { "images": self.inputs.failures.len(), "digest": digest(self.inputs.failures) },
            "replay": { "images": self.inputs.replay.len(), "digest": digest(self.inputs.replay) },
        })
    }

    fn evidence(&self, repaired: &Deployed) -> Result<Evidence> {
        let held = [&self.split.held_failures, &self.split.held_replay];
        let [failures, passes] = self.inputs.guard.unwrap_or(held);
        let (old, new) = (self.base.runner()?, repaired.runner()?);
        let labels = passes.targets();
        let (before, after) = (old.classes(passes)?, new.classes(passes)?);
        let of_class = |class: usize| {
            let of: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
            let pick = |from: &[usize]| of.iter().map(|&i| from[i]).collect::<Vec<_>>();
            Change::new(&pick(&before), &pick(&after), &pick(&labels))
        };
        Ok(Evidence {
            failures: Change::new(&old.classes(failures)?, &new.classes(failures)?, &failures.targets()),
            classes: (0..self.base.network.classes).map(of_class).collect(),
            passes: Change::new(&before, &after, &labels),
        })
    }
}

/// The network `share` of the way from `old` to `new`: weights between both, and where the
/// architecture grew, gates that are open that far.
fn drawn_back(old: &Deployed, new: &Deployed, share: f64) -> Result<Deployed> {
    if share >= 1.0 {
        return Ok(new.clone());
    }
    let between = |name: &str, to: &Weight| -> Result<Weight> {
        let drawn = match old.params.find(name) {
            Some(from) if from.is_same(to) => return Ok(to.clone()),
            Some(from) => {
                let (from, to) = (from.tensor()?, to.tensor()?);
                (from * (1.0 - share)).and_then(|from| from + (to * share)?)
            }
            None if name.ends_with(".open.gate") => to.tensor()? * share,
            None => return Ok(to.clone()),
        };
        Ok(drawn.during("drawing weights back")?.into())
    };
    let drawn = |(name, to): (&String, &Weight)| Ok((name.clone(), between(name, to)?));
    let params = new.params.iter().map(drawn).collect::<Result<Params>>()?;
    Ok(Deployed { params, ..new.clone() })
}
