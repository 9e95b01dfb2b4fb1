//! Primitive operations: what a node of a graph computes, as data.
//!
//! An operation here knows shapes, parameters and cost, and computes nothing; the file of the
//! same name under `kernels` does. Everything a zoo model, a repaired block or a search space
//! holds is written in these few.

use serde::{Deserialize, Serialize};

/// Shape of one image's value: `[c, h, w]`, or `[features]` after flattening. The number of
/// images stands in front of it in a tensor.
pub type Shape = Vec<usize>;

/// What a node computes. Letters: `n` images, `c` channels, `h` `w` pixels, `k` kernel side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// An activation function, element by element.
    Activation {
        /// Which one.
        kind: Activation,
    },
    /// Sum of two values; one may be `[c, 1, 1]` and is then repeated over the pixels.
    Add,
    /// Mean over windows; padded positions are not counted.
    AvgPool(Pool),
    /// `weight * (x - running_mean) / sqrt(running_var + eps) + bias`, channel by channel.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// Joins values along the channels.
    Concat,
    /// Convolution with optional bias and fused epilogue.
    Conv2d(Conv2d),
    /// `[c, h, w]` to `[c * h * w]`.
    Flatten,
    /// `x + gate * (z - x)` for inputs `x`, `z` and one gate a channel: the identity at gate 0.
    Gate,
    /// Mean over all pixels: `[c, h, w]` to `[c, 1, 1]`.
    GlobalAvgPool,
    /// Standard deviation over all pixels, `sqrt(variance + eps)`: `[c, h, w]` to `[c, 1, 1]`.
    GlobalStdPool {
        /// Added to the variance.
        eps: f64,
    },
    /// Its input.
    Identity,
    /// Each image and channel brought to mean 0 and deviation 1, then scaled and shifted.
    InstanceNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// `x W^T + b` on `[features]`.
    Linear {
        /// Features out.
        outputs: usize,
        /// Whether there is a `bias`.
        bias: bool,
    },
    /// Greatest value of each window; padded positions never win.
    MaxPool(Pool),
    /// `sum_i softmax(alpha)_i x_i` over any number of inputs of one shape: the continuous
    /// choice of a search.
    Mix,
    /// Product of two values; one may be `[c, 1, 1]` and is then repeated over the pixels.
    Mul,
    /// Zeros around the pixels.
    Pad(Margins),
    /// Zeros of the shape that a convolution with this stride would give.
    Zero {
        /// Channels out.
        outputs: usize,
        /// Pixels out are `ceil(pixels in / stride)`.
        stride: usize,
    },
}

/// Activation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `relu6(x + 3) / 6`
    HardSigmoid,
    /// `x relu6(x + 3) / 6`
    HardSwish,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `x sigmoid(x)`
    Silu,
}

impl Activation {
    /// Whether its slope can be told from its result alone, as a fused epilogue needs that is differentiated.
    #[must_use]
    pub fn is_known_from_output(self) -> bool {
        !matches!(self, Self::HardSwish | Self::Silu)
    }
}

/// A convolution with a square kernel, the same stride, padding and dilation both ways.
///
/// With `residual`, the node has a second input that is added before the activation: lowering
/// makes such nodes, no model file holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv2d {
    /// Channels out.
    pub outputs: usize,
    /// Kernel side.
    pub k: usize,
    /// Pixels between two windows.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stride: usize,
    /// Zeros added on each side.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub padding: usize,
    /// Pixels between two taps of the kernel.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub dilation: usize,
    /// Channel groups that do not see each other.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// Whether there is a `bias`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub bias: bool,
    /// Whether a second input is added to the result.
    #[serde(default, skip_serializing_if = "is_false")]
    pub residual: bool,
    /// Applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
}

impl Conv2d {
    /// A convolution without bias that keeps the pixels at stride 1 (for odd `k`).
    #[must_use]
    pub fn same(outputs: usize, k: usize, stride: usize) -> Self {
        Self { padding: k / 2, ..Self::valid(outputs, k, stride) }
    }

    /// A convolution without bias and padding.
    #[must_use]
    pub fn valid(outputs: usize, k: usize, stride: usize) -> Self {
        Self {
            outputs,
            k,
            stride,
            padding: 0,
            dilation: 1,
            groups: 1,
            bias: false,
            residual: false,
            activation: None,
        }
    }

    /// The windows of this convolution.
    #[must_use]
    pub fn window(&self) -> Window {
        Window { k: self.k, stride: self.stride, padding: self.padding, dilation: self.dilation }
    }

    /// Shape of the weight for `c` channels in: `[outputs, c / groups, k, k]`; no groups, no
    /// channels.
    #[must_use]
    pub fn weight_shape(&self, c: usize) -> Shape {
        vec![self.outputs, c.checked_div(self.groups).unwrap_or(0), self.k, self.k]
    }
}

/// Pooling windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Window side.
    pub k: usize,
    /// Pixels between two windows.
    pub stride: usize,
    /// Positions added on each side.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub padding: usize,
}

impl Pool {
    /// The windows of this pooling.
    #[must_use]
    pub fn window(&self) -> Window {
        Window { k: self.k, stride: self.stride, padding: self.padding, dilation: 1 }
    }
}

/// Pixels added at each side of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margins {
    /// Rows above.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub top: usize,
    /// Columns to the left.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: usize,
    /// Rows below.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bottom: usize,
    /// Columns to the right.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub right: usize,
}

impl Margins {
    /// Height and width of an image of `h` x `w` pixels with these around it, if there are such numbers.
    #[must_use]
    pub fn around(&self, [h, w]: [usize; 2]) -> Option<[usize; 2]> {
        let side = |a: usize, pixels: usize, b: usize| a.checked_add(pixels)?.checked_add(b);
        Some([side(self.top, h, self.bottom)?, side(self.left, w, self.right)?])
    }
}

/// Windows sliding over an image, shared by convolution and pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side, in taps.
    pub k: usize,
    /// Pixels between two windows.
    pub stride: usize,
    /// Positions added on each side.
    pub padding: usize,
    /// Pixels between two taps.
    pub dilation: usize,
}

impl Window {
    /// How many windows fit along `pixels`; `None` when not even one does.
    #[must_use]
    pub fn count(&self, pixels: usize) -> Option<usize> {
        let reach = self.dilation.checked_mul(self.k.checked_sub(1)?)?.checked_add(1)?;
        let free = pixels.checked_add(self.padding.checked_mul(2)?)?.checked_sub(reach)?;
        Some(free.checked_div(self.stride)? + 1)
    }
}

/// Elements of a value of this shape.
#[must_use]
pub fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn one() -> usize {
    1
}

// serde passes what it may skip by reference.
fn is_one(n: &usize) -> bool {
    *n == 1
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_print_short_and_read_back() {
        let op = Op::Conv2d(Conv2d::same(16, 3, 1));
        let text = serde_json::to_string(&op).unwrap();
        assert_eq!(text, r#"{"op":"conv2d","outputs":16,"k":3,"padding":1}"#);
        assert_eq!(serde_json::from_str::<Op>(&text).unwrap(), op);
    }
}
