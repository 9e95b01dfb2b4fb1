//! Where a subcommand writes: results to standard output, progress to standard error.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use candle_core::Device;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::Global;
use crate::device;
use crate::error::{Error, Result};
use crate::report::units;

/// Prints results and shows progress.
#[derive(Debug)]
pub struct Console {
    json: bool,
}

impl Console {
    /// The console that the global flags ask for.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        Self { json: global.json }
    }

    /// Prints `text`, or `value` as one JSON object with `--json`.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when standard output is closed.
    pub fn result(&self, text: &str, value: &serde_json::Value) -> Result<()> {
        let line = if self.json { value.to_string() } else { text.trim_end().to_owned() };
        let written = writeln!(std::io::stdout().lock(), "{line}");
        written.map_err(Error::file("write to", Path::new("standard output")))
    }

    /// Says on standard error what is being done, in plain text mode.
    pub fn note(&self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Prints a result as [`Console::result`] does, and what tensors took on `device` where it is known:
    /// in the object, or as a note.
    ///
    /// # Errors
    ///
    /// As [`Console::result`]; [`Error::Tensor`] when the device does not answer.
    pub fn result_on(&self, device: &Device, text: &str, mut value: serde_json::Value) -> Result<()> {
        if let Some(memory) = device::memory(device)? {
            value["device_memory"] = json!(memory);
            let [used, reserved] = [memory.used, memory.reserved].map(units::bytes);
            self.note(&format!("on the device at most {used} in tensors, {reserved} reserved"));
        }
        self.result(text, &value)
    }

    /// A bar of `steps`: drawn on a terminal, silent elsewhere.
    #[must_use]
    pub fn bar(&self, steps: usize, what: &str) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(steps as u64).with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{msg:<28} {wide_bar} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
