//! One program at a time, each in a process of its own, so that no peak is another's.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use archrepair::report::units;
use serde::de::DeserializeOwned;

/// When a program is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Time it may take.
    pub(crate) patience: Duration,
    /// Bytes that must be left to the machine: the kernel would choose whom to kill, and might
    /// choose another.
    pub(crate) spare: usize,
    /// Time between two looks, each of which takes a little from the program that runs.
    pub(crate) every: Duration,
}

/// Has the program compute on this many threads, whichever variable it listens to.
pub(crate) fn set_threads(command: &mut Command, threads: usize) {
    for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
        command.env(name, threads.to_string());
    }
}

/// Runs `command` to its end and reads what it measured, JSON in the last line it prints; or says in a
/// few words why there is nothing. Its output lies in `folder`. `watch` is given the process's id at
/// each look.
pub(crate) fn measure<M: DeserializeOwned>(
    command: Command,
    folder: &Path,
    bounds: Bounds,
    watch: impl FnMut(u32),
) -> Result<M, String> {
    let out = run(command, folder, bounds, watch)?;
    let line = out.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|e| format!("no figures: {e}"))
}

/// As [`measure`], and returns all that the program prints.
pub(crate) fn run(
    mut command: Command,
    folder: &Path,
    bounds: Bounds,
    watch: impl FnMut(u32),
) -> Result<String, String> {
    let [out, err] = ["out", "err"].map(|name| folder.join(name));
    let create = |path: &Path| File::create(path).map_err(|e| e.to_string());
    command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|e| format!("cannot start {program}: {e}"))?;
    let status = wait(&mut child, bounds, watch)?;
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    if status.success() { Ok(text(&out)) } else { Err(why(status, &text(&err))) }
}

/// Waits and watches, and ends the process at a bound.
fn wait(child: &mut Child, bounds: Bounds, mut watch: impl FnMut(u32)) -> Result<ExitStatus, String> {
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
        watch(child.id());
        std::thread::sleep(bounds.every);
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
pub(crate) fn kib(text: &str, name: &str) -> Option<usize> {
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
