//! The ranking of blocks: spectrum and gradient propose and explain, the race decides.

use std::path::Path;

use serde::Serialize;

use super::neurons::Activity;
use super::race::{Field, Trial, choose, race};
use super::rows::Rows;
use super::spectrum::Formula;
use super::{consistency, gradient, neurons};
use crate::data::Images;
use crate::error::Result;
use crate::eval::{Deployed, accuracy};
use crate::fit;
use crate::fit::samples::Store;
use crate::rng::Rng;

/// How blocks are ranked.
///
/// | field | default | range | unit |
/// |---|---|---|---|
/// | `formula` | Ochiai | | suspiciousness of a neuron |
/// | `top` | 0.1 | over 0, to 1 | share of a block's neurons that make its score |
/// | `resamplings` | 200 | 1.. | bootstrap draws of failures |
/// | `candidates` | 8 | 1.. | blocks that race |
/// | `race_steps` | 120 | 0.. | weight updates of a finalist's trial; 0 ranks by score alone |
/// | `fit` | rate 3e-3, batch 32 | | trials besides their steps |
///
/// However many images there are, neurons are watched on 200 failures and 400 passes at most, gradients are
/// taken of 200 failures and as many passes, and trials see 500 images of each set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Suspiciousness of a neuron.
    pub formula: Formula,
    /// Share of a block's neurons that make its score.
    pub top: f64,
    /// Bootstrap draws of failures.
    pub resamplings: usize,
    /// Blocks that race.
    pub candidates: usize,
    /// Weight updates of a finalist's trial.
    pub race_steps: usize,
    /// Settings of the trials besides their steps.
    pub fit: fit::Config,
    /// Starts every random draw.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            formula: Formula::default(),
            top: 0.1,
            resamplings: 200,
            candidates: 8,
            race_steps: 120,
            // A short trial gains more from many steps than from large batches.
            fit: fit::Config { rate: 3e-3, batch: 32, ..fit::Config::default() },
            seed: 0,
        }
    }
}

/// A block and everything that speaks for or against it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ranked {
    /// Name of the block.
    pub block: String,
    /// Mean over its most suspicious neurons of suspiciousness times gradient, both as ranks in
    /// 0 to 1 among all neurons.
    pub score: f64,
    /// The same mean of the suspiciousness's rank alone.
    pub spectrum: f64,
    /// The same mean of the gradient's rank alone.
    pub gradient: f64,
    /// Divergence of clean statistics from the stored ones, nats a channel.
    pub mismatch: f64,
    /// How its trial repair ended, if it raced.
    pub trial: Option<TrialResult>,
    /// Share of resamplings in which it is chosen.
    pub confidence: f64,
}

/// A trial repair in numbers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TrialResult {
    /// Loss on what was held back, see [`Trial::loss`].
    pub loss: f64,
    /// Share of held-back failures it got right.
    pub fixed: f64,
    /// Share of held-back replay it got right.
    pub kept: f64,
    /// Steps it was trained for.
    pub steps: usize,
}

/// Blocks from the first to be repaired to the last.
#[derive(Clone, Debug, Serialize)]
pub struct Ranking {
    /// The blocks in order.
    pub blocks: Vec<Ranked>,
    /// Whether the first block wins in less than half of the resamplings: choose by hand, or
    /// bring more failures.
    pub abstains: bool,
}

/// Ranks the blocks of `deployed`.
///
/// # Errors
///
/// Those of the trial repairs, and [`crate::Error::Tensor`] when the device refuses.
pub fn localize(
    deployed: &Deployed,
    field: Field,
    (config, store): (&Config, Store),
    progress: &mut dyn FnMut(&str, usize),
) -> Result<Ranking> {
    let mut blocks = Evidence::gather(deployed, field, (config, store.folder))?.blocks(deployed, config)?;
    for (block, mismatch) in blocks.iter_mut().zip(consistency::mismatch(deployed, field.replay)?) {
        block.mismatch = mismatch;
    }
    let mut chosen = None;
    if config.race_steps > 0 {
        chosen = decide_by_race(deployed, field, &mut blocks, (config, store), progress)?;
    }
    // The chosen one, then those that raced longer before those that did not, then by loss, then by score.
    let key = |b: &Ranked| b.trial.map_or((1, 0, -b.score), |t| (0, usize::MAX - t.steps, t.loss));
    blocks.sort_by(|a, b| {
        let choice = (chosen.as_ref() != Some(&a.block)).cmp(&(chosen.as_ref() != Some(&b.block)));
        let ((a, b), names) = ((key(a), key(b)), a.block.cmp(&b.block));
        choice.then((a.0, a.1).cmp(&(b.0, b.1))).then(a.2.total_cmp(&b.2)).then(names)
    });
    let abstains = blocks.first().is_none_or(|first| first.confidence < 0.5);
    Ok(Ranking { blocks, abstains })
}

/// Lets the blocks race; the name of the one that is chosen.
fn decide_by_race(
    deployed: &Deployed,
    field: Field,
    blocks: &mut [Ranked],
    (config, store): (&Config, Store),
    progress: &mut dyn FnMut(&str, usize),
) -> Result<Option<String>> {
    let racing = candidates(blocks, config.candidates);
    let names: Vec<String> = racing.iter().map(|&i| blocks[i].block.clone()).collect();
    let settings = fit::Config { steps: config.race_steps, ..config.fit.clone() };
    let trials = race(deployed, field, &names, (&settings, store, config.seed), progress)?;
    let (chosen, shares) = choose(&trials, config.resamplings, config.seed);
    blocks.iter_mut().for_each(|block| block.confidence = 0.0);
    for ((&i, trial), share) in racing.iter().zip(&trials).zip(shares) {
        blocks[i].trial = Some(result(trial, field));
        blocks[i].confidence = share;
    }
    Ok(chosen.map(|chosen| names[chosen].clone()))
}

fn result(trial: &Trial, field: Field) -> TrialResult {
    TrialResult {
        loss: trial.loss(),
        fixed: accuracy(&trial.failures.classes, &field.held_failures.targets()),
        kept: accuracy(&trial.replay.classes, &field.held_replay.targets()),
        steps: trial.steps,
    }
}

/// Blocks that race, in network order: the most suspicious, the least consistent, and from the
/// rest the earliest, since a shifted input is best answered early.
fn candidates(blocks: &[Ranked], n: usize) -> Vec<usize> {
    let by = |key: fn(&Ranked) -> f64| {
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by(|&a, &b| key(&blocks[b]).total_cmp(&key(&blocks[a])).then(a.cmp(&b)));
        order
    };
    let mut chosen: Vec<usize> = by(|b| b.score).into_iter().take(n.div_ceil(4)).collect();
    let rest = by(|b| b.mismatch).into_iter().take(n.div_ceil(8)).chain(0..blocks.len());
    for i in rest {
        if chosen.len() < n && !chosen.contains(&i) {
            chosen.push(i);
        }
    }
    chosen.truncate(n);
    chosen.sort_unstable();
    chosen
}

/// Most failures that neurons are watched on; of these, and of as many passes, gradients are taken.
pub(crate) const FAILURES: usize = 200;

/// Most passes on which neurons are watched.
const PASSES: usize = 400;

/// `most` of `images` at most, drawn at random.
fn some(images: &Images, most: usize, rng: &mut Rng) -> Images {
    let mut order = rng.permutation(images.len());
    order.truncate(most);
    images.subset(&order)
}

/// What neurons did on failures and passes.
struct Evidence {
    layers: Vec<neurons::Layer>,
    active: Activity,
    /// Norms of gradients on failures, and their mean on passes.
    pulled: Rows,
    pulled_by_passes: Vec<f64>,
}

impl Evidence {
    fn gather(deployed: &Deployed, field: Field, (config, folder): (&Config, &Path)) -> Result<Self> {
        let whole = deployed.network.joined(0..deployed.network.parts.len());
        let layers = neurons::layers(deployed, &whole);
        let mut rng = Rng::new(config.seed);
        let failures = some(field.failures, FAILURES, &mut rng);
        let passes = some(field.replay, PASSES, &mut rng);
        let few: Vec<usize> = (0..passes.len().min(failures.len())).collect();
        let active = |images| neurons::activations(deployed, &layers, images, folder);
        let pulled = |images| gradient::norms(deployed, &layers, images, folder);
        Ok(Self {
            active: Activity::new(&active(&failures)?, &active(&passes)?)?,
            pulled: pulled(&failures)?,
            pulled_by_passes: pulled(&passes.subset(&few))?.mean(&few)?,
            layers,
        })
    }

    /// The blocks with their scores, and as confidence the share of resampled failure sets in
    /// which a block's score is the highest.
    fn blocks(&self, deployed: &Deployed, config: &Config) -> Result<Vec<Ranked>> {
        let n = self.active.n_failures();
        let names: Vec<String> = deployed.network.blocks().map(|part| part.name.clone()).collect();
        let all: Vec<usize> = (0..n).collect();
        let mut blocks: Vec<Ranked> = self.scores(names.len(), config, &all)?;
        let mut wins = vec![0usize; names.len()];
        for resampling in 0..config.resamplings {
            let mut rng = Rng::stream(config.seed, resampling as u64);
            let drawn: Vec<usize> = (0..n).map(|_| rng.below(n)).collect();
            let scores = self.scores(names.len(), config, &drawn)?;
            let first = (0..names.len()).rev().max_by(|&a, &b| scores[a].score.total_cmp(&scores[b].score));
            first.into_iter().for_each(|i| wins[i] += 1);
        }
        for ((block, name), wins) in blocks.iter_mut().zip(names).zip(wins) {
            block.block = name;
            block.confidence = wins as f64 / config.resamplings.max(1) as f64;
        }
        Ok(blocks)
    }

    fn scores(&self, n_blocks: usize, config: &Config, failing: &[usize]) -> Result<Vec<Ranked>> {
        let counts = self.active.counts(failing);
        let spectrum = ranks(&counts.iter().map(|&c| config.formula.score(c)).collect::<Vec<_>>());
        let gradient = ranks(&gradient::excess(&self.pulled, &self.pulled_by_passes, failing)?);
        let mut of_blocks = vec![Vec::new(); n_blocks];
        let owners = self.layers.iter().flat_map(|layer| std::iter::repeat_n(layer.block, layer.n));
        for (j, block) in owners.enumerate() {
            of_blocks[block].push(j);
        }
        let scored = |neurons: &Vec<usize>| {
            let top =
                |of: &dyn Fn(usize) -> f64| top_mean(neurons.iter().map(|&j| of(j)).collect(), config.top);
            Ranked {
                score: top(&|j| spectrum[j] * gradient[j]),
                spectrum: top(&|j| spectrum[j]),
                gradient: top(&|j| gradient[j]),
                ..Ranked::default()
            }
        };
        Ok(of_blocks.iter().map(scored).collect())
    }
}

/// Ranks in 0 to 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let same = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count().max(1);
        let rank = (start as f64 + (same - 1) as f64 / 2.0) / (values.len().max(2) - 1) as f64;
        order[start..start + same].iter().for_each(|&i| ranks[i] = rank);
        start += same;
    }
    ranks
}

/// The mean of the greatest `share` of the values, one at least.
fn top_mean(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(|a, b| b.total_cmp(a));
    let n = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1));
    values.iter().take(n).sum::<f64>() / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0]), [0.75, 0.0, 0.75]);
        assert_eq!(ranks(&[5.0]), [0.0]);
    }

    #[test]
    fn the_top_share_has_one_member_at_least() {
        assert_eq!(top_mean(vec![1.0, 4.0, 2.0], 0.1), 4.0);
        assert_eq!(top_mean(vec![1.0, 4.0, 2.0], 0.5), 3.0);
        assert_eq!(top_mean(Vec::new(), 0.1), 0.0);
    }

    #[test]
    fn early_suspicious_and_inconsistent_blocks_race() {
        let block = |score, mismatch| Ranked { score, mismatch, ..Ranked::default() };
        let mut blocks = vec![block(0.1, 0.0); 16];
        (blocks[9].score, blocks[12].score, blocks[14].mismatch) = (0.9, 0.8, 2.0);
        assert_eq!(candidates(&blocks, 8), [0, 1, 2, 3, 4, 9, 12, 14]);
        assert_eq!(candidates(&blocks[..3], 8), [0, 1, 2]);
    }
}
