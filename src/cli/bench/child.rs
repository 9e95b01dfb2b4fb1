//! This program in processes of its own, so that no peak is another's.

use std::process::{Command, Output};

use serde::Deserialize;

use crate::cli::REFUSED;
use crate::error::{Error, Result};
use crate::memory::ProcessMemory;
use crate::report::footprint::Row;

/// Exit status of a limit that is too small.
const TOO_SMALL: i32 = 30;

/// This program; with `data_limit` it gets no more bytes of data from the system.
pub(super) fn program(data_limit: Option<usize>) -> Result<Command> {
    let own = std::env::current_exe().map_err(Error::file("find", "this program".as_ref()))?;
    let Some(bytes) = data_limit else { return Ok(Command::new(own)) };
    let mut command = Command::new(PRLIMIT);
    command.arg(format!("--data={bytes}")).arg(own);
    Ok(command)
}

const PRLIMIT: &str = "prlimit";

/// Checks that the system can limit processes.
pub(super) fn check_prlimit() -> Result<()> {
    let ran = Command::new(PRLIMIT).arg("--version").output();
    if cfg!(target_os = "linux") && ran.is_ok_and(|ran| ran.status.success()) {
        return Ok(());
    }
    let want = "a Linux system with the program prlimit of util-linux; leave --spare out without it";
    Err(Error::Config { field: "spare", got: "given".into(), want: want.into() })
}

/// Runs it to its end.
pub(super) fn run(mut command: Command) -> Result<Output> {
    let name = command.get_program().to_owned();
    command.output().map_err(Error::file("start", name.as_ref()))
}

/// The report of a repair, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Report {
    plan: Plan,
    peak_bytes: usize,
    phases: Vec<Phase>,
    process: Option<ProcessMemory>,
}

#[derive(Debug, Deserialize)]
struct Plan {
    peak: usize,
}

#[derive(Debug, Deserialize)]
struct Phase {
    phase: String,
    planned_bytes: Option<usize>,
    peak_bytes: usize,
    seconds: f64,
}

/// The rows of a repair: its phases and the whole, or how it ended.
pub(super) fn repair(output: &Output, run: &Row) -> Vec<Row> {
    let code = output.status.code();
    if code != Some(0) && code != Some(REFUSED.into()) {
        return vec![ended(output, run)];
    }
    match serde_json::from_slice(&output.stdout) {
        Ok(report) => phases(&report, run),
        Err(error) => vec![failed(format!("its report cannot be read: {error}"), run)],
    }
}

/// The rows of a process that prints them, or how it ended.
pub(super) fn rows(output: &Output) -> Vec<Row> {
    if !output.status.success() {
        return vec![ended(output, &Row::default())];
    }
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| vec![failed(format!("its rows cannot be read: {error}"), &Row::default())])
}

fn phases(report: &Report, run: &Row) -> Vec<Row> {
    let phase = |of: &Phase| Row {
        phase: of.phase.clone(),
        planned_bytes: of.planned_bytes,
        peak_bytes: Some(of.peak_bytes),
        seconds: Some(of.seconds),
        ..run.clone()
    };
    let all = Row {
        phase: "all".into(),
        planned_bytes: Some(report.plan.peak),
        peak_bytes: Some(report.peak_bytes),
        seconds: Some(report.phases.iter().map(|phase| phase.seconds).sum()),
        process: report.process,
        ..run.clone()
    };
    report.phases.iter().map(phase).chain([all]).map(Row::judged).collect()
}

/// A process without a report: a limit that is too small is as good an end as another.
fn ended(output: &Output, run: &Row) -> Row {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = stderr.lines().next().unwrap_or_default().trim_start_matches("error: ");
    if output.status.code() == Some(TOO_SMALL) {
        let (phase, reason) = ("refused".into(), Some(said.into()));
        return Row { phase, planned_bytes: least(said), reason, ..run.clone() };
    }
    failed(format!("{}: {said}", output.status), run)
}

fn failed(reason: String, run: &Row) -> Row {
    Row { phase: "failed".into(), kept: false, reason: Some(reason), ..run.clone() }
}

/// The least limit that an [`Error::Limit`] names.
fn least(said: &str) -> Option<usize> {
    let (_, named) = said.split_once("the least that would do is ")?;
    named.split_once(',')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_stands_in_the_refusal() {
        let error = Error::Limit { what: "the repair".into(), limit: 1000, least: 4096 };
        assert_eq!(least(&error.to_string()), Some(4096));
        assert_eq!(i32::from(error.code()), TOO_SMALL);
        assert_eq!(least("killed"), None);
    }
}
