//! Model files: which network a file of weights is.
//!
//! A file with our metadata says itself. Any other is recognized by the names and shapes of its
//! tensors, so a plain torchvision `resnet50.safetensors` opens, or the `.pth` it was made from. What
//! names cannot tell (size of the images, their mean and deviation, names of classes) comes from
//! [`Overrides`], from a file beside the model (`side`), or from the defaults of [`Preset`].

mod densenet;
mod detect;
mod efficientnet;
pub mod init;
mod inverted;
mod layers;
mod mobile;
mod mobilenet_v2;
mod mobilenet_v3;
mod preset;
pub mod resnet;
mod side;
mod vgg;

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::Device;
use serde::Serialize;

use self::detect::{Family, Trained};
pub use self::preset::Preset;
use self::side::Side;
use crate::error::{Error, Result};
use crate::graph::op::Shape;
use crate::graph::{Network, Params, Weight};
use crate::storage::{Bytes, WeightFile};

/// Name of the metadata entry that holds a network as JSON.
pub const METADATA: &str = "archrepair";

/// What the user says about a model besides the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Names of the classes.
    pub class_names: Option<Vec<String>>,
    /// Mean of each channel, of pixels in 0 to 1.
    pub mean: Option<Vec<f32>>,
    /// Deviation of each channel.
    pub std: Option<Vec<f32>>,
    /// Height and width of the images.
    pub size: Option<[usize; 2]>,
}

/// Where the size of images, their mean and deviation are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputFrom {
    /// The model file.
    File,
    /// What is usual.
    Preset,
    /// A file beside the model, and what it leaves out is usual.
    SideFile,
}

/// A model file and the network it holds. Weights stay in the mapped file until asked for.
#[derive(Debug)]
pub struct Model {
    /// The network.
    pub network: Network,
    /// The file.
    pub file: WeightFile,
    /// Where its input is from, but for what the user said.
    pub input_from: InputFrom,
}

impl Model {
    /// Opens a model file: safetensors, an index of several, or a state dict of PyTorch.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::Malformed`] for a file that cannot be read, or one beside it,
    /// [`Error::UnknownArchitecture`] when its tensors are of no known family,
    /// [`Error::MissingTensor`] and [`Error::Shape`] when one does not fit.
    pub fn open(path: &Path, overrides: &Overrides) -> Result<Self> {
        let file = WeightFile::open(path)?;
        let side = if file.metadata().contains_key(METADATA) { None } else { Side::beside(path)? };
        Self::of(file, side, overrides)
    }

    /// Opens a model that is in memory already; `name` stands in errors.
    ///
    /// # Errors
    ///
    /// As [`Model::open`].
    pub fn from_bytes(bytes: Bytes, name: &Path) -> Result<Self> {
        Self::of(WeightFile::from_bytes(bytes, name)?, None, &Overrides::default())
    }

    fn of(file: WeightFile, side: Option<Side>, overrides: &Overrides) -> Result<Self> {
        let (network, input_from) = match file.metadata().get(METADATA) {
            Some(text) => {
                let malformed = |problem| Error::Malformed { path: file.path().into(), problem };
                let mut network = Network::from_json(text).map_err(malformed)?;
                detect::apply(overrides, &mut network.input)?;
                (detect::named(network, overrides)?, InputFrom::File)
            }
            None => {
                let from = if side.is_some() { InputFrom::SideFile } else { InputFrom::Preset };
                (detect::detect(&file, side.unwrap_or_default(), overrides)?, from)
            }
        };
        let model = Self { network, file, input_from };
        model.check()?;
        Ok(model)
    }

    /// Checks that the file has the network's tensors, and no others where these told the network.
    fn check(&self) -> Result<()> {
        let path = || self.file.path().to_path_buf();
        let unknown = |problem: String| Error::UnknownArchitecture { path: path(), problem };
        self.network.check().map_err(|error| unknown(error.to_string()))?;
        let mut used = BTreeSet::new();
        for named in self.network.params()? {
            let (name, want) = (named.name, named.param.shape);
            match self.file.shape(&name) {
                None => return Err(Error::MissingTensor { path: path(), name, want }),
                Some(got) if got != want => {
                    return Err(Error::Shape { path: path(), name, want, got: got.into() });
                }
                Some(_) => used.insert(name),
            };
        }
        let is_more = |name: &&str| !used.contains(*name) && !name.ends_with(".num_batches_tracked");
        match self.file.names().find(is_more) {
            Some(more) if self.input_from != InputFrom::File => {
                let known = &self.network.architecture;
                Err(unknown(format!("it looks like {known}, which has no tensor `{more}`")))
            }
            _ => Ok(()),
        }
    }

    /// All tensors of the network, widened to `f32` on the heap: what runs fastest.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] for a weight that is NaN or infinite.
    pub fn params(&self) -> Result<Params> {
        self.mapped_params()?.resident()
    }

    /// All weights of the network, each as [`Model::weight`] gives it: what takes the least memory.
    ///
    /// # Errors
    ///
    /// As [`Model::params`].
    pub fn mapped_params(&self) -> Result<Params> {
        let load = |name: String, shape: Shape| Ok((name.clone(), self.weight(&name, &shape)?));
        self.network.params()?.into_iter().map(|named| load(named.name, named.param.shape)).collect()
    }

    /// The weight `name`, left in the file to be widened when it is used. A vector, such as a bias
    /// or those of a batch norm, is small and often read: it is on the heap at once.
    ///
    /// # Errors
    ///
    /// As [`WeightFile::tensor`]: a weight that stays in the file is checked all the same.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Result<Weight> {
        match shape.len() {
            0 | 1 => Ok(self.file.tensor(name, shape, &Device::Cpu)?.into()),
            _ => Ok(self.file.view(name, shape)?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::detect::{Trained, family};
    use super::layers::Shapes;
    use crate::graph::Network;
    use crate::graph::network::Input;
    use crate::storage::WeightFile;

    pub(super) fn input(channels: usize, side: usize) -> Input {
        let (mean, std) = (vec![0.5; channels], vec![0.25; channels]);
        Input { shape: vec![channels, side, side], mean, std }
    }

    pub(super) fn shapes(network: &Network) -> Shapes {
        network.params().unwrap().into_iter().map(|p| (p.name, p.param.shape)).collect()
    }

    /// Parameters without statistics.
    pub(super) fn trainable(network: &Network) -> usize {
        let params = network.params().unwrap().into_iter().filter(|p| p.param.trainable);
        params.map(|p| p.param.shape.iter().product::<usize>()).sum()
    }

    const FILES: [&str; 6] =
        ["densenet", "efficientnet_b0", "mobilenet_v2_timm", "mobilenet_v3_large", "vgg", "wide_resnet"];

    proptest! {
        /// Shapes of others give a network or none, and a network that is sound or not: nothing panics.
        #[test]
        fn changed_shapes_never_panic(
            which in 0..FILES.len(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, 0usize..9), 1..8),
        ) {
            let path = format!("{}/tests/data/zoo/{}.safetensors", env!("CARGO_MANIFEST_DIR"), FILES[which]);
            let file = WeightFile::open(path.as_ref()).unwrap();
            let mut shapes: Shapes = file.names().map(|name| (name.into(), file.shape(name).unwrap().into())).collect();
            for (index, side, to) in changes {
                let name = index.get(&shapes.keys().cloned().collect::<Vec<_>>()).clone();
                if let Some(side) = shapes.get_mut(&name).and_then(|shape| shape.get_mut(side)) {
                    *side = to;
                }
            }
            for trained in [Trained::PyTorch, Trained::TensorFlow] {
                if let Some(Ok(network)) = family(&shapes, trained).map(|family| family.network(input(3, 64))) {
                    drop(network.check());
                }
            }
        }
    }
}
