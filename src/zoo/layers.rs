//! What families are built from: layers one after another, and shapes of tensors read by name.

use std::collections::BTreeMap;

use crate::graph::network::{Input, VERSION};
use crate::graph::op::{Activation, Conv2d, Margins, Op, Shape, Window};
use crate::graph::{Graph, Network, Part, Value};

/// Added to variances by PyTorch's batch norm.
pub(super) const EPS: f64 = 1e-5;

/// Shapes of tensors by name.
pub(super) type Shapes = BTreeMap<String, Shape>;

/// Shape of a convolution's weight: outputs, inputs of a group, and the kernel's sides.
pub(super) fn conv_shape(shapes: &Shapes, name: &str) -> Option<[usize; 4]> {
    shapes.get(name)?.as_slice().try_into().ok()
}

/// Whether the node of this name has a weight.
pub(super) fn has(shapes: &Shapes, node: &str) -> bool {
    shapes.contains_key(&format!("{node}.weight"))
}

/// How convolutions of a family pad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// Half of the kernel on each side.
    Even,
    /// As TensorFlow's `SAME`: as many zeros as `ceil(pixels / stride)` windows need, the odd one below and
    /// to the right.
    Same,
}

/// Layers of a part, each on the result of the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    pub(super) graph: Graph,
    /// The last result.
    pub(super) x: Value,
}

impl Layers {
    /// Adds an operation on the last result.
    pub(super) fn push(&mut self, name: impl Into<String>, op: Op) {
        self.x = self.graph.push(name, op, &[self.x]);
    }

    /// A convolution with a kernel of side `conv.k`, padded for images of `pixels`.
    pub(super) fn conv(&mut self, name: &str, conv: Conv2d, (padding, pixels): (Padding, [usize; 2])) {
        let mut conv = Conv2d { padding: conv.k / 2, ..conv };
        if padding == Padding::Same {
            let [[top, bottom], [left, right]] = pixels.map(|pixels| same(&conv.window(), pixels));
            conv.padding = 0;
            if [top, left, right] == [bottom; 3] {
                conv.padding = top;
            } else {
                self.push(format!("{name}.pad"), Op::Pad(Margins { top, left, bottom, right }));
            }
        }
        self.push(name, Op::Conv2d(conv));
    }

    /// A batch norm.
    pub(super) fn norm(&mut self, name: &str, eps: f64) {
        self.push(name, Op::BatchNorm { eps });
    }

    /// The activation behind the node `name`.
    pub(super) fn activate(&mut self, name: &str, kind: Activation) {
        self.push(format!("{name}.act"), Op::Activation { kind });
    }

    /// The mean over all pixels, as features.
    pub(super) fn pooled(&mut self, name: &str) {
        self.push(name, Op::GlobalAvgPool);
        self.push("flatten", Op::Flatten);
    }

    /// A linear layer.
    pub(super) fn linear(&mut self, name: &str, outputs: usize, bias: bool) {
        self.push(name, Op::Linear { outputs, bias });
    }

    /// A value added to the last result, or joined to it.
    pub(super) fn with(&mut self, name: String, op: Op, value: Value) {
        self.x = self.graph.push(name, op, &[value, self.x]);
    }
}

/// Zeros before and after `pixels` such that there are `ceil(pixels / stride)` windows.
fn same(window: &Window, pixels: usize) -> [usize; 2] {
    let windows = pixels.div_ceil(window.stride.max(1));
    let reach = windows.saturating_sub(1).saturating_mul(window.stride).saturating_add(window.k);
    let zeros = reach.saturating_sub(pixels);
    [zeros / 2, zeros - zeros / 2]
}

/// Pixels behind a convolution of this stride that pads: `ceil(pixels / stride)`.
pub(super) fn strided([h, w]: [usize; 2], stride: usize) -> [usize; 2] {
    [h.div_ceil(stride), w.div_ceil(stride)]
}

/// The network of stem, blocks and head.
pub(super) fn network(
    architecture: String,
    (input, classes): (Input, usize),
    (stem, blocks, head): (Graph, Vec<Part>, Graph),
) -> Network {
    let part = |name: &str, graph| Part { name: name.into(), graph };
    let parts = std::iter::once(part("stem", stem)).chain(blocks).chain([part("head", head)]).collect();
    Network { version: VERSION, architecture, input, classes, class_names: Vec::new(), parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 224 pixels, stride 2: 112 windows reach over 111 * 2 + 3 = 225; 7 pixels at k = 5: 4 windows, 11.
    #[test]
    fn an_odd_zero_stands_behind() {
        let window = |k, stride| Conv2d::valid(1, k, stride).window();
        assert_eq!(same(&window(3, 2), 224), [0, 1]);
        assert_eq!(same(&window(5, 2), 7), [2, 2]);
        assert_eq!(same(&window(5, 2), 112), [1, 2]);
        assert_eq!(same(&window(3, 1), 9), [1, 1]);
        assert_eq!(same(&window(1, 2), 9), [0, 0]);
    }

    #[test]
    fn zeros_that_are_even_are_the_convolutions_own() {
        let nodes = |pixels| {
            let mut layers = Layers::default();
            layers.conv("c", Conv2d::valid(4, 3, 2), (Padding::Same, pixels));
            let shape = layers.graph.shapes(&[3, pixels[0], pixels[1]]).unwrap().pop().unwrap();
            (layers.graph.nodes.len(), shape)
        };
        assert_eq!(nodes([7, 9]), (1, vec![4, 4, 5]));
        assert_eq!(nodes([8, 9]), (2, vec![4, 4, 5]));
    }
}
