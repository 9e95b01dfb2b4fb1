//! How many images a repair has, and how many of them it runs together.

use serde::Serialize;

use super::batch_norm;
use super::sets::{Inputs, MOST_HELD_REPLAY, n_held};
use crate::localize::race;

/// How many images of each kind a repair has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Failures.
    pub failures: usize,
    /// Replay images.
    pub replay: usize,
    /// Failures and passes that only the gate sees, if there are any.
    pub guard: Option<[usize; 2]>,
}

/// Bytes that lists keep for each image: its place in the set and its label, both in each set it
/// is in, and its turn.
const IMAGE_BYTES: usize = 40;

/// Bytes that lists keep for each view: its label, and in turn its image's and its own place.
const VIEW_BYTES: usize = 28;

/// Bytes that lists keep for each image that the gate sees: its label and two answers.
const JUDGED_BYTES: usize = 48;

/// Bytes that lists keep for each image of a race: its place, and its label twice.
const RACED_BYTES: usize = 16;

/// Bytes that a trial keeps for each image that judges: its class and its loss.
const ANSWER_BYTES: usize = 16;

impl Counts {
    /// Those of `inputs`.
    #[must_use]
    pub fn of(inputs: &Inputs) -> Self {
        let guard = inputs.guard.map(|sets| sets.map(|images| images.len()));
        Self { failures: inputs.failures.len(), replay: inputs.replay.len(), guard }
    }

    /// Failures and replay that are held back, at most.
    fn held_back(self) -> [usize; 2] {
        [n_held(self.failures, usize::MAX), n_held(self.replay, MOST_HELD_REPLAY)]
    }

    /// Failures and replay that weights are trained on, at most.
    pub(super) fn trained(self) -> [usize; 2] {
        let [failures, replay] = self.held_back();
        [self.failures - failures, self.replay - replay]
    }

    /// Images of the largest set that is held back.
    pub(super) fn most_held(self) -> usize {
        self.held_back().into_iter().max().unwrap_or(0)
    }

    /// Images of the largest set whose features are taken.
    pub(super) fn most_cached(self) -> usize {
        self.trained().into_iter().max().unwrap_or(0).max(self.most_held())
    }

    /// Images of the largest set that the gate sees.
    pub(super) fn most_judged(self) -> usize {
        self.judged().into_iter().max().unwrap_or(0)
    }

    fn judged(self) -> [usize; 2] {
        self.guard.unwrap_or_else(|| self.held_back())
    }

    /// Images of each kind in the largest batch that batch norms are estimated from again.
    pub(super) fn re_estimated(self, infer_batch: usize) -> [usize; 2] {
        let [failures, replay] = self.trained();
        let batches = batch_norm::Batches::new(failures, replay, infer_batch);
        batches.largest()
    }

    /// Images of the largest set that trials see.
    pub(super) fn most_raced(self) -> usize {
        self.most_cached().min(race::IMAGES)
    }

    /// Bytes of labels, and of the answers of `candidates` trials, each on failures, surrogates and replay.
    pub(super) fn race_bytes(self, candidates: usize) -> usize {
        let sum = |[failures, replay]: [usize; 2]| failures.min(race::IMAGES) + 2 * replay.min(race::IMAGES);
        let (trained, held) = (sum(self.trained()), sum(self.held_back()));
        (trained + held) * RACED_BYTES + candidates * held * ANSWER_BYTES
    }

    /// Bytes of the lists of `views` views of each image that is trained on.
    pub(super) fn view_bytes(self, views: usize) -> usize {
        let [failures, replay] = self.trained();
        // Replay is there a second time, as the field would show it.
        (views - 1) * (failures + 2 * replay) * VIEW_BYTES
    }

    /// Bytes of the lists of all sets.
    pub(super) fn list_bytes(self) -> usize {
        (self.failures + self.replay) * IMAGE_BYTES + self.judged().iter().sum::<usize>() * JUDGED_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_as_large_as_their_split_makes_them() {
        let counts = Counts { failures: 100, replay: 3000, guard: None };
        assert_eq!((counts.trained(), counts.most_held()), ([80, 2600], 400));
        assert_eq!((counts.most_cached(), counts.most_judged()), (2600, 400));
        let guarded = Counts { guard: Some([10, 900]), ..counts };
        assert_eq!(guarded.most_judged(), 900);
        // 80 + 2 * 500 images to train on and 20 + 2 * 400 that judge two trials.
        assert_eq!((counts.most_raced(), counts.race_bytes(2)), (500, 1900 * 16 + 2 * 820 * 16));
        // 80 failures and as many replay images in batches of 64 at most.
        assert_eq!(counts.re_estimated(64), [27, 27]);
        assert_eq!(counts.re_estimated(1), [1, 1]);
    }
}
