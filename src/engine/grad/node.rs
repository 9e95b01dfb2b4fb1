//! What each operation keeps for its backward pass, and its gradients.

use candle_core::Tensor;

use super::{Norms, Wanted};
use crate::engine::infer::{affine, apply, stored};
use crate::error::{During, Error, Result};
use crate::graph::op::{Conv2d, Op};
use crate::graph::{Node, Params, Value};
use crate::kernels::batch_norm::Statistics;
use crate::kernels::{
    activation, batch_norm, concat, conv2d, elementwise, gate, global_pool, instance_norm, linear, mix, pool,
};

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Copies of values the backward pass reads (shared, not copied), one for each input.
    pub(super) inputs: Vec<Option<Tensor>>,
    /// What an activation keeps: a mask, mostly.
    pub(super) activation: Option<Tensor>,
    /// Positions of the maxima of a pooling.
    pub(super) argmax: Option<Tensor>,
    /// Statistics of a batch norm in training.
    pub(super) statistics: Option<Statistics>,
}

/// A node in its pass.
pub(super) struct Context<'a> {
    pub(super) node: &'a Node,
    pub(super) params: &'a Params,
    pub(super) wanted: Wanted<'a>,
    pub(super) needed: &'a [bool],
}

impl Context<'_> {
    fn trains(&self, suffix: &str) -> bool {
        (self.wanted.trained)(&self.node.param(suffix))
    }

    fn tensor(&self, suffix: &str) -> Result<Tensor> {
        self.params.get(&self.node.param(suffix))
    }

    /// Whether the gradient by input `i` of the node is computed.
    fn needs(&self, i: usize) -> bool {
        self.node.inputs.get(i).is_some_and(|&v: &Value| self.needed[v])
    }

    /// The output, and what is kept if there is a backward pass.
    pub(super) fn forward(&self, xs: &[&Tensor], backward: bool) -> Result<(Tensor, Kept)> {
        let mut kept = Kept::default();
        let y = match &self.node.op {
            Op::BatchNorm { eps } if self.wanted.norms == Norms::Batch => {
                let (y, statistics) = batch_norm::batch(xs[0], &affine(self.node, *eps, self.params)?)?;
                kept.statistics = Some(statistics);
                y
            }
            Op::MaxPool(window) if backward => {
                let (y, argmax) = pool::max(window, xs[0])?;
                kept.argmax = Some(argmax);
                y
            }
            _ => apply(self.node, self.params, xs)?,
        };
        if backward {
            kept.activation = self.keep_activation(xs[0], &y)?;
            kept.inputs =
                xs.iter().enumerate().map(|(i, x)| self.reads_input(i).then(|| (*x).clone())).collect();
        }
        Ok((y, kept))
    }

    fn keep_activation(&self, x: &Tensor, y: &Tensor) -> Result<Option<Tensor>> {
        match &self.node.op {
            Op::Activation { kind } => activation::keep(*kind, x, y).map(Some),
            Op::Conv2d(Conv2d { activation: Some(kind), .. }) => {
                if !activation::is_known_from_output(*kind) {
                    return Err(self.node.error(format!("a fused {kind:?} has no backward pass")));
                }
                activation::keep(*kind, x, y).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Whether the backward pass reads input `i`.
    fn reads_input(&self, i: usize) -> bool {
        match &self.node.op {
            Op::BatchNorm { .. } => {
                self.wanted.norms == Norms::Batch || self.trains("weight") || self.trains("bias")
            }
            Op::Conv2d(_) | Op::Linear { .. } => i == 0 && self.trains("weight"),
            Op::Gate => self.trains("gate"),
            Op::GlobalStdPool { .. } | Op::InstanceNorm { .. } => true,
            Op::Mix => self.trains("alpha"),
            Op::Mul => self.needs(1 - i),
            _ => false,
        }
    }

    /// Gradients by the inputs, in order; those by the parameters are added to `grads`.
    pub(super) fn backward(
        &self,
        kept: &Kept,
        dy: &Tensor,
        shapes: &[&[usize]],
        grads: &mut Params,
    ) -> Result<Vec<Option<Tensor>>> {
        let one = |dx: Result<Tensor>| dx.map(|dx| vec![Some(dx)]);
        match &self.node.op {
            Op::Activation { kind } => one(activation::dx(*kind, dy, self.activation(kept)?)),
            Op::Add => (0..2).map(|i| self.wanted_dx(i, || elementwise::reduce_to(dy, shapes[i]))).collect(),
            Op::AvgPool(window) => one(pool::avg_dx(window, dy, shapes[0])),
            Op::BatchNorm { eps } => self.batch_norm(kept, dy, *eps, grads),
            Op::Concat => {
                let channels: Vec<usize> = shapes.iter().map(|shape| shape[1]).collect();
                Ok(concat::dx(dy, &channels)?.into_iter().map(Some).collect())
            }
            Op::Conv2d(conv) => self.conv2d(conv, kept, (dy, shapes[0]), grads),
            Op::Flatten => one(dy.reshape(shapes[0]).during("unflattening")),
            Op::Gate => self.gate(kept, dy, grads),
            Op::GlobalAvgPool => one(global_pool::avg_dx(dy, [shapes[0][2], shapes[0][3]])),
            Op::GlobalStdPool { eps } => one(global_pool::std_dx(dy, self.input(kept, 0)?, *eps)),
            Op::Identity => Ok(vec![Some(dy.clone())]),
            Op::InstanceNorm { eps } => {
                let x = self.input(kept, 0)?;
                let (dx, dweight, dbias) = instance_norm::backward(dy, x, &self.tensor("weight")?, *eps)?;
                self.train("weight", grads, || Ok(dweight))?;
                self.train("bias", grads, || Ok(dbias))?;
                Ok(vec![Some(dx)])
            }
            Op::Linear { bias, .. } => {
                self.train("weight", grads, || linear::dw(dy, self.input(kept, 0)?))?;
                if *bias {
                    self.train("bias", grads, || linear::dbias(dy))?;
                }
                Ok(vec![self.wanted_dx(0, || linear::dx(dy, &self.tensor("weight")?))?])
            }
            Op::MaxPool(_) => {
                let argmax = kept.argmax.as_ref().ok_or_else(|| self.lost())?;
                one(pool::max_dx(dy, argmax, shapes[0]))
            }
            Op::Mix => self.mix(kept, dy, grads),
            Op::Mul => (0..2).map(|i| self.wanted_dx(i, || self.mul(i, kept, (dy, shapes[i])))).collect(),
            Op::Zero { .. } => Ok(vec![None]),
        }
    }

    fn mul(&self, i: usize, kept: &Kept, (dy, shape): (&Tensor, &[usize])) -> Result<Tensor> {
        elementwise::reduce_to(&elementwise::mul(dy, self.input(kept, 1 - i)?)?, shape)
    }

    fn batch_norm(
        &self,
        kept: &Kept,
        dy: &Tensor,
        eps: f64,
        grads: &mut Params,
    ) -> Result<Vec<Option<Tensor>>> {
        let affine = affine(self.node, eps, self.params)?;
        let trains = self.trains("weight") || self.trains("bias");
        let (dx, dparams) = match &kept.statistics {
            Some(statistics) => {
                let (dx, dw, db) = batch_norm::batch_backward(dy, self.input(kept, 0)?, &affine, statistics)?;
                (Some(dx), Some((dw, db)))
            }
            None => {
                let x = || self.input(kept, 0);
                let at = stored(self.node, self.params)?;
                let dparams =
                    trains.then(|| batch_norm::fixed_dparams(dy, x()?, &affine, &at)).transpose()?;
                (self.wanted_dx(0, || batch_norm::fixed_dx(dy, &affine, &at))?, dparams)
            }
        };
        if let Some((dweight, dbias)) = dparams {
            self.train("weight", grads, || Ok(dweight))?;
            self.train("bias", grads, || Ok(dbias))?;
        }
        Ok(vec![dx])
    }

    fn conv2d(
        &self,
        conv: &Conv2d,
        kept: &Kept,
        (dy, x_shape): (&Tensor, &[usize]),
        grads: &mut Params,
    ) -> Result<Vec<Option<Tensor>>> {
        let before = match conv.activation {
            Some(kind) => activation::dx(kind, dy, self.activation(kept)?)?,
            None => dy.clone(),
        };
        self.train("weight", grads, || conv2d::dw(conv, &before, self.input(kept, 0)?))?;
        if conv.bias {
            self.train("bias", grads, || conv2d::dbias(&before))?;
        }
        let dx = self.wanted_dx(0, || conv2d::dx(conv, &before, &self.tensor("weight")?, x_shape))?;
        let residual = self.wanted_dx(1, || Ok(before))?;
        Ok(vec![dx, residual])
    }

    fn gate(&self, kept: &Kept, dy: &Tensor, grads: &mut Params) -> Result<Vec<Option<Tensor>>> {
        let weight = &self.tensor("gate")?;
        self.train("gate", grads, || gate::dgate(dy, self.input(kept, 0)?, self.input(kept, 1)?))?;
        let dx = self.wanted_dx(0, || gate::dx(dy, weight))?;
        Ok(vec![dx, self.wanted_dx(1, || gate::dz(dy, weight))?])
    }

    fn mix(&self, kept: &Kept, dy: &Tensor, grads: &mut Params) -> Result<Vec<Option<Tensor>>> {
        let alpha = &self.tensor("alpha")?;
        let inputs = || (0..kept.inputs.len()).map(|i| self.input(kept, i)).collect::<Result<Vec<_>>>();
        self.train("alpha", grads, || mix::dalpha(dy, &inputs()?, alpha))?;
        let dx = |i| self.wanted_dx(i, || mix::dx(dy, alpha, i));
        (0..self.node.inputs.len()).map(dx).collect()
    }

    /// Adds the gradient of a tensor if it is trained.
    fn train(&self, suffix: &str, grads: &mut Params, d: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if self.trains(suffix) { grads.accumulate(&self.node.param(suffix), d()?) } else { Ok(()) }
    }

    fn wanted_dx(&self, i: usize, dx: impl FnOnce() -> Result<Tensor>) -> Result<Option<Tensor>> {
        self.needs(i).then(dx).transpose()
    }

    fn input<'a>(&self, kept: &'a Kept, i: usize) -> Result<&'a Tensor> {
        kept.inputs.get(i).and_then(Option::as_ref).ok_or_else(|| self.lost())
    }

    fn activation<'a>(&self, kept: &'a Kept) -> Result<&'a Tensor> {
        kept.activation.as_ref().ok_or_else(|| self.lost())
    }

    fn lost(&self) -> Error {
        self.node.error("the backward pass wants what the forward pass did not keep")
    }
}
