//! One program at a time, each in a process of its own, so that no peak is another's.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use archrepair::memory::meter;
use archrepair::report::units;
use candle_core::{Storage, Tensor, bail};
use serde::{Deserialize, Serialize};

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
        self.times.sort_by(f64::total_cmp);
        self.seconds = self.times[self.times.len() / 2];
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
    /// Looks at the process `id`.
    fn look(&mut self, id: u32) {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        self.anonymous = self.anonymous.max(kib(&status, "RssAnon:").unwrap_or(0));
        self.files = self.files.max(kib(&status, "RssFile:").unwrap_or(0));
    }
}

/// When a program is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Time it may take.
    pub(crate) patience: Duration,
    /// Bytes that must be left to the machine: the kernel would choose whom to kill, and might
    /// choose another.
    pub(crate) spare: usize,
}

/// Runs `command` and reads what it measured, or says in a few words why there is nothing.
pub(crate) fn measure(mut command: Command, folder: &Path, bounds: Bounds) -> Result<Measured, String> {
    let [out, err] = ["out", "err"].map(|name| folder.join(name));
    let create = |path: &Path| File::create(path).map_err(|e| e.to_string());
    command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|e| format!("cannot start {program}: {e}"))?;
    let mut seen = Seen::default();
    let status = wait(&mut child, &mut seen, bounds)?;
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    if !status.success() {
        return Err(why(status, &text(&err)));
    }
    let line = text(&out).lines().last().unwrap_or_default().to_owned();
    let measured: Measured = serde_json::from_str(&line).map_err(|e| format!("no figures: {e}"))?;
    Ok(Measured { seen, ..measured })
}

/// Waits and watches, and ends the process at a bound.
fn wait(child: &mut Child, seen: &mut Seen, bounds: Bounds) -> Result<ExitStatus, String> {
    let start = Instant::now();
    let problem = loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(error) => break error.to_string(),
        }
        if start.elapsed() > bounds.patience {
            break format!("not done after {} s", bounds.patience.as_secs());
        }
        if available().is_some_and(|bytes| bytes < bounds.spare) {
            break format!("ended: less than {} of memory was left", units::bytes(bounds.spare));
        }
        seen.look(child.id());
        std::thread::sleep(Duration::from_millis(5));
    };
    // It may have ended by itself meanwhile; either way there is nothing to add to the problem.
    let _ = child.kill().and_then(|()| child.wait());
    Err(problem)
}

/// Bytes that the machine can still give.
fn available() -> Option<usize> {
    kib(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Bytes in a line such as `VmHWM:      1234 kB`.
fn kib(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
}

/// The last thing a program said, in one line that fits a table.
fn why(status: ExitStatus, err: &str) -> String {
    use std::os::unix::process::ExitStatusExt;

    if status.signal() == Some(9) {
        return "killed: out of memory?".into();
    }
    let said = err.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let short: String = said.trim().chars().take(70).collect();
    if short.is_empty() { status.to_string() } else { short }
}
