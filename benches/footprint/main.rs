//! The memory and time of one search step: this library, PyTorch and candle's own tape.
//!
//! ```text
//! cargo bench --bench footprint -- --case narrow28:layer1.0:64 [--python PATH] [--steps 5] [--rounds 3]
//! cargo bench --bench footprint -- --case narrow28:weights@network:32 --levers nothing --peers eager
//! cargo bench --bench footprint -- --case resnet50:layer1.0:64 --write-models FOLDER
//! ```
//!
//! A step is one gradient step of the relaxed block's weights: features of the frozen prefix go
//! in, the suffix is frozen, Adam changes the weights. The step is written to a folder first
//! (see [`case`]); then each program runs it in a process of its own, one after the other. Their
//! losses and gradients must agree, or the bench fails (see [`proof`]).
//!
//! Compare rows of the same micro-batch, and those of others as `-trimmed` (see [`peer`]) when the
//! question is what they need, not what their process happens to keep. `loaded` of PyTorch holds
//! the libraries for GPUs that its wheel brings along. Times of one round mean little: take several, and
//! look at how far their ratios are apart and at the load in the heading.
//!
//! How to install PyTorch: `benches/peers/requirements.txt`. Without it its rows say so.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

#[path = "../shared/base.rs"]
mod base;
mod case;
#[path = "../shared/machine.rs"]
mod machine;
mod measured;
#[path = "../shared/options.rs"]
mod options;
mod own;
mod peer;
#[path = "../shared/process.rs"]
mod process;
mod proof;
#[path = "../shared/ratio.rs"]
mod ratio;
mod table;
mod tape;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use archrepair::memory::Meter;
use case::Case;
use clap::{Parser, ValueEnum};
use measured::{Measured, Seen};
use options::Options;
use peer::Peer;
use proof::Proof;
use table::{Row, table};

#[global_allocator]
static METER: Meter = Meter;

#[derive(Parser)]
struct Arguments {
    /// NETWORK:BLOCK:BATCH for a step of a search, NETWORK:weights@BLOCK:BATCH or
    /// NETWORK:weights@network:BATCH for one that trains weights alone, with a network of narrow28, wide32, resnet18 .. resnet152
    #[arg(long = "case", value_delimiter = ',', default_value = "narrow28:layer1.0:64")]
    cases: Vec<Case>,
    /// Only writes the networks of the cases to FOLDER, as model files
    #[arg(long, value_name = "FOLDER")]
    write_models: Option<PathBuf>,
    /// Rows of this library, DEPTH[-mapped][-stateless][:MICRO-BATCH] each with a depth of nothing,
    /// mixtures, segments; ratios are to the last one
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "nothing,mixtures,segments,segments:8,segments-mapped-stateless:1,segments-mapped:1"
    )]
    levers: Vec<String>,
    /// Rows of others, PROGRAM[-trimmed][:MICRO-BATCH] each with a program of eager, checkpoint
    /// (both PyTorch), candle
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "eager,eager-trimmed,checkpoint,checkpoint-trimmed,checkpoint-trimmed:8,checkpoint-trimmed:1,candle,candle-trimmed"
    )]
    peers: Vec<Peer>,
    /// Steps a program, at least 3 to compare
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// How often each program runs, in turns; the last run counts for memory, all for time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Runs the step in FOLDER in this process
    #[arg(long, hide = true, requires = "folder")]
    child: Option<Runner>,
    #[command(flatten)]
    options: Options,
}

/// What this program runs as a child.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runner {
    Archrepair,
    Candle,
}

/// How often a program is looked at while it runs.
const EVERY: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(child), Some(folder)) = (arguments.child, &arguments.options.folder) {
        return run_child(child, folder, &arguments);
    }
    if let Some(problem) = arguments.levers.iter().find_map(|text| own::levers(text).err()) {
        eprintln!("--levers: {problem}");
        return ExitCode::from(2);
    }
    if let Some(folder) = &arguments.write_models {
        return write_models(folder, &arguments.cases);
    }
    options::choose_instructions();
    let mut agree = true;
    for case in &arguments.cases {
        let folder = tempfile::tempdir().unwrap();
        if let Err(error) = case.write(folder.path()) {
            eprintln!("{case}: {error}");
            return ExitCode::FAILURE;
        }
        agree &= print(case, &run_all(folder.path(), &arguments), &arguments);
    }
    if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write_models(folder: &Path, cases: &[Case]) -> ExitCode {
    let networks: BTreeSet<&str> = cases.iter().map(|case| case.network.as_str()).collect();
    for network in networks {
        let path = folder.join(format!("{network}.safetensors"));
        if let Err(error) = base::write(network, &path) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
        println!("{}", path.display());
    }
    ExitCode::SUCCESS
}

fn run_child(child: Runner, folder: &Path, arguments: &Arguments) -> ExitCode {
    let steps = arguments.steps as usize;
    arguments.options.answer(|| match child {
        Runner::Archrepair => {
            let levers = own::levers(&arguments.levers[0])?;
            own::run(folder, levers, steps).map_err(|error| error.to_string())
        }
        Runner::Candle => tape::run(folder, steps).map_err(|error| error.to_string()),
    })
}

fn run_all(folder: &Path, arguments: &Arguments) -> Vec<Row> {
    let run = |mut command: Command| {
        command.arg(format!("--steps={}", arguments.steps));
        let mut seen = Seen::default();
        let mut measured: Measured =
            arguments.options.measure(command, (folder, EVERY), |id| seen.look(id))?;
        measured.seen = seen;
        Ok(measured)
    };
    let own = arguments.levers.iter().map(|levers| Row::new("archrepair", levers));
    let peers = arguments.peers.iter().map(|peer| Row::new(peer.who(), &peer.levers));
    let mut rows: Vec<Row> = own.chain(peers).collect();
    for _ in 0..arguments.rounds {
        let own = arguments.levers.iter().map(|levers| own::command(folder, levers));
        let peers = arguments.peers.iter().map(|peer| peer.command(folder, &arguments.options));
        for (row, command) in rows.iter_mut().zip(own.chain(peers)) {
            row.push(run(command));
        }
    }
    rows
}

/// Prints the table; whether all losses agree.
fn print(case: &Case, rows: &[Row], arguments: &Arguments) -> bool {
    println!(
        "{case}: {} steps, rounds {}, {} threads, {}\n\n{}",
        arguments.steps,
        arguments.rounds,
        arguments.options.threads,
        machine::text(),
        table(rows)
    );
    for Row { who, levers, measured, .. } in rows {
        if let Err(problem) = measured {
            println!("  {who}, {levers}: {problem}");
        }
    }
    let programs: Vec<&Measured> = rows.iter().filter_map(|row| row.measured.as_ref().ok()).collect();
    let proof = Proof::new(&programs);
    println!("  {proof}\n");
    proof.holds()
}
