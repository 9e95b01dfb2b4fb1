//! Whole repairs of networks of the field within limits: `archrepair bench footprint` on models
//! with random weights, made here.
//!
//! ```text
//! cargo bench --bench limits -- --case resnet50:layer1.0 --limit 192MiB [--spare 40MiB]
//! ```
//!
//! The bench fails when a repair takes more than was planned, or ends otherwise than by the gate or
//! by a limit that is too small.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

#[path = "footprint/base.rs"]
mod base;

use std::process::{Command, ExitCode};

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// NETWORK:BLOCK with a network of narrow28, wide32, resnet18 .. resnet152; repeatable
    #[arg(long = "case", default_value = "narrow28:layer1.0")]
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut kept = true;
    for case in &arguments.cases {
        let (network, block) = case.split_once(':').unwrap_or((case, "layer1.0"));
        println!("{network}");
        kept &= measure(network, block, &arguments);
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the table of one network; whether all plans were kept.
fn measure(network: &str, block: &str, arguments: &Arguments) -> bool {
    let folder = tempfile::tempdir().unwrap();
    if let Err(error) = base::write(network, &folder.path().join("model.safetensors")) {
        eprintln!("{network}: {error}");
        return false;
    }
    let Arguments { limit, spare, failures, steps, threads, .. } = arguments;
    let mut command = Command::new(env!("CARGO_BIN_EXE_archrepair"));
    command.current_dir(folder.path()).env("TMPDIR", folder.path());
    command.args(["bench", "footprint", "model.safetensors", "--memory", limit]);
    command
        .arg(format!("--level=block:{block}"))
        .args(spare.as_ref().map(|bytes| format!("--spare={bytes}")));
    for (flag, n) in [("--failures", failures), ("--steps", steps), ("--threads", threads)] {
        command.args([flag, &n.to_string()]);
    }
    command.status().unwrap().success()
}
