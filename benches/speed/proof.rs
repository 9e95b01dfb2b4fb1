//! Whether programs did the same work: their logits side by side.

use std::fmt;

use crate::Rounds;

/// The largest difference of two logits over the largest logit that passes.
const LIMIT: f64 = 1e-3;

/// The same with pixels and weights of 8 bits of mantissa, through tens of layers of random weights.
const LIMIT_BF16: f64 = 2e-1;

/// How far logits are from those of the first program that ran.
pub(crate) struct Proof {
    programs: usize,
    /// The largest difference, and between whom: of `f32`, and of `bf16`.
    found: [(f64, String); 2],
}

impl Proof {
    pub(crate) fn new(all: &[Rounds]) -> Self {
        let ran: Vec<&Rounds> = all.iter().filter(|rounds| !rounds.done.is_empty()).collect();
        let mut proof = Self { programs: ran.len(), found: Default::default() };
        let Some(first) = ran.first() else { return proof };
        for rounds in &ran {
            for measured in &rounds.done {
                let difference = difference(&first.done[0].logits, &measured.logits);
                let found = &mut proof.found[usize::from(rounds.program.is_bf16())];
                if difference > found.0 {
                    *found = (difference, format!(" ({} and {})", first.program, rounds.program));
                }
            }
        }
        proof
    }

    /// Whether all that ran agree.
    pub(crate) fn holds(&self) -> bool {
        self.found[0].0 <= LIMIT && self.found[1].0 <= LIMIT_BF16
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
        let [(found, between), (of_bf16, bf16)] = &self.found;
        write!(
            f,
            "{verdict}: {} programs differ by at most {found:.1e} of the largest logit{between}",
            self.programs
        )?;
        if bf16.is_empty() { Ok(()) } else { write!(f, ", in bf16 by {of_bf16:.1e}{bf16}") }
    }
}
