//! Whether programs did the same work: their losses side by side.
//!
//! The first loss shows that all compute the same function of the same images, with the same opinions of
//! the deployed network; the second shows the update. They are held to [`LIMIT`] and not to rounding of
//! `f32`, since this library keeps features in halves and PyTorch as they are. Later losses drift apart
//! as those of any two programs do (see the footprint bench); their mean over the last tenth of all
//! steps is printed, and what the repaired networks get right, and not judged.

use std::fmt;

use crate::Rounds;

/// Losses that are judged.
const JUDGED: usize = 2;
/// The largest relative difference that passes.
const LIMIT: f64 = 1e-3;

/// How far losses are from those of the first program that ran.
pub(crate) struct Proof {
    programs: usize,
    /// The largest relative difference of a judged loss.
    judged: f64,
    /// The same of the mean of the last losses.
    last: f64,
}

impl Proof {
    pub(crate) fn new(all: &[Rounds]) -> Self {
        let ran: Vec<&[f64]> = all.iter().filter_map(|of| Some(&*of.done.first()?.losses)).collect();
        let mut proof = Self { programs: ran.len(), judged: 0.0, last: 0.0 };
        let Some((first, others)) = ran.split_first() else { return proof };
        for other in others {
            let judged = first.iter().zip(*other).take(JUDGED).map(|(a, b)| difference(*a, *b));
            let is_complete = first.len() == other.len();
            proof.judged = judged.fold(if is_complete { proof.judged } else { f64::INFINITY }, f64::max);
            proof.last = proof.last.max(difference(end(first), end(other)));
        }
        proof
    }

    /// Whether all that ran agree.
    pub(crate) fn holds(&self) -> bool {
        self.judged <= LIMIT
    }
}

/// The mean of the last tenth.
fn end(losses: &[f64]) -> f64 {
    let last = &losses[losses.len() - losses.len().div_ceil(10)..];
    last.iter().sum::<f64>() / last.len() as f64
}

/// Relative difference; NaN differs from everything.
fn difference(a: f64, b: f64) -> f64 {
    let relative = (a - b).abs() / a.abs().max(b.abs());
    if relative.is_nan() { f64::INFINITY } else { relative }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.programs < 2 {
            return write!(f, "{} program ran: nothing to compare", self.programs);
        }
        let verdict = if self.holds() { "the same work" } else { "NOT the same work" };
        write!(
            f,
            "{verdict}: {} programs differ by at most {:.1e} in the first {JUDGED} losses; {:.1e} in the mean of \
             the last is not judged",
            self.programs, self.judged, self.last
        )
    }
}
