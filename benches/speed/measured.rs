//! What one program measured in one round.

use serde::{Deserialize, Serialize};

use crate::ratio::median;
use crate::rounds::Timed;

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

impl Timed for Measured {
    /// Seconds of a pass.
    fn seconds(&self) -> f64 {
        median(&self.times)
    }
}
