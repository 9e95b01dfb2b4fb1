//! A part in training: its loss, its gradients, a step.

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::Tensor;

use super::Site;
use super::train::{Batch, Draw};
use crate::device::{Compute, Precision, to_host};
use crate::engine::checkpoint::cut;
use crate::engine::grad::{
    Collect, Norms, Recompute, Wanted, backward, backward_into, forward, forward_recomputing,
};
use crate::engine::optim::Optimizer;
use crate::engine::scaling::{LossScale, are_finite};
use crate::error::{During, Error, Result};
use crate::graph::op::Op;
use crate::graph::{Graph, Params, Weight};
use crate::kernels::cross_entropy;

/// A part in training. Its trained tensors are its own: training changes them where they are. They rest on
/// the CPU; [`Part::move_to`] brings them to where a site computes.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it computes.
    pub graph: Graph,
    /// All its tensors.
    pub params: Params,
    /// Names of those that change.
    pub trained: BTreeSet<String>,
    /// What it computes again in its backward pass.
    pub recompute: Recompute,
    /// Names of the tensors whose gradient comes whole: a single node has it, and once.
    whole: BTreeSet<String>,
    /// What the loss is multiplied with.
    scale: LossScale,
}

impl Part {
    /// `graph` at `site` with every trainable tensor changing.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when a tensor is missing.
    pub fn new(graph: Graph, params: Params, site: &Site) -> Result<Self> {
        let mut part = Self::resting(graph, params, site)?;
        let own = |(name, weight): (&String, &Weight)| {
            let shared = site.params.find(name).is_some_and(|deployed| deployed.is_same(weight));
            let tensor = weight.tensor()?;
            if shared && !weight.is_mapped() && part.trained.contains(name) {
                return Ok((name.clone(), tensor.force_contiguous().during("copying what is trained")?));
            }
            Ok((name.clone(), tensor))
        };
        part.params = part.params.iter().map(own).collect::<Result<Params>>()?;
        Ok(part)
    }

    /// As [`Part::new`], for a part that is only asked: its tensors stay where they are.
    ///
    /// # Errors
    ///
    /// As [`Part::new`].
    pub fn resting(graph: Graph, params: Params, site: &Site) -> Result<Self> {
        let named = graph.params(&site.input)?;
        let trained: BTreeSet<String> =
            named.into_iter().filter(|p| p.param.trainable).map(|p| p.name).collect();
        let wanted = Wanted { trained: &|_| true, input: false, norms: Norms::Fixed };
        let recompute = cut(&graph, &site.input, wanted, site.levers.depth)?;
        let params = params.of(&graph, &site.input)?;
        let whole = whole(&graph, &site.input)?;
        let scale = LossScale::of(site.compute.precision);
        Ok(Self { graph, params, trained, recompute, whole, scale })
    }

    /// Moves its tensors, in `f32`, to the device of `compute`: to be trained there, or back to the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn move_to(&mut self, compute: &Compute) -> Result<()> {
        if !compute.device.same_device(&self.params.device()) {
            self.params = self.params.masters(compute)?;
        }
        Ok(())
    }

    /// What the loss of the next step is multiplied with.
    #[must_use]
    pub fn scale(&self) -> LossScale {
        self.scale
    }

    /// One step of `optimizer` on a batch, of a part that lies [where the site computes](Self::move_to),
    /// with `distill` times the deployed network's opinion on replay: the loss before it. `rate` gives the
    /// learning rate by name.
    ///
    /// Where [`Levers::steps_at_once`](crate::memory::Levers::steps_at_once), each gradient changes
    /// its tensor as soon as it is there and is let go; for a whole batch the result has the same bits. In
    /// half precision nothing changes in a step whose gradients are not all finite; see [`LossScale`].
    ///
    /// # Errors
    ///
    /// As [`Part::gradients`], [`LossScale::overflowed`] and [`Optimizer::step`].
    pub fn step(
        &mut self,
        site: &Site,
        (draws, distill): (&[Draw], f64),
        (optimizer, rate): (&mut Optimizer, &dyn Fn(&str) -> f64),
    ) -> Result<f64> {
        if !site.steps_at_once(draws.len()) {
            let (loss, gradients) = self.gradients(site, draws, distill)?;
            if site.compute.precision == Precision::F16 && loss.is_finite() {
                if !are_finite(&gradients)? {
                    self.scale.overflowed()?;
                    return Ok(loss);
                }
                self.scale.made();
            }
            optimizer.step(&mut self.params, &gradients, rate)?;
            return Ok(loss);
        }
        let (n, mut total) = (draws.len() as f64, 0.0);
        for draws in draws.chunks(site.levers.micro_batch.max(1)) {
            let share = draws.len() as f64 / n;
            let rate = |name: &str| share * rate(name);
            optimizer.begin();
            let batch = Batch::load(site, draws, distill, 1.0 / n)?;
            let mut stepping = Stepping { part: self, optimizer, rate: &rate, rest: Params::default() };
            total += self.backward((site, &self.params), &batch, &mut stepping)?;
            let rest = stepping.rest;
            optimizer.change_all(&mut self.params, &rest, rate)?;
        }
        Ok(total)
    }

    /// Moves its tensors to an unnamed file in `folder` where `site` leaves weights in files: a part
    /// that is only asked takes no heap, and is folded without a copy.
    ///
    /// # Errors
    ///
    /// As [`Params::spooled`].
    pub fn set_aside(&mut self, site: &Site, folder: &Path) -> Result<()> {
        if site.levers.mapped {
            self.params = self.params.spooled(folder)?;
        }
        Ok(())
    }

    /// Loss and gradients of a batch, a micro-batch at a time.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when a cache cannot be read, [`Error::Tensor`] when the device refuses.
    pub fn gradients(&self, site: &Site, draws: &[Draw], distill: f64) -> Result<(f64, Params)> {
        let each = 1.0 / draws.len() as f64;
        let (mut total, mut sums) = (0.0, Params::default());
        let params = self.params.placed(&site.compute)?;
        for draws in draws.chunks(site.levers.micro_batch.max(1)) {
            let batch = Batch::load(site, draws, distill, each)?;
            total += self.backward((site, &params), &batch, &mut sums)?;
        }
        Ok((total, self.scale.unscaled(sums)?))
    }

    /// The loss of a batch, with tensors as passes read them; gradients of the scaled loss are given to
    /// `collector`.
    fn backward(
        &self,
        (site, params): (&Site, &Params),
        batch: &Batch,
        collector: &mut dyn Collect,
    ) -> Result<f64> {
        let trained = |name: &str| self.trained.contains(name);
        let wanted = Wanted { trained: &trained, input: false, norms: Norms::Fixed };
        let x = site.compute.value(&batch.x)?;
        let own = forward_recomputing(&self.graph, params, &x, (wanted, &self.recompute))?;
        let behind = forward(&site.suffix.graph, &site.suffix.params, &own.y, Wanted::INPUT_ONLY)?;
        let (loss, dlogits) = self.loss(site, batch, &behind.y)?;
        let back = backward(&site.suffix.graph, &site.suffix.params, Wanted::INPUT_ONLY, (behind, dlogits))?;
        let dy = back
            .input
            .ok_or_else(|| Error::Graph { node: "suffix".into(), problem: "gave no gradient".into() })?;
        backward_into(&self.graph, params, wanted, (own, dy), collector)?;
        Ok(loss)
    }

    /// The loss for these logits, and its gradient by them as passes read it, times the factor of the loss.
    fn loss(&self, site: &Site, batch: &Batch, logits: &Tensor) -> Result<(f64, Tensor)> {
        let scaled: Vec<f64> = batch.weights.iter().map(|weight| weight * self.scale.factor()).collect();
        let (losses, dlogits) = cross_entropy::forward_backward(&to_host(logits)?, &batch.targets, &scaled)?;
        let loss = losses.iter().zip(&batch.weights).map(|(loss, weight)| loss * weight).sum();
        Ok((loss, site.compute.value(&dlogits)?))
    }
}

/// Tensors that one node has, once; the choices of a mixture get a gradient from each term.
fn whole(graph: &Graph, input: &[usize]) -> Result<BTreeSet<String>> {
    let (mut once, mut often) = (BTreeSet::new(), BTreeSet::new());
    let mixtures = graph.nodes.iter().filter(|node| matches!(node.op, Op::Mix));
    often.extend(mixtures.map(|node| node.param("alpha")));
    for named in graph.params(input)? {
        if !once.insert(named.name.clone()) {
            often.insert(named.name);
        }
    }
    Ok(once.difference(&often).cloned().collect())
}

/// Changes tensors as their gradients come.
struct Stepping<'a> {
    part: &'a Part,
    optimizer: &'a mut Optimizer,
    rate: &'a dyn Fn(&str) -> f64,
    /// Gradients that come in pieces, or of tensors that the optimizer does not own yet.
    rest: Params,
}

impl Collect for Stepping<'_> {
    fn collect(&mut self, name: &str, gradient: Tensor) -> Result<()> {
        let w = self.part.params.get(name)?;
        if self.part.whole.contains(name) && self.optimizer.owns(name, &w) {
            return self.optimizer.change(name, &w, (&gradient, (self.rate)(name)));
        }
        drop(w);
        self.rest.collect(name, gradient)
    }

    fn changes_tensors(&self) -> bool {
        true
    }
}
