//! Every kernel beside what the machine can do, and convolutions beside PyTorch.
//!
//! ```text
//! cargo bench --bench operations -- [--python PATH] [--only "3x3,depthwise 3x3"] [--rounds 5] [--threads 2]
//! cargo bench --bench operations -- --own
//! ```
//!
//! The first table holds kernels against the most multiply-adds and the most bytes a second, which are
//! measured first, on the same threads (see [`rates`]). A kernel cannot end before its multiply-adds are
//! done nor before its bytes are moved: the longer of both times is its bound. More than all of it is no
//! mistake: what a cache still holds comes faster, and Winograd's form of a 3x3 convolution has fewer
//! multiply-adds than the plain one that is counted.
//!
//! The second table has each convolution by PyTorch, forward and backward, in turns with this library's and
//! each in a process of its own; of PyTorch's two layouts of images the faster one counts. Norms of outputs
//! and gradients must agree, or the bench fails.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

#[path = "../shared/kernels.rs"]
mod kernels;
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
mod rates;
#[path = "../shared/ratio.rs"]
mod ratio;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use archrepair::memory::Meter;
use clap::Parser;
use measured::{Backprop, Measured};
use options::Options;
use rates::Rates;

#[global_allocator]
static METER: Meter = Meter;

#[derive(Parser)]
struct Arguments {
    /// Kernels by name in the table, without what stands behind the colon; all if none is given
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Runs this library alone
    #[arg(long)]
    own: bool,
    /// How often each program runs, in turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each kernel is repeated in each round, at least five times
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Runs the kernels of this name in this process
    #[arg(long, hide = true)]
    child: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// How often a program is looked at while it runs.
const EVERY: Duration = Duration::from_millis(20);

/// What was measured of kernels that belong together, round by round.
struct Results {
    name: &'static str,
    own: Vec<Measured>,
    /// By PyTorch, or why it was not measured.
    peer: Result<Vec<Backprop>, String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = &arguments.options;
    if let Some(name) = &arguments.child {
        return options.answer(|| own::run(name, arguments.seconds));
    }
    options::choose_instructions();
    println!("rounds {}, threads {}, {}", arguments.rounds, options.threads, machine::text());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build().unwrap();
    let rates = pool.install(Rates::measure).unwrap();
    println!("{rates}\n");
    let is_wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let groups = kernels::all().into_iter().map(|group| group.name).filter(|name| is_wanted(name));
    let results: Result<Vec<Results>, String> = groups.map(|name| run_all(name, &arguments)).collect();
    match results {
        Ok(results) => print(&results, &rates),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// All rounds of kernels that belong together.
fn run_all(name: &'static str, arguments: &Arguments) -> Result<Results, String> {
    let folder = tempfile::tempdir().unwrap();
    let (folder, options) = (folder.path(), &arguments.options);
    let is_compared = !arguments.own && peer::write(name, folder);
    let mut peer = if is_compared { Ok(Vec::new()) } else { Err(String::new()) };
    let mut own = Vec::new();
    for round in 1..=arguments.rounds {
        eprintln!("{name}, round {round} of {}", arguments.rounds);
        let seconds = format!("--seconds={}", arguments.seconds);
        let mut command = Options::own(folder);
        command.args(["--child", name]).arg(&seconds);
        own.push(options.measure(command, (folder, EVERY), |_| ()).map_err(|why| format!("{name}: {why}"))?);
        if let Ok(done) = &mut peer {
            let mut command = options.script("convolution.py", folder);
            command.arg(&seconds);
            match options.measure(command, (folder, EVERY), |_| ()) {
                Ok(measured) => done.push(measured),
                Err(problem) => peer = Err(problem),
            }
        }
    }
    Ok(Results { name, own, peer })
}

/// Prints the tables; fails where programs did not do the same.
fn print(results: &[Results], rates: &Rates) -> ExitCode {
    println!("{}", table::shares(results, rates));
    let compared: Vec<&Results> = results.iter().filter(|of| of.peer.is_ok()).collect();
    if !compared.is_empty() {
        println!("{}", table::ratios(&compared));
    }
    let mut agree = true;
    for Results { name, own, peer } in results {
        match peer {
            Ok(peer) => {
                let proof = proof::Proof::new(own, peer);
                println!("  {name}: {proof}");
                agree &= proof.holds();
            }
            Err(problem) if problem.is_empty() => {}
            Err(problem) => println!("  {name}, PyTorch: {problem}"),
        }
    }
    if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
