//! `archrepair train`: a small network from scratch, resumable at every epoch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Console, Global};
use crate::data::{self, Images};
use crate::error::{Error, Result};
use crate::eval::{Deployed, accuracy};
use crate::fit::scratch::{Config, Run};
use crate::graph::network::Input;
use crate::graph::{Network, Params};
use crate::rng::Rng;
use crate::storage::{Storage, WeightFile, check_free, publish, replace, serialize};
use crate::zoo::resnet::Layout;
use crate::zoo::{METADATA, Model, Overrides, Preset, init};

/// Train a small ResNet from scratch and write it as a model file
#[derive(Debug, Args)]
#[command(after_help = "Example:
  archrepair train resnet18 --widths 16,32,64,128 --train train-images-idx3-ubyte.gz \\
      --test t10k-images-idx3-ubyte.gz --out model.safetensors")]
pub(super) struct Train {
    /// Architecture: resnet18, resnet34, resnet50, resnet101 or resnet152
    architecture: String,
    /// Training images: an IDX images file or a folder of images by class
    #[arg(long, value_name = "DATA")]
    train: PathBuf,
    /// Test images; the accuracy on them is printed at the end
    #[arg(long, value_name = "DATA")]
    test: PathBuf,
    /// Model file to write; training resumes from FILE.checkpoint beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Channels of the four layers
    #[arg(long, value_delimiter = ',', num_args = 1, default_values_t = [16, 32, 64, 128])]
    widths: Vec<usize>,
    /// Side of the first convolution: 3 (CIFAR stem) or 7 (ImageNet stem)
    #[arg(long, default_value_t = 3, value_name = "K")]
    stem: usize,
    /// Names of the classes, in the order of their labels
    #[arg(long, value_delimiter = ',')]
    class_names: Vec<String>,
    /// Passes over the training images
    #[arg(long, default_value_t = Config::default().epochs)]
    epochs: usize,
    /// Images a step
    #[arg(long, default_value_t = Config::default().batch)]
    batch: usize,
    /// Learning rate at the top of the cycle
    #[arg(long, default_value_t = Config::default().rate)]
    rate: f64,
}

/// What a checkpoint says besides its tensors; training resumes only under the same settings.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    epochs_done: usize,
    steps: usize,
    settings: String,
}

impl Train {
    pub(super) fn run(&self, global: &Global, console: &Console) -> Result<u8> {
        check_free(&self.out)?;
        let (train, test) = (data::open(&self.train, "training")?, data::open(&self.test, "test")?);
        let config = self.config(global)?;
        let network = self.network(&train)?;
        for images in [&train, &test] {
            images.check(train.shape(), network.classes)?;
        }
        let checkpoint = self.checkpoint_path();
        let settings = format!("{config:?} {}", network.to_json()?);
        let mut run = if checkpoint.exists() {
            resume(&checkpoint, network, &config, &settings)?
        } else {
            let params = init::draw(&network, &mut Rng::stream(global.seed, 0))?;
            Run::new(Deployed::new(network, params), &config)
        };
        while run.epochs < config.epochs {
            let bar = console.bar(train.len().div_ceil(config.batch), &format!("epoch {}", run.epochs + 1));
            let loss = run.epoch(&train, &config, &mut |_, _| bar.inc(1))?;
            bar.finish_and_clear();
            console.note(&format!("epoch {:>3} of {}  loss {loss:.4}", run.epochs, config.epochs));
            save(&checkpoint, &run, &settings)?;
        }
        self.publish(&run.deployed, &test, console)?;
        std::fs::remove_file(&checkpoint).map_err(Error::file("remove", &checkpoint))?;
        Ok(0)
    }

    fn config(&self, global: &Global) -> Result<Config> {
        let wrong = |field, got: String, want: &str| Err(Error::Config { field, got, want: want.into() });
        if self.epochs == 0 {
            return wrong("epochs", "0".into(), "at least 1");
        }
        if self.batch < 2 {
            return wrong("batch", self.batch.to_string(), "at least 2");
        }
        if !(self.rate > 0.0 && self.rate < 10.0) {
            return wrong("rate", self.rate.to_string(), "over 0 and below 10");
        }
        let Self { epochs, batch, rate, .. } = *self;
        Ok(Config { epochs, batch, rate, seed: global.seed, ..Config::default() })
    }

    fn network(&self, images: &Images) -> Result<Network> {
        let unknown = || Error::UnknownName {
            kind: "architecture",
            got: self.architecture.clone(),
            known: "resnet18, resnet34, resnet50, resnet101, resnet152".into(),
        };
        let depth = self.architecture.strip_prefix("resnet").and_then(|depth| depth.parse().ok());
        let widths: [usize; 4] = self.widths.clone().try_into().map_err(|got: Vec<usize>| Error::Config {
            field: "widths",
            got: format!("{got:?}"),
            want: "four numbers, one a layer".into(),
        })?;
        let [channels, h, w] = images.shape();
        let greatest = (0..images.len()).map(|i| images.label(i) as usize).max().unwrap_or(0);
        let classes = if self.class_names.is_empty() { greatest + 1 } else { self.class_names.len() };
        let layout = Layout::new(depth.ok_or_else(unknown)?, widths, [channels, self.stem, classes])?;
        let preset = Preset::of(channels, self.stem);
        let per_channel = |of: &[f32]| (0..channels).map(|c| of[c.min(of.len() - 1)]).collect();
        let input = Input {
            shape: vec![channels, h, w],
            mean: per_channel(preset.mean),
            std: per_channel(preset.std),
        };
        let network = Network { class_names: self.class_names.clone(), ..layout.network(input) };
        network.check()?;
        Ok(network)
    }

    fn checkpoint_path(&self) -> PathBuf {
        let mut name = self.out.clone().into_os_string();
        name.push(".checkpoint");
        name.into()
    }

    fn publish(&self, deployed: &Deployed, test: &Images, console: &Console) -> Result<()> {
        let labels = test.targets();
        let metadata = BTreeMap::from([(METADATA.to_owned(), deployed.network.to_json()?)]);
        let bytes = serialize(&deployed.params.tensors()?, Storage::F16, &metadata)?;
        publish(&self.out, &bytes)?;
        // What is shipped is judged: the rounded weights as they are read back.
        let model = Model::open(&self.out, &Overrides::default())?;
        let stored = Deployed::new(model.network.clone(), model.params()?);
        let accuracy = accuracy(&stored.runner()?.classes(test)?, &labels);
        let text =
            format!("{}  {} bytes  test accuracy {:.2} %", self.out.display(), bytes.len(), 100.0 * accuracy);
        console.result(&text, &json!({ "model": self.out, "bytes": bytes.len(), "test_accuracy": accuracy }))
    }
}

fn save(path: &Path, run: &Run, settings: &str) -> Result<()> {
    let state = [("weight", &run.deployed.params), ("velocity", &run.optimizer.first)];
    let named = state.iter().flat_map(|(kind, params)| {
        params.iter().map(move |(name, weight)| Ok((format!("{kind}/{name}"), weight.tensor()?)))
    });
    let tensors = named.collect::<Result<BTreeMap<String, Tensor>>>()?;
    let progress =
        Progress { epochs_done: run.epochs, steps: run.optimizer.steps, settings: settings.to_owned() };
    let progress = json!(progress).to_string();
    replace(path, &serialize(&tensors, Storage::F32, &BTreeMap::from([("progress".to_owned(), progress)]))?)
}

fn resume(path: &Path, network: Network, config: &Config, settings: &str) -> Result<Run> {
    let malformed = |problem: String| Error::Malformed { path: path.into(), problem };
    let file = WeightFile::open(path)?;
    let text = file.metadata().get("progress").ok_or_else(|| malformed("no entry `progress`".into()))?;
    let progress: Progress = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    if progress.settings != settings {
        return Err(malformed(
            "it belongs to a training with other settings; remove it to start anew".into(),
        ));
    }
    let state = |kind: &str| {
        let names = file.names().filter_map(|name| Some((name, name.strip_prefix(kind)?.to_owned())));
        let load = |(full, name): (&str, String)| {
            Ok((name, file.tensor(full, file.shape(full).unwrap_or(&[]), &Device::Cpu)?))
        };
        names.map(load).collect::<Result<Params>>()
    };
    let mut run = Run::new(Deployed::new(network, state("weight/")?), config);
    run.epochs = progress.epochs_done;
    run.optimizer.steps = progress.steps;
    run.optimizer.first = state("velocity/")?;
    Ok(run)
}
