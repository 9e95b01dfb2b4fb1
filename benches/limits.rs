//! Whole repairs within limits: what was planned and what it took, phase by phase.
//!
//! ```text
//! cargo bench --bench limits -- --case resnet50:layer1.0 --limit 192MiB [--spare 40MiB]
//! ```
//!
//! Networks have random weights and images are noise, so the gate refuses what comes out: only
//! memory and time are looked at. Each repair is a process of its own. The bench fails when one
//! takes more than was planned, or ends otherwise than by the gate or by a limit that is too small.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

#[path = "footprint/base.rs"]
mod base;

use std::path::Path;
use std::process::{Command, ExitCode, Output};

use archrepair::data::{Images, idx};
use archrepair::report::{Table, units};
use archrepair::rng::Rng;
use archrepair::zoo::{Model, Overrides};
use clap::Parser;
use serde_json::Value;

#[derive(Parser)]
struct Arguments {
    /// NETWORK:BLOCK with a network of narrow28, wide32, resnet18 .. resnet152; repeatable
    #[arg(long = "case", default_value = "narrow28:layer1.0")]
    cases: Vec<String>,
    /// Limits of each case; `none` for a run without, which the factors of the others refer to
    #[arg(long, value_delimiter = ',', default_value = "none,12MiB")]
    limit: Vec<String>,
    /// Bytes that the system allows the process beyond the limit, by util-linux's `prlimit --data`;
    /// without it only the program's own limit holds
    #[arg(long, value_parser = units::parse_bytes)]
    spare: Option<usize>,
    /// Images that fail, and twice as many of replay
    #[arg(long, default_value_t = 30)]
    failures: usize,
    /// Steps of the search, and two more of training
    #[arg(long, default_value_t = 3)]
    steps: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut table =
        Table::new(&["case", "limit", "phase", "planned", "peak", "ratio", "seconds", "factor", "rss"])
            .legend("planned", "bytes the plan allows for; of `all`, its largest phase")
            .legend("peak", "most bytes that the engine had allocated at once")
            .legend("ratio", "planned over peak")
            .legend("factor", "time over that of the run without a limit")
            .legend("rss", "VmHWM of the process; at its end RssAnon and RssFile, mapped weights among them");
    let (mut sound, mut reasons) = (true, Vec::new());
    for case in &arguments.cases {
        let (network, block) = case.split_once(':').unwrap_or((case, "layer1.0"));
        let folder = tempfile::tempdir().unwrap();
        if let Err(error) = write(folder.path(), network, arguments.failures) {
            eprintln!("{case}: {error}");
            return ExitCode::FAILURE;
        }
        let mut unlimited = None;
        for limit in &arguments.limit {
            let output = repair(folder.path(), (block, limit), &arguments);
            match report(&output) {
                Ok(report) => sound &= rows(&mut table, (case, limit), &report, &mut unlimited),
                Err(why) => {
                    sound &= output.status.code() == Some(30);
                    table.row([case.clone(), limit.clone(), "none, see below".into()]);
                    reasons.push(format!("  {case}, {limit}: {why}"));
                }
            }
        }
    }
    println!("{table}\n{}", reasons.join("\n"));
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes the model and two sets of noise.
fn write(folder: &Path, network: &str, failures: usize) -> archrepair::Result<()> {
    let path = folder.join("model.safetensors");
    base::write(network, &path)?;
    let network = Model::open(&path, &Overrides::default())?.network;
    let shape = [0, 1, 2].map(|i| network.input.shape[i]);
    for (seed, (name, n)) in [("failures", failures), ("replay", 2 * failures)].into_iter().enumerate() {
        let rng = &mut Rng::new(seed as u64);
        let pixels = (0..n * shape.iter().product::<usize>()).map(|_| rng.below(256) as u8).collect();
        // A byte holds the label.
        let labels = (0..n).map(|_| rng.below(network.classes.min(256)) as u32).collect();
        let (images, labels) = idx::encode(&Images::from_parts(shape, pixels, labels, name)?)?;
        let set = folder.join(name);
        std::fs::create_dir(&set).unwrap();
        std::fs::write(set.join("images-idx3-ubyte.gz"), images).unwrap();
        std::fs::write(set.join("labels-idx1-ubyte.gz"), labels).unwrap();
    }
    Ok(())
}

fn repair(folder: &Path, (block, limit): (&str, &str), arguments: &Arguments) -> Output {
    let program = env!("CARGO_BIN_EXE_archrepair");
    let bytes = units::parse_bytes(limit).ok();
    let mut command = match (arguments.spare, bytes) {
        (Some(spare), Some(bytes)) => {
            let mut command = Command::new("prlimit");
            command.arg(format!("--data={}", bytes + spare)).arg(program);
            command
        }
        _ => Command::new(program),
    };
    command.current_dir(folder).env("TMPDIR", folder);
    command.args(["repair", "model.safetensors", "--failures", "failures", "--replay", "replay", "--json"]);
    command.args(["--level", &format!("block:{block}"), "--out", "out.patch"]);
    let Arguments { steps, threads, .. } = arguments;
    for (flag, n) in [("--search-steps", *steps), ("--steps", steps + 2), ("--threads", *threads)] {
        command.args([flag, &n.to_string()]);
    }
    if bytes.is_some() {
        command.args(["--memory", limit]);
    }
    command.output().unwrap()
}

/// The report of a repair that came to the gate, or why there is none.
fn report(output: &Output) -> Result<Value, String> {
    if matches!(output.status.code(), Some(0 | 3)) {
        return serde_json::from_slice(&output.stdout).map_err(|error| error.to_string());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", output.status, said.lines().last().unwrap_or_default()))
}

/// A row for each phase and one for all; whether the plan was kept.
fn rows(table: &mut Table, (case, limit): (&str, &str), report: &Value, unlimited: &mut Option<f64>) -> bool {
    let number = |value: &Value| value.as_u64().unwrap_or(0) as usize;
    let mut row = |phase: &str, [planned, peak]: [usize; 2], seconds: f64, [factor, rss]: [String; 2]| {
        table.row([
            case.into(),
            limit.into(),
            phase.into(),
            units::bytes(planned),
            units::bytes(peak),
            format!("{:.3}", planned as f64 / peak as f64),
            format!("{seconds:.1}"),
            factor,
            rss,
        ]);
        peak <= planned
    };
    let mut kept = true;
    let mut all = 0.0;
    for phase in report["phases"].as_array().unwrap() {
        let seconds = phase["seconds"].as_f64().unwrap();
        let bytes = [&phase["planned_bytes"], &phase["peak_bytes"]].map(number);
        kept &= row(phase["phase"].as_str().unwrap(), bytes, seconds, Default::default());
        all += seconds;
    }
    if limit == "none" {
        *unlimited = Some(all);
    }
    let [hwm, anon, file] =
        ["vm_hwm", "rss_anon", "rss_file"].map(|name| units::bytes(number(&report["process"][name])));
    let factor = unlimited.map_or_else(String::new, |unlimited| format!("{:.2}", all / unlimited));
    let bytes = [&report["plan"]["peak"], &report["peak_bytes"]].map(number);
    kept & row("all", bytes, all, [factor, format!("{hwm}; {anon} + {file}")])
}
