//! Short trial repairs: each candidate block is trained for a few steps on some of the failures
//! and judged on the others, on surrogates and on replay (see [`crate::data::transfer`]).
//!
//! Two rounds (successive halving, Jamieson and Talwalkar 2016): all candidates for half of the steps,
//! then the finalists for the other half, from where they stand. Finalists are those that do not trail the leader
//! for certain, four at most: early blocks learn slower and are behind at half-time. Where the leader is
//! alone the race ends. What a block is worth is its loss on failures, surrogates and replay; a loss tells apart
//! what a handful of right and wrong answers cannot.
//!
//! The earliest block within one standard error of the least loss is chosen (the rule of Breiman et al., 1984, for
//! the simplest of equally good models): what is wrong with an input is best answered early (Lee et al., "Surgical
//! Fine-Tuning Improves Adaptation to Distribution Shifts", 2023), and trials are too short to show it in full.
//!
//! All candidates see the same 500 images of each set at most. Features of all of them come from one pass
//! (see [`Cuts`]); they, and trials between two rounds, lie in unnamed files.

use std::iter::from_fn;

use rayon::prelude::*;

use crate::data::Images;
use crate::error::Result;
use crate::eval::Deployed;
use crate::fit::samples::{Answers, Store};
use crate::fit::{self, Cuts, Level, Samples, Sets, Site, Training};
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
        self.sets().map(|(answers, part)| part * answers.loss()).iter().sum()
    }

    /// Answers on each set, and its part of the loss.
    fn sets(&self) -> [(&Answers, f64); 3] {
        [(&self.failures, 0.25), (&self.surrogates, 0.25), (&self.replay, 0.5)]
    }

    /// The loss over images drawn again, each set with replacement.
    fn resampled(&self, rng: &mut Rng) -> f64 {
        let mut loss = 0.0;
        for (Answers { losses, .. }, part) in self.sets() {
            let sum: f64 = (0..losses.len()).map(|_| losses[rng.below(losses.len())]).sum();
            loss += part * sum / losses.len().max(1) as f64;
        }
        loss
    }

    /// The standard error of the difference between the losses of two trials, both judged by the same images.
    fn standard_error(&self, other: &Self) -> f64 {
        let mut variance = 0.0;
        for ((a, part), (b, _)) in self.sets().into_iter().zip(other.sets()) {
            let n = a.losses.len() as f64;
            let differences = || a.losses.iter().zip(&b.losses).map(|(a, b)| a - b);
            let mean = differences().sum::<f64>() / n.max(1.0);
            let squares: f64 = differences().map(|difference| (difference - mean).powi(2)).sum();
            variance += part * part * squares / (n * (n - 1.0)).max(1.0);
        }
        variance.sqrt()
    }
}

/// Most images of each set: a trial sees a few thousand draws at most.
pub(crate) const IMAGES: usize = 500;

/// Most blocks that go on to the second round.
const FINALISTS: usize = 4;

/// Standard errors behind the leader at which a block drops out: 19 of 20 such differences are not chance.
const CERTAIN: f64 = 1.645;

/// Steps of the first and of the second round, of `steps` in both.
fn rounds(steps: usize) -> [usize; 2] {
    let first = steps.div_ceil(2);
    [first, steps - first]
}

/// Most steps that a race of `candidates` takes, a finalist for `steps` of them: fewer where few go on.
#[must_use]
pub fn most_steps(candidates: usize, steps: usize) -> usize {
    let [first, second] = rounds(steps);
    candidates * first + candidates.min(FINALISTS) * second
}

/// Races the blocks of these names, which stand in the network's order; a trial for each.
///
/// # Errors
///
/// Those of [`Cuts::new`], [`Samples::new`] and [`Training::round`].
pub fn race(
    deployed: &Deployed,
    field: Field,
    blocks: &[String],
    (config, store, seed): (&fit::Config, Store, u64),
    progress: &mut dyn FnMut(&str, usize),
) -> Result<Vec<Trial>> {
    let seen = Seen::at_all(&Cuts::new(deployed, blocks)?, field, store)?;
    let racers = blocks.iter().zip(seen);
    let mut racers: Vec<Racer> =
        racers.map(|(block, seen)| Racer { deployed, block, seen, store, waiting: None }).collect();
    let mut trials = vec![Trial::default(); blocks.len()];
    let mut running: Vec<usize> = (0..blocks.len()).collect();
    for steps in rounds(config.steps) {
        if steps == 0 || running.is_empty() {
            break;
        }
        let config = fit::Config { steps, ..config.clone() };
        for &i in &running {
            let judged = racers[i].round(&config, seed, progress)?;
            trials[i] = Trial { steps: trials[i].steps + steps, ..judged };
        }
        running = finalists(&trials);
    }
    Ok(trials)
}

/// The features of all sets at one block.
struct Seen {
    failures: Samples,
    surrogates: Samples,
    replay: Samples,
    held_failures: Samples,
    held_surrogates: Samples,
    held_replay: Samples,
}

impl Seen {
    /// Those at each of the blocks before which `cuts` cuts.
    fn at_all(cuts: &Cuts, field: Field, store: Store) -> Result<Vec<Self>> {
        let few = |images: &Images| images.subset(&(0..images.len().min(IMAGES)).collect::<Vec<_>>());
        let samples = |images| Ok(cuts.samples(&few(images), store)?.into_iter());
        let (mut failures, mut surrogates) = (samples(field.failures)?, samples(field.surrogates)?);
        let mut replay = cuts.taught(&few(field.replay), store)?.into_iter();
        let mut held_failures = samples(field.held_failures)?;
        let mut held_surrogates = samples(field.held_surrogates)?;
        let mut held_replay = samples(field.held_replay)?;
        let next = || {
            Some(Self {
                failures: failures.next()?,
                surrogates: surrogates.next()?,
                replay: replay.next()?,
                held_failures: held_failures.next()?,
                held_surrogates: held_surrogates.next()?,
                held_replay: held_replay.next()?,
            })
        };
        Ok(from_fn(next).collect())
    }
}

/// A block in the race.
struct Racer<'a> {
    deployed: &'a Deployed,
    block: &'a str,
    seen: Seen,
    store: Store<'a>,
    /// Its training between two rounds.
    waiting: Option<Training>,
}

impl Racer<'_> {
    /// Trains for a round and judges.
    fn round(
        &mut self,
        config: &fit::Config,
        seed: u64,
        progress: &mut dyn FnMut(&str, usize),
    ) -> Result<Trial> {
        let site = Site::new(self.deployed, Level::Block(self.block.into()))?;
        let mut training = match self.waiting.take() {
            Some(waiting) => waiting.resumed(&site)?,
            None => self.start(&site, seed)?,
        };
        let Seen { failures, surrogates, replay, .. } = &self.seen;
        let sets = Sets { failures, surrogates: Some(surrogates), replay };
        training.round(&site, sets, config, &mut |step, _| progress(self.block, step + 1))?;
        training.set_aside(self.store.folder)?;
        let trial = self.judge(&site, &training)?;
        self.waiting = Some(training);
        Ok(trial)
    }

    fn start(&self, site: &Site, seed: u64) -> Result<Training> {
        // The same seed for all: every trial sees the same batches.
        let mut rng = Rng::new(seed);
        let part = space::trial(site, &CleanStatistics::measure(&self.seen.replay)?, &mut rng)?;
        Ok(Training::new(site, part, rng))
    }

    fn judge(&self, site: &Site, training: &Training) -> Result<Trial> {
        let lowered = site.lowered(&training.part.graph, &training.part.params)?;
        Ok(Trial {
            failures: self.seen.held_failures.evaluate(site, &lowered)?,
            surrogates: self.seen.held_surrogates.evaluate(site, &lowered)?,
            replay: self.seen.held_replay.evaluate(site, &lowered)?,
            steps: 0,
        })
    }
}

/// The trials that go on, the best first: the leader and those that do not trail it for certain,
/// [`FINALISTS`] at most; none where the leader is alone.
fn finalists(trials: &[Trial]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by(|&a, &b| trials[a].loss().total_cmp(&trials[b].loss()).then(a.cmp(&b)));
    order.truncate(FINALISTS);
    let Some(&leader) = order.first() else { return order };
    let behind = |i: usize| trials[i].loss() - trials[leader].loss();
    order.retain(|&i| i == leader || behind(i) <= CERTAIN * trials[i].standard_error(&trials[leader]));
    if order.len() == 1 { Vec::new() } else { order }
}

/// Which trials, in the network's order, are chosen: the earliest within one standard error of the least loss among
/// those trained longest.
struct Choice {
    finalists: Vec<usize>,
    /// Between each finalist and each.
    errors: Vec<Vec<f64>>,
}

impl Choice {
    fn new(trials: &[Trial]) -> Self {
        let longest = trials.iter().map(|trial| trial.steps).max().unwrap_or(0);
        let finalists: Vec<usize> = (0..trials.len()).filter(|&i| trials[i].steps == longest).collect();
        let errors = |&a: &usize| finalists.iter().map(|&b| trials[a].standard_error(&trials[b])).collect();
        let errors = finalists.iter().map(errors).collect();
        Self { finalists, errors }
    }

    /// The choice by these losses.
    fn by(&self, loss: impl FnMut(usize) -> f64) -> Option<usize> {
        let losses: Vec<f64> = self.finalists.iter().copied().map(loss).collect();
        let leader = (0..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b]))?;
        let is_near = |&i: &usize| losses[i] - losses[leader] <= self.errors[i][leader];
        Some(self.finalists[(0..losses.len()).find(is_near).unwrap_or(leader)])
    }
}

/// The trial that is chosen, see the head of this file, and for each the share of resamplings of the judging images
/// in which it would be.
#[must_use]
pub fn choose(trials: &[Trial], resamplings: usize, seed: u64) -> (Option<usize>, Vec<f64>) {
    let choice = Choice::new(trials);
    // The same draws for every trial: their difference is what counts.
    let again = |resampling| choice.by(|i| trials[i].resampled(&mut Rng::stream(seed, resampling as u64)));
    let chosen: Vec<usize> = (0..resamplings).into_par_iter().filter_map(again).collect();
    let share = |i: usize| chosen.iter().filter(|&&c| c == i).count() as f64 / resamplings.max(1) as f64;
    (choice.by(|i| trials[i].loss()), (0..trials.len()).map(share).collect())
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
        assert_eq!(choose(&trials, 50, 0), (Some(1), vec![0.0, 1.0, 0.0]));
    }

    #[test]
    fn trials_that_differ_by_image_share_the_confidence() {
        let trials = [trial(&[0.0, 2.0, 0.0, 2.0], 9), trial(&[2.0, 0.0, 2.0, 0.0], 9)];
        let (_, shares) = choose(&trials, 400, 1);
        assert!((shares[0] + shares[1] - 1.0).abs() < 1e-12);
        assert!(shares[0] > 0.2 && shares[1] > 0.02, "{shares:?}");
    }

    #[test]
    fn the_earliest_of_equals_is_chosen() {
        let best = trial(&[1.0, 1.1, 2.0, 2.9], 9);
        let [near, far] = [trial(&[1.0, 1.2, 2.1, 2.9], 9), trial(&[1.2, 1.2, 2.2, 3.1], 9)];
        // By hand: differences 0, 0.1, 0.1, 0 have mean 0.05 and variance 0.01/3, so the error of a set's mean
        // is sqrt(0.01/12), and of the loss that times sqrt(1/16 + 1/16 + 1/4).
        assert!((near.standard_error(&best) - (0.01_f64 / 12.0 * 0.375).sqrt()).abs() < 1e-12);
        assert!(near.loss() - best.loss() > near.standard_error(&best));
        assert_eq!(choose(&[near, best.clone()], 0, 0).0, Some(1));
        // Further apart in the mean, but not on every image.
        let mixed = trial(&[0.5, 1.6, 1.9, 3.1], 9);
        assert!(mixed.loss() - best.loss() > 0.02);
        assert_eq!(choose(&[far, mixed, best], 0, 0).0, Some(1));
        assert_eq!(choose(&[], 5, 0), (None, vec![]));
    }

    #[test]
    fn a_clear_loser_drops_out_and_a_tie_does_not() {
        let [near, far] = [trial(&[1.0, 2.1, 2.9], 9), trial(&[5.0, 6.0, 7.0], 9)];
        let trials = [far.clone(), trial(&[1.0, 2.0, 3.0], 9), near.clone(), trial(&[1.0, 2.0, 3.0], 9)];
        let mut open = finalists(&trials);
        open.sort_unstable();
        assert_eq!(open, [1, 2, 3]);
        // Four at most, and no race of a leader alone.
        assert_eq!(finalists(&vec![near.clone(); 7]), [0, 1, 2, 3]);
        assert!(finalists(&[far, near]).is_empty());
    }

    #[test]
    fn a_race_has_every_candidate_in_the_first_round_and_four_in_the_second() {
        assert_eq!(most_steps(8, 120), 8 * 60 + 4 * 60);
        assert_eq!(most_steps(2, 5), 2 * 3 + 2 * 2);
        assert_eq!(most_steps(8, 0), 0);
    }
}
