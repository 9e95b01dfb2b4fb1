//! Gradient descent on one part of a network.

use std::collections::BTreeSet;

use candle_core::Tensor;

use super::{Samples, Site};
use crate::engine::grad::{Norms, Wanted, backward, forward};
use crate::engine::optim::{Optimizer, Rule};
use crate::error::{Error, Result};
use crate::graph::{Graph, Params};
use crate::kernels::cross_entropy;
use crate::rng::Rng;

/// How a part is trained.
///
/// | field | default | range | unit |
/// |---|---|---|---|
/// | `steps` | 300 | 1.. | weight updates |
/// | `batch` | 64 | 2.. | images a step, half of them failures |
/// | `rate` | 4e-3 | over 0 | learning rate of deployed tensors, falls by a cosine |
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

/// A part in training.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it computes.
    pub graph: Graph,
    /// All its tensors.
    pub params: Params,
    /// Names of those that change.
    pub trained: BTreeSet<String>,
}

impl Part {
    /// `graph` with every trainable tensor changing.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when a tensor is missing.
    pub fn new(graph: Graph, params: Params, input: &[usize]) -> Result<Self> {
        let trained =
            graph.params(input)?.into_iter().filter(|p| p.param.trainable).map(|p| p.name).collect();
        Ok(Self { params: params.of(&graph, input)?, graph, trained })
    }

    /// Loss and gradients for features `x`, rows of target probabilities and one weight an image.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn gradients(
        &self,
        site: &Site,
        x: &Tensor,
        (targets, weights): (&Tensor, &[f64]),
    ) -> Result<(f64, Params)> {
        let trained = |name: &str| self.trained.contains(name);
        let wanted = Wanted { trained: &trained, input: false, norms: Norms::Fixed };
        let own = forward(&self.graph, &self.params, x, wanted)?;
        let behind = forward(&site.suffix.graph, &site.suffix.params, &own.y, Wanted::INPUT_ONLY)?;
        let (losses, dlogits) = cross_entropy::forward_backward(&behind.y, targets, weights)?;
        let loss = losses.iter().zip(weights).map(|(loss, weight)| loss * weight).sum();
        let back = backward(&site.suffix.graph, &site.suffix.params, Wanted::INPUT_ONLY, (behind, dlogits))?;
        let dy = back
            .input
            .ok_or_else(|| Error::Graph { node: "suffix".into(), problem: "gave no gradient".into() })?;
        let grads = backward(&self.graph, &self.params, wanted, (own, dy))?;
        Ok((loss, grads.params))
    }
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

    /// Features, targets and weights of one batch.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when a cache cannot be read.
    pub fn draw(&mut self, sets: Sets, config: &Config, rng: &mut Rng) -> Result<Batch> {
        let Sets { failures, surrogates, replay } = sets;
        let n_failing = config.batch / 2;
        let n_surrogates = if surrogates.is_some() { n_failing / 2 } else { 0 };
        let each = 1.0 / config.batch as f64;
        let mut draws: Vec<(&Samples, Vec<usize>, f64)> = Vec::new();
        let with_replacement =
            |from: &Samples, n, rng: &mut Rng| (0..n).map(|_| rng.below(from.len())).collect();
        draws.push((failures, with_replacement(failures, n_failing - n_surrogates, rng), 0.0));
        if let Some(surrogates) = surrogates {
            draws.push((surrogates, with_replacement(surrogates, n_surrogates, rng), 0.0));
        }
        let passing = (n_failing..config.batch).map(|_| self.next(replay.len(), rng)).collect();
        draws.push((replay, passing, config.distill));
        let (mut xs, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (from, indices, distill) in &draws {
            xs.push(from.batch(indices)?);
            targets.push(from.targets(indices, *distill)?);
            weights.extend(indices.iter().map(|_| each * (1.0 + distill)));
        }
        Ok(Batch { x: cat(&xs)?, targets: cat(&targets)?, weights })
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

/// One batch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Features.
    pub x: Tensor,
    /// Rows of target probabilities.
    pub targets: Tensor,
    /// Weight of each image's loss.
    pub weights: Vec<f64>,
}

fn cat(tensors: &[Tensor]) -> Result<Tensor> {
    use crate::error::During;

    Tensor::cat(tensors, 0).during("joining a batch")
}

/// The factor of a cosine schedule: from 1 at step 0 towards 0 at `steps`.
#[must_use]
pub fn cosine(step: usize, steps: usize) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps.max(1) as f64).cos())
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
    let mut optimizer = Optimizer::new(Rule::ADAM);
    let mut sampler = Sampler::new();
    for step in 0..config.steps {
        let batch = sampler.draw(sets, config, rng)?;
        let (loss, grads) = part.gradients(site, &batch.x, (&batch.targets, &batch.weights))?;
        if !loss.is_finite() {
            return Err(Error::Diverged { what: site.level.to_string(), step, loss });
        }
        let fall = cosine(step, config.steps);
        let rate =
            |name: &str| fall * if site.params.find(name).is_some() { config.rate } else { config.new_rate };
        optimizer.step(&mut part.params, &grads, rate)?;
        progress(step, loss);
    }
    Ok(())
}
