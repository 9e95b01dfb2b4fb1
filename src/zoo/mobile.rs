//! Networks of inverted residuals: a first convolution, stages of blocks, a last convolution, a head.
//!
//! Strides have no tensors: they are the family's, by stage. Files name blocks by stage (`blocks.1.0`), or
//! count them through (`features.3`); then how many each stage has is the family's too.

use super::inverted::{Inverted, Names, Style, normed};
use super::layers::{Layers, Shapes, conv_shape, network, strided};
use super::{Family, Preset};
use crate::graph::network::Input;
use crate::graph::op::{Activation, Conv2d, Op};
use crate::graph::{Graph, Network, Part};

/// Kernel side of the first convolution.
const STEM_K: usize = 3;

/// Kernel side of the first convolution of networks for ImageNet that [`Preset::of`] knows.
const IMAGENET_STEM: usize = 7;

/// Stages of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stages {
    /// Blocks of each, where names do not tell.
    pub(super) counts: &'static [usize],
    /// Stride of the first block of each.
    pub(super) strides: &'static [usize],
}

/// The blocks of a file by stage.
pub(super) type Blocks = Vec<Vec<Inverted>>;

impl Stages {
    /// The blocks that names count through, from `first` on; `None` when there are not as many.
    pub(super) fn counted(&self, shapes: &Shapes, (prefix, first): (&str, usize)) -> Option<Blocks> {
        let all: Vec<Inverted> =
            (first..).map_while(|i| Inverted::find(shapes, &format!("{prefix}.{i}"))).collect();
        if all.len() != self.counts.iter().sum::<usize>() {
            return None;
        }
        let mut all = all.into_iter();
        let stages = self.counts.iter().map(|&n| all.by_ref().take(n).collect()).collect();
        Some(self.strided(stages))
    }

    /// The blocks that names order by stage, from stage `first` on; `None` when there are not as many
    /// stages.
    pub(super) fn staged(&self, shapes: &Shapes, (prefix, first): (&str, usize)) -> Option<Blocks> {
        let find = |s: usize, i: usize| Inverted::find(shapes, &format!("{prefix}.{s}.{i}"));
        let stage = |s: usize| (0..).map_while(|i| find(s, i)).collect::<Vec<_>>();
        let stages: Blocks = (first..).map(stage).take_while(|stage| !stage.is_empty()).collect();
        (stages.len() == self.strides.len()).then(|| self.strided(stages))
    }

    fn strided(&self, mut stages: Blocks) -> Blocks {
        for (stage, &stride) in stages.iter_mut().zip(self.strides) {
            stage[0].stride = stride;
        }
        stages
    }
}

/// Gives every block from stage `first` on this activation.
pub(super) fn activate(blocks: &mut Blocks, first: usize, activation: Activation) {
    blocks.iter_mut().skip(first).flatten().for_each(|block| block.activation = activation);
}

/// Blocks of each stage.
pub(super) fn counts(blocks: &Blocks) -> Vec<usize> {
    blocks.iter().map(Vec::len).collect()
}

/// What stands between the pooling and the classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Between {
    /// A convolution with bias, and an activation.
    Conv(Linear),
    /// A linear layer, and an activation.
    Linear(Linear),
    Nothing,
}

/// A layer of the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linear {
    name: String,
    outputs: usize,
    bias: bool,
}

impl Linear {
    /// The layer of this name.
    pub(super) fn find(shapes: &Shapes, name: &str) -> Option<Self> {
        let outputs = *shapes.get(&format!("{name}.weight"))?.first()?;
        Some(Self { name: name.into(), outputs, bias: shapes.contains_key(&format!("{name}.bias")) })
    }
}

/// A network of inverted residuals.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    architecture: String,
    channels: usize,
    pub(super) preset: Preset,
    style: Style,
    /// First convolution, of stride 2, and its outputs.
    stem: (Names, usize),
    blocks: Blocks,
    /// Last convolution, of a single pixel, and its outputs.
    last: (Names, usize),
    between: Between,
    classifier: Linear,
    /// Of the first and the last convolution, and in the head.
    activation: Activation,
}

/// Names of what stands around the blocks.
#[derive(Clone, Debug)]
pub(super) struct Around {
    pub(super) stem: Names,
    pub(super) last: Names,
    pub(super) between: Between,
    pub(super) classifier: &'static str,
}

impl Around {
    /// As torchvision names them, where the last convolution is feature `last`.
    pub(super) fn torchvision(last: usize) -> Self {
        let [stem, last] = [0, last].map(|i| Names::pair(&format!("features.{i}")));
        Self { stem, last, between: Between::Nothing, classifier: "classifier.1" }
    }

    /// As timm names them.
    pub(super) fn timm() -> Self {
        let (stem, last) = (Names::new("conv_stem", "bn1"), Names::new("conv_head", "bn2"));
        Self { stem, last, between: Between::Nothing, classifier: "classifier" }
    }
}

impl Layout {
    /// The layout of `blocks` and what stands around them; `None` when tensors of that are missing.
    pub(super) fn new(
        shapes: &Shapes,
        (around, blocks): (Around, Blocks),
        (architecture, activation): (String, Activation),
        style: Style,
    ) -> Option<Self> {
        let Around { stem, last, between, classifier } = around;
        let shape = |names: &Names| conv_shape(shapes, &format!("{}.weight", names.conv));
        let ([stem_outputs, channels, stem_k, _], [last_outputs, ..]) = (shape(&stem)?, shape(&last)?);
        (stem_k == STEM_K).then_some(Self {
            architecture,
            channels,
            preset: Preset::of(channels, IMAGENET_STEM),
            style,
            stem: (stem, stem_outputs),
            blocks,
            last: (last, last_outputs),
            between,
            classifier: Linear::find(shapes, classifier)?,
            activation,
        })
    }

    fn stem(&self, pixels: [usize; 2]) -> Graph {
        let mut layers = Layers::default();
        let (names, outputs) = &self.stem;
        let conv = Conv2d::valid(*outputs, STEM_K, 2);
        normed(&mut layers, names, conv, (&self.style, pixels), Some(self.activation));
        layers.graph
    }

    fn head(&self, pixels: [usize; 2]) -> Graph {
        let mut layers = Layers::default();
        let (names, outputs) = &self.last;
        let conv = Conv2d::valid(*outputs, 1, 1);
        normed(&mut layers, names, conv, (&self.style, pixels), Some(self.activation));
        layers.push("avgpool", Op::GlobalAvgPool);
        if let Between::Conv(Linear { name, outputs, bias }) = &self.between {
            layers.push(name, Op::Conv2d(Conv2d { bias: *bias, ..Conv2d::valid(*outputs, 1, 1) }));
            layers.activate(name, self.activation);
        }
        layers.push("flatten", Op::Flatten);
        if let Between::Linear(Linear { name, outputs, bias }) = &self.between {
            layers.linear(name, *outputs, *bias);
            layers.activate(name, self.activation);
        }
        let Linear { name, outputs, bias } = &self.classifier;
        layers.linear(name, *outputs, *bias);
        layers.graph
    }
}

impl Family for Layout {
    fn channels(&self) -> usize {
        self.channels
    }

    fn preset(&self) -> Preset {
        self.preset
    }

    fn network(&self, input: Input) -> Result<Network, String> {
        let side = |i: usize| input.shape.get(i).copied().unwrap_or(0);
        let start = [side(1), side(2)];
        let mut pixels = strided(start, 2);
        let mut blocks = Vec::new();
        for block in self.blocks.iter().flatten() {
            blocks.push(Part { name: block.name.clone(), graph: block.graph(&self.style, pixels) });
            pixels = strided(pixels, block.stride);
        }
        let parts = (self.stem(start), blocks, self.head(pixels));
        Ok(network(self.architecture.clone(), (input, self.classifier.outputs), parts))
    }
}
