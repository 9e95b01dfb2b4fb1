//! `archrepair verify`: whether a patch is whole and fits a model.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::Console;
use super::base::Base;
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::graph::Network;
use crate::repair::patching::deploy;
use crate::report::{Table, units};
use crate::storage::Patch;

/// Check a patch against its model: checksum, base, shapes, numbers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  archrepair verify model.safetensors fog.patch")]
pub(super) struct Verify {
    #[command(flatten)]
    base: Base,
    /// Patch file
    patch: PathBuf,
}

/// What a patch holds of one part.
#[derive(Debug, Serialize)]
struct Patched {
    part: String,
    tensors: usize,
    numbers: u64,
    new_graph: bool,
}

impl Verify {
    pub(super) fn run(&self, console: &Console) -> Result<u8> {
        let model = self.base.open()?;
        let patch = Patch::open(&self.patch)?;
        let deployed = deploy(&model, Some((&patch, &self.patch)))?;
        // A sound patch also runs: lowering asks for every tensor in its place.
        deployed.runner()?;
        let parts = self.parts(&patch, &model.network, &deployed)?;
        let header = &patch.header;
        let value = json!({
            "patch": self.patch,
            "base": header.base,
            "version": header.version,
            "parts": parts,
            "genotype": header.genotype,
            "provenance": header.provenance,
        });
        console.result(&self.text(&patch, &parts), &value)?;
        Ok(0)
    }

    /// The parts that the patch changes, with every tensor accounted for.
    fn parts(&self, patch: &Patch, base: &Network, deployed: &Deployed) -> Result<Vec<Patched>> {
        let shapes = deployed.network.shapes()?;
        let mut left: Vec<&String> = patch.tensors.keys().collect();
        let mut parts = Vec::new();
        for (i, part) in deployed.network.parts.iter().enumerate() {
            let named = part.graph.params(&shapes[i])?;
            let own: Vec<_> = named.iter().filter(|named| patch.tensors.contains_key(&named.name)).collect();
            left.retain(|name| !own.iter().any(|own| own.name == **name));
            let new_graph = base.parts.get(i).is_none_or(|old| old.graph != part.graph);
            if new_graph || !own.is_empty() {
                let numbers =
                    own.iter().map(|named| named.param.shape.iter().product::<usize>() as u64).sum();
                parts.push(Patched { part: part.name.clone(), tensors: own.len(), numbers, new_graph });
            }
        }
        match left.first() {
            None => Ok(parts),
            Some(name) => {
                let problem = format!("its tensor `{name}` belongs to no part of the network");
                Err(Error::Malformed { path: self.patch.clone(), problem })
            }
        }
    }

    fn text(&self, patch: &Patch, parts: &[Patched]) -> String {
        let header = &patch.header;
        let mut table = Table::new(&["part", "tensors", "numbers", "architecture"]);
        for part in parts {
            let architecture = if part.new_graph { "new" } else { "as it was" };
            let numbers = units::count(part.numbers);
            table.row([part.part.clone(), part.tensors.to_string(), numbers, architecture.into()]);
        }
        format!(
            "{} is whole and fits {}\n\nbase digest   {}\narchitecture  {}\n\n{table}\nWhere it is from\n\n{}",
            self.patch.display(),
            self.base.model.display(),
            header.base,
            genotype(&header.genotype),
            lines(&header.provenance),
        )
    }
}

/// `position + alternative` for each change of the architecture.
fn genotype(genotype: &Value) -> String {
    let changes = genotype["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let change = |change: &Value| Some(format!("{} + {}", change[0].as_str()?, change[1].as_str()?));
    let texts: Vec<String> = changes.iter().filter_map(change).collect();
    if texts.is_empty() { "unchanged".into() } else { texts.join(", ") }
}

/// One line an entry; texts without their quotes.
fn lines(provenance: &Value) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entries = provenance.as_object().into_iter().flatten();
    entries.map(|(name, value)| format!("{name:<13} {}\n", plain(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genotypes_of_any_form_are_told() {
        assert_eq!(genotype(&json!({ "changes": [["layer1.0.input", "norm"]] })), "layer1.0.input + norm");
        assert_eq!(genotype(&json!({ "changes": [] })), "unchanged");
        assert_eq!(genotype(&json!([1, "other program"])), "unchanged");
    }

    #[test]
    fn provenance_is_one_line_an_entry() {
        assert_eq!(
            lines(&json!({ "seed": 7, "method": "search" })),
            "method        search\nseed          7\n"
        );
        assert_eq!(lines(&json!(null)), "");
    }
}
