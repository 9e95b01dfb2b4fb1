//! Gradient descent on one part of a network.

use std::collections::BTreeSet;

use candle_core::Tensor;

use super::{Samples, Site};
use crate::engine::checkpoint::cut;
use crate::engine::grad::{Norms, Recompute, Wanted, backward, backward_into, forward, forward_recomputing};
use crate::engine::optim::Optimizer;
use crate::error::{During, Error, Result};
use crate::graph::op::elements;
use crate::graph::{Graph, Params, Weight};
use crate::kernels::{cross_entropy, tensor};
use crate::meter::reserve;
use crate::rng::Rng;

/// How a part is trained.
///
/// | field | default | range | unit |
/// |---|---|---|---|
/// | `steps` | 300 | 1.. | weight updates |
/// | `batch` | 64 | 2.. | images a step, half of them failures |
/// | `rate` | 4e-3 | over 0 | learning rate of deployed tensors at its highest |
/// | `new_rate` | 1e-2 | over 0 | learning rate of tensors that a search added |
/// | `distill` | 3 | 0.. | weight of the deployed network's opinion on replay |
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Weight updates.
    pub steps: usize,
    /// Images a step.
    pub batch: usize,
    /// Learning rate of tensors that were deployed.
    pub rate: f64,
    /// Learning rate of tensors that were added.
    pub new_rate: f64,
    /// Weight of the deployed network's opinion on replay.
    pub distill: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { steps: 300, batch: 64, rate: 4e-3, new_rate: 1e-2, distill: 3.0 }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the first field that is outside.
    pub fn check(&self) -> Result<()> {
        let wrong = |field, got: String, want: &str| Err(Error::Config { field, got, want: want.into() });
        if self.steps == 0 {
            return wrong("steps", "0".into(), "at least 1");
        }
        if self.batch < 2 {
            return wrong("batch", self.batch.to_string(), "at least 2");
        }
        for (field, rate) in [("rate", self.rate), ("new-rate", self.new_rate)] {
            if !(rate > 0.0 && rate < 1.0) {
                return wrong(field, rate.to_string(), "over 0 and below 1");
            }
        }
        if !(self.distill >= 0.0 && self.distill.is_finite()) {
            return wrong("distill", self.distill.to_string(), "0 or more");
        }
        Ok(())
    }
}

/// The sets a part is trained on.
#[derive(Clone, Copy, Debug)]
pub struct Sets<'a> {
    /// What it gets wrong.
    pub failures: &'a Samples,
    /// Replay that was made to look like failures; takes half of their places.
    pub surrogates: Option<&'a Samples>,
    /// What it should keep getting right.
    pub replay: &'a Samples,
}

/// A part in training. Its trained tensors are its own: training changes them where they are.
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
}

impl Part {
    /// `graph` at `site` with every trainable tensor changing.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when a tensor is missing.
    pub fn new(graph: Graph, params: Params, site: &Site) -> Result<Self> {
        let named = graph.params(&site.input)?;
        let trained: BTreeSet<String> =
            named.into_iter().filter(|p| p.param.trainable).map(|p| p.name).collect();
        let wanted = Wanted { trained: &|_| true, input: false, norms: Norms::Fixed };
        let recompute = cut(&graph, &site.input, wanted, site.levers.depth)?;
        let own = |(name, weight): (&String, &Weight)| {
            let shared = site.params.find(name).is_some_and(|deployed| deployed.is_same(weight));
            let tensor = weight.tensor()?;
            if shared && !weight.is_mapped() && trained.contains(name) {
                return Ok((name.clone(), tensor.force_contiguous().during("copying what is trained")?));
            }
            Ok((name.clone(), tensor))
        };
        let params = params.of(&graph, &site.input)?.iter().map(own).collect::<Result<Params>>()?;
        Ok(Self { graph, params, trained, recompute })
    }

    /// Loss and gradients of a batch, a micro-batch at a time.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when a cache cannot be read, [`Error::Tensor`] when the device refuses.
    pub fn gradients(&self, site: &Site, draws: &[Draw], distill: f64) -> Result<(f64, Params)> {
        let each = 1.0 / draws.len() as f64;
        let (mut total, mut sums) = (0.0, Params::default());
        for draws in draws.chunks(site.levers.micro_batch.max(1)) {
            total += self.micro_batch(site, &Batch::load(site, draws, distill, each)?, &mut sums)?;
        }
        Ok((total, sums))
    }

    /// The loss of a micro-batch; its gradients are added to `sums`.
    fn micro_batch(&self, site: &Site, batch: &Batch, sums: &mut Params) -> Result<f64> {
        let trained = |name: &str| self.trained.contains(name);
        let wanted = Wanted { trained: &trained, input: false, norms: Norms::Fixed };
        let own = forward_recomputing(&self.graph, &self.params, &batch.x, (wanted, &self.recompute))?;
        let behind = forward(&site.suffix.graph, &site.suffix.params, &own.y, Wanted::INPUT_ONLY)?;
        let (losses, dlogits) = cross_entropy::forward_backward(&behind.y, &batch.targets, &batch.weights)?;
        let loss = losses.iter().zip(&batch.weights).map(|(loss, weight)| loss * weight).sum();
        let back = backward(&site.suffix.graph, &site.suffix.params, Wanted::INPUT_ONLY, (behind, dlogits))?;
        let dy = back
            .input
            .ok_or_else(|| Error::Graph { node: "suffix".into(), problem: "gave no gradient".into() })?;
        backward_into(&self.graph, &self.params, wanted, (own, dy), sums)?;
        Ok(loss)
    }
}

/// One image of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The set it is from.
    pub from: &'a Samples,
    /// Its place in the set.
    pub index: usize,
    /// Whether the deployed network is asked too.
    pub taught: bool,
}

/// Draws batches: half failures with replacement, half replay in shuffled epochs.
#[derive(Clone, Debug)]
pub struct Sampler {
    epoch: Vec<usize>,
}

impl Sampler {
    /// A sampler at the start of its first epoch.
    #[must_use]
    pub fn new() -> Self {
        Self { epoch: Vec::new() }
    }

    /// The images of one batch.
    pub fn draw<'a>(&mut self, sets: Sets<'a>, batch: usize, rng: &mut Rng) -> Vec<Draw<'a>> {
        let Sets { failures, surrogates, replay } = sets;
        let n_failing = batch / 2;
        let n_surrogates = if surrogates.is_some() { n_failing / 2 } else { 0 };
        let any =
            |from: &'a Samples, rng: &mut Rng| Draw { from, index: rng.below(from.len()), taught: false };
        let mut draws: Vec<Draw> = (n_surrogates..n_failing).map(|_| any(failures, rng)).collect();
        if let Some(surrogates) = surrogates {
            draws.extend((0..n_surrogates).map(|_| any(surrogates, rng)));
        }
        let next = |_| Draw { from: replay, index: self.next(replay.len(), rng), taught: true };
        draws.extend((n_failing..batch).map(next));
        draws
    }

    fn next(&mut self, n: usize, rng: &mut Rng) -> usize {
        if self.epoch.is_empty() {
            self.epoch = rng.permutation(n);
        }
        self.epoch.pop().unwrap_or(0)
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

/// Features of some images, what they should become, and how much each counts.
struct Batch {
    x: Tensor,
    /// Rows of target probabilities.
    targets: Tensor,
    weights: Vec<f64>,
}

impl Batch {
    /// Replay counts for its label and, `distill` times, for the deployed network's opinion.
    fn load(site: &Site, draws: &[Draw], distill: f64, each: f64) -> Result<Self> {
        let (row, n) = (elements(&site.input), draws.len());
        reserve("a batch of features", 4 * n * (row + site.classes))?;
        let (mut xs, mut targets) = (vec![0.0; n * row], vec![0.0; n * site.classes]);
        let mut weights = Vec::with_capacity(n);
        for run in draws.chunk_by(|a, b| std::ptr::eq(a.from, b.from)) {
            let Draw { from, taught, .. } = run[0];
            let indices: Vec<usize> = run.iter().map(|draw| draw.index).collect();
            let distill = if taught { distill } else { 0.0 };
            let (at, n) = (weights.len(), run.len());
            from.read_into(&indices, &mut xs[at * row..][..n * row])?;
            from.targets_into(&indices, distill, &mut targets[at * site.classes..][..n * site.classes])?;
            weights.extend(indices.iter().map(|_| each * (1.0 + distill)));
        }
        let shape: Vec<usize> = std::iter::once(n).chain(site.input.iter().copied()).collect();
        Ok(Self { x: tensor(xs, &shape)?, targets: tensor(targets, &[n, site.classes])?, weights })
    }
}

/// Steps in which the rate rises, at most, and at most this share of all steps.
const WARM_UP: usize = 20;
const WARM_UP_SHARE: usize = 3;

/// The factor of the learning rate: it rises in a line over the warm-up and falls by a cosine
/// towards 0 at `steps`.
///
/// Adam divides by its estimate of the gradient's size, which is worth nothing in the first
/// steps: at full rate they threw the loss of one trial repair in three to five times what it
/// began at, and some did not come back.
#[must_use]
pub fn rate_factor(step: usize, steps: usize) -> f64 {
    let warm_up = WARM_UP.min(steps / WARM_UP_SHARE).max(1);
    let rise = ((step + 1) as f64 / warm_up as f64).min(1.0);
    rise * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps.max(1) as f64).cos())
}

/// Trains `part` at `site`; `progress` is told the loss of each step.
///
/// # Errors
///
/// [`Error::Diverged`] when the loss is not finite, and those of [`Part::gradients`].
pub fn fit(
    site: &Site,
    part: &mut Part,
    sets: Sets,
    (config, rng): (&Config, &mut Rng),
    progress: &mut dyn FnMut(usize, f64),
) -> Result<()> {
    let mut optimizer = Optimizer::owning(site.levers.rule(), &part.params)?;
    let mut sampler = Sampler::new();
    for step in 0..config.steps {
        let draws = sampler.draw(sets, config.batch, rng);
        let (loss, grads) = part.gradients(site, &draws, config.distill)?;
        if !loss.is_finite() {
            return Err(Error::Diverged { what: site.level.to_string(), step, loss });
        }
        let factor = rate_factor(step, config.steps);
        let rate = |name: &str| {
            factor * if site.params.find(name).is_some() { config.rate } else { config.new_rate }
        };
        optimizer.step(&mut part.params, &grads, rate)?;
        progress(step, loss);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let factors: Vec<f64> = (0..100).map(|step| rate_factor(step, 100)).collect();
        assert!(factors[..WARM_UP].windows(2).all(|pair| pair[0] < pair[1]));
        assert!(factors[WARM_UP..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!((factors[0] - 0.05).abs() < 1e-12 && factors[99] < 0.001);
        // A run too short for a warm-up starts at once.
        assert_eq!(rate_factor(0, 2), 1.0);
    }
}
