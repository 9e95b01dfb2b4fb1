//! EfficientNet (Tan and Le 2019) and EfficientNet-Lite, as torchvision, timm and the packages
//! `efficientnet-pytorch` and `efficientnet-lite-pytorch` name and build them: B0 and Lite0 with any widths,
//! deeper ones where names order blocks by stage.
//!
//! The Lite networks have no squeeze-and-excitation, and ReLU6 where the others have SiLU. The two packages
//! pad as TensorFlow does.

use super::inverted::{Inverted, Names, Style};
use super::layers::{EPS, Padding, Shapes};
use super::mobile::{Around, Blocks, Layout, Stages, activate, counts};
use super::{Preset, Trained};
use crate::graph::op::Activation;

const STAGES: Stages = Stages { counts: &[1, 2, 2, 3, 3, 4, 1], strides: &[1, 2, 2, 2, 1, 2, 1] };

/// Kernel side of each stage: MNASNet and others have blocks of the same names.
const SIDES: [usize; 7] = [3, 3, 5, 3, 5, 5, 3];

/// torchvision's B5 and deeper add 1e-3 to variances; they are those whose first stage has this many blocks.
const DEEP: usize = 3;

/// Reads the layout off tensor shapes by name; `None` when they are of no EfficientNet.
pub(super) fn detect(shapes: &Shapes, trained: Trained) -> Option<Layout> {
    if let Some(blocks) = STAGES.staged(shapes, ("features", 1)) {
        let eps = if blocks[0].len() < DEEP { EPS } else { Trained::TensorFlow.eps(EPS) };
        return layout(shapes, (Around::torchvision(8), blocks), (eps, Padding::Even));
    }
    if let Some(blocks) = STAGES.staged(shapes, ("blocks", 0)) {
        return layout(shapes, (Around::timm(), blocks), (trained.eps(EPS), trained.padding()));
    }
    let blocks = STAGES.counted(shapes, ("_blocks", 0))?;
    let (stem, last) = (Names::new("_conv_stem", "_bn0"), Names::new("_conv_head", "_bn1"));
    let around = Around { stem, last, classifier: "_fc", ..Around::timm() };
    let is_lite = is_lite(&blocks);
    let trained = Trained::TensorFlow;
    let mut layout = layout(shapes, (around, blocks), (trained.eps(EPS), trained.padding()))?;
    if is_lite {
        layout.preset = Preset::LITE;
    }
    Some(layout)
}

fn layout(
    shapes: &Shapes,
    (around, mut blocks): (Around, Blocks),
    (eps, padding): (f64, Padding),
) -> Option<Layout> {
    let fits = |(stage, k): (&Vec<Inverted>, usize)| stage.iter().all(|block| block.k == k);
    let squeezes = blocks.iter().flatten().all(Inverted::squeezes) || is_lite(&blocks);
    if !squeezes || !blocks.iter().zip(SIDES).all(fits) {
        return None;
    }
    let (kind, activation) =
        if is_lite(&blocks) { ("lite0", Activation::Relu6) } else { ("b0", Activation::Silu) };
    let name = match counts(&blocks) {
        counts if counts == STAGES.counts => format!("efficientnet_{kind}"),
        counts => format!("efficientnet_{}{counts:?}", kind.trim_end_matches('0')).replace(' ', ""),
    };
    activate(&mut blocks, 0, activation);
    let style = Style { eps, padding, squeeze: None, gate: Activation::Sigmoid };
    Layout::new(shapes, (around, blocks), (name, activation), style)
}

fn is_lite(blocks: &Blocks) -> bool {
    !blocks.iter().flatten().any(|block| block.squeezes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::WeightFile;

    #[test]
    fn other_kernels_and_squeezing_in_some_blocks_are_of_no_efficientnet() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/zoo/efficientnet_b0.safetensors");
        let file = WeightFile::open(path.as_ref()).unwrap();
        let shape = |name: &str| (name.to_owned(), file.shape(name).unwrap().to_vec());
        let shapes: Shapes = file.names().map(shape).collect();
        assert!(detect(&shapes, Trained::PyTorch).is_some());
        let mut other = shapes.clone();
        other.get_mut("features.3.0.block.1.0.weight").unwrap()[2..].fill(3);
        assert_eq!(detect(&other, Trained::PyTorch), None);
        let mut other = shapes;
        other.remove("features.3.0.block.2.fc1.weight").unwrap();
        assert_eq!(detect(&other, Trained::PyTorch), None);
    }
}
