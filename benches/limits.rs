//! Whole repairs of networks of the field within limits: `archrepair bench footprint` on models
//! with random weights, made here.
//!
//! ```text
//! cargo bench --bench limits -- --case resnet50:layer1.0 --limit 192MiB [--spare 40MiB]
//! cargo bench --bench limits -- --case narrow28:all,wide32:all --limit none,48MiB,24MiB,12MiB
//! ```
//!
//! The bench fails when a repair takes more than was planned, or ends otherwise than by the gate or
//! by a limit that is too small. The last lines say how near the plans were.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

#[path = "shared/base.rs"]
mod base;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use archrepair::report::footprint::{Row, text};
use archrepair::zoo::{Model, Overrides};
use clap::Parser;
use serde::Deserialize;

#[derive(Parser)]
struct Arguments {
    /// NETWORK:BLOCK with a network of narrow28, wide32, resnet18 .. resnet152, and a block or `all`
    #[arg(long = "case", value_delimiter = ',', default_value = "narrow28:layer1.0")]
    cases: Vec<String>,
    /// Limits of each case; `none` for a run without, which the factors of the others refer to
    #[arg(long, default_value = "none,12MiB")]
    limit: String,
    /// Bytes that the system allows the process beyond the limit, by util-linux's `prlimit --data`;
    /// without it only the program's own limit holds
    #[arg(long)]
    spare: Option<String>,
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

/// What `bench footprint --json` prints.
#[derive(Deserialize)]
struct Report {
    rows: Vec<Row>,
}

/// A plan is near when it is at most this many times the peak.
const NEAR: f64 = 1.05;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (mut rows, mut kept) = (Vec::new(), true);
    for case in &arguments.cases {
        let (network, block) = case.split_once(':').unwrap_or((case, "layer1.0"));
        match measure(network, block, &arguments) {
            Ok((own, ended_well)) => {
                println!("{network}\n{}\n", text(&own));
                rows.extend(own);
                kept &= ended_well;
            }
            Err(error) => {
                eprintln!("{case}: {error}");
                kept = false;
            }
        }
    }
    println!("{}", summary(&rows));
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The rows of one network, and whether all plans were kept.
fn measure(network: &str, block: &str, arguments: &Arguments) -> archrepair::Result<(Vec<Row>, bool)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    base::write(network, &path)?;
    let Arguments { limit, spare, failures, steps, threads, .. } = arguments;
    let mut command = Command::new(env!("CARGO_BIN_EXE_archrepair"));
    command.current_dir(folder.path()).env("TMPDIR", folder.path()).stderr(Stdio::inherit());
    command.args(["bench", "footprint", "model.safetensors", "--json", "--memory", limit]);
    command.args(levels(&path, block)?).args(spare.as_ref().map(|bytes| format!("--spare={bytes}")));
    for (flag, n) in [("--failures", failures), ("--steps", steps), ("--threads", threads)] {
        command.args([flag, &n.to_string()]);
    }
    let output = command.output().unwrap();
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    Ok((report.rows, output.status.success()))
}

/// An argument for each block that is meant.
fn levels(model: &Path, block: &str) -> archrepair::Result<Vec<String>> {
    let network = Model::open(model, &Overrides::default())?.network;
    let is_meant = |name: &str| block == "all" || block == name;
    let names = network.blocks().map(|part| part.name.as_str()).filter(|name| is_meant(name));
    Ok(names.map(|name| format!("--level=block:{name}")).collect())
}

/// How many repairs ended, and how near their plans were to what they took.
fn summary(rows: &[Row]) -> String {
    let repairs = rows.iter().filter(|row| row.phase == "all");
    let bytes = repairs.filter_map(|row| row.planned_bytes.zip(row.peak_bytes));
    let ratios: Vec<f64> = bytes.map(|(planned, peak)| planned as f64 / peak as f64).collect();
    let of = |phase: &str| rows.iter().filter(|row| row.phase == phase).count();
    let near = ratios.iter().filter(|ratio| (1.0..=NEAR).contains(*ratio)).count();
    let [least, most] = [f64::min, f64::max].map(|f| ratios.iter().copied().reduce(f).unwrap_or(f64::NAN));
    format!(
        "{} repairs ended, {} were refused, {} failed\n{near} plans were at most {NEAR} times the peak; planned \
         over peak: {least:.3} to {most:.3}",
        ratios.len(),
        of("refused"),
        of("failed")
    )
}
