//! Whole repairs: this library and PyTorch.
//!
//! ```text
//! cargo bench --bench repair -- [--case weights@layer3.0,search@layer3.0] [--python PATH] [--rounds 3]
//! cargo bench --bench repair -- --own
//! ```
//!
//! A narrow network for grey images of 28 x 28 is repaired at one block: 100 failures, of which 20 are held
//! back, 2,000 images of replay, 400 others held back; 400 steps of batches of 64, half failures, half
//! replay. Replay counts for its label and for the deployed network's opinion, rates and Adam are this
//! library's defaults. A search makes 150 of the steps on the relaxed block, with a step of the choice
//! weights on held-back images behind every third, tries what each alternative is worth, and trains the
//! chosen block in the others.
//!
//! The work is written to a folder first, down to the images of each step (see [`case`]); then in each round
//! each program runs it in a process of its own, one after the other. The time begins with the opening of
//! files, when libraries are loaded, and ends with the repaired weights. Losses of the first steps must
//! agree, or the bench fails (see [`proof`]).
//!
//! What differs: this library keeps features in a file, in halves, and draws images and the relaxed block's
//! first weights in its time. PyTorch keeps features in memory, reads what was drawn, and trains the block
//! that this library chose, with weights from its own search. In its forms without cached features it still
//! asks for the deployed network's opinion once only. Not part of either: localization, surrogates of
//! failures, the fit by weights alone that a searched repair is held against, and the gate.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

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
mod sets;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use archrepair::memory::Meter;
use case::Case;
use clap::Parser;
use measured::Measured;
use options::Options;
use program::Program;
use proof::Proof;

#[global_allocator]
static METER: Meter = Meter;

#[derive(Parser)]
struct Arguments {
    /// KIND@BLOCK,... with kinds of search, weights
    #[arg(
        long = "case",
        value_delimiter = ',',
        default_value = "weights@layer3.0,search@layer3.0,weights@layer1.0,search@layer1.0"
    )]
    cases: Vec<Case>,
    /// A network for grey images of 28 x 28 in ten classes of fashion; without it the shipped one
    #[arg(long)]
    model: Option<PathBuf>,
    /// Forms of PyTorch, FORM[-channels-last] each with a form of cached, full, everything
    #[arg(long, value_delimiter = ',', default_value = "full-channels-last,cached-channels-last")]
    peers: Vec<Program>,
    /// Runs this library alone
    #[arg(long)]
    own: bool,
    /// Steps of a repair; a search has three eighths of them
    #[arg(long, default_value_t = 400)]
    steps: usize,
    /// How often each program runs, in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Runs the repair in FOLDER in this process
    #[arg(long, hide = true, requires = "folder")]
    child: bool,
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
    if let (true, Some(folder)) = (arguments.child, &options.folder) {
        return options.answer(|| own::run(folder));
    }
    let Arguments { steps, rounds, .. } = arguments;
    options::choose_instructions();
    println!("{steps} steps, rounds {rounds}, threads {}, {}\n", options.threads, machine::text());
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
    println!("{}", table::table(&results));
    let is_well = results.iter().map(|(case, all)| judge(case, all)).fold(true, |all, one| all & one);
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All rounds of all programs.
fn run_all(case: &Case, arguments: &Arguments) -> archrepair::Result<Vec<Rounds>> {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
    case.write(arguments.model.as_ref().unwrap_or(&shipped), arguments.steps, folder.path())?;
    let peers = arguments.peers.iter().filter(|_| !arguments.own).copied();
    let all = [Program::Own].into_iter().chain(peers);
    let mut all: Vec<Rounds> = all.map(|program| Rounds::new(program, None)).collect();
    for round in 1..=arguments.rounds {
        eprintln!("{case}, round {round} of {}", arguments.rounds);
        for rounds in &mut all {
            rounds.run(|program| run(*program, folder.path(), &arguments.options));
        }
    }
    Ok(all)
}

fn run(program: Program, folder: &Path, options: &Options) -> Result<Measured, String> {
    let begun = Instant::now();
    let measured = options.measure(program.command(folder, options), (folder, EVERY), |_| ())?;
    Ok(Measured { process_seconds: begun.elapsed().as_secs_f64(), ..measured })
}

/// Says what failed and whether losses agree; whether all is as it must be. A program of others may be
/// missing.
fn judge(case: &Case, all: &[Rounds]) -> bool {
    for Rounds { program, problem, .. } in all {
        if let Some(problem) = problem {
            println!("  {case}, {program}: {problem}");
        }
    }
    let proof = Proof::new(all);
    println!("  {case}: {proof}");
    proof.holds() && all[0].problem.is_none()
}
