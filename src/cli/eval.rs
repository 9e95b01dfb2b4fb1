//! `archrepair eval`: accuracy on labelled images, clean and corrupted, alone or beside another network.

use std::path::{Path, PathBuf};

use clap::Args;

use super::base::{Base, class_names, corruptions, images};
use super::{Console, Global};
use crate::data::Images;
use crate::data::corrupt::{Constants, Corruption};
use crate::device::Compute;
use crate::error::{Error, Result};
use crate::eval::corruption_error::is_complete;
use crate::eval::{Answered, Condition, Confusion, CorruptionErrors, Deployed, Reference, Runner};
use crate::report::{Compared, Evaluation};
use crate::storage::{check_free, publish};

/// Measure the accuracy on labelled images, clean and corrupted
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair eval model.safetensors t10k-images-idx3-ubyte.gz --corruption contrast:3
  archrepair eval model.safetensors photos/ --patch fog.patch --corruption all --csv errors.csv
  archrepair eval new.safetensors photos/ --against old.safetensors
  archrepair eval model.safetensors photos/ --corruption all:imagenet --reference alexnet

Besides accuracy: the expected calibration error (15 bins), each class, which class is taken for which, and
beside another network what was fixed and broken. Under corruptions: the mean error (over the 15 common
ones at 5 severities if these are there, as CIFAR-10-C defines it), and mCE, the mean of errors divided by
those of a reference, as ImageNet-C does.")]
pub(super) struct Eval {
    #[command(flatten)]
    base: Base,
    /// Labelled images: an IDX images file or a folder of images by class
    data: PathBuf,
    /// Evaluate the model with this patch, beside the model without it
    #[arg(long)]
    patch: Option<PathBuf>,
    /// Compare with this model instead; --mean, --std and --size hold for both
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// Corruptions besides the clean images: NAME:SEVERITY, NAME:SEVERITY:tinyimagenet or
    /// NAME:SEVERITY:imagenet (strengths for larger images), all, or all:imagenet; `corrupt --help` names them
    #[arg(long, value_delimiter = ',', num_args = 1, value_name = "CORRUPTION")]
    corruption: Vec<String>,
    /// By whose errors those under corruptions are divided: alexnet (published, needs all:imagenet), before
    /// (the network that is compared with), or a model [default: before, if there is one]
    #[arg(long, value_name = "NETWORK")]
    reference: Option<String>,
    /// Write a table of all conditions and classes to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// The networks that run.
struct Runners {
    before: Option<Runner>,
    after: Runner,
    reference: Option<Runner>,
}

impl Eval {
    pub(super) fn run(&self, (global, compute): (&Global, &Compute), console: &Console) -> Result<u8> {
        let corruptions = corruptions(&self.corruption)?;
        self.csv.as_deref().map_or(Ok(()), check_free)?;
        self.check_reference(&corruptions)?;
        let deployed = self.base.deploy(self.patch.as_deref())?.deployed.on(compute);
        let data = images(&self.data, "evaluation", &deployed.network)?;
        deployed.check(&data)?;
        let runners = self.runners(&deployed, &data)?;
        let bar = console.bar(1 + corruptions.len(), "evaluating");
        let mut evaluation = self.evaluation(&deployed);
        for corruption in [None].into_iter().chain(corruptions.into_iter().map(Some)) {
            let corrupted = corruption.map(|corruption| corruption.apply(&data, global.seed));
            bar.set_message(corruption.map_or_else(|| "clean".into(), |corruption| corruption.to_string()));
            let answered = runners.answer(corrupted.as_ref().unwrap_or(&data))?;
            add(&mut evaluation, corruption, &answered, &data.targets());
            bar.inc(1);
        }
        bar.finish_and_clear();
        evaluation.reference = self.reference(&evaluation);
        if let Some(path) = &self.csv {
            let rows =
                evaluation.csv().map_err(|problem| Error::Malformed { path: path.clone(), problem })?;
            publish(path, &rows)?;
        }
        console.result_on(&compute.device, &evaluation.text(), evaluation.json())?;
        Ok(0)
    }

    /// Refuses a reference that says nothing about these corruptions.
    fn check_reference(&self, corruptions: &[Corruption]) -> Result<()> {
        let refused = |want: &str| {
            let got = self.reference.clone().unwrap_or_default();
            Err(Error::Config { field: "reference", got, want: want.into() })
        };
        match self.reference.as_deref() {
            None => Ok(()),
            Some(_) if corruptions.is_empty() => refused("none without --corruption"),
            Some("alexnet") if !is_complete(corruptions, Some(Constants::ImageNet)) => {
                refused("--corruption all:imagenet with it: it is known for these alone")
            }
            Some("before") if !self.is_compared() => refused("--patch or --against with it"),
            Some(_) => Ok(()),
        }
    }

    fn is_compared(&self) -> bool {
        self.patch.is_some() || self.against.is_some()
    }

    /// All networks, which must take the same images and tell the same classes apart.
    fn runners(&self, deployed: &Deployed, data: &Images) -> Result<Runners> {
        let other = |path: &Path| {
            let other = self.base.at(path).deploy(None)?.deployed.on(&deployed.compute);
            other.check(data)?;
            let [want, got] = [deployed, &other].map(|of| of.network.classes);
            match got == want {
                true => other.runner()?.packed(),
                false => Err(Error::Config {
                    field: "the number of classes",
                    got: format!("{got} in {}", path.display()),
                    want: format!("{want} as in {}", self.base.model.display()),
                }),
            }
        };
        let before = match (&self.against, &self.patch) {
            (Some(path), _) => Some(other(path)?),
            (None, Some(_)) => Some(other(&self.base.model)?),
            (None, None) => None,
        };
        let reference = match self.reference.as_deref() {
            None | Some("alexnet" | "before") => None,
            Some(path) => Some(other(Path::new(path))?),
        };
        Ok(Runners { before, after: deployed.runner()?.packed()?, reference })
    }

    /// What holds before any image was looked at.
    fn evaluation(&self, deployed: &Deployed) -> Evaluation {
        let none = Confusion::new(deployed.network.classes);
        let against = self.against.clone().map(Compared::Model);
        Evaluation {
            data: self.data.clone(),
            compared: against.or_else(|| self.patch.clone().map(Compared::Patch)),
            classes: class_names(&deployed.network),
            conditions: Vec::new(),
            clean: none.clone(),
            corrupted: none,
            reference: None,
        }
    }

    fn reference(&self, evaluation: &Evaluation) -> Option<Reference> {
        let conditions = &evaluation.conditions;
        match self.reference.as_deref() {
            Some("alexnet") => Some(Reference::alexnet()),
            None | Some("before") => {
                let errors = CorruptionErrors::before(conditions).filter(|_| self.is_compared())?;
                Some(Reference::network("the network before", &errors))
            }
            Some(path) => {
                let errors = CorruptionErrors::new(conditions, |one| one.reference_error.unwrap_or(0.0))?;
                Some(Reference::network(path, &errors))
            }
        }
    }
}

impl Runners {
    fn answer(&self, images: &Images) -> Result<Answered> {
        let of = |runner: &Option<Runner>| runner.as_ref().map(|runner| runner.answers(images)).transpose();
        Ok(Answered {
            before: of(&self.before)?,
            after: self.after.answers(images)?,
            reference: of(&self.reference)?,
        })
    }
}

fn add(evaluation: &mut Evaluation, corruption: Option<Corruption>, answered: &Answered, labels: &[usize]) {
    let n_classes = evaluation.classes.len();
    let confusion = answered.after.confusion(labels, n_classes);
    match corruption {
        Some(_) => evaluation.corrupted.add(&confusion),
        None => evaluation.clean = confusion,
    }
    evaluation.conditions.push(Condition::new(corruption, answered, labels, n_classes));
}
