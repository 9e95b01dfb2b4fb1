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
#[path = "../shared/options.rs"]
mod options;
mod own;
#[path = "../shared/process.rs"]
mod process;
mod program;
mod proof;
#[path = "../shared/ratio.rs"]
mod ratio;
#[path = "../shared/rounds.rs"]
mod rounds;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use archrepair::memory::Meter;
use case::Case;
use clap::Parser;
use measured::Measured;
use options::Options;
use program::Program;
use proof::Proof;
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
    /// Runs this library alone
    #[arg(long)]
    own: bool,
    /// How often each program runs, in turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long passes are repeated in each round, at least five times
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Runs the work in FOLDER in this process
    #[arg(long, hide = true, requires = "folder")]
    child: Option<own::Weights>,
    #[command(flatten)]
    options: Options,
}

/// How often a program is looked at while it runs.
const EVERY: Duration = Duration::from_millis(20);

/// All rounds of a program.
type Rounds = rounds::Rounds<Program, Measured>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = &arguments.options;
    if let (Some(weights), Some(folder)) = (arguments.child, &options.folder) {
        return options.answer(|| own::run(folder, weights, arguments.seconds));
    }
    options::choose_instructions();
    println!("rounds {}, threads {}, {}\n", arguments.rounds, options.threads, machine::text());
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

/// All rounds of all programs.
fn run_all(case: &Case, arguments: &Arguments) -> archrepair::Result<Vec<Rounds>> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    case.write(folder)?;
    let mut all: Vec<Rounds> = Program::own().map(|program| Rounds::new(program, None)).collect();
    if !arguments.own {
        let (export, bounds) = (Program::export(folder, &arguments.options), arguments.options.bounds(EVERY));
        let exported = process::run(export, folder, bounds, |_| ());
        let no_model = exported.err().map(|problem| format!("no model.onnx: {problem}"));
        all.extend(Program::PEERS.map(|program| {
            let problem = no_model.clone().filter(|_| program == Program::OnnxRuntime);
            Rounds::new(program, problem)
        }));
    }
    for round in 1..=arguments.rounds {
        eprintln!("{case}, round {round} of {}", arguments.rounds);
        for rounds in &mut all {
            rounds.run(|program| {
                let command = program.command(folder, arguments);
                arguments.options.measure(command, (folder, EVERY), |_| ())
            });
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
