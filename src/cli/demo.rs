//! `archrepair demo`: the whole story on the model and the images inside this program.
//!
//! A network that works meets a field that does not look like its training: every image is
//! corrupted. A hundred failures of the field, and clean images that must go on working, are all
//! that the repair gets; held-out images, clean and corrupted, tell what it is worth.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::repair::steps;
use super::stages::Stages;
use super::{Console, Global, REFUSED};
use crate::data::corrupt::Corruption;
use crate::data::{Images, idx};
use crate::device::Compute;
use crate::error::{Error, Result};
use crate::eval::{Change, Deployed, Runner};
use crate::memory::meter;
use crate::repair::patching::deploy;
use crate::repair::{Config, Counts, Inputs, Outcome, plan, repair_as_planned};
use crate::report::{Report, changes, units};
use crate::storage::{Digest, check_free, publish};
use crate::zoo::{Model, Overrides};

/// Show the whole story in two minutes: fail, localize, repair, judge, publish
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair demo
  archrepair demo --corruption gaussian_noise:3 --out demo")]
pub(super) struct Demo {
    /// What happens to the images in the field: a corruption (`corrupt --help` names
    /// them), a severity of 1 to 5, and the strengths of larger images if wanted
    #[arg(long, default_value = "contrast:3:imagenet", value_name = "CORRUPTION")]
    corruption: String,
    /// Folder for the model and the patch [default: a new one in the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A file of the folder `models`, as part of the program.
macro_rules! shipped {
    ($($path:literal),+) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/", $($path),+))
    };
}

/// One of the shipped sets of images.
macro_rules! sample {
    ($name:literal) => {
        idx::decode(
            shipped!("fashion-sample/", $name, "/images-idx3-ubyte.gz"),
            shipped!("fashion-sample/", $name, "/labels-idx1-ubyte.gz"),
            Path::new(concat!($name, " images of this program")),
        )
    };
}

/// The shipped ResNet-18.
const MODEL: &[u8] = shipped!("fashion-resnet18/model.safetensors");

/// Failures that the repair gets.
const FAILURES: usize = 100;

/// The images of the story.
struct Sets {
    /// What the field sends back: images that the network gets wrong.
    failures: Images,
    /// Clean images of the training.
    replay: Images,
    /// Failures and clean images that only the gate sees.
    guard: [Images; 2],
    /// Corrupted and clean images that nothing in the repair sees.
    held_out: [Images; 2],
    /// How many of the field's images the network gets wrong, and how many there are.
    failing: [usize; 2],
}

impl Demo {
    pub(super) fn run(&self, (global, compute): (&Global, &Compute), console: &Console) -> Result<u8> {
        let start = Instant::now();
        let corruption: Corruption = self.corruption.parse()?;
        let folder = self.folder()?;
        let (path, patch) = (folder.join("model.safetensors"), folder.join("repair.patch"));
        check_free(&patch)?;
        publish(&path, MODEL)?;
        let model = Model::open(&path, &Overrides::default())?;
        let base = deploy(&model, None)?.on(compute);
        let digest = model.file.digest();
        console.note(&format!("The base model is {}, digest {digest}", path.display()));
        console.note(&format!("Its images are now corrupted by {corruption}"));
        let sets = Sets::gather(&base.runner()?, corruption, global.seed)?;
        let config = Config { compute: compute.clone(), ..settings(global.seed) };
        let [failures, passes] = &sets.guard;
        let temporary = std::env::temp_dir();
        let guard = Some([failures, passes]);
        let inputs = Inputs { failures: &sets.failures, replay: &sets.replay, guard, folder: &temporary };
        let plan = plan(&model, &config, Counts::of(&inputs))?;
        let mut stages = Stages::new(console, steps(&config, &model.network));
        let mut tell = |stage, what: &str, step| stages.tell(stage, what, step);
        let outcome = repair_as_planned(&model, inputs, (&config, &plan), &mut tell)?;
        if outcome.verdict.accepted {
            publish(&patch, &outcome.patch)?;
        }
        let report = Report {
            outcome: &outcome,
            method: config.method,
            patch,
            base: digest,
            base_bytes: model.file.len_bytes(),
            peak_bytes: meter::peak(),
            plan: &plan,
            spent: stages.finish(),
        };
        let story = Story {
            corruption,
            held_out: sets.held_out_changes(&base, &outcome)?,
            digests: [digest, digest_of(&path)?],
            seconds: start.elapsed().as_secs_f64(),
            model: path,
            sets,
            report,
        };
        console.result_on(&compute.device, &story.text(), story.json())?;
        Ok(if outcome.verdict.accepted { 0 } else { REFUSED })
    }

    /// The folder of the story, made if it is not there.
    fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.out {
            std::fs::create_dir_all(folder).map_err(Error::file("make the folder", folder))?;
            return Ok(folder.clone());
        }
        let parent = std::env::temp_dir();
        let folder = tempfile::Builder::new().prefix("archrepair-demo-").tempdir_in(&parent);
        Ok(folder.map_err(Error::file("make a folder in", &parent))?.keep())
    }
}

impl Sets {
    fn gather(base: &Runner, corruption: Corruption, seed: u64) -> Result<Self> {
        // Each set has noise of its own.
        let corrupted =
            |images: &Images, set: u64| corruption.apply(images, seed.wrapping_mul(3).wrapping_add(set));
        let (pool, guard, held_out) = (sample!("pool")?, sample!("guard")?, sample!("heldout")?);
        let mut failures = wrong(base, &corrupted(&pool, 0))?;
        let failing = [failures.len(), pool.len()];
        let first: Vec<usize> = (0..failures.len().min(FAILURES)).collect();
        failures = failures.subset(&first);
        Ok(Self {
            failures,
            replay: sample!("replay")?,
            guard: [wrong(base, &corrupted(&guard, 1))?, guard],
            held_out: [corrupted(&held_out, 2), held_out],
            failing,
        })
    }

    /// Answers before and after on corrupted and on clean held-out images; those of a repair that
    /// was refused too, since they tell whether the gate was right.
    fn held_out_changes(&self, base: &Deployed, outcome: &Outcome) -> Result<[Change; 2]> {
        let (before, after) = (base.runner()?, outcome.repaired.runner()?);
        let change = |images: &Images| {
            Ok::<_, Error>(Change::new(&before.classes(images)?, &after.classes(images)?, &images.targets()))
        };
        Ok([change(&self.held_out[0])?, change(&self.held_out[1])?])
    }
}

/// The defaults of `repair` with about half of the steps of search and training, so that the story stays short.
fn settings(seed: u64) -> Config {
    let mut config = Config { seed, ..Config::default() };
    config.search.steps = 60;
    config.fit.steps = 180;
    config
}

/// The images that the network gets wrong.
fn wrong(network: &Runner, images: &Images) -> Result<Images> {
    let classes = network.classes(images)?;
    let wrong: Vec<usize> = (0..images.len()).filter(|&i| classes[i] != images.label(i) as usize).collect();
    Ok(images.subset(&wrong))
}

/// The digest of a file as it is now.
fn digest_of(path: &Path) -> Result<Digest> {
    Ok(Digest::of(&std::fs::read(path).map_err(Error::file("read", path))?))
}

/// Everything that happened.
struct Story<'a> {
    corruption: Corruption,
    model: PathBuf,
    sets: Sets,
    report: Report<'a>,
    held_out: [Change; 2],
    /// Of the base file before and after.
    digests: [Digest; 2],
    seconds: f64,
}

impl Story<'_> {
    fn text(&self) -> String {
        let [failing, pool] = self.sets.failing;
        let [corrupted, clean] = &self.held_out;
        format!(
            "\nA network fails: {failing} of {pool} images from the field, corrupted by {}, are wrong.\n\
             The repair gets {} of them and {} clean images that must go on working.\n\n\
             {}\n\
             Held-out images, which nothing above has seen\n\n{}\n{}",
            self.corruption,
            self.sets.failures.len(),
            units::count(self.sets.replay.len() as u64),
            self.report.text(),
            changes([("corrupted", corrupted), ("clean", clean)]),
            self.end(),
        )
    }

    fn end(&self) -> String {
        let [before, after] = self.digests;
        let touched = if before == after { "untouched" } else { "CHANGED" };
        let mut text = format!(
            "base model    {}, {touched}\n  digest before {before}\n  digest after  {after}\nwall time     {:.0} s\n",
            self.model.display(),
            self.seconds,
        );
        if self.report.outcome.verdict.accepted {
            let (model, patch) = (self.model.display(), self.report.patch.display());
            text.push_str(&format!(
                "\nTry next:\n  archrepair inspect {model} --patch {patch}\n  archrepair verify {model} {patch}\n",
            ));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let [failing, pool] = self.sets.failing;
        let [corrupted, clean] = &self.held_out;
        let [before, after] = self.digests;
        json!({
            "corruption": self.corruption.to_string(),
            "model": self.model,
            "field": { "images": pool, "wrong": failing, "given": self.sets.failures.len() },
            "repair": self.report.json(),
            "held_out": { "corrupted": corrupted, "clean": clean },
            "digest_before": before,
            "digest_after": after,
            "seconds": self.seconds,
        })
    }
}
