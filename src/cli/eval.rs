//! `archrepair eval`: accuracy on labelled images, clean and corrupted, with and without a patch.

use std::path::PathBuf;

use clap::Args;

use super::base::{Base, Pictures, class_names, corruptions, set};
use super::{Console, Global};
use crate::data::Set;
use crate::device::Compute;
use crate::error::Result;
use crate::eval::Runner;
use crate::report::{Condition, Evaluation};

/// Measure the accuracy on labelled images, clean and corrupted
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair eval model.safetensors t10k-images-idx3-ubyte.gz --corruption contrast:3
  archrepair eval model.safetensors photos/ --patch fog.patch --corruption all
  archrepair eval model.safetensors CIFAR-10-C/fog.npy:3
  archrepair eval model.safetensors imagenet/val --size 224 --resize 256 --filter bicubic")]
pub(super) struct Eval {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    pictures: Pictures,
    /// Labelled images, read as they are needed: a folder of images by class, an IDX images file, CIFAR-10 or
    /// -100 (DIR/test), CIFAR-10-C (DIR/fog.npy:3), Tiny-ImageNet (DIR/val), a CSV file, safetensors
    data: PathBuf,
    /// Compare the model with and without this patch
    #[arg(long)]
    patch: Option<PathBuf>,
    /// Corruptions besides the clean images: NAME:SEVERITY, NAME:SEVERITY:tinyimagenet or
    /// NAME:SEVERITY:imagenet (strengths for larger images), all, or all:imagenet; `corrupt --help` names them
    #[arg(long, value_delimiter = ',', num_args = 1, value_name = "CORRUPTION")]
    corruption: Vec<String>,
}

impl Eval {
    pub(super) fn run(&self, (global, compute): (&Global, &Compute), console: &Console) -> Result<u8> {
        let corruptions = corruptions(&self.corruption)?;
        let base = self.base.deploy(None)?.deployed.on(compute);
        let mut data = set(&self.data, "evaluation", &base.network, &self.pictures)?;
        base.check_set(&data)?;
        if !corruptions.is_empty() {
            // Pictures are decoded once, not again under each corruption.
            data = data.keep()?.into();
        }
        let patched = match &self.patch {
            Some(patch) => Some(self.base.deploy(Some(patch))?.deployed.on(compute).runner()?.packed()?),
            None => None,
        };
        let runners = (base.runner()?.packed()?, patched);
        let bar = console.bar(1 + corruptions.len(), "evaluating");
        let mut conditions = vec![condition("clean".into(), &data, &runners, base.network.classes)?];
        bar.inc(1);
        for corruption in corruptions {
            let corrupted = corruption.over(&data, global.seed);
            conditions.push(condition(corruption.to_string(), &corrupted, &runners, base.network.classes)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (data, patch) = (self.data.clone(), self.patch.clone());
        let evaluation = Evaluation { data, patch, classes: class_names(&base.network), conditions };
        console.result_on(&compute.device, &evaluation.text(), evaluation.json())?;
        Ok(0)
    }
}

fn condition(
    name: String,
    set: &Set,
    (base, patched): &(Runner, Option<Runner>),
    n_classes: usize,
) -> Result<Condition> {
    let before = base.classes_of(set)?;
    let after = patched.as_ref().map_or_else(|| Ok(before.clone()), |patched| patched.classes_of(set))?;
    Ok(Condition::new(name, [&before, &after, &set.targets()], n_classes))
}
