//! Whether programs did the same work: their logits side by side.

use std::fmt;

use crate::Rounds;

/// The largest difference of two logits over the largest logit that passes.
const LIMIT: f64 = 1e-3;

/// How far logits are from those of the first program that ran.
pub(crate) struct Proof {
    programs: usize,
    /// The largest difference, and between whom.
    found: f64,
    between: String,
}

impl Proof {
    pub(crate) fn new(all: &[Rounds]) -> Self {
        let ran: Vec<&Rounds> = all.iter().filter(|rounds| !rounds.done.is_empty()).collect();
        let mut proof = Self { programs: ran.len(), found: 0.0, between: String::new() };
        let Some(first) = ran.first() else { return proof };
        for rounds in &ran {
            for measured in &rounds.done {
                let found = difference(&first.done[0].logits, &measured.logits);
                if found > proof.found {
                    proof.found = found;
                    proof.between = format!("{} and {}", first.program, rounds.program);
                }
            }
        }
        proof
    }

    /// Whether all that ran agree.
    pub(crate) fn holds(&self) -> bool {
        self.found <= LIMIT
    }
}

/// The largest difference over the largest number of `a`; what is missing or NaN differs from
/// everything.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let largest = a.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max);
    let differences = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs() / largest);
    let all_there = a.len() == b.len() && !a.is_empty();
    let worst = |worst: f64, x: f64| if x.is_nan() { f64::INFINITY } else { worst.max(x) };
    if all_there { differences.fold(0.0, worst) } else { f64::INFINITY }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.programs < 2 {
            return write!(f, "{} program ran: nothing to compare", self.programs);
        }
        let verdict = if self.holds() { "the same work" } else { "NOT the same work" };
        write!(
            f,
            "{verdict}: {} programs differ by at most {:.1e} of the largest logit",
            self.programs, self.found
        )?;
        if self.between.is_empty() { Ok(()) } else { write!(f, " ({})", self.between) }
    }
}
