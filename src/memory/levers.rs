//! How a run trades time for memory: what the planner decides and everything after it obeys.

use serde::Serialize;

use crate::engine::checkpoint::Depth;

/// Settings that change what a run holds at once.
///
/// `depth`, and `micro_batch` between sets of the same size, change no bit of the result where
/// sums stay in one order; smaller micro-batches sum gradients in another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Levers {
    /// Images whose gradients are taken at once, 1 at least.
    pub micro_batch: usize,
    /// What the trained part computes again in its backward pass.
    pub depth: Depth,
    /// Images that run together where nothing is trained, 1 at least.
    pub infer_batch: usize,
    /// Whether frozen weights stay in the model file and are widened when an operation reads
    /// them.
    pub mapped: bool,
    /// Whether the optimizer keeps no state.
    pub stateless: bool,
    /// Whether alternatives of a search have few weights: they see channels in groups.
    pub grouped: bool,
}

impl Levers {
    /// As fast as it goes: nothing is traded.
    pub const FASTEST: Self = Self {
        micro_batch: usize::MAX,
        depth: Depth::Nothing,
        infer_batch: 64,
        mapped: false,
        stateless: false,
        grouped: false,
    };
}

impl Default for Levers {
    fn default() -> Self {
        Self::FASTEST
    }
}
