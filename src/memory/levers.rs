//! How a run trades time for memory.

use serde::Serialize;

use crate::engine::checkpoint::Depth;

/// Settings that change what a run holds at once.
///
/// `depth` changes no bit of the result. Another `micro_batch` sums gradients in another order,
/// and `grouped` changes what is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Levers {
    /// Images whose gradients are taken at once, 1 at least.
    pub micro_batch: usize,
    /// What the trained part computes again in its backward pass.
    pub depth: Depth,
    /// Images that run together where nothing is trained, 1 at least.
    pub infer_batch: usize,
    /// Whether alternatives of a search have few weights: they see channels in groups.
    pub grouped: bool,
}

impl Levers {
    /// As fast as it goes: nothing is traded.
    pub const FASTEST: Self =
        Self { micro_batch: usize::MAX, depth: Depth::Nothing, infer_batch: 64, grouped: false };
}

impl Default for Levers {
    fn default() -> Self {
        Self::FASTEST
    }
}
