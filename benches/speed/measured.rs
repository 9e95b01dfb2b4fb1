//! What one program measured in one round.

use serde::{Deserialize, Serialize};

/// One line of JSON, the last that a program prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Seconds of each pass.
    pub(crate) times: Vec<f64>,
    /// `VmHWM` at the end, in bytes.
    pub(crate) vm_hwm: usize,
    /// Most bytes that the engine had allocated at once in the passes; where it counts them.
    pub(crate) engine_bytes: Option<usize>,
    /// Logits of the whole batch.
    pub(crate) logits: Vec<f32>,
}

impl Measured {
    /// Seconds of a pass.
    pub(crate) fn seconds(&self) -> f64 {
        median(&self.times)
    }
}

/// The number in the middle, of two the greater; NaN of none.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
