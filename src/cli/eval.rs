//! `archrepair eval`: accuracy on labelled images, clean and corrupted, with and without a patch.

use std::path::PathBuf;

use clap::Args;

use super::base::{Base, class_names, corruptions, images};
use super::{Console, Global};
use crate::data::Images;
use crate::engine::packing::Precision;
use crate::error::{Error, Result};
use crate::eval::{Deployed, Runner};
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
    /// Corruptions besides the clean images: NAME:SEVERITY, NAME:SEVERITY:imagenet (strengths for
    /// large images), all, or all:imagenet; NAME is gaussian_noise, defocus_blur or contrast
    #[arg(long, value_delimiter = ',', num_args = 1, value_name = "CORRUPTION")]
    corruption: Vec<String>,
    /// What the products of convolutions are computed in on the CPU: f32, or bf16, faster where the processor
    /// has instructions for it
    #[arg(long, default_value_t, value_name = "TYPE")]
    precision: Precision,
}

impl Eval {
    pub(super) fn run(&self, global: &Global, console: &Console) -> Result<u8> {
        let corruptions = corruptions(&self.corruption)?;
        let device = global.device.open()?;
        self.precision.check()?;
        if !device.is_cpu() && self.precision != Precision::F32 {
            let want = "f32; other precisions are for the CPU".into();
            return Err(Error::Config { field: "precision", got: self.precision.to_string(), want });
        }
        let base = self.base.deploy(None)?.deployed.on(&device)?;
        let data = images(&self.data, "evaluation", &base.network)?;
        base.check(&data)?;
        let runner = |deployed: &Deployed| deployed.runner()?.packed(self.precision);
        let patched = match &self.patch {
            Some(patch) => Some(runner(&self.base.deploy(Some(patch))?.deployed.on(&device)?)?),
            None => None,
        };
        let runners = (runner(&base)?, patched);
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
        console.result_on(&device, &evaluation.text(), evaluation.json())?;
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
