//! One piece of work as files: a network with random weights, and a batch of images of noise.
//!
//! | file | what |
//! |---|---|
//! | `model.safetensors` | the network as it is deployed, in `f16` |
//! | `batch.safetensors` | `x`, normalized images in `f32` |
//!
//! `benches/peers/inference.py` adds `model.onnx`. Every program starts from these.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use archrepair::rng::Rng;
use archrepair::storage::{Storage, serialize};
use archrepair::zoo::{Model, Overrides};

use crate::base;

/// A network, and how many images run together.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    network: String,
    batch: usize,
}

const SEED: u64 = 9;

impl FromStr for Case {
    type Err = String;

    /// `NETWORK:BATCH`
    fn from_str(text: &str) -> Result<Self, String> {
        let (network, batch) = text.split_once(':').ok_or("not NETWORK:BATCH")?;
        let batch = batch.parse().ok().filter(|n| *n > 0).ok_or("the batch is not a number over 0")?;
        Ok(Self { network: network.into(), batch })
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}:{}", self.network, self.batch)
    }
}

impl Case {
    /// Writes the work into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> archrepair::Result<()> {
        let path = folder.join("model.safetensors");
        base::write(&self.network, &path)?;
        let shape = Model::open(&path, &Overrides::default())?.network.input.shape;
        let x = base::images(&shape, self.batch, &mut Rng::new(SEED));
        let tensors = BTreeMap::from([("x".to_owned(), x)]);
        let bytes = serialize(&tensors, Storage::F32, &BTreeMap::new())?;
        std::fs::write(folder.join("batch.safetensors"), bytes).unwrap();
        Ok(())
    }
}
