//! What one program measured: one line of JSON, the last it prints.

use serde::{Deserialize, Serialize};

use crate::rounds::Timed;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// From opening the files to the repaired weights.
    pub(crate) seconds: f64,
    /// `VmHWM` at that moment, in bytes.
    pub(crate) vm_hwm: usize,
    /// Most bytes that the engine had allocated at once; where it counts them.
    pub(crate) engine_bytes: Option<usize>,
    /// Loss of each step of weights, in a search and then in training.
    pub(crate) losses: Vec<f64>,
    /// Share of held-back failures and of held-back replay that the repaired network gets right.
    pub(crate) right: [f64; 2],
    /// From the start of the process to its end, as seen from outside.
    #[serde(default)]
    pub(crate) process_seconds: f64,
}

impl Timed for Measured {
    fn seconds(&self) -> f64 {
        self.seconds
    }
}
