//! DenseNet (Huang et al. 2017) as torchvision and timm name and build it: DenseNet-121, 161, 169, 201 and
//! any other numbers of layers, growth and widths, with the ImageNet stem (7x7 stride 2, max pool) or the
//! CIFAR stem (3x3 stride 1).
//!
//! A block here is a dense layer, or a transition between dense blocks. A layer's result is its input with
//! the channels it adds behind, as one value.

use super::layers::{EPS, Layers, Shapes, conv_shape, has, network};
use super::{Family, Preset};
use crate::graph::network::Input;
use crate::graph::op::{Activation, Conv2d, Op, Pool};
use crate::graph::{Graph, INPUT, Network, Part};

/// What tells one DenseNet from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Channels of the images.
    channels: usize,
    /// Kernel side of the first convolution: 7 for the ImageNet stem, 3 for the CIFAR stem.
    stem_k: usize,
    /// Channels after the stem.
    stem: usize,
    /// Whether a norm follows it.
    stem_norm: bool,
    /// Dense blocks in order.
    blocks: Vec<Vec<Layer>>,
    /// Channels that each transition puts out.
    transitions: Vec<usize>,
    classes: usize,
    bias: bool,
}

/// One dense layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layer {
    /// Channels of its 1x1 convolution.
    inner: usize,
    /// Channels it adds.
    growth: usize,
    /// Whether names have a dot before their number: `norm.1`, as the first files of torchvision.
    dotted: bool,
}

/// Numbers of layers with a name.
const DEPTHS: [(usize, [usize; 4]); 4] =
    [(121, [6, 12, 24, 16]), (161, [6, 12, 36, 24]), (169, [6, 12, 32, 32]), (201, [6, 12, 48, 32])];

impl Layout {
    /// Reads the layout off tensor shapes by name; `None` when they are of no DenseNet.
    pub(super) fn detect(shapes: &Shapes) -> Option<Self> {
        let stem = conv_shape(shapes, "features.conv0.weight")?;
        let layer = |b: usize, i: usize| layer(shapes, &layer_name(b, i));
        let blocks = (0..).map(|b| (0..).map_while(|i| layer(b, i)).collect::<Vec<_>>());
        let blocks: Vec<_> = blocks.take_while(|block| !block.is_empty()).collect();
        let transition = |b| Some(conv_shape(shapes, &format!("{}.conv.weight", transition_name(b)))?[0]);
        let transitions: Vec<_> = (0..blocks.len().checked_sub(1)?).map_while(transition).collect();
        if transitions.len() + 1 != blocks.len() || !has(shapes, "features.norm5") {
            return None;
        }
        Some(Self {
            channels: stem[1],
            stem_k: stem[2],
            stem: stem[0],
            stem_norm: has(shapes, "features.norm0"),
            blocks,
            transitions,
            classes: *shapes.get("classifier.weight")?.first()?,
            bias: shapes.contains_key("classifier.bias"),
        })
    }

    fn name(&self) -> String {
        let counts: Vec<usize> = self.blocks.iter().map(Vec::len).collect();
        match DEPTHS.iter().find(|(_, known)| known[..] == counts[..]) {
            Some((depth, _)) => format!("densenet{depth}"),
            None => format!("densenet{counts:?}").replace(' ', ""),
        }
    }

    fn stem(&self) -> Graph {
        let mut layers = Layers::default();
        let stride = if self.stem_k == 7 { 2 } else { 1 };
        layers.push("features.conv0", Op::Conv2d(Conv2d::same(self.stem, self.stem_k, stride)));
        if self.stem_norm {
            norm_relu(&mut layers, "features.norm0");
        }
        if self.stem_k == 7 {
            layers.push("features.pool0", Op::MaxPool(Pool { k: 3, stride: 2, padding: 1 }));
        }
        layers.graph
    }

    fn head(&self) -> Graph {
        let mut layers = Layers::default();
        norm_relu(&mut layers, "features.norm5");
        layers.pooled("avgpool");
        layers.linear("classifier", self.classes, self.bias);
        layers.graph
    }
}

impl Family for Layout {
    fn channels(&self) -> usize {
        self.channels
    }

    fn preset(&self) -> Preset {
        Preset::of(self.channels, self.stem_k)
    }

    fn network(&self, input: Input) -> Result<Network, String> {
        let mut parts = Vec::new();
        for (b, block) in self.blocks.iter().enumerate() {
            parts.extend(block.iter().enumerate().map(|(i, layer)| layer.part(layer_name(b, i))));
            parts.extend(self.transitions.get(b).map(|&outputs| transition(transition_name(b), outputs)));
        }
        Ok(network(self.name(), (input, self.classes), (self.stem(), parts, self.head())))
    }
}

impl Layer {
    fn part(&self, name: String) -> Part {
        let dot = if self.dotted { "." } else { "" };
        let node = |kind: &str, i: usize| format!("{name}.{kind}{dot}{i}");
        let mut layers = Layers::default();
        norm_relu(&mut layers, &node("norm", 1));
        layers.push(node("conv", 1), Op::Conv2d(Conv2d::valid(self.inner, 1, 1)));
        norm_relu(&mut layers, &node("norm", 2));
        layers.push(node("conv", 2), Op::Conv2d(Conv2d::same(self.growth, 3, 1)));
        layers.with(format!("{name}.concat"), Op::Concat, INPUT);
        Part { name, graph: layers.graph }
    }
}

fn transition(name: String, outputs: usize) -> Part {
    let mut layers = Layers::default();
    norm_relu(&mut layers, &format!("{name}.norm"));
    layers.push(format!("{name}.conv"), Op::Conv2d(Conv2d::valid(outputs, 1, 1)));
    layers.push(format!("{name}.pool"), Op::AvgPool(Pool { k: 2, stride: 2, padding: 0 }));
    Part { name, graph: layers.graph }
}

fn norm_relu(layers: &mut Layers, name: &str) {
    layers.norm(name, EPS);
    layers.activate(name, Activation::Relu);
}

fn layer(shapes: &Shapes, name: &str) -> Option<Layer> {
    let dotted = has(shapes, &format!("{name}.conv.1"));
    let dot = if dotted { "." } else { "" };
    let outputs = |i| Some(conv_shape(shapes, &format!("{name}.conv{dot}{i}.weight"))?[0]);
    Some(Layer { inner: outputs(1)?, growth: outputs(2)?, dotted })
}

fn layer_name(block: usize, i: usize) -> String {
    format!("features.denseblock{}.denselayer{}", block + 1, i + 1)
}

fn transition_name(block: usize) -> String {
    format!("features.transition{}", block + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::tests::{input, shapes, trainable};

    fn layout(counts: [usize; 4], [stem, growth, stem_k]: [usize; 3]) -> Layout {
        let layer = Layer { inner: 4 * growth, growth, dotted: false };
        let blocks = counts.map(|n| vec![layer; n]).to_vec();
        let mut c = stem;
        let transitions = counts[..3].iter().map(|n| {
            c = (c + n * growth) / 2;
            c
        });
        let transitions = transitions.collect();
        Layout { channels: 3, stem_k, stem, stem_norm: true, blocks, transitions, classes: 1000, bias: true }
    }

    /// As torchvision states them.
    #[test]
    fn the_named_depths_have_torchvisions_numbers_of_parameters() {
        let widths = [[64, 32, 7], [96, 48, 7], [64, 32, 7], [64, 32, 7]];
        let counts = [7_978_856, 28_681_000, 14_149_480, 20_013_928];
        for (((depth, layers), widths), want) in DEPTHS.into_iter().zip(widths).zip(counts) {
            let network = layout(layers, widths).network(input(3, 224)).unwrap();
            network.check().unwrap();
            assert_eq!(
                (network.architecture.clone(), trainable(&network)),
                (format!("densenet{depth}"), want)
            );
        }
    }

    #[test]
    fn what_is_built_is_detected() {
        for stem_k in [3, 7] {
            let mut layout = layout([2, 1, 3, 1], [8, 4, stem_k]);
            layout.blocks[1][0].dotted = true;
            layout.stem_norm = stem_k == 7;
            let network = layout.network(input(3, 64)).unwrap();
            assert_eq!(Layout::detect(&shapes(&network)), Some(layout));
        }
        assert_eq!(Layout::detect(&Shapes::new()), None);
    }
}
