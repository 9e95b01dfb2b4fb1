//! Gradient descent on one part of a network.

use std::path::Path;

use candle_core::Tensor;

use super::{Part, Samples, Site};
use crate::device::Compute;
use crate::engine::optim::Optimizer;
use crate::error::{Error, Result};
use crate::graph::op::elements;
use crate::kernels::tensor;
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
pub(super) struct Batch {
    pub(super) x: Tensor,
    /// Rows of target probabilities.
    pub(super) targets: Tensor,
    pub(super) weights: Vec<f64>,
}

impl Batch {
    /// Replay counts for its label and, `distill` times, for the deployed network's opinion.
    pub(super) fn load(site: &Site, draws: &[Draw], distill: f64, each: f64) -> Result<Self> {
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

/// Trains `part` at `site`, where that computes: the part as it is then, on the CPU. `progress` is told the
/// loss of each step.
///
/// # Errors
///
/// As [`Training::round`].
pub fn fit(
    site: &Site,
    part: Part,
    sets: Sets,
    (config, rng): (&Config, Rng),
    progress: &mut dyn FnMut(usize, f64),
) -> Result<Part> {
    let mut training = Training::new(site, part, rng);
    training.round(site, sets, config, progress)?;
    Ok(training.part)
}

/// A training in rounds. Weights, the optimizer's state and the draws to come go on from round to
/// round; between two rounds all of it can wait in files.
#[derive(Debug)]
pub struct Training {
    /// What is trained.
    pub part: Part,
    optimizer: Optimizer,
    sampler: Sampler,
    rng: Rng,
}

impl Training {
    /// The training of `part` at `site` before its first step.
    #[must_use]
    pub fn new(site: &Site, part: Part, rng: Rng) -> Self {
        Self { part, optimizer: Optimizer::new(site.levers.rule()), sampler: Sampler::new(), rng }
    }

    /// Trains for the steps of `config`, where `site` computes, and leaves the part on the CPU;
    /// `progress` is told the loss of each step.
    ///
    /// Each round has a [`rate_factor`] of its own, so that its result is annealed and can be judged: warm
    /// restarts (Loshchilov and Hutter 2017).
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`] when the loss is not finite, and those of [`Part::step`].
    pub fn round(
        &mut self,
        site: &Site,
        sets: Sets,
        config: &Config,
        progress: &mut dyn FnMut(usize, f64),
    ) -> Result<()> {
        let Self { part, optimizer, sampler, rng } = self;
        part.move_to(&site.compute)?;
        optimizer.own(&part.params)?;
        for step in 0..config.steps {
            let draws = sampler.draw(sets, config.batch, rng);
            let factor = rate_factor(step, config.steps);
            let rate = |name: &str| {
                factor * if site.params.find(name).is_some() { config.rate } else { config.new_rate }
            };
            let loss = part.step(site, (&draws, config.distill), (optimizer, &rate))?;
            if !loss.is_finite() {
                return Err(Error::Diverged { what: site.level.to_string(), step, loss });
            }
            progress(step, loss);
        }
        part.move_to(&Compute::HOST)
    }

    /// Moves weights and the optimizer's state to unnamed files in `folder`. A part that is only asked
    /// can stay there; [`Training::resumed`] brings all back for another round.
    ///
    /// # Errors
    ///
    /// As [`Params::spooled`](crate::graph::Params::spooled).
    pub fn set_aside(&mut self, folder: &Path) -> Result<()> {
        self.part.params = self.part.params.spooled(folder)?;
        self.optimizer.set_aside(folder)
    }

    /// Brings back to where `site` computes what was [set aside](Self::set_aside).
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn resumed(mut self, site: &Site) -> Result<Self> {
        self.part.params = self.part.params.masters(&site.compute)?;
        self.optimizer.resume(&site.compute)?;
        Ok(self)
    }
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
