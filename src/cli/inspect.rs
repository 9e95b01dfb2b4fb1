//! `archrepair inspect`: the parts of a model, their shapes and sizes.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Console;
use super::base::{Base, Opened, class_names};
use crate::error::Result;
use crate::fit::{self, Level};
use crate::graph::Network;
use crate::repair::{Config, Counts, Target, plan};
use crate::report::inspection::PartSize;
use crate::report::plan::BlockPlan;
use crate::report::{self, Inspection, units};
use crate::storage::WeightFile;

/// Show the parts of a model, their shapes, parameters, multiply-adds and bytes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair inspect models/fashion-resnet18/model.safetensors
  archrepair inspect resnet50.safetensors --size 224 --json
  archrepair inspect model.safetensors --patch fog.patch
  archrepair inspect model.safetensors --memory 12MiB")]
pub(super) struct Inspect {
    #[command(flatten)]
    base: Base,
    /// Show the model with this patch applied
    #[arg(long)]
    patch: Option<PathBuf>,
    /// Show what a repair at each block needs, under this limit if one is given
    #[arg(long, value_name = "BYTES", num_args = 0..=1, value_parser = units::parse_bytes, conflicts_with = "patch")]
    memory: Option<Option<usize>>,
    /// Images of a training step, for --memory
    #[arg(long, value_name = "N", default_value_t = fit::Config::default().batch, requires = "memory")]
    batch: usize,
}

/// Images of a repair for `--memory`; more of them change little, as their pixels stay in files.
const TYPICAL: Counts = Counts { failures: 100, replay: 2000, guard: None };

impl Inspect {
    pub(super) fn run(&self, console: &Console) -> Result<u8> {
        if let Some(limit) = self.memory {
            return self.memory(limit, console);
        }
        let Opened { model, deployed } = self.base.deploy(self.patch.as_deref())?;
        let network = &deployed.network;
        let inspection = Inspection {
            model: self.base.model.clone(),
            patch: self.patch.clone(),
            digest: model.file.digest(),
            file_bytes: model.file.len_bytes(),
            architecture: network.architecture.clone(),
            input: network.input.clone(),
            input_from: model.input_from,
            classes: class_names(network),
            parts: self.parts(&model.file, network)?,
        };
        console.result(&inspection.text(), &json!(inspection))?;
        Ok(0)
    }

    fn memory(&self, limit: Option<usize>, console: &Console) -> Result<u8> {
        let model = self.base.open()?;
        let mut rows = Vec::new();
        for part in model.network.blocks() {
            let fit = fit::Config { batch: self.batch, ..fit::Config::default() };
            let target = Target::Fixed(Level::Block(part.name.clone()));
            let config = Config { target, fit, memory: limit, ..Config::default() };
            let planned = plan(&model, &config, TYPICAL);
            rows.push(BlockPlan::new(&part.name, planned)?);
        }
        console.result(
            &report::plan::blocks(limit, self.batch, &rows),
            &json!({ "limit": limit, "blocks": rows }),
        )?;
        Ok(0)
    }

    fn parts(&self, base: &WeightFile, network: &Network) -> Result<Vec<PartSize>> {
        let patch = self.patch.as_deref().map(WeightFile::open).transpose()?;
        let patched = |name: &str| patch.as_ref().and_then(|patch| patch.raw(name));
        let (shapes, costs) = (network.shapes()?, network.costs()?);
        let mut parts = Vec::new();
        for (i, part) in network.parts.iter().enumerate() {
            let names: Vec<String> =
                part.graph.params(&shapes[i])?.into_iter().map(|named| named.name).collect();
            let stored = |name: &String| patched(name).or_else(|| base.raw(name)).map_or(0, <[u8]>::len);
            parts.push(PartSize {
                name: part.name.clone(),
                input: shapes[i].clone(),
                output: shapes[i + 1].clone(),
                params: costs[i].params,
                macs: costs[i].macs,
                bytes: names.iter().map(stored).sum(),
                live: costs[i].live,
                patched: names.iter().any(|name| patched(name).is_some()),
            });
        }
        Ok(parts)
    }
}
