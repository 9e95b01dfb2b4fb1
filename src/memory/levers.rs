//! How a run trades time for memory.

use serde::Serialize;

use crate::engine::checkpoint::Depth;
use crate::engine::optim::Rule;

/// Settings that change what a run holds at once.
///
/// `depth` and `mapped` change no bit of the result. Another `micro_batch` sums gradients in
/// another order, `infer_batch` below 64 estimates batch-norm statistics from smaller batches,
/// `by_path` changes how a search goes, `grouped` what it looks at, `stateless` and `streamed` how
/// weights are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Levers {
    /// Images whose gradients are taken at once, 1 at least.
    pub micro_batch: usize,
    /// What the trained part computes again in its backward pass.
    pub depth: Depth,
    /// Images that run together where nothing is trained, 1 at least.
    pub infer_batch: usize,
    /// Whether a search trains one alternative at each position at a time; the others wait in a file.
    pub by_path: bool,
    /// Whether alternatives of a search have few weights: they see channels in groups.
    pub grouped: bool,
    /// Whether frozen weights stay in the model file and are widened at each use.
    pub mapped: bool,
    /// Whether the optimizer keeps no state.
    pub stateless: bool,
    /// Whether each micro-batch changes the weights by itself, at its share of the rate, so that no
    /// gradient is kept.
    pub streamed: bool,
}

impl Levers {
    /// As fast as it goes: nothing is traded.
    pub const FASTEST: Self = Self {
        micro_batch: usize::MAX,
        depth: Depth::Nothing,
        infer_batch: 64,
        by_path: false,
        grouped: false,
        mapped: false,
        stateless: false,
        streamed: false,
    };

    /// With as little memory as it goes; what is computed again is for the planner to choose.
    pub const LEANEST: Self = Self {
        micro_batch: 1,
        depth: Depth::Segments,
        infer_batch: 1,
        by_path: true,
        grouped: true,
        mapped: true,
        stateless: true,
        streamed: true,
    };

    /// Whether each gradient changes its tensor as soon as it is there: that of the whole of
    /// `batch` images, or of each micro-batch by itself.
    #[must_use]
    pub fn steps_at_once(&self, batch: usize) -> bool {
        self.streamed || self.micro_batch >= batch
    }

    /// The optimizer's rule for the weights of a part.
    #[must_use]
    pub fn rule(&self) -> Rule {
        if self.stateless { Rule::Normalized } else { Rule::ADAM }
    }
}

impl Default for Levers {
    fn default() -> Self {
        Self::FASTEST
    }
}
