//! `archrepair localize`: which block is best repaired.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::base::{Base, Pictures, images};
use super::stages::{Stages, Steps};
use super::{Console, Global};
use crate::device::{Compute, Precision};
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::fit::samples::Store;
use crate::localize::{self, Ranking, localize};
use crate::repair::Inputs;
use crate::repair::pipeline::Stage;
use crate::repair::sets::prepare;
use crate::report::ranking;

/// Rank the blocks of a model by how well each answers a set of failures
#[derive(Debug, Args)]
#[command(after_help = "Example:
  archrepair localize model.safetensors --failures fog/ --replay clean-images-idx3-ubyte.gz")]
pub(super) struct Localize {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    sets: Sets,
    #[command(flatten)]
    race: Race,
}

/// The images a repair learns from.
#[derive(Debug, Args)]
pub(super) struct Sets {
    /// Labelled images that the model gets wrong: a set as `eval` takes it
    #[arg(long, value_name = "DATA")]
    pub(super) failures: PathBuf,
    /// Labelled images that it should keep getting right
    #[arg(long, value_name = "DATA")]
    pub(super) replay: PathBuf,
    /// Folder for working files; they have no name and vanish with the program
    /// [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    #[command(flatten)]
    pub(super) pictures: Pictures,
}

impl Sets {
    pub(super) fn folder(&self) -> PathBuf {
        self.work.clone().unwrap_or_else(std::env::temp_dir)
    }
}

/// How blocks are ranked.
#[derive(Debug, Args)]
#[command(next_help_heading = "How to localize")]
pub(super) struct Race {
    /// Suspiciousness of a neuron: ochiai, tarantula or dstar
    #[arg(long, default_value = "ochiai")]
    formula: String,
    /// Weight updates of a finalist's trial repair; 0 ranks by suspicion alone
    #[arg(long, default_value_t = localize::Config::default().race_steps, value_name = "N")]
    race_steps: usize,
    /// Blocks that get a trial repair
    #[arg(long, default_value_t = localize::Config::default().candidates, value_name = "N")]
    candidates: usize,
}

impl Race {
    pub(super) fn config(&self, global: &Global) -> Result<localize::Config> {
        if self.candidates == 0 {
            return Err(Error::Config { field: "candidates", got: "0".into(), want: "at least 1".into() });
        }
        Ok(localize::Config {
            formula: self.formula.parse()?,
            candidates: self.candidates,
            race_steps: self.race_steps,
            seed: global.seed,
            ..localize::Config::default()
        })
    }
}

impl Localize {
    pub(super) fn run(&self, (global, compute): (&Global, &Compute), console: &Console) -> Result<u8> {
        let config = self.race.config(global)?;
        let base = self.base.deploy(None)?.deployed.on(compute);
        let failures = images(&self.sets.failures, "failure", &base.network, &self.sets.pictures)?;
        let replay = images(&self.sets.replay, "replay", &base.network, &self.sets.pictures)?;
        let folder = self.sets.folder();
        let inputs = Inputs { failures: &failures, replay: &replay, guard: None, folder: &folder };
        let steps = Steps { localize: Steps::of_race(&config, &base.network), search: 0, fit: 0 };
        let mut stages = Stages::new(console, steps);
        let ranking = rank(&base, inputs, &config, &mut stages)?;
        drop(stages);
        console.result_on(&compute.device, &ranking::text(&ranking), json!(ranking))?;
        Ok(0)
    }
}

fn rank(base: &Deployed, inputs: Inputs, config: &localize::Config, stages: &mut Stages) -> Result<Ranking> {
    stages.tell(Stage::Localize, "spectrum and gradients", 0);
    let split = prepare(base, inputs, config.seed)?;
    let store = Store { folder: inputs.folder, precision: Precision::F16 };
    localize(base, split.field(), (config, store), &mut |what, step| stages.tell(Stage::Localize, what, step))
}
