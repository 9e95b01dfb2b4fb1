//! Whether programs computed the same: norms of output and gradients side by side.

use std::fmt;

use crate::measured::{Backprop, Measured};

/// The largest relative difference that passes.
const LIMIT: f64 = 1e-4;

/// The largest relative difference of any norm in any round.
pub(crate) struct Proof(f64);

impl Proof {
    pub(crate) fn new(own: &[Measured], peer: &[Backprop]) -> Self {
        let both = own.iter().zip(peer);
        let of = |(own, peer): (&Measured, &Backprop)| {
            let norms = own.norms.unwrap_or([f64::NAN; 3]).into_iter().zip(peer.norms);
            norms.map(|(a, b)| (a - b).abs() / b).fold(0.0, worst)
        };
        Self(both.map(of).fold(0.0, worst))
    }

    pub(crate) fn holds(&self) -> bool {
        self.0 <= LIMIT
    }
}

/// What is NaN differs from everything.
fn worst(worst: f64, found: f64) -> f64 {
    if found.is_nan() { f64::INFINITY } else { worst.max(found) }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let verdict = if self.holds() { "the same" } else { "NOT the same" };
        write!(f, "{verdict}: norms differ by at most {:.1e}", self.0)
    }
}
