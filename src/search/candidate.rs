//! Alternatives: what may stand at a position of a part, as small graphs.
//!
//! There are two kinds. At a convolution: the classic candidates of differentiable architecture
//! search (DARTS, Liu et al. 2019). At the part's input: operations that answer shifts of the
//! input, normalization and conditional scaling first (ours). Each has the shapes of what it
//! may replace; new weights are drawn, or are such that the operation starts as the identity.

use std::iter::repeat_n;

use candle_core::Tensor;

use super::builder::Builder;
use crate::error::{During, Result};
use crate::fit::Samples;
use crate::graph::Value;
use crate::graph::op::{Activation, Conv2d, Op, Pool};
use crate::kernels::{batch_norm, global_pool};

/// What may stand in the place of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvCandidate {
    /// 3x3 average pooling, with a 1x1 convolution where channels change.
    AvgPool,
    /// 1x1 convolution.
    Conv1,
    /// 3x3 convolution.
    Conv3,
    /// 3x3 depthwise convolution of dilation 2, then 1x1.
    Dilated3,
    /// 3x3 max pooling, with a 1x1 convolution where channels change.
    MaxPool,
    /// 3x3 depthwise convolution, then 1x1.
    Separable3,
    /// 5x5 depthwise convolution, then 1x1.
    Separable5,
    /// The input itself; only where shapes do not change (elsewhere it is [`Self::Conv1`]).
    Skip,
    /// Nothing.
    Zero,
}

/// What may stand before a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputCandidate {
    /// 3x3 binomial smoothing.
    Blur,
    /// A 3x3 convolution, a ReLU and a 1x1 convolution that starts at zero, added to the input.
    Branch,
    /// Scale and shift of each channel by what its mean and deviation in this image are: lets
    /// the part act differently on clean and on failing images.
    Condition,
    /// Instance normalization to the mean and deviation that clean images have.
    Normalize,
}

impl ConvCandidate {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AvgPool,
        Self::Conv1,
        Self::Conv3,
        Self::Dilated3,
        Self::MaxPool,
        Self::Separable3,
        Self::Separable5,
        Self::Skip,
        Self::Zero,
    ];

    /// Short name, used in names of tensors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AvgPool => "avg_pool_3x3",
            Self::Conv1 => "conv_1x1",
            Self::Conv3 => "conv_3x3",
            Self::Dilated3 => "dil_conv_3x3",
            Self::MaxPool => "max_pool_3x3",
            Self::Separable3 => "sep_conv_3x3",
            Self::Separable5 => "sep_conv_5x5",
            Self::Skip => "skip",
            Self::Zero => "zero",
        }
    }

    /// Adds this candidate for `conv` on value `x` of `c` channels.
    pub(super) fn add(
        self,
        to: &mut Builder,
        name: &str,
        (conv, c): (&Conv2d, usize),
        x: Value,
    ) -> Result<Value> {
        let Conv2d { outputs, stride, .. } = *conv;
        let pool = Pool { k: 3, stride, padding: 1 };
        match self {
            Self::AvgPool => {
                let x = to.plain(&format!("{name}.pool"), Op::AvgPool(pool), x);
                to.widened(name, [c, outputs], x)
            }
            Self::Conv1 => to.dense(name, Conv2d::valid(outputs, 1, stride), c, x),
            Self::Conv3 => to.dense(name, Conv2d::same(outputs, 3, stride), c, x),
            Self::Dilated3 => to.separable(
                name,
                Conv2d { dilation: 2, padding: 2, ..Conv2d::valid(c, 3, stride) },
                outputs,
                x,
            ),
            Self::MaxPool => {
                let x = to.plain(&format!("{name}.pool"), Op::MaxPool(pool), x);
                to.widened(name, [c, outputs], x)
            }
            Self::Separable3 => to.separable(name, Conv2d::same(c, 3, stride), outputs, x),
            Self::Separable5 => to.separable(name, Conv2d::same(c, 5, stride), outputs, x),
            Self::Skip => Ok(x),
            Self::Zero => Ok(to.plain(name, Op::Zero { outputs, stride }, x)),
        }
    }
}

/// What clean images look like where a part begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CleanStatistics {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Deviation of each channel.
    pub std: Vec<f32>,
    /// Deviation between images of a channel's mean.
    pub mean_spread: Vec<f32>,
    /// Mean over images of a channel's deviation.
    pub std_mean: Vec<f32>,
    /// Deviation between images of a channel's deviation.
    pub std_spread: Vec<f32>,
}

/// Images that clean statistics are measured on, at most.
const CLEAN_IMAGES: usize = 256;

/// Images that are read together.
const TOGETHER: usize = 4;

impl CleanStatistics {
    /// Most bytes that [`CleanStatistics::measure`] allocates for features of this shape.
    #[must_use]
    pub fn bytes(features: &[usize]) -> usize {
        let channels = features.first().copied().unwrap_or(0);
        // Of each image and channel the moments, mean and deviation; a batch.
        CLEAN_IMAGES * (channels * 24 + 64) + TOGETHER * 4 * features.iter().product::<usize>()
    }

    /// Measures the first images of `samples`; empty where features are no images.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] when the cache cannot be read.
    pub fn measure(samples: &Samples) -> Result<Self> {
        let rows =
            |of: Tensor| of.flatten_from(1).and_then(|of| of.to_vec2::<f32>()).during("reading statistics");
        let (mut means, mut stds, mut seen) = (Vec::new(), Vec::new(), batch_norm::Seen::default());
        for few in (0..samples.len().min(CLEAN_IMAGES)).collect::<Vec<_>>().chunks(TOGETHER) {
            let x = samples.batch(few)?;
            if x.dims().len() != 4 {
                return Ok(Self::default());
            }
            means.extend(rows(global_pool::avg(&x)?)?);
            stds.extend(rows(global_pool::std(&x, EPS)?)?);
            seen.add(&x)?;
        }
        let all = seen.statistics()?;
        let per_channel = |f: &dyn Fn(usize) -> f32| (0..all.mean.elem_count()).map(f).collect::<Vec<_>>();
        let read = |of: &Tensor| of.to_vec1::<f32>().during("reading statistics");
        Ok(Self {
            mean: read(&all.mean)?,
            std: read(&all.var)?.into_iter().map(|var| (var + EPS as f32).sqrt()).collect(),
            mean_spread: per_channel(&|c| moments(&means, c)[1]),
            std_mean: per_channel(&|c| moments(&stds, c)[0]),
            std_spread: per_channel(&|c| moments(&stds, c)[1]),
        })
    }
}

/// Mean and deviation of column `c`.
fn moments(rows: &[Vec<f32>], c: usize) -> [f32; 2] {
    let n = rows.len().max(1) as f64;
    let mean = rows.iter().map(|row| f64::from(row[c])).sum::<f64>() / n;
    let var = rows.iter().map(|row| (f64::from(row[c]) - mean).powi(2)).sum::<f64>() / n;
    [mean as f32, var.sqrt() as f32]
}

const EPS: f64 = 1e-5;

/// Most hidden channels of [`InputCandidate::Condition`] and of [`InputCandidate::Branch`]:
/// without a bound their weights would grow with the square of the channels.
const MOST_HIDDEN: usize = 128;
const MOST_INNER: usize = 64;

impl InputCandidate {
    /// All of them, in the order in which they stand before a part.
    pub const ALL: [Self; 4] = [Self::Normalize, Self::Condition, Self::Blur, Self::Branch];

    /// Short name, used in names of tensors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blur => "blur",
            Self::Branch => "branch",
            Self::Condition => "condition",
            Self::Normalize => "normalize",
        }
    }

    /// Where its gate starts: open if the candidate itself starts as the identity.
    pub(super) fn first_gate(self) -> f32 {
        match self {
            Self::Branch | Self::Condition => 1.0,
            Self::Blur | Self::Normalize => 0.0,
        }
    }

    /// Adds this candidate on value `x`.
    pub(super) fn add(
        self,
        to: &mut Builder,
        name: &str,
        clean: &CleanStatistics,
        x: Value,
    ) -> Result<Value> {
        let c = clean.mean.len();
        match self {
            Self::Blur => {
                let conv = Conv2d { groups: c, ..Conv2d::same(c, 3, 1) };
                let binomial = [1., 2., 1., 2., 4., 2., 1., 2., 1.].map(|w: f32| w / 16.0);
                to.tensor(&format!("{name}.weight"), binomial.repeat(c), &conv.weight_shape(c))?;
                Ok(to.plain(name, Op::Conv2d(conv), x))
            }
            Self::Branch => {
                let width = MOST_INNER.min(c);
                let inner =
                    Conv2d { bias: true, activation: Some(Activation::Relu), ..Conv2d::same(width, 3, 1) };
                let y = to.conv(&format!("{name}.inner"), inner, c, x)?;
                let y = to.zero_pointwise(&format!("{name}.outer"), [width, c], y)?;
                Ok(to.graph.push(format!("{name}.add"), Op::Add, &[x, y]))
            }
            Self::Condition => condition(to, name, clean, x),
            Self::Normalize => {
                to.tensor(&format!("{name}.weight"), clean.std.iter().copied(), &[c])?;
                to.tensor(&format!("{name}.bias"), clean.mean.iter().copied(), &[c])?;
                Ok(to.plain(name, Op::InstanceNorm { eps: EPS }, x))
            }
        }
    }
}

/// `y = x + x s + t` with `s`, `t` by two layers from the channels' means and deviations, which
/// are first brought to the scale they have on clean images.
fn condition(to: &mut Builder, name: &str, clean: &CleanStatistics, x: Value) -> Result<Value> {
    let c = clean.mean.len();
    let mean = to.plain(&format!("{name}.mean"), Op::GlobalAvgPool, x);
    let std = to.plain(&format!("{name}.std"), Op::GlobalStdPool { eps: EPS }, x);
    let seen = to.graph.push(format!("{name}.seen"), Op::Concat, &[mean, std]);
    let scale = format!("{name}.scale_seen");
    let joined = |a: &[f32], b: &[f32]| a.iter().chain(b).copied().collect::<Vec<_>>();
    to.tensor(&format!("{scale}.weight"), repeat_n(1.0, 2 * c), &[2 * c])?;
    to.tensor(&format!("{scale}.bias"), repeat_n(0.0, 2 * c), &[2 * c])?;
    to.tensor(&format!("{scale}.running_mean"), joined(&clean.mean, &clean.std_mean), &[2 * c])?;
    let spread = joined(&clean.mean_spread, &clean.std_spread);
    to.tensor(&format!("{scale}.running_var"), spread.iter().map(|s| s * s), &[2 * c])?;
    let seen = to.plain(&scale, Op::BatchNorm { eps: EPS }, seen);
    let width = MOST_HIDDEN.min(2 * c);
    let hidden = Conv2d { activation: Some(Activation::Relu), bias: true, ..Conv2d::valid(width, 1, 1) };
    let hidden = to.conv(&format!("{name}.hidden"), hidden, 2 * c, seen)?;
    let s = to.zero_pointwise(&format!("{name}.scale"), [width, c], hidden)?;
    let t = to.zero_pointwise(&format!("{name}.shift"), [width, c], hidden)?;
    let scaled = to.graph.push(format!("{name}.scaled"), Op::Mul, &[x, s]);
    let sum = to.graph.push(format!("{name}.sum"), Op::Add, &[x, scaled]);
    Ok(to.graph.push(format!("{name}.shifted"), Op::Add, &[sum, t]))
}
