//! MobileNetV3 (Howard et al. 2019), small and large, as torchvision and timm name and build it, any widths.

use super::Trained;
use super::inverted::{Names, Style};
use super::layers::{EPS, Padding, Shapes};
use super::mobile::{Around, Between, Blocks, Layout, Linear, Stages, activate};
use crate::graph::op::Activation;

/// Added to variances by torchvision's MobileNetV3.
const TORCHVISION_EPS: f64 = 1e-3;

/// One of the two.
struct Size {
    name: &'static str,
    stages: Stages,
    /// The first stage with hard swish; those before have ReLU.
    swishes: usize,
}

const SIZES: [Size; 2] = [
    Size {
        name: "mobilenet_v3_large",
        stages: Stages { counts: &[1, 2, 3, 4, 2, 3], strides: &[1, 2, 2, 2, 1, 2] },
        swishes: 3,
    },
    Size {
        name: "mobilenet_v3_small",
        stages: Stages { counts: &[1, 2, 3, 2, 3], strides: &[2, 2, 2, 1, 2] },
        swishes: 2,
    },
];

/// Reads the layout off tensor shapes by name; `None` when they are of no MobileNetV3.
pub(super) fn detect(shapes: &Shapes, trained: Trained) -> Option<Layout> {
    SIZES.iter().find_map(|size| torchvision(shapes, size).or_else(|| timm(shapes, (size, trained))))
}

fn torchvision(shapes: &Shapes, size: &Size) -> Option<Layout> {
    let blocks = size.stages.counted(shapes, ("features", 1))?;
    let last = 1 + size.stages.counts.iter().sum::<usize>();
    let between = Between::Linear(Linear::find(shapes, "classifier.0")?);
    let around = Around { between, classifier: "classifier.3", ..Around::torchvision(last) };
    layout(shapes, (size, around), blocks, (TORCHVISION_EPS, Padding::Even))
}

fn timm(shapes: &Shapes, (size, trained): (&Size, Trained)) -> Option<Layout> {
    let blocks = size.stages.staged(shapes, ("blocks", 0))?;
    let last = format!("blocks.{}.0", blocks.len());
    let between = Between::Conv(Linear::find(shapes, "conv_head")?);
    let last = Names::new(format!("{last}.conv"), format!("{last}.bn1"));
    let around = Around { last, between, ..Around::timm() };
    layout(shapes, (size, around), blocks, (trained.eps(EPS), trained.padding()))
}

fn layout(
    shapes: &Shapes,
    (size, around): (&Size, Around),
    mut blocks: Blocks,
    (eps, padding): (f64, Padding),
) -> Option<Layout> {
    // Variants without squeeze-and-excitation have other activations, which no tensor shows.
    if !blocks.iter().flatten().any(|block| block.squeezes()) {
        return None;
    }
    activate(&mut blocks, size.swishes, Activation::HardSwish);
    let style = Style { eps, padding, squeeze: Some(Activation::Relu), gate: Activation::HardSigmoid };
    Layout::new(shapes, (around, blocks), (size.name.into(), Activation::HardSwish), style)
}
