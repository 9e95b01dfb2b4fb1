//! Whether programs did the same work: their losses and gradients side by side.
//!
//! 1. The first loss shows that all compute the same function. In `f32` it agrees within 1e-6.
//! 2. The norm of each trained tensor's gradient in the first step shows that all differentiate
//!    it, by every tensor. Losses alone do not: a program that never trains one gate moves the
//!    third loss by 2e-5.
//! 3. The second loss shows the update.
//!
//! Programs with another rule of update than the first one are not held to losses after it, nor to
//! gradients that they have not kept.
//!
//! The third is printed and not judged. Where a value stands within rounding of a ReLU's kink,
//! two programs may take different sides, and Adam moves a weight by its rate however small the
//! gradient is. PyTorch in `f64`, with noise of 1e-6 on its features, differs from itself by
//!
//! | | norms | second loss | third loss |
//! |---|---|---|---|
//! | wide32, layer2.0, batch 64 | 1.3e-3 | 1.2e-4 | 1.8e-3 |
//! | resnet50, layer3.0, batch 8 | 7.6e-4 | 4.4e-5 | 1.1e-2 |
//!
//! With a smooth activation in the place of ReLU, single entries of all gradients agree within
//! 3e-5 of the largest.

use std::fmt;

use crate::measured::Measured;

/// Losses that are compared.
const STEPS: usize = 3;
/// Relative differences that pass: first loss, norms of gradients, second and third loss.
const LIMITS: [f64; 4] = [1e-4, 0.05, 1e-3, f64::INFINITY];

/// The largest relative differences to the first program.
pub(crate) struct Proof {
    programs: usize,
    found: [f64; 4],
    /// The tensor whose gradients differ most.
    tensor: String,
}

impl Proof {
    pub(crate) fn new(programs: &[&Measured]) -> Self {
        let mut proof = Self { programs: programs.len(), found: [0.0; 4], tensor: String::new() };
        let Some((first, others)) = programs.split_first() else { return proof };
        for other in others {
            let is_same_rule = other.rule == first.rule;
            let steps = if is_same_rule { STEPS } else { 1 };
            for (i, (a, b)) in first.losses.iter().zip(&other.losses).take(steps).enumerate() {
                proof.note([0, 2, 3][i], difference(*a, *b));
            }
            if other.norms.is_empty() && !is_same_rule {
                continue;
            }
            for name in first.norms.keys().chain(other.norms.keys()) {
                let [a, b] = [first, other].map(|of| of.norms.get(name).copied().unwrap_or(f64::NAN));
                if proof.note(1, difference(a, b)) {
                    proof.tensor.clone_from(name);
                }
            }
        }
        proof
    }

    /// Keeps the difference if it is the largest of its kind so far.
    fn note(&mut self, kind: usize, difference: f64) -> bool {
        let is_larger = difference > self.found[kind];
        if is_larger {
            self.found[kind] = difference;
        }
        is_larger
    }

    /// Whether there was something to compare, and it agrees.
    pub(crate) fn holds(&self) -> bool {
        self.programs > 1 && self.found.iter().zip(LIMITS).all(|(found, limit)| *found <= limit)
    }
}

/// Relative difference; what is missing or NaN differs from everything.
fn difference(a: f64, b: f64) -> f64 {
    if a == b {
        return 0.0;
    }
    let relative = (a - b).abs() / a.abs().max(b.abs());
    if relative.is_nan() { f64::INFINITY } else { relative }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.programs < 2 {
            return write!(f, "{} program ran: nothing to compare", self.programs);
        }
        let [first, gradients, second, third] = self.found;
        let verdict = if self.holds() { "the same work" } else { "NOT the same work" };
        write!(
            f,
            "{verdict}: {} programs differ by at most {first:.1e} in the first loss, {gradients:.1e} in the \
             norm of a gradient{}, {second:.1e} in the second loss; {third:.1e} in the third is not judged",
            self.programs,
            if self.tensor.is_empty() { String::new() } else { format!(" ({})", self.tensor) },
        )
    }
}
