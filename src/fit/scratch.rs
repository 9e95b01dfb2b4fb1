//! Training of a whole network from its first weights: SGD with Nesterov momentum under a
//! one-cycle schedule (Smith and Topin 2019), batch statistics, shifts and flips.
//!
//! An epoch is the unit of resuming: its draws come from the seed and its number alone, so a run
//! that was stopped and resumed ends in the same bytes as one that was not.

use candle_core::Tensor;

use crate::data::augment::Augment;
use crate::data::{Images, batches};
use crate::engine::grad::{Norms, Wanted, backward, forward};
use crate::engine::optim::{Optimizer, Rule};
use crate::error::{During, Error, Result};
use crate::eval::Deployed;
use crate::graph::{Graph, Params};
use crate::kernels::batch_norm::Statistics;
use crate::kernels::cross_entropy;
use crate::rng::Rng;

/// How a network is trained from scratch.
///
/// | field | default | range | unit |
/// |---|---|---|---|
/// | `epochs` | 15 | 1.. | passes over the data |
/// | `batch` | 128 | 2.. | images a step |
/// | `rate` | 0.1 | over 0 | learning rate at the top of the cycle |
/// | `decay` | 5e-4 | 0.. | weight decay of convolutions and linear layers |
/// | `smoothing` | 0.05 | 0 to 1 | share of the target spread over all classes |
/// | `augment` | shift 2, flip | | |
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Passes over the data.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Learning rate at the top of the cycle.
    pub rate: f64,
    /// Weight decay of convolutions and linear layers.
    pub decay: f64,
    /// Share of the target spread over all classes.
    pub smoothing: f64,
    /// Shifts and flips.
    pub augment: Augment,
    /// Starts every random draw.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        let augment = Augment { shift: 2, flip: crate::data::augment::Flip::Half, fill: 0 };
        Self { epochs: 15, batch: 128, rate: 0.1, decay: 5e-4, smoothing: 0.05, augment, seed: 0 }
    }
}

/// Share of the cycle in which the rate rises.
const RISE: f64 = 0.25;
const MOMENTUM: f64 = 0.9;
/// Share by which running statistics move towards those of a batch, as in PyTorch.
const STATISTICS: f64 = 0.1;

/// A network in training.
#[derive(Debug)]
pub struct Run {
    /// The network and its tensors so far.
    pub deployed: Deployed,
    /// The optimizer and its state.
    pub optimizer: Optimizer,
    /// Epochs done.
    pub epochs: usize,
}

impl Run {
    /// A run at its start.
    #[must_use]
    pub fn new(deployed: Deployed, config: &Config) -> Self {
        let rule = Rule::Sgd { momentum: MOMENTUM, decay: config.decay };
        Self { deployed, optimizer: Optimizer::new(rule), epochs: 0 }
    }

    /// Trains for one epoch; `progress` is told the loss of each of the epoch's steps and their
    /// number. Returns the mean loss.
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`] when the loss is not finite.
    pub fn epoch(
        &mut self,
        images: &Images,
        config: &Config,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<f64> {
        let mut rng = Rng::stream(config.seed, self.epochs as u64 + 1);
        let varied = config.augment.apply(images, rng.seed());
        let order = batches::epoch(images.len(), config.batch, &mut rng)?;
        let graph = self.deployed.network.joined(0..self.deployed.network.parts.len());
        let normalize = self.deployed.normalize()?;
        let mut sum = 0.0;
        for (i, batch) in order.iter().enumerate() {
            let labels: Vec<usize> = batch.iter().map(|&i| varied.label(i) as usize).collect();
            let targets = smoothed(&labels, self.deployed.network.classes, config.smoothing)?;
            let share = (self.epochs as f64 + i as f64 / order.len() as f64) / config.epochs as f64;
            let x = varied.batch(batch, &normalize)?;
            let loss = self.step(&graph, (&x, &targets), config.rate * one_cycle(share))?;
            if !loss.is_finite() {
                return Err(Error::Diverged { what: "training".into(), step: self.optimizer.steps, loss });
            }
            sum += loss;
            progress(i, order.len());
        }
        self.epochs += 1;
        Ok(sum / order.len().max(1) as f64)
    }

    fn step(&mut self, graph: &Graph, (x, targets): (&Tensor, &Tensor), rate: f64) -> Result<f64> {
        let n = x.dims()[0];
        let wanted = Wanted { trained: &|_| true, input: false, norms: Norms::Batch };
        let mut trace = forward(graph, &self.deployed.params, x, wanted)?;
        let statistics = std::mem::take(&mut trace.statistics);
        let (losses, dlogits) = cross_entropy::forward_backward(&trace.y, targets, &vec![1.0 / n as f64; n])?;
        let grads = backward(graph, &self.deployed.params, wanted, (trace, dlogits))?;
        self.optimizer.step(&mut self.deployed.params, &grads.params, |_| rate)?;
        for (norm, batch) in statistics {
            move_statistics(&mut self.deployed.params, &norm, &batch)?;
        }
        Ok(losses.iter().sum::<f64>() / n as f64)
    }
}

/// The factor of the rate at `share` of the training: up by a cosine, then down to nearly 0.
fn one_cycle(share: f64) -> f64 {
    let half = |t: f64| 0.5 * (1.0 - (std::f64::consts::PI * t).cos());
    if share < RISE {
        0.04 + 0.96 * half(share / RISE)
    } else {
        1e-4 + half(1.0 - (share - RISE) / (1.0 - RISE))
    }
}

fn smoothed(labels: &[usize], classes: usize, smoothing: f64) -> Result<Tensor> {
    let rest = (smoothing / classes as f64) as f32;
    let mut rows = vec![rest; labels.len() * classes];
    for (row, &label) in rows.chunks_exact_mut(classes).zip(labels) {
        row[label] += (1.0 - smoothing) as f32;
    }
    crate::kernels::tensor(rows, &[labels.len(), classes])
}

fn move_statistics(params: &mut Params, norm: &str, batch: &Statistics) -> Result<()> {
    for (suffix, new) in [("running_mean", &batch.mean), ("running_var", &batch.var)] {
        let name = format!("{norm}.{suffix}");
        let moved = (params.get(&name)? * (1.0 - STATISTICS)).and_then(|old| old + (new * STATISTICS)?);
        params.insert(name, moved.during("moving statistics")?);
    }
    Ok(())
}
