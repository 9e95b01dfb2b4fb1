//! `archrepair eval`: accuracy on labelled images, clean and corrupted, alone or beside another network.

use std::path::{Path, PathBuf};

use clap::Args;

use super::base::{Base, Pictures, class_names, corruptions, set};
use super::corrupt::place;
use super::{Console, Global};
use crate::data::Set;
use crate::data::corrupt::{Constants, Corruption, Kind};
use crate::device::Compute;
use crate::error::{Error, Result};
use crate::eval::corruption_error::is_complete;
use crate::eval::{self, Answered, Confusion, CorruptionErrors, Deployed, Reference, Runner};
use crate::report::Evaluation;
use crate::storage::{check_free, publish};

/// Measure the accuracy on labelled images, clean and corrupted
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair eval model.safetensors t10k-images-idx3-ubyte.gz --corruption contrast:3
  archrepair eval model.safetensors photos/ --patch fog.patch --corruption all --csv errors.csv
  archrepair eval model.safetensors CIFAR-10-C/fog.npy:3
  archrepair eval model.safetensors imagenet/val --size 224 --resize 256 --filter bicubic
  archrepair eval new.safetensors photos/ --against old.safetensors
  archrepair eval model.safetensors photos/ --corruption all:imagenet --reference alexnet
  archrepair eval model.safetensors photos/ --corrupted photos-c/

Besides accuracy: the expected calibration error (15 bins), each class, which class is taken for which, and
beside another network what was fixed and broken. Under corruptions: the mean error (over the 15 common
ones at 5 severities if these are there, as CIFAR-10-C defines it), and mCE, the mean of errors divided by
those of a reference, as ImageNet-C does.")]
pub(super) struct Eval {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    pictures: Pictures,
    /// Labelled images, read as they are needed: a folder of images by class, an IDX images file, CIFAR-10 or
    /// -100 (DIR/test), CIFAR-10-C (DIR/fog.npy:3), Tiny-ImageNet (DIR/val), a CSV file, safetensors
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
    /// Corrupted images that are there already: a folder of KIND/SEVERITY or KIND.npy, as `corrupt` writes
    /// it and as ImageNet-C and CIFAR-10-C are
    #[arg(long, value_name = "DIR")]
    corrupted: Option<PathBuf>,
    /// By whose errors those under corruptions are divided: alexnet (published, needs all:imagenet or
    /// ImageNet-C), before (the network that is compared with), or a model [default: before, if there is one]
    #[arg(long, value_name = "NETWORK")]
    reference: Option<String>,
    /// Write a table of all conditions and classes to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// Images that networks are asked about.
enum Condition {
    Clean,
    /// Made now.
    Made(Corruption),
    /// Read from there.
    Read(Corruption, PathBuf),
}

/// The networks that run.
struct Runners {
    before: Option<Runner>,
    after: Runner,
    reference: Option<Runner>,
}

impl Eval {
    pub(super) fn run(&self, (global, compute): (&Global, &Compute), console: &Console) -> Result<u8> {
        let conditions = self.conditions()?;
        self.csv.as_deref().map_or(Ok(()), check_free)?;
        self.check_reference(&conditions)?;
        let deployed = self.base.deploy(self.patch.as_deref())?.deployed.on(compute);
        let mut data = set(&self.data, "evaluation", &deployed.network, &self.pictures)?;
        deployed.check_set(&data)?;
        if conditions.iter().any(Condition::is_made) {
            // Pictures are decoded once, not again under each corruption.
            data = data.keep()?.into();
        }
        let runners = self.runners(&deployed, &data)?;
        let bar = console.bar(conditions.len(), "evaluating");
        let mut evaluation = self.evaluation(&deployed);
        for condition in conditions {
            bar.set_message(condition.corruption().map_or_else(|| "clean".into(), |one| one.to_string()));
            let seen = condition.set((&data, global.seed), (&deployed, &self.pictures))?;
            add(&mut evaluation, condition.corruption(), &runners.answer(&seen)?, &seen.targets());
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

    /// Clean images first.
    fn conditions(&self) -> Result<Vec<Condition>> {
        let made = corruptions(&self.corruption)?.into_iter().map(Condition::Made);
        let read = self.corrupted.as_deref().map_or_else(|| Ok(Vec::new()), held)?;
        Ok([Condition::Clean].into_iter().chain(made).chain(read).collect())
    }

    /// Refuses a reference that says nothing about these corruptions.
    fn check_reference(&self, conditions: &[Condition]) -> Result<()> {
        let corruptions: Vec<Corruption> = conditions.iter().filter_map(Condition::corruption).collect();
        let refused = |want: &str| {
            let got = self.reference.clone().unwrap_or_default();
            Err(Error::Config { field: "reference", got, want: want.into() })
        };
        let of_imagenet = |one: &Condition| match one {
            Condition::Made(corruption) => corruption.constants() == Constants::ImageNet,
            // Whoever made them knows.
            Condition::Clean | Condition::Read(..) => true,
        };
        let is_imagenet_c = is_complete(&corruptions) && conditions.iter().all(of_imagenet);
        match self.reference.as_deref() {
            None => Ok(()),
            Some(_) if corruptions.is_empty() => refused("none without corruptions"),
            Some("alexnet") if !is_imagenet_c => {
                refused("--corruption all:imagenet with it, or ImageNet-C: it is known for these alone")
            }
            Some("before") if !self.is_compared() => refused("--patch or --against with it"),
            Some(_) => Ok(()),
        }
    }

    fn is_compared(&self) -> bool {
        self.patch.is_some() || self.against.is_some()
    }

    /// All networks, which must take the same images and tell the same classes apart.
    fn runners(&self, deployed: &Deployed, data: &Set) -> Result<Runners> {
        let other = |path: &Path| {
            let other = self.base.at(path).deploy(None)?.deployed.on(&deployed.compute);
            other.check_set(data)?;
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
        Evaluation {
            data: self.data.clone(),
            patch: self.patch.clone(),
            against: self.against.clone(),
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

impl Condition {
    fn corruption(&self) -> Option<Corruption> {
        match self {
            Self::Clean => None,
            Self::Made(corruption) | Self::Read(corruption, _) => Some(*corruption),
        }
    }

    /// Whether its images are made from the clean ones.
    fn is_made(&self) -> bool {
        matches!(self, Self::Made(_))
    }

    fn set(&self, (clean, seed): (&Set, u64), (network, pictures): (&Deployed, &Pictures)) -> Result<Set> {
        match self {
            Self::Clean => Ok(clean.clone()),
            Self::Made(corruption) => Ok(corruption.over(clean, seed)),
            Self::Read(_, path) => {
                let read = set(path, "corrupted", &network.network, pictures)?;
                network.check_set(&read)?;
                Ok(read)
            }
        }
    }
}

/// The corrupted images in a folder, in the order of the published tables.
fn held(folder: &Path) -> Result<Vec<Condition>> {
    let mut found = Vec::new();
    for (&kind, severity) in Kind::all().iter().flat_map(|kind| (1..=5).map(move |severity| (kind, severity)))
    {
        let npy = folder.join(format!("{}.npy", kind.name()));
        if npy.exists() {
            let of_severity = format!("{}:{severity}", npy.display()).into();
            found.push(Condition::Read(Corruption::new(kind, severity, Constants::Cifar)?, of_severity));
        }
        for constants in Constants::ALL {
            let corruption = Corruption::new(kind, severity, constants)?;
            let path = place(folder, corruption);
            if path.exists() {
                found.push(Condition::Read(corruption, path));
            }
        }
    }
    let empty = || Error::Empty { set: "corrupted", path: folder.into() };
    if found.is_empty() { Err(empty()) } else { Ok(found) }
}

impl Runners {
    fn answer(&self, set: &Set) -> Result<Answered> {
        let of = |runner: &Option<Runner>| runner.as_ref().map(|runner| runner.answers(set)).transpose();
        Ok(Answered {
            before: of(&self.before)?,
            after: self.after.answers(set)?,
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
    evaluation.conditions.push(eval::Condition::new(corruption, answered, labels, n_classes));
}
