//! `archrepair export`: base and patch in the formats of other programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use safetensors::Dtype;
use serde_json::json;

use super::Console;
use super::base::{Base, Opened};
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::export::merged::{self, merged};
use crate::export::{Origin, Pixels, Settings, onnx};
use crate::report::units;
use crate::storage::{Bytes, Digest, Storage, check_free, publish, publish_folder};
use crate::zoo::Model;

/// Write a model, with a patch merged into it, for other programs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair export model.safetensors --patch fog.patch --format onnx --batch 1 --precision f16 --out fog.onnx
  archrepair export model.safetensors --patch fog.patch --format safetensors --out repaired.safetensors
  archrepair export model.safetensors --patch fog.patch --format pytorch --out repaired

Formats:
  onnx         a graph of operators of version 17 for TensorRT or ONNX Runtime, with `input` and
               `logits` in f32; names of classes, mean and std, and digests of model and patch in its
               metadata
  pytorch      a folder of model.safetensors and model.py, whose `load` gives a torch.nn.Module
  safetensors  tensors under the names of the model; the network, with what a search added, in the
               metadata entry `archrepair`

TensorRT makes an engine of a graph by `trtexec --onnx=fog.onnx --saveEngine=fog.engine`, of a dynamic batch
with `--shapes=input:1x3x224x224` besides.")]
pub(super) struct Export {
    #[command(flatten)]
    base: Base,
    /// Merge this patch
    #[arg(long)]
    patch: Option<PathBuf>,
    /// Format: onnx, pytorch or safetensors
    #[arg(long)]
    format: String,
    /// File to write; a folder for pytorch
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How numbers are stored by pytorch and safetensors: f32, f16 or bf16 [default: as all of
    /// the model are, else f32]
    #[arg(long, value_name = "TYPE")]
    store: Option<String>,
    /// Images that the ONNX graph takes at once: a number, or dynamic [default: dynamic]
    #[arg(long, value_name = "N")]
    batch: Option<String>,
    /// Let the ONNX graph take pixels in 0 to 1 and normalize them itself
    #[arg(long)]
    normalize: bool,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Onnx,
    Pytorch,
    Safetensors,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "onnx" => Ok(Self::Onnx),
            "pytorch" => Ok(Self::Pytorch),
            "safetensors" => Ok(Self::Safetensors),
            other => {
                let known = "onnx, pytorch, safetensors".into();
                Err(Error::UnknownName { kind: "format", got: other.into(), known })
            }
        }
    }
}

impl Export {
    pub(super) fn run(&self, precision: Precision, console: &Console) -> Result<u8> {
        check_free(&self.out)?;
        let format = self.format.parse()?;
        self.check(format, precision)?;
        let opened = self.base.deploy(self.patch.as_deref())?;
        let (bytes, numbers) = match format {
            Format::Onnx => self.onnx(&opened, precision)?,
            Format::Pytorch | Format::Safetensors => self.merged(&opened)?,
        };
        match format {
            Format::Pytorch => publish_folder(&self.out, |folder| {
                write(&folder.join("model.safetensors"), &bytes)?;
                write(&folder.join("model.py"), merged::MODULE.as_bytes())
            })?,
            Format::Onnx | Format::Safetensors => publish(&self.out, &bytes)?,
        }
        let (new, digest) = (new_tensors(&opened), Digest::of(&bytes));
        let mut text =
            format!("{}  {}  {numbers}  digest {digest}", self.out.display(), units::bytes(bytes.len()));
        if !new.is_empty() {
            text += &format!("\n{} tensors are not of the model: {}", new.len(), new.join(", "));
        }
        let value = json!({
            "model": self.out, "bytes": bytes.len(), "store": numbers, "digest": digest, "new_tensors": new,
        });
        console.result(&text, &value)?;
        Ok(0)
    }

    /// Refuses flags that the format has no use for.
    fn check(&self, format: Format, precision: Precision) -> Result<()> {
        let normalize = self.normalize.then(|| "given".into());
        let numbers = Some(precision).filter(|&precision| precision != Precision::F32);
        let others = match format {
            Format::Onnx => vec![("store", self.store.clone(), "--precision for this format")],
            Format::Pytorch | Format::Safetensors => vec![
                ("precision", numbers.map(|numbers| numbers.to_string()), "--store for this format"),
                ("batch", self.batch.clone(), "--format onnx with it"),
                ("normalize", normalize, "--format onnx with it"),
            ],
        };
        for (field, got, want) in others {
            if let Some(got) = got {
                return Err(Error::Config { field, got, want: want.into() });
            }
        }
        Ok(())
    }

    /// The file, and the type of its numbers.
    fn merged(&self, Opened { model, deployed }: &Opened) -> Result<(Bytes, Storage)> {
        let store = self.store.as_deref().map_or_else(|| Ok(stored_as(model)), str::parse)?;
        Ok((merged(deployed, store, &self.out)?, store))
    }

    fn onnx(&self, Opened { model, deployed }: &Opened, precision: Precision) -> Result<(Bytes, Storage)> {
        let settings = Settings {
            batch: self.batch.as_deref().unwrap_or("dynamic").parse()?,
            numbers: if precision == Precision::F16 { Storage::F16 } else { Storage::F32 },
            pixels: if self.normalize { Pixels::Unit } else { Pixels::Normalized },
        };
        let patch = self.patch.as_deref().map(|path| Ok(Digest::of(&Bytes::open(path)?))).transpose()?;
        let origin = Origin { base: model.file.digest(), patch };
        let graph = onnx::model(deployed, &settings, &origin)?;
        Ok((onnx::encode(&graph, &self.out)?.into(), settings.numbers))
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::file("write", path))
}

/// Names of tensors that the model file does not have.
fn new_tensors(Opened { model, deployed }: &Opened) -> Vec<String> {
    let names = deployed.params.iter().map(|(name, _)| name);
    names.filter(|name| model.file.shape(name).is_none()).cloned().collect()
}

/// The type of the model's weights, f32 where they are not of one, so that nothing is lost.
fn stored_as(model: &Model) -> Storage {
    let params = model.network.params().unwrap_or_default();
    let mut types = params.iter().map(|named| model.file.dtype(&named.name));
    let first = types.next().flatten();
    match first.filter(|_| types.all(|other| other == first)) {
        Some(Dtype::F16) => Storage::F16,
        Some(Dtype::BF16) => Storage::Bf16,
        _ => Storage::F32,
    }
}
