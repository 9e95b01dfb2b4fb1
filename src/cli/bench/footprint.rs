//! `archrepair bench footprint`: what a repair takes here, phase by phase and limit by limit.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::{child, noise};
use crate::cli::base::Base;
use crate::cli::{Console, Global};
use crate::error::{Error, Result};
use crate::graph::Network;
use crate::repair::Target;
use crate::report::footprint::{self, Row};
use crate::report::units;
use crate::rng::Rng;

/// Measure memory and time of inference and of repairs within limits
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair bench footprint model.safetensors
  archrepair bench footprint model.safetensors --level block:layer1.0 --memory none,64MiB,12MiB
  archrepair bench footprint model.safetensors --memory 64MiB --spare 40MiB --json

Each repair is a process of its own, with images of noise and random labels: only memory and time
are looked at. The exit status is 0 when every run took no more than was planned; a limit that is
refused, with the least that would do, is a good end too.")]
pub(super) struct Footprint {
    #[command(flatten)]
    base: Base,
    /// Where to repair, as in `repair`: auto, block:NAME, last-layer or network; repeatable
    #[arg(long = "level", default_value = "auto", value_name = "LEVEL")]
    levels: Vec<String>,
    /// Limits of each repair, as none,64MiB,12MiB; the times of others refer to that of none
    #[arg(long = "memory", default_value = "none", value_delimiter = ',', value_name = "BYTES,...")]
    limits: Vec<Limit>,
    /// Let the system enforce each limit too, this much above it; needs prlimit of util-linux
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    spare: Option<usize>,
    /// Images that fail; there are twice as many of replay
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(10..1_000_000))]
    failures: u32,
    /// Images that run together in the inference rows
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Steps of a search and of a block's trial; training has two more. Bytes do not depend on it
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    steps: u32,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<usize>);

impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let bytes = units::parse_bytes(text).map_err(|problem| format!("{problem}, or none"))?;
        Ok(Self(Some(bytes)))
    }
}

impl Footprint {
    pub(super) fn run(&self, global: &Global, console: &Console) -> Result<u8> {
        let network = self.base.open()?.network;
        self.check(&network)?;
        let folder = tempfile::tempdir().map_err(Error::file("make a folder in", &std::env::temp_dir()))?;
        self.write_images(&network, folder.path(), global.seed)?;
        let runs = self.runs();
        let all = runs.len() + 1;
        console.note(&format!("run 1 of {all}: inference"));
        let mut parts = vec![self.inference(global)?];
        for (run, i) in runs.iter().zip(2..) {
            console.note(&format!("run {i} of {all}: {}, limit {}", run.level, run.limit_text()));
            parts.push(self.repair(run, (folder.path(), i), global)?);
        }
        let overruns = parts.iter().filter(|rows| rows.iter().any(|row| !row.kept)).count();
        let mut rows = parts.concat();
        footprint::set_factors(&mut rows);
        console.result(&footprint::text(&rows), &json!({ "rows": rows }))?;
        if overruns == 0 { Ok(0) } else { Err(Error::Overrun { runs: overruns, all }) }
    }

    /// What would end every run is said before the first.
    fn check(&self, network: &Network) -> Result<()> {
        for level in &self.levels {
            if let Target::Fixed(level) = level.parse()? {
                level.parts(network)?;
            }
        }
        self.spare.map_or(Ok(()), |_| child::check_prlimit())
    }

    fn write_images(&self, network: &Network, folder: &Path, seed: u64) -> Result<()> {
        let (rng, n) = (&mut Rng::new(seed), self.failures as usize);
        for (name, n) in [("failures", n), ("replay", 2 * n)] {
            noise::write(&noise::images(network, n, rng)?, &folder.join(name))?;
        }
        Ok(())
    }

    /// A row for each level and limit, with nothing in it yet.
    fn runs(&self) -> Vec<Row> {
        let run =
            |level: &String, &Limit(limit): &Limit| Row { level: level.clone(), limit, ..Row::default() };
        self.levels.iter().flat_map(|level| self.limits.iter().map(move |limit| run(level, limit))).collect()
    }

    fn inference(&self, global: &Global) -> Result<Vec<Row>> {
        let mut command = child::program(None)?;
        command.args(["bench", "inference", "--json"]).args(global.arguments());
        command.args(["--batch", &self.batch.to_string()]).args(self.base.arguments());
        Ok(child::rows(&child::run(command)?))
    }

    fn repair(&self, run: &Row, (folder, i): (&Path, usize), global: &Global) -> Result<Vec<Row>> {
        let both = run.limit.zip(self.spare);
        let mut command = child::program(both.map(|(limit, spare)| limit.saturating_add(spare)))?;
        command.args(["repair", "--json", "--level", &run.level]).args(global.arguments());
        for (flag, name) in [("--failures", "failures"), ("--replay", "replay"), ("--out", &i.to_string())] {
            command.arg(flag).arg(folder.join(name));
        }
        let [few, more] = [self.steps, self.steps + 2].map(|steps| steps.to_string());
        command.args(["--race-steps", &few, "--search-steps", &few, "--steps", &more]);
        command.args(run.limit.map(|limit| format!("--memory={limit}"))).args(self.base.arguments());
        Ok(child::repair(&child::run(command)?, run))
    }
}
