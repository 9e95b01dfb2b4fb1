//! One node on slices, by the kernels.

use std::ops::Deref;

use super::carve::Rest;
use crate::engine::layout::{Layout, Operand, Step};
use crate::error::Result;
use crate::graph::op::{Op, elements};
use crate::graph::weight::PackedNumbers;
use crate::kernels::batch_norm::Numbers;
use crate::kernels::conv2d::{Finish, Sizes, Weights};
use crate::kernels::mix::Softmax;
use crate::kernels::pool::Windows;
use crate::kernels::{
    activation, batch_norm, concat, conv2d, elementwise, gate, global_pool, instance_norm, linear, mix, pad,
    pool, slice,
};

/// Writes the output of a node for `n` images: `y`, with scratch.
pub(super) fn compute(
    step: &Step,
    (layout, n): (&Layout, usize),
    read: &Rest,
    [y, scratch]: [&mut [f32]; 2],
) -> Result<()> {
    let inputs = &step.node.inputs;
    let input = |i: usize| read.at(layout.place(inputs[i]).range(n));
    // The first input, unless it is in `y`.
    let x = (step.in_place.is_none() && !inputs.is_empty()).then(|| input(0));
    let weight = |i: usize| numbers(step, i, read);
    let [c, h, w] = inputs.first().map_or([1; 3], |&v| layout.place(v).dims);
    match &step.node.op {
        Op::Activation { kind } => activation::forward_into(*kind, x, y),
        Op::Add => elementwise::add_into(full(step, layout, &input), other(step, layout, &input), y),
        Op::AvgPool(window) => pool::avg_into(&Windows::sized(window, [h, w])?, input(0), (y, scratch)),
        Op::BatchNorm { eps } => {
            let (weight, bias, mean, var) = (weight(0)?, weight(1)?, weight(2)?, weight(3)?);
            let numbers = Numbers { weight: &weight, bias: &bias, mean: &mean, var: &var, eps: *eps };
            batch_norm::fixed_into(numbers, h * w, x, y);
        }
        Op::Concat => concat::forward_into(n, (0..inputs.len()).map(input), y),
        Op::Conv2d(conv) => {
            let bias = conv.bias.then(|| weight(1)).transpose()?;
            let residual = conv.residual.then(|| input(1));
            let finish = Finish { activation: conv.activation, bias: bias.as_deref(), residual };
            let sizes = Sizes::of(conv, [n, c, h, w])?;
            let widened;
            let weights = match in_place(step) {
                Some(weights) => weights,
                None => {
                    widened = weight(0)?;
                    Weights::Plain(&widened)
                }
            };
            conv2d::forward_into(&sizes, (input(0), weights), &finish, (y, scratch));
        }
        Op::Flatten | Op::Identity => {}
        Op::Gate => gate::forward_into([input(1), &weight(0)?], h * w, x, y),
        Op::GlobalAvgPool => global_pool::avg_into(h * w, input(0), y),
        Op::GlobalStdPool { eps } => global_pool::std_into(h * w, *eps, input(0), y),
        Op::InstanceNorm { eps } => {
            instance_norm::forward_into(([&weight(0)?, &weight(1)?], *eps), h * w, x, y);
        }
        Op::Linear { outputs, bias } => {
            let bias = bias.then(|| weight(1)).transpose()?;
            linear::forward_into([n, c, *outputs], [input(0), &weight(0)?], bias.as_deref(), y);
        }
        Op::MaxPool(window) => pool::max_into(&Windows::sized(window, [h, w])?, input(0), (y, scratch)),
        Op::Mix => {
            let alpha = weight(0)?;
            let softmax = Softmax::of(alpha.iter().map(|&a| f64::from(a)));
            let alpha: &[f32] = &alpha;
            mix::forward_into(inputs.len(), |i| softmax.p(f64::from(alpha[i])), input, y);
        }
        Op::Mul => elementwise::mul_into(full(step, layout, &input), other(step, layout, &input), y),
        Op::Pad(margins) => pad::forward_into(*margins, [h, w], input(0), y),
        Op::Zero { .. } => y.fill(0.0),
    }
    Ok(())
}

/// Which operand of a sum or product is the other one: not in the output's place, or smaller.
fn other_of(step: &Step, layout: &Layout) -> usize {
    let len = |i: usize| elements(&layout.place(step.node.inputs[i]).dims);
    match step.in_place {
        Some(i) => 1 - i,
        None => usize::from(len(0) >= len(1)),
    }
}

fn other<'a>(step: &Step, layout: &Layout, input: &impl Fn(usize) -> &'a [f32]) -> &'a [f32] {
    input(other_of(step, layout))
}

/// The larger operand, unless it lies in the output's place.
fn full<'a>(step: &Step, layout: &Layout, input: &impl Fn(usize) -> &'a [f32]) -> Option<&'a [f32]> {
    step.in_place.is_none().then(|| input(1 - other_of(step, layout)))
}

/// The weight of a convolution where it is, unless it was widened or is a tensor.
fn in_place<'a>(step: &Step<'a>) -> Option<Weights<'a, f32>> {
    let Operand { weight, widened: None } = step.weights[0].as_ref()? else { return None };
    let halves = || weight.halves().map(|(halves, factors)| Weights::Halves(halves, factors));
    let packed = weight.packed().map(|numbers| match numbers {
        PackedNumbers::Floats(floats) => Weights::Packed(floats),
        PackedNumbers::Halves(halves, factors) => Weights::PackedHalves(halves, factors),
        PackedNumbers::Pairs(pairs) => Weights::Pairs(pairs),
    });
    packed.or_else(halves)
}

/// Numbers of a weight: in its tensor, or widened in the block.
enum Read<'a, G> {
    Held(G),
    Lent(&'a [f32]),
}

impl<G: Deref<Target = [f32]>> Deref for Read<'_, G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Held(numbers) => numbers,
            Self::Lent(numbers) => numbers,
        }
    }
}

fn numbers<'a>(
    step: &'a Step,
    i: usize,
    read: &Rest<'a>,
) -> Result<Read<'a, impl Deref<Target = [f32]> + use<'a>>> {
    let operand = step.weights.get(i).and_then(Option::as_ref);
    let Operand { weight, widened } = operand.ok_or_else(|| step.node.error("has no such weight"))?;
    match (widened, weight.resident()) {
        (Some(range), _) => Ok(Read::Lent(read.at(range.clone()))),
        (None, Some(tensor)) => Ok(Read::Held(slice::<f32>(tensor)?)),
        (None, None) => Err(step.node.error("has a weight that is nowhere")),
    }
}
