//! Short trial repairs: each candidate block is trained for a few steps on some of the failures
//! and judged on the others, on surrogates and on replay (see [`crate::data::transfer`]).
//!
//! Two rounds (successive halving, Jamieson and Talwalkar 2016): all candidates for half of
//! the steps, then the best three from the start for all of them. What a block is worth is its
//! loss on all three; a loss tells apart what a handful of
//! right and wrong answers cannot.

use rayon::prelude::*;

use crate::data::Images;
use crate::error::Result;
use crate::eval::Deployed;
use crate::fit::samples::{Answers, Store};
use crate::fit::{self, Level, Samples, Sets, Site, fit};
use crate::rng::Rng;
use crate::search::candidate::CleanStatistics;
use crate::search::space;

/// The images of a race.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Failures that trials train on.
    pub failures: &'a Images,
    /// Replay made to look like failures, that trials train on.
    pub surrogates: &'a Images,
    /// Replay that trials train on.
    pub replay: &'a Images,
    /// Failures that judge.
    pub held_failures: &'a Images,
    /// Held-back replay made to look like failures, that judges.
    pub held_surrogates: &'a Images,
    /// Held-back replay that judges.
    pub held_replay: &'a Images,
}

/// How a trial ended.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Answers on the held-back failures.
    pub failures: Answers,
    /// Answers on the held-back surrogates of failures.
    pub surrogates: Answers,
    /// Answers on the held-back replay.
    pub replay: Answers,
    /// Steps it was trained for.
    pub steps: usize,
}

impl Trial {
    /// Half the loss on replay, a quarter each on failures and on their surrogates: less is
    /// better.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.failures.loss() / 4.0 + self.surrogates.loss() / 4.0 + self.replay.loss() / 2.0
    }

    /// The loss over images drawn again, each set with replacement.
    fn resampled(&self, rng: &mut Rng) -> f64 {
        let mut mean = |losses: &[f64]| {
            let sum: f64 = (0..losses.len()).map(|_| losses[rng.below(losses.len())]).sum();
            sum / losses.len().max(1) as f64
        };
        let (failures, surrogates) = (mean(&self.failures.losses), mean(&self.surrogates.losses));
        failures / 4.0 + surrogates / 4.0 + mean(&self.replay.losses) / 2.0
    }
}

/// Most images of each set: a trial sees a few thousand draws at most.
const IMAGES: usize = 500;

/// Blocks that go on to the second round.
const FINALISTS: usize = 3;

/// Races the blocks of these names; a trial for each, in order.
///
/// # Errors
///
/// Those of [`fit()`] and [`Samples::new`].
pub fn race(
    deployed: &Deployed,
    field: Field,
    blocks: &[String],
    (config, store, seed): (&fit::Config, Store, u64),
    progress: &mut dyn FnMut(&str, usize),
) -> Result<Vec<Trial>> {
    let first = fit::Config { steps: config.steps.div_ceil(2), ..config.clone() };
    let mut trials = Vec::new();
    for block in blocks {
        trials.push(trial(deployed, field, block, (&first, store, seed), progress)?);
    }
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by(|&a, &b| trials[a].loss().total_cmp(&trials[b].loss()).then(a.cmp(&b)));
    if config.steps > first.steps {
        for &i in order.iter().take(FINALISTS) {
            trials[i] = trial(deployed, field, &blocks[i], (config, store, seed), progress)?;
        }
    }
    Ok(trials)
}

fn trial(
    deployed: &Deployed,
    field: Field,
    block: &str,
    (config, store, seed): (&fit::Config, Store, u64),
    progress: &mut dyn FnMut(&str, usize),
) -> Result<Trial> {
    let site = Site::new(deployed, Level::Block(block.into()))?;
    let normalize = deployed.normalize()?;
    let few = |images: &Images| images.subset(&(0..images.len().min(IMAGES)).collect::<Vec<_>>());
    let samples = |images| Samples::new(&site, &few(images), &normalize, store);
    let (failures, surrogates) = (samples(field.failures)?, samples(field.surrogates)?);
    let replay = Samples::taught(&site, &few(field.replay), &normalize, store)?;
    // The same seed for all: every trial sees the same batches.
    let mut rng = Rng::new(seed);
    let mut part = space::trial(&site, &CleanStatistics::measure(&replay)?, &mut rng)?;
    let sets = Sets { failures: &failures, surrogates: Some(&surrogates), replay: &replay };
    fit(&site, &mut part, sets, (config, &mut rng), &mut |step, _| progress(block, step + 1))?;
    part.set_aside(&site, store.folder)?;
    let lowered = site.lowered(&part.graph, &part.params)?;
    let judge = |images| samples(images)?.evaluate(&site, &lowered);
    Ok(Trial {
        failures: judge(field.held_failures)?,
        surrogates: judge(field.held_surrogates)?,
        replay: judge(field.held_replay)?,
        steps: config.steps,
    })
}

/// For each trial the share of resamplings of the judging images in which it is the best of
/// those trained longest.
#[must_use]
pub fn confidence(trials: &[Trial], resamplings: usize, seed: u64) -> Vec<f64> {
    let longest = trials.iter().map(|trial| trial.steps).max().unwrap_or(0);
    let finalists: Vec<usize> = (0..trials.len()).filter(|&i| trials[i].steps == longest).collect();
    let winner = |resampling: usize| {
        // The same draws for every trial: their difference is what counts.
        let loss = |i: usize| trials[i].resampled(&mut Rng::stream(seed, resampling as u64));
        finalists.iter().copied().min_by(|&a, &b| loss(a).total_cmp(&loss(b)))
    };
    let winners: Vec<usize> = (0..resamplings).into_par_iter().filter_map(winner).collect();
    let share = |i: usize| winners.iter().filter(|&&w| w == i).count() as f64 / resamplings.max(1) as f64;
    (0..trials.len()).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(losses: &[f64], steps: usize) -> Trial {
        let answers = Answers { classes: vec![0; losses.len()], losses: losses.to_vec() };
        Trial { failures: answers.clone(), surrogates: answers.clone(), replay: answers, steps }
    }

    #[test]
    fn a_trial_that_is_better_on_every_image_is_certain() {
        let trials = [trial(&[1.0, 2.0, 3.0], 9), trial(&[0.5, 1.5, 2.5], 9), trial(&[0.0, 0.0, 0.0], 3)];
        assert_eq!(trials[1].loss(), 1.5);
        // The third was trained for less and does not count.
        assert_eq!(confidence(&trials, 50, 0), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn trials_that_differ_by_image_share_the_confidence() {
        let trials = [trial(&[0.0, 2.0, 0.0, 2.0], 9), trial(&[2.0, 0.0, 2.0, 0.0], 9)];
        let shares = confidence(&trials, 400, 1);
        assert!((shares[0] + shares[1] - 1.0).abs() < 1e-12);
        assert!(shares[0] > 0.2 && shares[1] > 0.2);
    }
}
