//! Model files: which network a file of weights is.
//!
//! A file with our metadata says itself. Any other is recognized by the names and shapes of its
//! tensors, so a plain torchvision `resnet50.safetensors` opens; what names cannot tell (size of
//! the images, their mean and deviation, names of classes) comes from [`Overrides`] or from the
//! defaults of [`Preset`].

pub mod init;
pub mod resnet;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;

use crate::error::{Error, Result};
use crate::graph::network::Input;
use crate::graph::op::Shape;
use crate::graph::{Network, Params, Weight};
use crate::storage::{Bytes, WeightFile};

/// Name of the metadata entry that holds a network as JSON.
pub const METADATA: &str = "archrepair";

/// What the user says about a model besides the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Mean of each channel, of pixels in 0 to 1.
    pub mean: Option<Vec<f32>>,
    /// Deviation of each channel.
    pub std: Option<Vec<f32>>,
    /// Height and width of the images.
    pub size: Option<[usize; 2]>,
}

/// What is assumed of a detected network when nobody says: the usual values of its training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// Data the values come from.
    pub name: &'static str,
    /// Side of the images.
    pub size: usize,
    /// Mean of each channel.
    pub mean: &'static [f32],
    /// Deviation of each channel.
    pub std: &'static [f32],
}

impl Preset {
    /// torchvision's ImageNet classification preset.
    pub const IMAGENET: Self =
        Self { name: "imagenet", size: 224, mean: &[0.485, 0.456, 0.406], std: &[0.229, 0.224, 0.225] };
    /// Statistics of the CIFAR-10 training set.
    pub const CIFAR: Self =
        Self { name: "cifar10", size: 32, mean: &[0.4914, 0.4822, 0.4465], std: &[0.2470, 0.2435, 0.2616] };
    /// Statistics of the Fashion-MNIST training set.
    pub const FASHION: Self = Self { name: "fashion-mnist", size: 28, mean: &[0.2860], std: &[0.3530] };

    /// The preset for images of `channels` channels and a stem of kernel side `stem_k`.
    #[must_use]
    pub fn of(channels: usize, stem_k: usize) -> Self {
        match (channels, stem_k) {
            (1, _) => Self::FASHION,
            (_, 7) => Self::IMAGENET,
            _ => Self::CIFAR,
        }
    }
}

/// A model file and the network it holds. Weights stay in the mapped file until asked for.
#[derive(Debug)]
pub struct Model {
    /// The network.
    pub network: Network,
    /// The file.
    pub file: WeightFile,
}

impl Model {
    /// Opens a model file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::Malformed`] for a file that cannot be read,
    /// [`Error::UnknownArchitecture`] when its tensors are of no known family,
    /// [`Error::MissingTensor`] and [`Error::Shape`] when one does not fit.
    pub fn open(path: &Path, overrides: &Overrides) -> Result<Self> {
        Self::of(WeightFile::open(path)?, overrides)
    }

    /// Opens a model that is in memory already; `name` stands in errors.
    ///
    /// # Errors
    ///
    /// As [`Model::open`].
    pub fn from_bytes(bytes: Bytes, name: &Path) -> Result<Self> {
        Self::of(WeightFile::from_bytes(bytes, name)?, &Overrides::default())
    }

    fn of(file: WeightFile, overrides: &Overrides) -> Result<Self> {
        let mut network = match file.metadata().get(METADATA) {
            Some(text) => {
                let malformed = |problem| Error::Malformed { path: file.path().into(), problem };
                Network::from_json(text).map_err(malformed)?
            }
            None => detect(&file)?,
        };
        apply(overrides, &mut network.input)?;
        let found = |problem: String| Error::UnknownArchitecture { path: file.path().into(), problem };
        network.check().map_err(|error| found(error.to_string()))?;
        for named in network.params()? {
            let (name, want) = (named.name, named.param.shape);
            let path = || file.path().to_path_buf();
            match file.shape(&name) {
                None => return Err(Error::MissingTensor { path: path(), name, want }),
                Some(got) if got != want => {
                    return Err(Error::Shape { path: path(), name, want, got: got.into() });
                }
                Some(_) => {}
            }
        }
        Ok(Self { network, file })
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

fn detect(file: &WeightFile) -> Result<Network> {
    let shape = |name: &str| file.shape(name).map(|shape| (name.to_owned(), shape.to_vec()));
    let shapes: BTreeMap<String, Shape> = file.names().filter_map(shape).collect();
    let layout = resnet::Layout::detect(&shapes).ok_or_else(|| Error::UnknownArchitecture {
        path: file.path().into(),
        problem: "no metadata, and the tensors are not those of a ResNet \
                  (conv1, bn1, layer1.0 to layer4.0, fc)"
            .into(),
    })?;
    let preset = Preset::of(layout.channels, layout.stem_k);
    // A preset of another number of channels says nothing about these.
    let per_channel = |values: &[f32]| {
        if values.len() == layout.channels { values.to_vec() } else { vec![values[0]; layout.channels] }
    };
    let input = Input {
        shape: vec![layout.channels, preset.size, preset.size],
        mean: per_channel(preset.mean),
        std: per_channel(preset.std),
    };
    Ok(layout.network(input))
}

fn apply(overrides: &Overrides, input: &mut Input) -> Result<()> {
    let channels = input.shape.first().copied().unwrap_or(0);
    let check = |field, values: &[f32], positive: bool| {
        let sound = |v: &f32| v.is_finite() && (!positive || *v > 0.0);
        if values.len() == channels && values.iter().all(sound) {
            return Ok(());
        }
        let want =
            format!("{channels} finite numbers, one a channel{}", if positive { ", over 0" } else { "" });
        Err(Error::Config { field, got: format!("{values:?}"), want })
    };
    if let Some(mean) = &overrides.mean {
        check("mean", mean, false)?;
        input.mean.clone_from(mean);
    }
    if let Some(std) = &overrides.std {
        check("std", std, true)?;
        input.std.clone_from(std);
    }
    if let Some([h, w]) = overrides.size {
        input.shape = vec![channels, h, w];
    }
    Ok(())
}
