//! `archrepair eval`: accuracy on labelled images, clean and corrupted, with and without a patch.

use std::path::PathBuf;

use clap::Args;

use super::base::{Base, class_names, corruptions, images};
use super::{Console, Global};
use crate::data::Images;
use crate::device::Compute;
use crate::error::Result;
use crate::eval::Runner;
use crate::report::{Condition, Evaluation};

/// Measure the accuracy on labelled images, clean and corrupted
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair eval model.safetensors t10k-images-idx3-ubyte.gz --corruption contrast:3
  archrepair eval model.safetensors photos/ --patch fog.patch --corruption all")]
pub(super) struct Eval {
    #[command(flatten)]
    base: Base,
    /// Labelled images: an IDX images file or a folder of images by class
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
        let data = images(&self.data, "evaluation", &base.network)?;
        base.check(&data)?;
        let patched = match &self.patch {
            Some(patch) => Some(self.base.deploy(Some(patch))?.deployed.on(compute).runner()?.packed()?),
            None => None,
        };
        let runners = (base.runner()?.packed()?, patched);
        let bar = console.bar(1 + corruptions.len(), "evaluating");
        let mut conditions = vec![condition("clean".into(), &data, &runners, base.network.classes)?];
        bar.inc(1);
        for corruption in corruptions {
            let corrupted = corruption.apply(&data, global.seed);
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
    images: &Images,
    (base, patched): &(Runner, Option<Runner>),
    n_classes: usize,
) -> Result<Condition> {
    let before = base.classes(images)?;
    let after = patched.as_ref().map_or_else(|| Ok(before.clone()), |patched| patched.classes(images))?;
    Ok(Condition::new(name, [&before, &after, &images.targets()], n_classes))
}
