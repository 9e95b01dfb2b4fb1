//! The command line: one file a subcommand.
//!
//! Results go to standard output, as text or with `--json` as one JSON object; progress and
//! errors go to standard error. The exit status tells kinds of ends apart: 0 done, 2 wrong usage,
//! 3 a repair that the gate refused, 10 and above [`crate::Error::code`].

mod base;
mod bench;
mod console;
mod demo;
mod eval;
mod export;
mod infer;
mod inspect;
mod localize;
mod picture;
mod repair;
mod stages;
mod train;
mod verify;

use std::error::Error as _;
use std::io::Write;

use clap::{Parser, Subcommand};

use crate::device::DeviceChoice;
use crate::error::{Error, Result};
pub use console::Console;

/// Exit status of a repair that the gate refused.
pub const REFUSED: u8 = 3;

/// Runs convnets on edge devices and repairs them there.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Start with `archrepair demo`: it needs nothing but this program.

Exit status: 0 done, 2 wrong usage, 3 a repair that the gate refused, 10 and above one for each kind
of failure.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Print one JSON object instead of text
    #[arg(long, global = true, help_heading = "Common to all tasks")]
    json: bool,
    /// Seed of every random draw; the same seed gives the same bytes
    #[arg(long, global = true, help_heading = "Common to all tasks", default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Threads to use, 0 for all cores; results do not depend on it
    #[arg(long, global = true, help_heading = "Common to all tasks", default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Where to compute: cpu, cuda[:N] or metal[:N]
    #[arg(
        long,
        global = true,
        help_heading = "Common to all tasks",
        default_value = "cpu",
        value_name = "DEVICE"
    )]
    device: DeviceChoice,
}

impl Global {
    /// What measured runs of this program must be given too.
    fn arguments(&self) -> [String; 2] {
        [format!("--seed={}", self.seed), format!("--threads={}", self.threads)]
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    // In the order in which a newcomer meets them.
    Demo(demo::Demo),
    Inspect(inspect::Inspect),
    Infer(infer::Infer),
    Eval(eval::Eval),
    Localize(localize::Localize),
    Repair(Box<repair::Repair>),
    Verify(verify::Verify),
    Export(export::Export),
    Train(train::Train),
    Bench(bench::Bench),
}

/// Runs the subcommand and returns the exit status; an error is printed as a chain of causes.
#[must_use]
pub fn run(cli: &Cli) -> u8 {
    let console = Console::new(&cli.global);
    match dispatch(cli, &console) {
        Ok(status) => status,
        Err(error) => {
            report(&error);
            error.code()
        }
    }
}

fn dispatch(cli: &Cli, console: &Console) -> Result<u8> {
    // A device that is not there is an error before any work.
    cli.global.device.open()?;
    let on_any_device = matches!(cli.command, Command::Eval(_) | Command::Infer(_));
    if !on_any_device && cli.global.device != DeviceChoice::Cpu {
        let want = "cpu; only infer and eval compute on other devices so far".into();
        return Err(Error::Config { field: "device", got: cli.global.device.to_string(), want });
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(cli.global.threads).build();
    let pool = pool.map_err(|error| Error::Config {
        field: "threads",
        got: cli.global.threads.to_string(),
        want: format!("a number of threads this system starts ({error})"),
    })?;
    pool.install(|| match &cli.command {
        Command::Bench(bench) => bench.run(&cli.global, console),
        Command::Demo(demo) => demo.run(&cli.global, console),
        Command::Eval(eval) => eval.run(&cli.global, console),
        Command::Export(export) => export.run(console),
        Command::Infer(infer) => infer.run(&cli.global, console),
        Command::Inspect(inspect) => inspect.run(console),
        Command::Localize(localize) => localize.run(&cli.global, console),
        Command::Repair(repair) => repair.run(&cli.global, console),
        Command::Train(train) => train.run(&cli.global, console),
        Command::Verify(verify) => verify.run(console),
    })
}

fn report(error: &Error) {
    let mut line = format!("error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        line.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}
