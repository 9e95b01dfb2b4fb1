//! What each operation keeps for its backward pass, and its gradients.

use candle_core::Tensor;

use super::schedule::Schedule;
use super::{Collect, Norms, Wanted};
use crate::engine::infer::{affine, apply, stored};
use crate::error::{During, Error, Result};
use crate::graph::op::{Conv2d, Op};
use crate::graph::{Graph, Node, Params};
use crate::kernels::batch_norm::Statistics;
use crate::kernels::{
    activation, batch_norm, concat, conv2d, elementwise, gate, global_pool, instance_norm, linear, pad, pool,
};

/// What a node keeps besides the values its backward pass reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// What an activation keeps: a mask, mostly.
    pub(super) activation: Option<Tensor>,
    /// Positions of the maxima of a pooling.
    pub(super) argmax: Option<Tensor>,
    /// Statistics of a batch norm in training.
    pub(super) statistics: Option<Statistics>,
}

/// For each input of a node its value, if it is alive.
pub(super) type Inputs<'a> = [Option<&'a Tensor>];

/// A node in its pass.
pub(super) struct Context<'a> {
    pub(super) graph: &'a Graph,
    /// Index of the node.
    pub(super) at: usize,
    pub(super) node: &'a Node,
    pub(super) params: &'a Params,
    pub(super) wanted: Wanted<'a>,
    pub(super) schedule: &'a Schedule,
}

impl Context<'_> {
    pub(super) fn trains(&self, suffix: &str) -> bool {
        (self.wanted.trained)(&self.node.param(suffix))
    }

    pub(super) fn tensor(&self, suffix: &str) -> Result<Tensor> {
        self.params.get(&self.node.param(suffix))
    }

    /// Whether the gradient by input `i` of the node is computed.
    fn needs(&self, i: usize) -> bool {
        self.schedule.reads.of(self.at).get(i).is_some_and(|&v| self.schedule.needed[v])
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
            Op::Mix => self.mixed(xs)?,
            _ => apply(self.node, self.params, xs)?,
        };
        if backward {
            kept.activation = self.keep_activation(xs[0], &y)?;
        }
        Ok((y, kept))
    }

    fn keep_activation(&self, x: &Tensor, y: &Tensor) -> Result<Option<Tensor>> {
        match &self.node.op {
            Op::Activation { kind } => activation::keep(*kind, x, y).map(Some),
            Op::Conv2d(Conv2d { activation: Some(kind), .. }) => {
                if !kind.is_known_from_output() {
                    return Err(self.node.error(format!("a fused {kind:?} has no backward pass")));
                }
                activation::keep(*kind, x, y).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Gradients by the inputs, in order; those by the parameters are given to `collector`.
    pub(super) fn backward(
        &self,
        kept: &Kept,
        (xs, shapes): (&Inputs, &[&[usize]]),
        dy: &Tensor,
        collector: &mut dyn Collect,
    ) -> Result<Vec<Option<Tensor>>> {
        let one = |dx: Result<Tensor>| dx.map(|dx| vec![Some(dx)]);
        match &self.node.op {
            Op::Activation { kind } => one(activation::dx(*kind, dy, self.activation(kept)?)),
            Op::Add => (0..2).map(|i| self.wanted_dx(i, || elementwise::reduce_to(dy, shapes[i]))).collect(),
            Op::AvgPool(window) => one(pool::avg_dx(window, dy, shapes[0])),
            Op::BatchNorm { eps } => self.batch_norm((kept, xs), dy, *eps, collector),
            Op::Concat => {
                let channels: Vec<usize> = shapes.iter().map(|shape| shape[1]).collect();
                Ok(concat::dx(dy, &channels)?.into_iter().map(Some).collect())
            }
            Op::Conv2d(conv) => self.conv2d(conv, (kept, xs), (dy, shapes[0]), collector),
            Op::Flatten => one(dy.reshape(shapes[0]).during("unflattening")),
            Op::Gate => self.gate(xs, dy, collector),
            Op::GlobalAvgPool => one(global_pool::avg_dx(dy, [shapes[0][2], shapes[0][3]])),
            Op::GlobalStdPool { eps } => one(global_pool::std_dx(dy, self.input(xs, 0)?, *eps)),
            Op::Identity => Ok(vec![Some(dy.clone())]),
            Op::InstanceNorm { eps } => {
                let x = self.input(xs, 0)?;
                let (dx, dweight, dbias) = instance_norm::backward(dy, x, &self.tensor("weight")?, *eps)?;
                self.train("weight", collector, || Ok(dweight))?;
                self.train("bias", collector, || Ok(dbias))?;
                Ok(vec![self.needs(0).then_some(dx)])
            }
            Op::Linear { bias, .. } => {
                let train = |collector: &mut dyn Collect| {
                    self.train("weight", collector, || linear::dw(dy, self.input(xs, 0)?))?;
                    if *bias { self.train("bias", collector, || linear::dbias(dy)) } else { Ok(()) }
                };
                let dx = || self.wanted_dx(0, || linear::dx(dy, &self.tensor("weight")?));
                Ok(vec![in_order(collector, train, dx)?])
            }
            Op::MaxPool(_) => {
                let argmax = kept.argmax.as_ref().ok_or_else(|| self.lost())?;
                one(pool::max_dx(dy, argmax, shapes[0]))
            }
            Op::Mix => self.mix(xs, dy, collector),
            Op::Mul => (0..2).map(|i| self.wanted_dx(i, || self.mul(i, xs, (dy, shapes[i])))).collect(),
            Op::Pad(margins) => one(pad::dx(*margins, dy)),
            Op::Zero { .. } => Ok(vec![None]),
        }
    }

    fn mul(&self, i: usize, xs: &Inputs, (dy, shape): (&Tensor, &[usize])) -> Result<Tensor> {
        elementwise::reduce_to(&elementwise::mul(dy, self.input(xs, 1 - i)?)?, shape)
    }

    fn batch_norm(
        &self,
        (kept, xs): (&Kept, &Inputs),
        dy: &Tensor,
        eps: f64,
        collector: &mut dyn Collect,
    ) -> Result<Vec<Option<Tensor>>> {
        let affine = affine(self.node, eps, self.params)?;
        let trains = self.trains("weight") || self.trains("bias");
        let (dx, dparams) = match &kept.statistics {
            Some(statistics) => {
                let (dx, dw, db) = batch_norm::batch_backward(dy, self.input(xs, 0)?, &affine, statistics)?;
                (Some(dx), Some((dw, db)))
            }
            None => {
                let x = || self.input(xs, 0);
                let at = stored(self.node, self.params)?;
                let dparams =
                    trains.then(|| batch_norm::fixed_dparams(dy, x()?, &affine, &at)).transpose()?;
                (self.wanted_dx(0, || batch_norm::fixed_dx(dy, &affine, &at))?, dparams)
            }
        };
        if let Some((dweight, dbias)) = dparams {
            self.train("weight", collector, || Ok(dweight))?;
            self.train("bias", collector, || Ok(dbias))?;
        }
        Ok(vec![dx])
    }

    fn conv2d(
        &self,
        conv: &Conv2d,
        (kept, xs): (&Kept, &Inputs),
        (dy, x_shape): (&Tensor, &[usize]),
        collector: &mut dyn Collect,
    ) -> Result<Vec<Option<Tensor>>> {
        let before = match conv.activation {
            Some(kind) => activation::dx(kind, dy, self.activation(kept)?)?,
            None => dy.clone(),
        };
        let train = |collector: &mut dyn Collect| {
            self.train("weight", collector, || conv2d::dw(conv, &before, self.input(xs, 0)?))?;
            if conv.bias { self.train("bias", collector, || conv2d::dbias(&before)) } else { Ok(()) }
        };
        let dx = || self.wanted_dx(0, || conv2d::dx(conv, &before, &self.tensor("weight")?, x_shape));
        let dx = in_order(collector, train, dx)?;
        let residual = self.wanted_dx(1, || Ok(before))?;
        Ok(vec![dx, residual])
    }

    fn gate(&self, xs: &Inputs, dy: &Tensor, collector: &mut dyn Collect) -> Result<Vec<Option<Tensor>>> {
        let weight = &self.tensor("gate")?;
        let train = |collector: &mut dyn Collect| {
            self.train("gate", collector, || gate::dgate(dy, self.input(xs, 0)?, self.input(xs, 1)?))
        };
        in_order(collector, train, || {
            let dx = self.wanted_dx(0, || gate::dx(dy, weight))?;
            Ok(vec![dx, self.wanted_dx(1, || gate::dz(dy, weight))?])
        })
    }

    /// Gives away the gradient of a tensor if it is trained.
    pub(super) fn train(
        &self,
        suffix: &str,
        collector: &mut dyn Collect,
        d: impl FnOnce() -> Result<Tensor>,
    ) -> Result<()> {
        if self.trains(suffix) { collector.collect(&self.node.param(suffix), d()?) } else { Ok(()) }
    }

    pub(super) fn wanted_dx(&self, i: usize, dx: impl FnOnce() -> Result<Tensor>) -> Result<Option<Tensor>> {
        self.needs(i).then(dx).transpose()
    }

    pub(super) fn input<'a>(&self, xs: &Inputs<'a>, i: usize) -> Result<&'a Tensor> {
        xs.get(i).copied().flatten().ok_or_else(|| self.lost())
    }

    fn activation<'a>(&self, kept: &'a Kept) -> Result<&'a Tensor> {
        kept.activation.as_ref().ok_or_else(|| self.lost())
    }

    fn lost(&self) -> Error {
        self.node.error("the backward pass wants what the forward pass did not keep")
    }
}

/// Gives the gradients by a node's tensors to `collector` and takes those by its inputs, which
/// read these tensors: first where collecting changes them, else afterwards, when the gradients
/// have been taken up.
fn in_order<T>(
    collector: &mut dyn Collect,
    train: impl FnOnce(&mut dyn Collect) -> Result<()>,
    dx: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if !collector.changes_tensors() {
        train(collector)?;
        return dx();
    }
    let dx = dx()?;
    train(collector)?;
    Ok(dx)
}
