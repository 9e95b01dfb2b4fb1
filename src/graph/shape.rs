//! What an operation makes of shapes: its output's shape, its parameters, its cost.

use super::op::{Conv2d, Op, Pool, Shape, Window, elements};

/// A parameter of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Last part of the tensor's name: `weight`, `bias`, `running_mean`, ...
    pub suffix: &'static str,
    /// Shape of the tensor.
    pub shape: Shape,
    /// Whether gradients change it; running statistics are measured instead.
    pub trainable: bool,
}

impl Param {
    fn weight(suffix: &'static str, shape: Shape) -> Self {
        Self { suffix, shape, trainable: true }
    }

    fn statistic(suffix: &'static str, c: usize) -> Self {
        Self { suffix, shape: vec![c], trainable: false }
    }
}

impl Op {
    /// Shape of the output for inputs of these shapes; the error says which rule is broken.
    pub fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let n = inputs.len();
        let want = match self {
            Self::Add | Self::Gate | Self::Mul => 2..=2,
            Self::Concat | Self::Mix => 1..=usize::MAX,
            Self::Conv2d(conv) if conv.residual => 2..=2,
            _ => 1..=1,
        };
        if !want.contains(&n) {
            return Err(format!("has {n} inputs, expected {}", want.start()));
        }
        let x = &inputs[0];
        match self {
            Self::Activation { .. } | Self::Identity => Ok(x.clone()),
            Self::Add | Self::Mul => broadcast(x, &inputs[1]),
            Self::AvgPool(pool) | Self::MaxPool(pool) => pooled(pool, x),
            Self::BatchNorm { .. } | Self::InstanceNorm { .. } => image(x).map(|_| x.clone()),
            Self::Concat => joined(inputs),
            Self::Conv2d(conv) => convolved(conv, inputs),
            Self::Flatten => Ok(vec![elements(x)]),
            Self::Gate | Self::Mix => all_equal(inputs),
            Self::GlobalAvgPool | Self::GlobalStdPool { .. } => {
                let [c, h, w] = image(x)?;
                if h * w == 0 { Err(format!("no pixels in {x:?}")) } else { Ok(vec![c, 1, 1]) }
            }
            Self::Linear { outputs, .. } => {
                if x.len() == 1 {
                    Ok(vec![*outputs])
                } else {
                    Err(format!("takes [features], got {x:?}"))
                }
            }
            Self::Pad(margins) => {
                let [c, h, w] = image(x)?;
                let padded = margins.around([h, w]);
                padded.map(|[h, w]| vec![c, h, w]).ok_or_else(|| format!("adds too much: {margins:?}"))
            }
            Self::Zero { outputs, stride } => {
                let [_, h, w] = image(x)?;
                if *stride == 0 {
                    return Err("has stride 0".into());
                }
                Ok(vec![*outputs, h.div_ceil(*stride), w.div_ceil(*stride)])
            }
        }
    }

    /// Parameters for inputs of these shapes, which [`Op::output_shape`] has accepted.
    #[must_use]
    pub fn params(&self, inputs: &[Shape]) -> Vec<Param> {
        let c = inputs.first().and_then(|x| x.first()).copied().unwrap_or(0);
        match self {
            Self::BatchNorm { .. } => vec![
                Param::weight("weight", vec![c]),
                Param::weight("bias", vec![c]),
                Param::statistic("running_mean", c),
                Param::statistic("running_var", c),
            ],
            Self::Conv2d(conv) => weight_and_bias(conv.weight_shape(c), conv.bias),
            Self::Gate => vec![Param::weight("gate", vec![c])],
            Self::InstanceNorm { .. } => weight_and_bias(vec![c], true),
            Self::Linear { outputs, bias } => weight_and_bias(vec![*outputs, c], *bias),
            Self::Mix => vec![Param::weight("alpha", vec![inputs.len()])],
            _ => Vec::new(),
        }
    }

    /// Multiply-adds for one image. Only sums of products count, as is usual: convolutions
    /// and linear layers.
    #[must_use]
    pub fn macs(&self, inputs: &[Shape], output: &Shape) -> u64 {
        let c = inputs.first().and_then(|x| x.first()).copied().unwrap_or(0);
        let products = match self {
            Self::Conv2d(conv) => elements(output) * (c / conv.groups) * conv.k * conv.k,
            Self::Linear { outputs, .. } => c * outputs,
            _ => 0,
        };
        products as u64
    }
}

fn weight_and_bias(weight: Shape, bias: bool) -> Vec<Param> {
    let outputs = weight[0];
    let mut params = vec![Param::weight("weight", weight)];
    if bias {
        params.push(Param::weight("bias", vec![outputs]));
    }
    params
}

fn image(shape: &Shape) -> Result<[usize; 3], String> {
    <[usize; 3]>::try_from(shape.as_slice()).map_err(|_| format!("takes [c, h, w], got {shape:?}"))
}

fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, String> {
    let per_channel = |s: &Shape, full: &Shape| s.len() == 3 && full.len() == 3 && s[..] == [full[0], 1, 1];
    if a == b || per_channel(b, a) {
        return Ok(a.clone());
    }
    if per_channel(a, b) {
        return Ok(b.clone());
    }
    Err(format!("cannot combine {a:?} and {b:?}"))
}

fn pooled(pool: &Pool, x: &Shape) -> Result<Shape, String> {
    let [c, h, w] = image(x)?;
    if pool.padding * 2 > pool.k {
        return Err(format!("padding {} is over half of the window {}", pool.padding, pool.k));
    }
    slid(&pool.window(), c, [h, w])
}

fn convolved(conv: &Conv2d, inputs: &[Shape]) -> Result<Shape, String> {
    let [c, h, w] = image(&inputs[0])?;
    let groups = conv.groups;
    if groups == 0 || !c.is_multiple_of(groups) || !conv.outputs.is_multiple_of(groups) {
        return Err(format!("{groups} groups do not divide {c} channels in and {} out", conv.outputs));
    }
    let y = slid(&conv.window(), conv.outputs, [h, w])?;
    match inputs.get(1) {
        Some(residual) if *residual != y => Err(format!("adds {residual:?} to a result of {y:?}")),
        _ => Ok(y),
    }
}

fn slid(window: &Window, c: usize, [h, w]: [usize; 2]) -> Result<Shape, String> {
    match (window.count(h), window.count(w)) {
        (Some(h), Some(w)) => Ok(vec![c, h, w]),
        _ => Err(format!("no {window:?} fits into {h} x {w} pixels")),
    }
}

fn joined(inputs: &[Shape]) -> Result<Shape, String> {
    let mut sum = inputs[0].clone();
    for x in &inputs[1..] {
        if x.len() != sum.len() || x[1..] != sum[1..] {
            return Err(format!("cannot join {x:?} to {sum:?}"));
        }
        sum[0] += x[0];
    }
    Ok(sum)
}

fn all_equal(inputs: &[Shape]) -> Result<Shape, String> {
    match inputs.iter().find(|x| **x != inputs[0]) {
        Some(x) => Err(format!("inputs differ: {:?} and {x:?}", inputs[0])),
        None => Ok(inputs[0].clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_slides_like_torch() {
        let conv = |k, stride, padding, dilation| Conv2d {
            k,
            stride,
            padding,
            dilation,
            ..Conv2d::valid(8, k, stride)
        };
        let out = |conv: Conv2d| Op::Conv2d(conv).output_shape(&[vec![4, 9, 7]]);
        assert_eq!(out(conv(3, 1, 1, 1)).unwrap(), [8, 9, 7]);
        assert_eq!(out(conv(3, 2, 1, 1)).unwrap(), [8, 5, 4]);
        // Reach 2 * 3 + 1 = 7: h (9 - 7) / 1 + 1 = 3, w 1.
        assert_eq!(out(conv(4, 1, 0, 2)).unwrap(), [8, 3, 1]);
        assert!(out(conv(8, 1, 0, 1)).unwrap_err().contains("fits"));
        assert!(out(conv(3, 0, 1, 1)).is_err());
        assert!(out(Conv2d { groups: 3, ..conv(3, 1, 1, 1) }).unwrap_err().contains("3 groups"));
    }

    #[test]
    fn broadcasting_is_over_pixels_only() {
        let out = |a: &[usize], b: &[usize]| Op::Mul.output_shape(&[a.to_vec(), b.to_vec()]);
        assert_eq!(out(&[4, 5, 6], &[4, 1, 1]).unwrap(), [4, 5, 6]);
        assert_eq!(out(&[4, 1, 1], &[4, 5, 6]).unwrap(), [4, 5, 6]);
        assert!(out(&[4, 5, 6], &[1, 5, 6]).is_err());
        assert!(Op::Mul.output_shape(&[vec![4]]).unwrap_err().contains("1 inputs"));
    }

    #[test]
    fn costs_are_those_on_paper() {
        let op = Op::Conv2d(Conv2d { groups: 2, bias: true, ..Conv2d::same(8, 3, 1) });
        let x = vec![vec![4, 5, 5]];
        // 8 * 25 outputs, each 2 channels * 9 taps.
        assert_eq!(op.macs(&x, &op.output_shape(&x).unwrap()), 8 * 25 * 18);
        let shapes: Vec<_> = op.params(&x).into_iter().map(|p| p.shape).collect();
        assert_eq!(shapes, [vec![8, 2, 3, 3], vec![8]]);
    }
}
