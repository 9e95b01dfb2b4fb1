//! What MobileNets and EfficientNets share: inverted residuals, and how files name them.
//!
//! An inverted residual (Sandler et al. 2018) widens by a 1x1 convolution, convolves each channel by itself,
//! weighs channels by a squeeze-and-excitation (Hu et al. 2018) where there is one, and narrows by a 1x1
//! convolution without activation. Where neither pixels nor channels change, its input is added. Each
//! convolution has a norm.

use super::layers::{Layers, Padding, Shapes, conv_shape, has};
use crate::graph::op::{Activation, Conv2d, Op};
use crate::graph::{Graph, INPUT};

/// Names of a convolution and of its norm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) conv: String,
    norm: String,
}

impl Names {
    pub(super) fn new(conv: impl Into<String>, norm: impl Into<String>) -> Self {
        Self { conv: conv.into(), norm: norm.into() }
    }

    /// Torchvision's `Conv2dNormActivation`.
    pub(super) fn pair(name: &str) -> Self {
        Self::new(format!("{name}.0"), format!("{name}.1"))
    }
}

/// What holds for all layers of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Style {
    /// Added to variances.
    pub(super) eps: f64,
    pub(super) padding: Padding,
    /// Within a squeeze-and-excitation; the block's own where there is none.
    pub(super) squeeze: Option<Activation>,
    /// What turns the result of a squeeze-and-excitation into factors.
    pub(super) gate: Activation,
}

/// One inverted residual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inverted {
    pub(super) name: String,
    expand: Option<Names>,
    depthwise: Names,
    /// The two convolutions of a squeeze-and-excitation, and the channels between.
    squeeze: Option<([String; 2], usize)>,
    project: Names,
    inputs: usize,
    inner: usize,
    outputs: usize,
    pub(super) k: usize,
    pub(super) stride: usize,
    pub(super) activation: Activation,
}

impl Inverted {
    /// The block of this name, if tensors of one are there.
    pub(super) fn find(shapes: &Shapes, name: &str) -> Option<Self> {
        let Parts { expand, depthwise, squeeze, project } = Parts::find(shapes, name)?;
        let shape = |names: &Names| conv_shape(shapes, &format!("{}.weight", names.conv));
        let [inner, of_group, k, _] = shape(&depthwise)?;
        let squeezed = |names: [String; 2]| {
            let [channels, ..] = conv_shape(shapes, &format!("{}.weight", names[0]))?;
            Some((names, channels))
        };
        (of_group == 1).then_some(Self {
            name: name.into(),
            inputs: expand.as_ref().map_or(Some(inner), |expand| Some(shape(expand)?[1]))?,
            inner,
            outputs: shape(&project)?[0],
            k,
            expand,
            depthwise,
            squeeze: squeeze.and_then(squeezed),
            project,
            stride: 1,
            activation: Activation::Relu,
        })
    }

    pub(super) fn squeezes(&self) -> bool {
        self.squeeze.is_some()
    }

    pub(super) fn graph(&self, style: &Style, pixels: [usize; 2]) -> Graph {
        let mut layers = Layers::default();
        let same = Some(self.activation);
        if let Some(names) = &self.expand {
            normed(&mut layers, names, Conv2d::valid(self.inner, 1, 1), (style, pixels), same);
        }
        let depthwise = Conv2d { groups: self.inner, ..Conv2d::valid(self.inner, self.k, self.stride) };
        normed(&mut layers, &self.depthwise, depthwise, (style, pixels), same);
        if let Some(([reduce, expand], channels)) = &self.squeeze {
            let x = layers.x;
            layers.push(format!("{reduce}.pool"), Op::GlobalAvgPool);
            layers.push(reduce, Op::Conv2d(Conv2d { bias: true, ..Conv2d::valid(*channels, 1, 1) }));
            layers.activate(reduce, style.squeeze.unwrap_or(self.activation));
            layers.push(expand, Op::Conv2d(Conv2d { bias: true, ..Conv2d::valid(self.inner, 1, 1) }));
            layers.activate(expand, style.gate);
            layers.with(format!("{expand}.scale"), Op::Mul, x);
        }
        normed(&mut layers, &self.project, Conv2d::valid(self.outputs, 1, 1), (style, pixels), None);
        if self.stride == 1 && self.inputs == self.outputs {
            layers.with(format!("{}.add", self.name), Op::Add, INPUT);
        }
        layers.graph
    }
}

/// How a file names the parts of a block.
struct Parts {
    expand: Option<Names>,
    depthwise: Names,
    squeeze: Option<[String; 2]>,
    project: Names,
}

impl Parts {
    fn find(shapes: &Shapes, block: &str) -> Option<Self> {
        let at = |part: &str| format!("{block}.{part}");
        let there = |part: &str| has(shapes, &at(part));
        let names = |conv: &str, norm: &str| Names::new(at(conv), at(norm));
        let pair = |part: &str| Names::pair(&at(part));
        let some = |part: &str, names: Names| there(part).then_some(names);
        let squeeze = |reduce: &str, expand: &str| there(reduce).then(|| [at(reduce), at(expand)]);
        if there("_project_conv") {
            return Some(Self {
                expand: some("_expand_conv", names("_expand_conv", "_bn0")),
                depthwise: names("_depthwise_conv", "_bn1"),
                squeeze: squeeze("_se_reduce", "_se_expand"),
                project: names("_project_conv", "_bn2"),
            });
        }
        if there("conv_dw") {
            let widens = there("conv_pwl");
            let (depthwise, project) =
                if widens { ("bn2", ("conv_pwl", "bn3")) } else { ("bn1", ("conv_pw", "bn2")) };
            return Some(Self {
                expand: widens.then(|| names("conv_pw", "bn1")),
                depthwise: names("conv_dw", depthwise),
                squeeze: squeeze("se.conv_reduce", "se.conv_expand"),
                project: names(project.0, project.1),
            });
        }
        if there("conv.0.0") {
            let widens = there("conv.1.0");
            return Some(Self {
                expand: widens.then(|| pair("conv.0")),
                depthwise: pair(if widens { "conv.1" } else { "conv.0" }),
                squeeze: None,
                project: if widens { names("conv.2", "conv.3") } else { names("conv.1", "conv.2") },
            });
        }
        let steps = || (0..4).map(|i| format!("block.{i}"));
        let mut convs = steps().filter(|step| there(&format!("{step}.0"))).map(|step| pair(&step));
        let squeezed = steps().find_map(|step| squeeze(&format!("{step}.fc1"), &format!("{step}.fc2")));
        let (first, second, third) = (convs.next()?, convs.next()?, convs.next());
        Some(match third {
            Some(project) => Self { expand: Some(first), depthwise: second, squeeze: squeezed, project },
            None => Self { expand: None, depthwise: first, squeeze: squeezed, project: second },
        })
    }
}

/// A convolution, its norm, and an activation.
pub(super) fn normed(
    layers: &mut Layers,
    names: &Names,
    conv: Conv2d,
    (style, pixels): (&Style, [usize; 2]),
    activation: Option<Activation>,
) {
    layers.conv(&names.conv, conv, (style.padding, pixels));
    layers.norm(&names.norm, style.eps);
    if let Some(kind) = activation {
        layers.activate(&names.norm, kind);
    }
}
