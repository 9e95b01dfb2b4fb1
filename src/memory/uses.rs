//! What bytes are for.

use serde::Serialize;

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Tensors of the network, at rest or widened for one operation.
    Weights,
    /// Values on their way through the network.
    Values,
    /// What operations keep for their backward pass besides values.
    Kept,
    /// Gradients.
    Gradients,
    /// State of the optimizer.
    Optimizer,
    /// What an operation needs while it runs.
    Scratch,
    /// Images, labels, targets.
    Data,
}

impl Use {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Weights,
        Self::Values,
        Self::Kept,
        Self::Gradients,
        Self::Optimizer,
        Self::Scratch,
        Self::Data,
    ];

    /// One word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Values => "values",
            Self::Kept => "kept",
            Self::Gradients => "gradients",
            Self::Optimizer => "optimizer",
            Self::Scratch => "scratch",
            Self::Data => "data",
        }
    }
}
