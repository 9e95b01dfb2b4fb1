//! ResNet (He et al. 2016) as torchvision and timm name and build it: basic and bottleneck blocks,
//! any widths and groups, with the ImageNet stem (7x7 stride 2, max pool) or the CIFAR stem
//! (3x3 stride 1). ResNeXt (Xie et al. 2017) and WideResNet (Zagoruyko and Komodakis 2016) are
//! ResNets with groups and with wider 3x3 convolutions.
//!
//! Everything is read off tensor names and shapes. The strides, which no shape shows, are the
//! family's: 2 in the first block of layers 2 to 4, in a bottleneck at its 3x3 convolution.

use std::collections::BTreeMap;

use super::layers::{EPS, Layers, conv_shape, network};
use super::{Family, Preset};
use crate::error::{Error, Result};
use crate::graph::network::Input;
use crate::graph::op::{Activation, Conv2d, Op, Pool, Shape};
use crate::graph::{Graph, INPUT, Network, Part, Value};

/// What tells one ResNet from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Channels of the images.
    pub channels: usize,
    /// Kernel side of the first convolution: 7 for the ImageNet stem, 3 for the CIFAR stem.
    pub stem_k: usize,
    /// Channels after the stem.
    pub stem: usize,
    /// The four layers.
    pub layers: Vec<Vec<Block>>,
    /// Classes.
    pub classes: usize,
    /// Whether the last layer has a bias.
    pub bias: bool,
}

/// One residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Channels of the inner convolutions.
    pub inner: usize,
    /// Channels out.
    pub outputs: usize,
    /// Groups of the 3x3 convolution of a bottleneck.
    pub groups: usize,
    /// 1x1, 3x3, 1x1 instead of 3x3, 3x3.
    pub bottleneck: bool,
    /// Whether the shortcut is a 1x1 convolution.
    pub downsample: bool,
}

/// Depths with a name: blocks of each layer, and whether they are bottlenecks.
const DEPTHS: [(usize, [usize; 4], bool); 5] = [
    (18, [2, 2, 2, 2], false),
    (34, [3, 4, 6, 3], false),
    (50, [3, 4, 6, 3], true),
    (101, [3, 4, 23, 3], true),
    (152, [3, 8, 36, 3], true),
];

impl Layout {
    /// The layout of a named depth. `widths` are the channels of the four layers' inner
    /// convolutions; a bottleneck puts out four times as many.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] for a depth that has no name.
    pub fn new(depth: usize, widths: [usize; 4], [channels, stem_k, classes]: [usize; 3]) -> Result<Self> {
        let known = || DEPTHS.map(|(depth, ..)| depth.to_string()).join(", ");
        let (_, counts, bottleneck) =
            DEPTHS.into_iter().find(|(known, ..)| *known == depth).ok_or_else(|| Error::UnknownName {
                kind: "ResNet depth",
                got: depth.to_string(),
                known: known(),
            })?;
        let expansion = if bottleneck { 4 } else { 1 };
        let mut inputs = widths[0];
        let mut layers = Vec::new();
        for (layer, (inner, count)) in widths.into_iter().zip(counts).enumerate() {
            let outputs = inner * expansion;
            let block = |i: usize| {
                let downsample = i == 0 && (layer > 0 || inputs != outputs);
                Block { inner, outputs, groups: 1, bottleneck, downsample }
            };
            layers.push((0..count).map(block).collect());
            inputs = outputs;
        }
        Ok(Self { channels, stem_k, stem: widths[0], layers, classes, bias: true })
    }

    /// Reads the layout off tensor shapes by name; `None` when they are of no ResNet.
    #[must_use]
    pub fn detect(shapes: &BTreeMap<String, Shape>) -> Option<Self> {
        let stem = conv_shape(shapes, "conv1.weight")?;
        let head = shapes.get("fc.weight")?;
        let layer =
            |l: usize| (0..).map_while(|i| block(shapes, &format!("layer{l}.{i}"))).collect::<Vec<_>>();
        let layers: Vec<_> = (1..=4).map(layer).collect();
        shapes.get("bn1.running_mean")?;
        if layers.iter().any(Vec::is_empty) {
            return None;
        }
        Some(Self {
            channels: stem[1],
            stem_k: stem[2],
            stem: stem[0],
            layers,
            classes: *head.first()?,
            bias: shapes.contains_key("fc.bias"),
        })
    }

    /// Name of the architecture: `resnet50`, `resnext50_32x4d`, `wide_resnet50_2`; the numbers of
    /// blocks where no depth has them.
    #[must_use]
    pub fn name(&self) -> String {
        let counts: Vec<usize> = self.layers.iter().map(Vec::len).collect();
        let bottleneck = self.layers.iter().flatten().any(|block| block.bottleneck);
        let depth = match DEPTHS.iter().find(|(_, known, b)| known[..] == counts[..] && *b == bottleneck) {
            Some((depth, ..)) => depth.to_string(),
            None => format!("{counts:?}").replace(' ', ""),
        };
        let Some(first) = self.layers.iter().flatten().find(|block| block.bottleneck) else {
            return format!("resnet{depth}");
        };
        // Channels of a group where the first layer puts out 256, and how much wider than the paper's.
        let per_256 = first.inner.saturating_mul(256).checked_div(first.groups.saturating_mul(first.outputs));
        match (first.groups, per_256) {
            (2.., Some(width)) => format!("resnext{depth}_{}x{width}d", first.groups),
            (_, Some(width)) if width >= 128 => format!("wide_resnet{depth}_{}", width / 64),
            _ => format!("resnet{depth}"),
        }
    }

    /// The network for `input`.
    #[must_use]
    pub fn network(&self, input: Input) -> Network {
        let mut blocks = Vec::new();
        for (l, layer) in self.layers.iter().enumerate() {
            for (i, block) in layer.iter().enumerate() {
                let name = format!("layer{}.{i}", l + 1);
                let stride = if l > 0 && i == 0 { 2 } else { 1 };
                blocks.push(Part { graph: block.graph(&name, stride), name });
            }
        }
        network(self.name(), (input, self.classes), (self.stem(), blocks, self.head()))
    }

    fn stem(&self) -> Graph {
        let mut graph = Graph::default();
        let stride = if self.stem_k == 7 { 2 } else { 1 };
        let conv = Conv2d::same(self.stem, self.stem_k, stride);
        let x = normed(&mut graph, ("conv1", "bn1"), conv, INPUT);
        let x = relu(&mut graph, "relu", x);
        if self.stem_k == 7 {
            graph.push("maxpool", Op::MaxPool(Pool { k: 3, stride: 2, padding: 1 }), &[x]);
        }
        graph
    }

    fn head(&self) -> Graph {
        let mut layers = Layers::default();
        layers.pooled("avgpool");
        layers.linear("fc", self.classes, self.bias);
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

    fn network(&self, input: Input) -> std::result::Result<Network, String> {
        Ok(self.network(input))
    }
}

impl Block {
    /// Convolutions in order, the shortcut first so that the last convolution can take it as
    /// its residual input.
    fn graph(&self, name: &str, stride: usize) -> Graph {
        let mut graph = Graph::default();
        let mut shortcut = INPUT;
        if self.downsample {
            let names = (&*format!("{name}.downsample.0"), &*format!("{name}.downsample.1"));
            shortcut = normed(&mut graph, names, Conv2d::valid(self.outputs, 1, stride), INPUT);
        }
        let convs = self.convs(stride);
        let mut x = INPUT;
        for (i, conv) in convs.iter().enumerate() {
            let names = (&*format!("{name}.conv{}", i + 1), &*format!("{name}.bn{}", i + 1));
            x = normed(&mut graph, names, *conv, x);
            if i + 1 < convs.len() {
                x = relu(&mut graph, &format!("{name}.relu{}", i + 1), x);
            }
        }
        let sum = graph.push(format!("{name}.add"), Op::Add, &[x, shortcut]);
        relu(&mut graph, &format!("{name}.relu"), sum);
        graph
    }

    fn convs(&self, stride: usize) -> Vec<Conv2d> {
        let Self { inner, outputs, groups, .. } = *self;
        if self.bottleneck {
            let middle = Conv2d { groups, ..Conv2d::same(inner, 3, stride) };
            return vec![Conv2d::valid(inner, 1, 1), middle, Conv2d::valid(outputs, 1, 1)];
        }
        vec![Conv2d::same(inner, 3, stride), Conv2d::same(outputs, 3, 1)]
    }
}

fn block(shapes: &BTreeMap<String, Shape>, name: &str) -> Option<Block> {
    let conv = |i: usize| conv_shape(shapes, &format!("{name}.conv{i}.weight"));
    let (first, second, third) = (conv(1)?, conv(2)?, conv(3));
    let groups = first[0].checked_div(second[1]).filter(|_| third.is_some()).unwrap_or(1);
    Some(Block {
        inner: first[0],
        outputs: third.map_or(second[0], |third| third[0]),
        groups,
        bottleneck: third.is_some(),
        downsample: shapes.contains_key(&format!("{name}.downsample.0.weight")),
    })
}

fn normed(graph: &mut Graph, (conv, norm): (&str, &str), op: Conv2d, x: Value) -> Value {
    let x = graph.push(conv, Op::Conv2d(op), &[x]);
    graph.push(norm, Op::BatchNorm { eps: EPS }, &[x])
}

fn relu(graph: &mut Graph, name: &str, x: Value) -> Value {
    graph.push(name, Op::Activation { kind: Activation::Relu }, &[x])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::tests::{input, shapes, trainable};

    /// Parameters without statistics, as torchvision states them for its ImageNet models.
    #[test]
    fn the_named_depths_have_torchvisions_numbers_of_parameters() {
        let counts =
            [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)];
        for (depth, want) in counts {
            let layout = Layout::new(depth, [64, 128, 256, 512], [3, 7, 1000]).unwrap();
            assert_eq!(trainable(&layout.network(input(3, 224))), want);
        }
    }

    #[test]
    fn what_is_built_is_detected() {
        for (depth, stem_k) in [(18, 3), (34, 7), (50, 7), (101, 3), (152, 7)] {
            let layout = Layout::new(depth, [8, 16, 32, 64], [1, stem_k, 10]).unwrap();
            let network = layout.network(input(1, 64));
            network.check().unwrap();
            assert_eq!(Layout::detect(&shapes(&network)), Some(layout));
            assert_eq!(network.architecture, format!("resnet{depth}"));
        }
    }

    #[test]
    fn groups_are_read_off_the_middle_convolution() {
        let mut layout = Layout::new(50, [8, 16, 32, 64], [3, 7, 10]).unwrap();
        layout.layers.iter_mut().flatten().for_each(|block| block.groups = 4);
        let network = layout.network(input(3, 64));
        assert_eq!(Layout::detect(&shapes(&network)), Some(layout));
    }

    #[test]
    fn groups_and_widths_have_names_of_their_own() {
        let name = |inner: usize, groups| {
            let mut layout = Layout::new(50, [64, 128, 256, 512], [3, 7, 10]).unwrap();
            for block in layout.layers.iter_mut().flatten() {
                (block.inner, block.groups) = (block.inner * inner, groups);
            }
            layout.name()
        };
        assert_eq!(name(2, 32), "resnext50_32x4d");
        assert_eq!(name(2, 1), "wide_resnet50_2");
        assert_eq!(name(1, 1), "resnet50");
    }

    #[test]
    fn other_tensors_are_no_resnet() {
        assert_eq!(Layout::detect(&BTreeMap::from([("conv1.weight".into(), vec![8, 3, 7, 7])])), None);
        assert_eq!(Layout::detect(&BTreeMap::new()), None);
    }
}
