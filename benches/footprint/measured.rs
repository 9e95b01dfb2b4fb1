//! What one program measured: its steps, and what shows that they are the same as another's.

use std::collections::BTreeMap;
use std::time::Duration;

use archrepair::memory::meter;
use candle_core::{Storage, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::process::kib;
use crate::ratio::median;

/// What a program says about its steps: one line of JSON, the last it prints. Bytes and seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// `VmHWM` with everything loaded, before the first step.
    pub(crate) loaded: usize,
    /// `VmHWM` at the end.
    pub(crate) vm_hwm: usize,
    /// Most bytes that were expected to be allocated at once; where someone plans.
    pub(crate) said: Option<usize>,
    /// Most bytes that were; where the program counts them.
    pub(crate) engine_peak: Option<usize>,
    /// How gradients change weights.
    pub(crate) rule: String,
    /// What was seen from outside.
    #[serde(skip)]
    pub(crate) seen: Seen,
    /// Median time of a step.
    pub(crate) seconds: f64,
    /// Loss of each step, before its update.
    pub(crate) losses: Vec<f64>,
    /// Norm of the gradient of each trained tensor in the first step.
    pub(crate) norms: BTreeMap<String, f64>,
    /// Time of each step; not printed.
    #[serde(skip)]
    times: Vec<f64>,
}

impl Measured {
    /// Everything is loaded.
    pub(crate) fn start(rule: &str) -> Self {
        let loaded = meter::process().map_or(0, |memory| memory.vm_hwm);
        Self {
            loaded,
            vm_hwm: 0,
            said: None,
            engine_peak: None,
            rule: rule.into(),
            seen: Seen::default(),
            seconds: 0.0,
            losses: Vec::new(),
            norms: BTreeMap::new(),
            times: Vec::new(),
        }
    }

    /// What the steps added to the peak.
    pub(crate) fn grown(&self) -> usize {
        self.vm_hwm.saturating_sub(self.loaded)
    }

    /// Notes the gradient of `name` that `tensor` is a `share` of, in the first step alone. Its numbers
    /// are read where they are, if they stand in order: a copy would count as what the step needs.
    pub(crate) fn gradient(&mut self, name: &str, tensor: &Tensor, share: f64) -> candle_core::Result<()> {
        if self.losses.is_empty() {
            let tensor = tensor.contiguous()?;
            let (storage, layout) = tensor.storage_and_layout();
            let Storage::Cpu(numbers) = &*storage else { bail!("a gradient that is not on the CPU") };
            let numbers = &numbers.as_slice::<f32>()?[layout.start_offset()..][..tensor.elem_count()];
            let squares = numbers.iter().map(|value| f64::from(*value).powi(2));
            self.norms.insert(name.into(), squares.sum::<f64>().sqrt() / share);
        }
        Ok(())
    }

    /// A step is done.
    pub(crate) fn step(&mut self, time: Duration, loss: f64) {
        self.times.push(time.as_secs_f64());
        self.losses.push(loss);
    }

    /// All steps are done.
    pub(crate) fn end(mut self) -> Self {
        self.seconds = median(&self.times);
        if let Some(memory) = meter::process() {
            self.vm_hwm = memory.vm_hwm;
        }
        self
    }
}

/// What a process held, looked at every few milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Most of `RssAnon`: heap and stacks.
    pub(crate) anonymous: usize,
    /// Most of `RssFile`: pages of libraries, of mapped weights and features.
    pub(crate) files: usize,
}

impl Seen {
    /// Looks at the process of this id.
    pub(crate) fn look(&mut self, id: u32) {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        self.anonymous = self.anonymous.max(kib(&status, "RssAnon:").unwrap_or(0));
        self.files = self.files.max(kib(&status, "RssFile:").unwrap_or(0));
    }
}
