//! `archrepair repair`: from failures to a patch, or to a refusal with its reasons.

use std::path::PathBuf;

use clap::Args;

use super::base::{Base, Pictures, images};
use super::localize::{Race, Sets};
use super::stages::{Stages, Steps};
use super::{Console, Global, REFUSED};
use crate::data::Images;
use crate::device::Compute;
use crate::error::Result;
use crate::fit::{self, Level};
use crate::graph::Network;
use crate::memory::meter;
use crate::repair::{Config, Counts, Gate, Inputs, Method, Target, plan, repair_as_planned};
use crate::report::{self, Report, units};
use crate::search;
use crate::storage::{check_free, publish};

/// Repair a model from a few failures and write the repair as a patch
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair repair model.safetensors --failures fog/ --replay clean/ --out fog.patch
  archrepair repair model.safetensors --failures fog/ --replay clean/ --out fog.patch \\
      --level block:layer1.0 --method weights --max-drop 0.005

The model file is never written. The exit status is 0 when the patch was written and 3 when the
gate refused it; then nothing is written.")]
pub(super) struct Repair {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    sets: Sets,
    /// Patch file to write
    #[arg(long, value_name = "PATCH")]
    out: PathBuf,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    race: Race,
    #[command(flatten)]
    guard: Guard,
}

/// Where and how to repair.
#[derive(Debug, Args)]
#[command(next_help_heading = "How to repair")]
struct How {
    /// What is changed: search (architecture and weights), weights, or batch-norm
    #[arg(long, default_value = "search")]
    method: String,
    /// Where: auto (the block that localization puts first), block:NAME, last-layer or network
    #[arg(long, default_value = "auto")]
    level: String,
    /// Weight updates, those of a search included
    #[arg(long, default_value_t = fit::Config::default().steps, value_name = "N")]
    steps: usize,
    /// Weight updates of the search
    #[arg(long, default_value_t = search::Config::default().steps, value_name = "N")]
    search_steps: usize,
    /// Most bytes that the engine may allocate, as 48MiB; a plan that keeps to it is shown first. For
    /// passes in f32 on the CPU alone: elsewhere nothing is planned
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    memory: Option<usize>,
    /// How features of the frozen part are kept in their file: f16, or f32 as they were computed
    #[arg(long, default_value = "f16", value_name = "PRECISION")]
    features: String,
    /// Views of each image that is trained on: as it is, and N - 1 times shifted by a few pixels
    #[arg(long, default_value_t = Config::default().views, value_name = "N")]
    views: usize,
    /// Learning rate of the deployed weights [default: 0.004 at a block, 0.005 at the last layer,
    /// 0.0001 in the whole network]
    #[arg(long)]
    rate: Option<f64>,
    /// How much the old network's opinion counts beside the labels; 0 for not at all
    #[arg(long, default_value_t = fit::Config::default().distill, value_name = "WEIGHT")]
    distill: f64,
    /// Most parameters and multiply-adds of the new block over those of the old
    #[arg(long, default_value_t = search::Config::default().max_growth, value_name = "FACTOR")]
    max_growth: f64,
}

/// What the gate judges on, and its limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "The gate")]
struct Guard {
    /// Failures that only the gate sees [default: a fifth of --failures, held back]
    #[arg(long, value_name = "DATA", requires = "guard_passes")]
    guard_failures: Option<PathBuf>,
    /// Images to keep right that only the gate sees [default: a part of --replay, held back]
    #[arg(long, value_name = "DATA", requires = "guard_failures")]
    guard_passes: Option<PathBuf>,
    /// Least share of the failures that must be fixed
    #[arg(long, default_value_t = Gate::default().min_fixed, value_name = "SHARE")]
    min_fixed: f64,
    /// Most accuracy that may be lost on what worked
    #[arg(long, default_value_t = Gate::default().max_drop, value_name = "SHARE")]
    max_drop: f64,
    /// Most images of what worked that may break
    #[arg(long, default_value_t = Gate::default().max_broken, value_name = "SHARE")]
    max_broken: f64,
    /// Most accuracy that a single class may lose
    #[arg(long, default_value_t = Gate::default().max_class_drop, value_name = "SHARE")]
    max_class_drop: f64,
    /// Greatest probability that the improvement is chance
    #[arg(long, default_value_t = Gate::default().max_p, value_name = "P")]
    max_p: f64,
}

impl Repair {
    pub(super) fn run(&self, (global, compute): (&Global, &Compute), console: &Console) -> Result<u8> {
        // Long work must not end at an output that cannot be written.
        check_free(&self.out)?;
        let config = Config { compute: compute.clone(), ..self.config(global)? };
        config.check()?;
        let model = self.base.open()?;
        let open = |path, set| images(path, set, &model.network, &self.sets.pictures);
        let failures = open(&self.sets.failures, "failure")?;
        let replay = open(&self.sets.replay, "replay")?;
        let guard = self.guard.open(&model.network, &self.sets.pictures)?;
        let folder = self.sets.folder();
        let guard = guard.as_ref().map(|[failures, passes]| [failures, passes]);
        let inputs = Inputs { failures: &failures, replay: &replay, guard, folder: &folder };
        let plan = plan(&model, &config, Counts::of(&inputs))?;
        if plan.limit.is_some() {
            console.note(&report::plan::text(&plan));
        }
        let mut stages = Stages::new(console, steps(&config, &model.network));
        let mut tell = |stage, what: &str, step| stages.tell(stage, what, step);
        let outcome = repair_as_planned(&model, inputs, (&config, &plan), &mut tell)?;
        let spent = stages.finish();
        if outcome.verdict.accepted {
            publish(&self.out, &outcome.patch)?;
        }
        let report = Report {
            outcome: &outcome,
            method: config.method,
            patch: self.out.clone(),
            base: model.file.digest(),
            base_bytes: model.file.len_bytes(),
            peak_bytes: meter::peak(),
            plan: &plan,
            spent,
        };
        console.result_on(&compute.device, &report.text(), report.json())?;
        Ok(if outcome.verdict.accepted { 0 } else { REFUSED })
    }

    fn config(&self, global: &Global) -> Result<Config> {
        let How { steps, search_steps, distill, max_growth, .. } = self.how;
        let target: Target = self.how.level.parse()?;
        let rate = self.how.rate.unwrap_or_else(|| usual_rate(&target));
        Ok(Config {
            target,
            method: self.how.method.parse()?,
            localize: self.race.config(global)?,
            search: search::Config { steps: search_steps, max_growth, ..search::Config::default() },
            fit: fit::Config { steps, rate, distill, ..fit::Config::default() },
            gate: self.guard.gate(),
            features: self.how.features.parse()?,
            views: self.how.views,
            memory: self.how.memory,
            seed: global.seed,
            ..Config::default()
        })
    }
}

impl Guard {
    fn open(&self, network: &Network, pictures: &Pictures) -> Result<Option<[Images; 2]>> {
        let (Some(failures), Some(passes)) = (&self.guard_failures, &self.guard_passes) else {
            return Ok(None);
        };
        let open = |path| images(path, "guard", network, pictures);
        Ok(Some([open(failures)?, open(passes)?]))
    }

    fn gate(&self) -> Gate {
        let Self { min_fixed, max_drop, max_broken, max_class_drop, max_p, .. } = *self;
        Gate { min_fixed, max_drop, max_broken, max_class_drop, max_p }
    }
}

/// A last layer must move far, a whole network little.
fn usual_rate(target: &Target) -> f64 {
    match target {
        Target::Fixed(Level::LastLayer) => 5e-3,
        Target::Fixed(Level::Network) => 1e-4,
        _ => fit::Config::default().rate,
    }
}

/// Steps of each stage, for the progress bars.
pub(super) fn steps(config: &Config, network: &Network) -> Steps {
    let search = if config.method == Method::Search { config.search.steps } else { 0 };
    Steps { localize: Steps::of_race(&config.localize, network), search, fit: config.fit.steps }
}
