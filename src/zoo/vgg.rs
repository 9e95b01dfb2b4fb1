//! VGG (Simonyan and Zisserman 2015) as torchvision and timm name and build it: VGG-11, 13, 16, 19 and any
//! other groups and widths, with batch norm or without.
//!
//! Poolings have no tensors, but take a number in the names: where a number is left out, one stands. A block
//! is a group of convolutions and the pooling behind it. The stem does nothing.

use super::layers::{EPS, Layers, Shapes, conv_shape, has, network};
use super::{Family, Preset};
use crate::graph::network::Input;
use crate::graph::op::{Activation, Conv2d, Op, Pool};
use crate::graph::{Graph, Network, Part};

/// What tells one VGG from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Channels of the images.
    channels: usize,
    /// The convolutions of each group.
    groups: Vec<Vec<Conv>>,
    normed: bool,
    head: Head,
    classes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Conv {
    /// Its number among the features.
    at: usize,
    outputs: usize,
    bias: bool,
}

/// What stands behind the features.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Head {
    /// timm's: a convolution of `k` x `k` pixels and one of a single pixel, both with the same outputs.
    Convs { outputs: usize, k: usize },
    /// torchvision's: features are brought to `side` x `side` pixels; then linear layers with a ReLU between,
    /// each a name and its outputs.
    Linears { side: usize, layers: Vec<(String, usize)> },
}

/// Convolutions of the groups with a name.
const DEPTHS: [(usize, [usize; 5]); 4] =
    [(11, [1, 1, 2, 2, 2]), (13, [2, 2, 2, 2, 2]), (16, [2, 2, 3, 3, 3]), (19, [2, 2, 4, 4, 4])];

/// Kernel side of all convolutions.
const K: usize = 3;

/// Most layers that are looked for.
const MOST: usize = 256;

impl Layout {
    /// Reads the layout off tensor shapes by name; `None` when they are of no VGG.
    pub(super) fn detect(shapes: &Shapes) -> Option<Self> {
        let first = conv_shape(shapes, "features.0.weight")?;
        let normed = shapes.contains_key("features.1.running_mean");
        // Convolution, norm and ReLU.
        let step = if normed { 3 } else { 2 };
        let mut groups: Vec<Vec<Conv>> = Vec::new();
        let mut next = 0;
        for at in 0..MOST {
            let name = format!("features.{at}");
            let Some([outputs, _, k, _]) = conv_shape(shapes, &format!("{name}.weight")) else { continue };
            // Other families number their features too.
            if k != K {
                return None;
            }
            if at != next || groups.is_empty() {
                groups.push(Vec::new());
            }
            let bias = shapes.contains_key(&format!("{name}.bias"));
            groups.last_mut()?.push(Conv { at, outputs, bias });
            next = at + step;
        }
        let outputs = groups.last()?.last()?.outputs;
        let (head, classes) = head(shapes, outputs)?;
        Some(Self { channels: first[1], groups, normed, head, classes })
    }

    fn name(&self) -> String {
        let counts: Vec<usize> = self.groups.iter().map(Vec::len).collect();
        let depth = match DEPTHS.iter().find(|(_, known)| known[..] == counts[..]) {
            Some((depth, _)) => depth.to_string(),
            None => format!("{counts:?}").replace(' ', ""),
        };
        format!("vgg{depth}{}", if self.normed { "_bn" } else { "" })
    }

    fn group(&self, convs: &[Conv]) -> Graph {
        let mut layers = Layers::default();
        for &Conv { at, outputs, bias } in convs {
            let (conv, norm) = (format!("features.{at}"), format!("features.{}", at + 1));
            layers.push(&*conv, Op::Conv2d(Conv2d { bias, ..Conv2d::same(outputs, K, 1) }));
            if self.normed {
                layers.norm(&norm, EPS);
            }
            layers.activate(&conv, Activation::Relu);
        }
        let pool =
            format!("{}.pool", convs.last().map_or_else(String::new, |conv| format!("features.{}", conv.at)));
        layers.push(pool, Op::MaxPool(Pool { k: 2, stride: 2, padding: 0 }));
        layers.graph
    }

    /// The head behind features of `sides` pixels.
    fn head(&self, sides: [usize; 2]) -> Result<Graph, String> {
        let mut layers = Layers::default();
        match &self.head {
            &Head::Convs { outputs, k } => {
                for (name, k) in [("pre_logits.fc1", k), ("pre_logits.fc2", 1)] {
                    layers.push(name, Op::Conv2d(Conv2d { bias: true, ..Conv2d::valid(outputs, k, 1) }));
                    layers.activate(name, Activation::Relu);
                }
                layers.pooled("avgpool");
                layers.linear("head.fc", self.classes, true);
            }
            Head::Linears { side, layers: linears } => {
                layers.x = adapt(&mut layers, sides, (*side, self.groups.len()))?;
                layers.push("flatten", Op::Flatten);
                for (i, (name, outputs)) in linears.iter().enumerate() {
                    layers.linear(name, *outputs, true);
                    if i + 1 < linears.len() {
                        layers.activate(name, Activation::Relu);
                    }
                }
            }
        }
        Ok(layers.graph)
    }
}

impl Family for Layout {
    fn channels(&self) -> usize {
        self.channels
    }

    fn preset(&self) -> Preset {
        let pixels = match self.head {
            Head::Convs { k, .. } => k,
            Head::Linears { side, .. } => side,
        };
        // Five poolings leave 7 of 224 pixels.
        Preset::of(self.channels, if pixels == 7 { 7 } else { 3 })
    }

    fn network(&self, input: Input) -> Result<Network, String> {
        let part = |(i, convs): (usize, &Vec<Conv>)| Part {
            name: format!("group{}", i + 1),
            graph: self.group(convs),
        };
        let groups: Vec<Part> = self.groups.iter().enumerate().map(part).collect();
        // Each pooling halves the sides.
        let halved = |side: usize| side.checked_shr(groups.len() as u32).unwrap_or(0);
        let side = |i: usize| halved(input.shape.get(i).copied().unwrap_or(0));
        let head = self.head([side(1), side(2)])?;
        Ok(network(self.name(), (input, self.classes), (Graph::default(), groups, head)))
    }
}

/// Brings pixels to `side` x `side` by the mean of windows that do not overlap, as torch's adaptive pooling
/// does where they need not. Pixels were halved `times` before.
fn adapt(layers: &mut Layers, [h, w]: [usize; 2], (side, times): (usize, usize)) -> Result<usize, String> {
    let k = h / side;
    if k == 0 || [h, w] != [side * k; 2] {
        let halved = 1usize.checked_shl(times as u32).unwrap_or(usize::MAX);
        return Err(format!(
            "the classifier takes {side} x {side} pixels and the features have {h} x {w}: sides of images \
             must be equal, and a multiple of {}",
            side.saturating_mul(halved)
        ));
    }
    if side == 1 {
        layers.push("avgpool", Op::GlobalAvgPool);
    } else if k > 1 {
        layers.push("avgpool", Op::AvgPool(Pool { k, stride: k, padding: 0 }));
    }
    Ok(layers.x)
}

/// The head for features of `c` channels, and its classes.
fn head(shapes: &Shapes, c: usize) -> Option<(Head, usize)> {
    if let Some([outputs, _, k, _]) = conv_shape(shapes, "pre_logits.fc1.weight") {
        return Some((Head::Convs { outputs, k }, *shapes.get("head.fc.weight")?.first()?));
    }
    let single = ["classifier".to_owned()].into_iter();
    let names = single.chain((0..MOST).map(|i| format!("classifier.{i}"))).filter(|name| has(shapes, name));
    let shape = |name: String| {
        let &[outputs, inputs] = shapes.get(&format!("{name}.weight"))?.as_slice() else { return None };
        Some((name, outputs, inputs))
    };
    let layers = names.map(shape).collect::<Option<Vec<_>>>()?;
    let (&(_, _, inputs), &(_, classes, _)) = (layers.first()?, layers.last()?);
    let side = inputs.checked_div(c)?.isqrt();
    if side == 0 || side * side * c != inputs {
        return None;
    }
    let layers = layers.into_iter().map(|(name, outputs, _)| (name, outputs)).collect();
    Some((Head::Linears { side, layers }, classes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::tests::{input, shapes, trainable};

    fn layout(counts: [usize; 5], width: usize, head: Head) -> Layout {
        let mut at = 0;
        let group = |(i, n): (usize, usize)| {
            let outputs = width << i.min(3);
            let convs = (0..n).map(|_| {
                at += 3;
                Conv { at: at - 3, outputs, bias: true }
            });
            let convs = convs.collect();
            at += 1;
            convs
        };
        let groups = counts.into_iter().enumerate().map(group).collect();
        Layout { channels: 3, groups, normed: true, head, classes: 1000 }
    }

    fn linears(side: usize, outputs: &[usize]) -> Head {
        let layers = outputs.iter().enumerate().map(|(i, &n)| (format!("classifier.{}", 3 * i), n));
        Head::Linears { side, layers: layers.collect() }
    }

    /// As torchvision states them.
    #[test]
    fn the_named_depths_have_torchvisions_numbers_of_parameters() {
        let want = [132_868_840, 133_053_736, 138_365_992, 143_678_248];
        for ((depth, counts), want) in DEPTHS.into_iter().zip(want) {
            let layout = layout(counts, 64, linears(7, &[4096, 4096, 1000]));
            let network = layout.network(input(3, 224)).unwrap();
            network.check().unwrap();
            assert_eq!((network.architecture.clone(), trainable(&network)), (format!("vgg{depth}_bn"), want));
        }
    }

    #[test]
    fn what_is_built_is_detected() {
        for head in [linears(1, &[1000]), linears(2, &[16, 1000]), Head::Convs { outputs: 8, k: 2 }] {
            let layout = layout([1, 2, 1, 1, 1], 4, head);
            let network = layout.network(input(3, 64)).unwrap();
            assert_eq!(network.blocks().count(), 5);
            assert_eq!(Layout::detect(&shapes(&network)), Some(layout));
        }
        assert_eq!(Layout::detect(&Shapes::new()), None);
    }

    #[test]
    fn sizes_that_the_classifier_cannot_take_are_refused() {
        let layout = layout([1, 1, 1, 1, 1], 4, linears(7, &[1000]));
        let problem = layout.network(input(3, 32)).unwrap_err();
        let want = "the classifier takes 7 x 7 pixels and the features have 1 x 1: sides of images must be equal, \
                    and a multiple of 224";
        assert_eq!(problem, want);
        assert!(layout.network(input(3, 448)).unwrap().check().is_ok());
        let conv = |at| vec![Conv { at, outputs: 4, bias: true }];
        for (n, want) in [(2, "a multiple of 28"), (70, &*format!("a multiple of {}", usize::MAX))] {
            let groups = (0..n).map(conv).collect();
            let layout = Layout { groups, ..layout.clone() };
            assert!(layout.network(input(3, 32)).unwrap_err().ends_with(want), "{n}");
        }
    }
}
