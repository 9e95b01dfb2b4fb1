//! The time of inference: this library, ONNX Runtime and PyTorch.
//!
//! ```text
//! cargo bench --bench speed -- [--case resnet18:1,wide32:32] [--python PATH] [--rounds 5] [--threads 2]
//! cargo bench --bench speed -- --own
//! ```
//!
//! The work is written to a folder first (see [`case`]); then in each round each program runs it in a
//! process of its own, one after the other. Their logits must agree, or the bench fails (see [`proof`]).
//!
//! Ratios of times are taken within a round, since another round may meet a busier machine. Still they
//! mean little where other programs run: PyTorch's threads wait for each other in loops, and with one core
//! taken its passes lasted forty times as long. Look at the load in the heading, and at how far the
//! ratios of the rounds are apart.
//!
//! How to install the others: `benches/peers/requirements.txt`. Without them their rows say so.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

#[path = "../shared/base.rs"]
mod base;
mod case;
#[path = "../shared/machine.rs"]
mod machine;
mod measured;
mod own;
#[path = "../shared/process.rs"]
mod process;
mod program;
mod proof;
#[path = "../shared/ratio.rs"]
mod ratio;
mod rounds;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use archrepair::memory::{Meter, meter};
use case::Case;
use clap::Parser;
use process::Bounds;
use program::{Program, export};
use proof::Proof;
use rounds::Rounds;
use table::table;

#[global_allocator]
static METER: Meter = Meter;

#[derive(Parser)]
struct Arguments {
    /// NETWORK:BATCH,... with networks of narrow28, wide32, resnet18 .. resnet152; repeatable
    #[arg(
        long = "case",
        value_delimiter = ',',
        default_value = "resnet18:1,resnet18:8,wide32:1,wide32:32,narrow28:1,narrow28:32,resnet50:1"
    )]
    cases: Vec<Case>,
    /// A Python with what benches/peers/requirements.txt lists
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Runs this library alone
    #[arg(long)]
    own: bool,
    /// How often each program runs, in turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long passes are repeated in each round, at least five times
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Threads a program
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seconds after which a program is ended
    #[arg(long, default_value_t = 600)]
    patience: u64,
    /// MiB that must be left to the machine, or a program is ended
    #[arg(long, default_value_t = 1024)]
    spare_mib: usize,
    /// Runs the work in FOLDER in this process
    #[arg(long, hide = true, requires = "folder")]
    child: Option<own::Weights>,
    #[arg(long, hide = true)]
    folder: Option<PathBuf>,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(weights), Some(folder)) = (arguments.child, &arguments.folder) {
        return run_child(weights, folder, &arguments);
    }
    println!("rounds {}, threads {}, {}\n", arguments.rounds, arguments.threads, machine::text());
    let mut results = Vec::new();
    for case in &arguments.cases {
        match run_all(case, &arguments) {
            Ok(all) => results.push((case, all)),
            Err(error) => {
                eprintln!("{case}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{}", table(&results));
    let is_well = results.iter().map(|(case, all)| judge(case, all)).fold(true, |all, one| all & one);
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_child(weights: own::Weights, folder: &Path, arguments: &Arguments) -> ExitCode {
    // As the program does: one heap, and no thread computes besides those of the pool.
    meter::set_up_heap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build().unwrap();
    match pool.install(|| own::run(folder, weights, arguments.seconds)) {
        Ok(measured) => println!("{}", serde_json::to_string(&measured).unwrap()),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// All rounds of all programs.
fn run_all(case: &Case, arguments: &Arguments) -> archrepair::Result<Vec<Rounds>> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    case.write(folder)?;
    let bounds = Bounds {
        patience: Duration::from_secs(arguments.patience),
        spare: arguments.spare_mib << 20,
        every: Duration::from_millis(20),
    };
    let mut all: Vec<Rounds> = Program::own().map(|program| Rounds::new(program, None)).collect();
    if !arguments.own {
        let exported = process::run(export(folder, &arguments.python), folder, bounds, |_| ());
        let no_model = exported.err().map(|problem| format!("no model.onnx: {problem}"));
        all.extend(Program::PEERS.map(|program| {
            let problem = no_model.clone().filter(|_| program == Program::OnnxRuntime);
            Rounds::new(program, problem)
        }));
    }
    for round in 1..=arguments.rounds {
        eprintln!("{case}, round {round} of {}", arguments.rounds);
        for rounds in all.iter_mut().filter(|rounds| rounds.problem.is_none()) {
            let mut command = rounds.program.command(folder, arguments);
            process::set_threads(&mut command, arguments.threads);
            rounds.push(process::measure(command, folder, bounds, |_| ()));
        }
    }
    Ok(all)
}

/// Says what failed and whether logits agree; whether all is as it must be. A program of others may be
/// missing.
fn judge(case: &Case, all: &[Rounds]) -> bool {
    for Rounds { program, problem, .. } in all {
        if let Some(problem) = problem {
            println!("  {case}, {program}: {problem}");
        }
    }
    let proof = Proof::new(all);
    println!("  {case}: {proof}");
    proof.holds() && all.iter().all(|rounds| rounds.problem.is_none() || !rounds.program.is_own())
}
