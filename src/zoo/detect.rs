//! Which network the tensors of a file are of.

use super::layers::{Padding, Shapes};
use super::side::Side;
use super::{Overrides, Preset, densenet, efficientnet, mobilenet_v2, mobilenet_v3, resnet, vgg};
use crate::error::{Error, Result};
use crate::graph::Network;
use crate::graph::network::{Input, MOST_PIXELS};
use crate::storage::WeightFile;

/// What trained a network; no tensor shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trained {
    PyTorch,
    /// Convolutions pad as `SAME` says, and norms add more.
    TensorFlow,
}

impl Trained {
    /// By timm's name of the network.
    fn by_name(architecture: Option<&str>) -> Self {
        let is_tf = architecture.is_some_and(|name| name.starts_with("tf_"));
        if is_tf { Self::TensorFlow } else { Self::PyTorch }
    }

    /// What norms add to variances, where PyTorch's add `eps`.
    pub(super) fn eps(self, eps: f64) -> f64 {
        if self == Self::TensorFlow { 1e-3 } else { eps }
    }

    pub(super) fn padding(self) -> Padding {
        if self == Self::TensorFlow { Padding::Same } else { Padding::Even }
    }
}

/// A network as far as tensors tell.
pub(super) trait Family {
    /// Channels of the images.
    fn channels(&self) -> usize;

    /// What its images usually are.
    fn preset(&self) -> Preset;

    /// The network for `input`; the error says why it cannot take that.
    fn network(&self, input: Input) -> std::result::Result<Network, String>;
}

/// The network that the tensors of a file are of.
pub(super) fn detect(file: &WeightFile, side: Side, overrides: &Overrides) -> Result<Network> {
    let shape = |name: &str| file.shape(name).map(|shape| (name.to_owned(), shape.to_vec()));
    let shapes: Shapes = file.names().filter_map(shape).collect();
    let unknown = |problem| Error::UnknownArchitecture { path: file.path().into(), problem };
    let family = family(&shapes, Trained::by_name(side.architecture())).ok_or_else(|| {
        unknown(
            "no metadata, and the tensors are not those of a ResNet (conv1, bn1, layer1.0 to layer4.0, fc), \
             DenseNet, VGG, MobileNetV2, MobileNetV3 or EfficientNet as torchvision or timm name them"
                .into(),
        )
    })?;
    let (preset, channels) = (family.preset(), family.channels());
    // A preset of another number of channels says nothing about these.
    let per_channel = |values: &[f32]| {
        if values.len() == channels { values.to_vec() } else { vec![values[0]; channels] }
    };
    let mut input = Input {
        shape: vec![channels, preset.size, preset.size],
        mean: per_channel(preset.mean),
        std: per_channel(preset.std),
    };
    let said = side.under(overrides);
    apply(&said, &mut input)?;
    named(family.network(input).map_err(unknown)?, &said)
}

/// The family whose tensors these are.
pub(super) fn family(shapes: &Shapes, trained: Trained) -> Option<Box<dyn Family>> {
    let known: [Option<Box<dyn Family>>; 6] = [
        resnet::Layout::detect(shapes).map(|found| Box::new(found) as _),
        densenet::Layout::detect(shapes).map(|found| Box::new(found) as _),
        mobilenet_v2::detect(shapes, trained).map(|found| Box::new(found) as _),
        mobilenet_v3::detect(shapes, trained).map(|found| Box::new(found) as _),
        efficientnet::detect(shapes, trained).map(|found| Box::new(found) as _),
        vgg::Layout::detect(shapes).map(|found| Box::new(found) as _),
    ];
    known.into_iter().flatten().next()
}

/// The network with the names of classes that were said.
pub(super) fn named(network: Network, overrides: &Overrides) -> Result<Network> {
    let Some(names) = &overrides.class_names else { return Ok(network) };
    if names.len() != network.classes {
        let want = format!("{}, as the network has classes", network.classes);
        return Err(Error::Config { field: "the number of class names", got: names.len().to_string(), want });
    }
    Ok(Network { class_names: names.clone(), ..network })
}

pub(super) fn apply(overrides: &Overrides, input: &mut Input) -> Result<()> {
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
        if ![h, w].iter().all(|side| (1..=MOST_PIXELS).contains(side)) {
            let want = format!("sides of 1 to {MOST_PIXELS} pixels");
            return Err(Error::Config { field: "size", got: format!("{h}x{w}"), want });
        }
        input.shape = vec![channels, h, w];
    }
    Ok(())
}
