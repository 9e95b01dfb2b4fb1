//! MobileNetV2 (Sandler et al. 2018) as torchvision and timm name and build it, any widths; in timm's files
//! any depths too.

use super::Trained;
use super::inverted::Style;
use super::layers::{EPS, Shapes};
use super::mobile::{Around, Layout, Stages, activate, counts};
use crate::graph::op::Activation;

const STAGES: Stages = Stages { counts: &[1, 2, 3, 4, 3, 3, 1], strides: &[1, 2, 2, 2, 1, 2, 1] };

/// Reads the layout off tensor shapes by name; `None` when they are of no MobileNetV2.
pub(super) fn detect(shapes: &Shapes, trained: Trained) -> Option<Layout> {
    let (mut blocks, around) = match STAGES.counted(shapes, ("features", 1)) {
        Some(blocks) => (blocks, Around::torchvision(18)),
        None => (STAGES.staged(shapes, ("blocks", 0))?, Around::timm()),
    };
    // EfficientNet-Lite has the same names, and blocks of 5x5.
    if blocks.iter().flatten().any(|block| block.squeezes() || block.k != 3) {
        return None;
    }
    let name = match counts(&blocks) {
        counts if counts == STAGES.counts => "mobilenet_v2".into(),
        counts => format!("mobilenet_v2{counts:?}").replace(' ', ""),
    };
    activate(&mut blocks, 0, Activation::Relu6);
    let style =
        Style { eps: trained.eps(EPS), padding: trained.padding(), squeeze: None, gate: Activation::Sigmoid };
    Layout::new(shapes, (around, blocks), (name, Activation::Relu6), style)
}
