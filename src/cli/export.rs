//! `archrepair export`: base and patch as one file that other programs open.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use safetensors::Dtype;
use serde_json::json;

use super::Console;
use super::base::{Base, Opened};
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::report::units;
use crate::storage::{Bytes, Digest, Storage, check_free, publish, serialize};
use crate::zoo::{METADATA, Model};

/// Write a model, with a patch merged into it, as one file for other programs
#[derive(Debug, Args)]
#[command(after_help = "Example:
  archrepair export model.safetensors --patch fog.patch --format safetensors --out repaired.safetensors

Tensors keep the names of the model; the network, with what a search added, is in the metadata
entry `archrepair`.")]
pub(super) struct Export {
    #[command(flatten)]
    base: Base,
    /// Merge this patch
    #[arg(long)]
    patch: Option<PathBuf>,
    /// Format of the file: safetensors
    #[arg(long)]
    format: String,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How numbers are stored: f32, f16 or bf16 [default: as in the model]
    #[arg(long, value_name = "TYPE")]
    store: Option<String>,
}

impl Export {
    pub(super) fn run(&self, console: &Console) -> Result<u8> {
        check_free(&self.out)?;
        if self.format != "safetensors" {
            let (got, known) = (self.format.clone(), "safetensors".into());
            return Err(Error::UnknownName { kind: "format", got, known });
        }
        let Opened { model, deployed } = self.base.deploy(self.patch.as_deref())?;
        let store = self.store.as_deref().map_or_else(|| Ok(stored_as(&model)), str::parse)?;
        let bytes = self.merged(&deployed, store)?;
        publish(&self.out, &bytes)?;
        let digest = Digest::of(&bytes);
        let text = format!("{}  {}  {store}  digest {digest}", self.out.display(), units::bytes(bytes.len()));
        let value = json!({ "model": self.out, "bytes": bytes.len(), "store": store, "digest": digest });
        console.result(&text, &value)?;
        Ok(0)
    }

    /// The file, opened again before anyone else can.
    fn merged(&self, deployed: &Deployed, store: Storage) -> Result<Bytes> {
        let metadata = BTreeMap::from([(METADATA.to_owned(), deployed.network.to_json()?)]);
        let bytes = Bytes::from(serialize(&deployed.params.tensors()?, store, &metadata)?);
        let model = Model::from_bytes(bytes.clone(), &self.out)?;
        model.params()?;
        if model.network != *deployed.network {
            let problem = "the network does not read back as it was written".into();
            return Err(Error::Malformed { path: self.out.clone(), problem });
        }
        Ok(bytes)
    }
}

/// The type of the model's weights, so that nothing is lost: its first tensor of floats says it.
fn stored_as(model: &Model) -> Storage {
    let named = model.network.params().unwrap_or_default();
    match named.first().and_then(|named| model.file.dtype(&named.name)) {
        Some(Dtype::F16) => Storage::F16,
        Some(Dtype::BF16) => Storage::Bf16,
        _ => Storage::F32,
    }
}
