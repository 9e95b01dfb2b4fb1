//! A whole repair as files: a network, images, and every draw of its training.
//!
//! | file | what |
//! |---|---|
//! | `model.safetensors` | the network as it is deployed, in `f32`, with its graph as text |
//! | `failures` `replay` `held-failures` `held-replay` | images, a folder with an IDX pair each |
//! | `work.json` | block, rates, and the images of each step: [`Work`] |
//! | `relaxed.safetensors` | the tensors that a search starts with, in `f32` |
//! | `chosen.json` | the graph that this library's search came to, written by each run of it |
//!
//! Whoever repairs starts from these: every program gets the same work.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use archrepair::eval::Deployed;
use archrepair::fit::train::{Draw, Sampler, rate_factor};
use archrepair::fit::{self, Level, Sets, Site};
use archrepair::graph::{Graph, Params};
use archrepair::rng::Rng;
use archrepair::search;
use archrepair::search::candidate::CleanStatistics;
use archrepair::search::space::{Space, is_choice_weight, relax};
use archrepair::storage::{Storage, publish, serialize};
use archrepair::zoo::{METADATA, Model, Overrides};
use serde::{Deserialize, Serialize};

use crate::sets::{self, Seen};

/// What is repaired, and how.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    kind: Kind,
    block: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Architecture and weights.
    Search,
    /// Weights alone.
    Weights,
}

/// What `work.json` says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    pub(crate) block: String,
    classes: usize,
    /// Weight of the deployed network's opinion on replay.
    distill: f64,
    /// Learning rates of deployed tensors, of added ones and of choice weights.
    rates: [f64; 3],
    /// The relaxed block of a search.
    graph: Graph,
    /// Names of what changes in the block, or in the relaxed block; but for choice weights.
    trained: Vec<String>,
    /// Steps of the search; none where there is none.
    pub(crate) search: Vec<Step>,
    /// Steps of the training that follows.
    pub(crate) fit: Vec<Step>,
}

/// A step of weights, and one of choice weights where it follows.
#[derive(Serialize, Deserialize)]
pub(crate) struct Step {
    batch: Batch,
    /// What the rates are multiplied with.
    factor: f64,
    choice: Option<Batch>,
}

/// Numbers of failures and of replay images in their sets.
type Batch = [Vec<usize>; 2];

pub(crate) const SEED: u64 = 0;
/// Of all steps this share is a search: 150 of 400.
const SEARCH: (usize, usize) = (3, 8);

impl FromStr for Case {
    type Err = String;

    /// `search@BLOCK` or `weights@BLOCK`
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, block) = text.split_once('@').ok_or("not KIND@BLOCK")?;
        let kind = match kind {
            "search" => Kind::Search,
            "weights" => Kind::Weights,
            _ => return Err("the kind is not search or weights".into()),
        };
        Ok(Self { kind, block: block.into() })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}@{}", if self.kind == Kind::Search { "search" } else { "weights" }, self.block)
    }
}

impl Case {
    /// Writes the repair of `model` by so many `steps` into `folder`.
    pub(crate) fn write(&self, model: &Path, steps: usize, folder: &Path) -> archrepair::Result<()> {
        let model = Model::open(model, &Overrides::default())?;
        let deployed = Deployed::new(model.network.clone(), model.params()?);
        let metadata = BTreeMap::from([(METADATA.to_owned(), deployed.network.to_json()?)]);
        let bytes = serialize(&deployed.params.tensors()?, Storage::F32, &metadata)?;
        publish(&folder.join("model.safetensors"), &bytes)?;
        sets::write(&deployed, folder)?;
        let site = Site::new(&deployed, Level::Block(self.block.clone()))?;
        let seen = Seen::new(&site, &deployed, folder)?;
        let rng = &mut Rng::new(SEED);
        let (graph, params) = self.start(&site, &seen, rng)?;
        let bytes = serialize(&params.tensors()?, Storage::F32, &BTreeMap::new())?;
        publish(&folder.join("relaxed.safetensors"), &bytes)?;
        let trainable = graph.params(&site.input)?.into_iter().filter(|p| p.param.trainable);
        let trained = trainable.map(|p| p.name).filter(|name| !is_choice_weight(name)).collect();
        let searched = if self.kind == Kind::Search { steps * SEARCH.0 / SEARCH.1 } else { 0 };
        let fit::Config { distill, rate, new_rate, .. } = fit::Config::default();
        let work = Work {
            kind: self.kind,
            block: self.block.clone(),
            classes: site.classes,
            distill,
            rates: [rate, new_rate, search::Config::default().choice_rate],
            graph,
            trained,
            search: searching(&seen, searched, rng),
            fit: training(&seen, steps - searched),
        };
        std::fs::write(folder.join("work.json"), serde_json::to_vec(&work).unwrap()).unwrap();
        Ok(())
    }

    /// The block that is trained first, as [`search::search`] relaxes it.
    fn start(&self, site: &Site, seen: &Seen, rng: &mut Rng) -> archrepair::Result<(Graph, Params)> {
        if self.kind == Kind::Weights {
            return Ok((site.graph.clone(), site.params.clone()));
        }
        let clean = CleanStatistics::measure(seen.training().replay)?;
        let Space { graph, params, .. } = relax(site, &clean, rng)?;
        Ok((graph, params))
    }
}

impl Work {
    /// Reads `work.json`.
    pub(crate) fn open(folder: &Path) -> Self {
        serde_json::from_slice(&std::fs::read(folder.join("work.json")).unwrap()).unwrap()
    }
}

/// The steps that [`search::search`] makes with what it has not drawn yet of `rng`.
fn searching(seen: &Seen, steps: usize, rng: &mut Rng) -> Vec<Step> {
    let (mut trained, mut held) = (Sampler::new(), Sampler::new());
    let every = search::Config::default().choice_every;
    let step = |step| {
        let batch = draw(&mut trained, seen.training(), rng);
        let has_choice = (step + 1) % every == 0;
        let choice = has_choice.then(|| draw(&mut held, seen.validation(), rng));
        Step { batch, factor: rate_factor(step, 2 * steps), choice }
    };
    (0..steps).map(step).collect()
}

/// The steps that [`fit::fit`] makes.
fn training(seen: &Seen, steps: usize) -> Vec<Step> {
    let (mut sampler, mut rng) = (Sampler::new(), Rng::new(SEED));
    let step = |step| {
        let batch = draw(&mut sampler, seen.training(), &mut rng);
        Step { batch, factor: rate_factor(step, steps), choice: None }
    };
    (0..steps).map(step).collect()
}

fn draw(sampler: &mut Sampler, sets: Sets, rng: &mut Rng) -> Batch {
    let draws = sampler.draw(sets, fit::Config::default().batch, rng);
    let (replay, failures): (Vec<Draw>, Vec<Draw>) = draws.into_iter().partition(|draw| draw.taught);
    [failures, replay].map(|draws| draws.into_iter().map(|draw| draw.index).collect())
}
