//! One step as files: a network with random weights, cut, and relaxed where it is one of a search.
//!
//! | file | what |
//! |---|---|
//! | `step.json` | the trained part's graph, shape of its input, names of trained tensors, labels |
//! | `block.safetensors` | the trained part's tensors in `f32` |
//! | `batch.safetensors` | the features that enter it, `x` |
//! | `model.safetensors` | the network as it is deployed, in `f16` |
//! | `suffix.json`, `suffix.safetensors` | its blocks behind the trained part, for programs that do not read models; their tensors in `f32` |
//!
//! Whoever runs the step starts from these alone: every program gets the same work.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use archrepair::engine::infer::infer;
use archrepair::eval::Deployed;
use archrepair::fit::{Level, Site};
use archrepair::graph::network::Part;
use archrepair::graph::{Graph, Params};
use archrepair::kernels::batch_norm;
use archrepair::memory::Levers;
use archrepair::rng::Rng;
use archrepair::search::candidate::CleanStatistics;
use archrepair::search::space::{is_choice_weight, relax};
use archrepair::storage::{Storage, serialize};
use archrepair::zoo::{Model, Overrides};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::base;

/// A network, what is trained of it, and how many images make a step.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) network: String,
    pub(crate) kind: Kind,
    pub(crate) level: Level,
    pub(crate) batch: usize,
}

/// What a step trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All alternatives to a block.
    Search,
    /// The weights as they are deployed.
    Weights,
}

/// What `step.json` says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Step {
    /// What is trained, as [`Level`] reads it.
    pub(crate) level: String,
    /// The trained part.
    pub(crate) graph: Graph,
    /// Shape of its input, without the number of images.
    pub(crate) input: Vec<usize>,
    /// Classes of the network.
    pub(crate) classes: usize,
    /// Names of the tensors that change.
    pub(crate) trained: Vec<String>,
    /// Learning rate.
    pub(crate) rate: f64,
    /// Class of each image.
    pub(crate) labels: Vec<u32>,
}

const SEED: u64 = 8;
const RATE: f64 = 1e-3;
/// Of all weights: Adam moves each by the rate, so that the more there are, the more rounding shows.
const NETWORK_RATE: f64 = 1e-4;
/// A closed gate would hide its alternative from the first loss.
const GATE: f64 = 0.1;

impl FromStr for Case {
    type Err = String;

    /// `NETWORK:BLOCK:BATCH`, `NETWORK:weights@BLOCK:BATCH` or `NETWORK:weights@network:BATCH`
    fn from_str(text: &str) -> Result<Self, String> {
        let &[network, trained, batch] = text.split(':').collect::<Vec<_>>().as_slice() else {
            return Err("not NETWORK:BLOCK:BATCH".into());
        };
        let batch = batch.parse().ok().filter(|n| *n > 0).ok_or("the batch is not a number over 0")?;
        let (kind, level) = match trained.strip_prefix("weights@") {
            None => (Kind::Search, Level::Block(trained.into())),
            Some("network") => (Kind::Weights, Level::Network),
            Some(block) => (Kind::Weights, Level::Block(block.into())),
        };
        Ok(Self { network: network.into(), kind, level, batch })
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Search => "search",
            Kind::Weights => "weights",
        };
        write!(f, "{}, {kind} of {}, batch {}", self.network, self.level, self.batch)
    }
}

impl Case {
    /// Writes the step into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> archrepair::Result<()> {
        let rng = &mut Rng::new(SEED);
        base::write(&self.network, &folder.join("model.safetensors"))?;
        let model = Model::open(&folder.join("model.safetensors"), &Overrides::default())?;
        let (params, network) = (model.params()?, model.network);
        let deployed = Deployed::new(network, params);
        let site = Site::new(&deployed, self.level.clone())?;
        let behind = site.parts.end;
        let x = features(&site, &deployed.network.input.shape, self.batch, rng)?;
        let (graph, params) = match self.kind {
            Kind::Search => {
                let space = relax(&site, &clean(&x)?, rng)?;
                (space.graph, space.params)
            }
            Kind::Weights => (site.graph.clone(), site.params.clone()),
        };
        let trainable = graph.params(&site.input)?.into_iter().filter(|p| p.param.trainable);
        let trained = trainable.map(|p| p.name).filter(|name| !is_choice_weight(name)).collect();
        let labels = (0..self.batch).map(|_| rng.below(site.classes) as u32).collect();
        let Site { input, classes, .. } = site;
        let block = opened(&params.of(&graph, &input)?)?;
        let rate = if self.level == Level::Network { NETWORK_RATE } else { RATE };
        let level = self.level_text();
        let step = Step { level, graph, input, classes, trained, rate, labels };
        let suffix = &deployed.network.parts[behind..];
        let mut tensors = Params::default();
        for (part, input) in suffix.iter().zip(&deployed.network.shapes()?[behind..]) {
            tensors.extend(&deployed.params.of(&part.graph, input)?);
        }
        let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.join(name), bytes).unwrap();
        let of = |tensors: &BTreeMap<String, Tensor>| serialize(tensors, Storage::F32, &BTreeMap::new());
        write("step.json", serde_json::to_vec(&step).unwrap());
        write("block.safetensors", of(&block)?);
        write("batch.safetensors", of(&BTreeMap::from([("x".to_owned(), x)]))?);
        write("suffix.json", serde_json::to_vec(suffix).unwrap());
        write("suffix.safetensors", of(&tensors.tensors()?)?);
        Ok(())
    }
}

impl Case {
    /// As [`Level`] reads it.
    fn level_text(&self) -> String {
        match &self.level {
            Level::Block(name) => format!("block:{name}"),
            _ => "network".into(),
        }
    }
}

impl Step {
    /// Reads `step.json`.
    pub(crate) fn open(folder: &Path) -> Self {
        serde_json::from_slice(&std::fs::read(folder.join("step.json")).unwrap()).unwrap()
    }
}

/// Reads `suffix.json`.
pub(crate) fn suffix(folder: &Path) -> Vec<Part> {
    serde_json::from_slice(&std::fs::read(folder.join("suffix.json")).unwrap()).unwrap()
}

/// What random images are when they enter the block.
fn features(site: &Site, shape: &[usize], n: usize, rng: &mut Rng) -> archrepair::Result<Tensor> {
    let Levers { infer_batch, .. } = Levers::FASTEST;
    let runs = (0..n).step_by(infer_batch).map(|start| {
        let x = base::images(shape, infer_batch.min(n - start), rng);
        infer(&site.prefix.graph, &site.prefix.params, &x)
    });
    Ok(Tensor::cat(&runs.collect::<archrepair::Result<Vec<_>>>()?, 0).unwrap())
}

/// Statistics of the input; how much images differ from one another is made up.
fn clean(x: &Tensor) -> archrepair::Result<CleanStatistics> {
    let seen = batch_norm::statistics(x)?;
    let mean = seen.mean.to_vec1::<f32>().unwrap();
    let std: Vec<f32> =
        seen.var.to_vec1::<f32>().unwrap().into_iter().map(|var| (var + 1e-5).sqrt()).collect();
    let spread = vec![0.1; mean.len()];
    Ok(CleanStatistics { mean, std_mean: std.clone(), std, mean_spread: spread.clone(), std_spread: spread })
}

/// `params` with every gate a little open.
fn opened(params: &Params) -> archrepair::Result<BTreeMap<String, Tensor>> {
    let mut tensors = params.tensors()?;
    for (_, gate) in tensors.iter_mut().filter(|(name, _)| name.ends_with(".gate")) {
        *gate = gate.affine(1.0, GATE).unwrap();
    }
    Ok(tensors)
}
