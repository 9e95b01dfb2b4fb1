//! The command line: one file a subcommand.
//!
//! Results go to standard output, as text or with `--json` as one JSON object; progress and
//! errors go to standard error. The exit status tells kinds of ends apart: 0 done, 2 wrong usage,
//! 3 a repair that the gate refused, 10 and above [`crate::Error::code`].

mod base;
mod bench;
mod console;
mod corrupt;
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

use crate::device::{Compute, DeviceChoice, Precision};
use crate::engine::packing::has_bf16;
use crate::error::{Error, Result};
use crate::kernels::instructions::Instructions;
pub use console::Console;

/// The environment variable that has kernels of the CPU use other vector instructions than the best there are.
const INSTRUCTIONS: &str = "ARCHREPAIR_ISA";

/// Exit status of a repair that the gate refused.
pub const REFUSED: u8 = 3;

/// Runs convnets on edge devices and repairs them there.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Start with `archrepair demo`: it needs nothing but this program.

ARCHREPAIR_ISA=avx512, avx2, neon or portable has the CPU compute by these vector instructions
instead of the best it has.

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
    /// Where demo, infer, eval, localize, repair and bench speed compute: cpu, cuda[:N] or metal[:N]
    #[arg(
        long,
        global = true,
        help_heading = "Common to all tasks",
        default_value = "cpu",
        value_name = "DEVICE"
    )]
    device: DeviceChoice,
    /// Numbers that passes, or an exported graph, compute with: f32; f16 with sums, trained weights and the
    /// loss in f32; or, for eval and infer on a CPU that has instructions for it, bf16 for the products of
    /// convolutions
    #[arg(
        long,
        global = true,
        help_heading = "Common to all tasks",
        default_value = "f32",
        value_name = "PRECISION"
    )]
    precision: Precision,
}

impl Global {
    /// Where passes compute; opens the device.
    fn compute(&self) -> Result<Compute> {
        Ok(Compute { device: self.device.open()?, precision: self.precision })
    }

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
    Corrupt(corrupt::Corrupt),
    Bench(bench::Bench),
}

impl Command {
    /// Refuses a device or a precision to tasks that compute in `f32` on the CPU, or not at all.
    fn check(&self, global: &Global, compute: &Compute) -> Result<()> {
        if compute.precision == Precision::Bf16 {
            let want = match self {
                Self::Eval(_) | Self::Infer(_) if !compute.device.is_cpu() => "f32 or f16 on this device",
                Self::Eval(_) | Self::Infer(_) if has_bf16() => return Ok(()),
                Self::Eval(_) | Self::Infer(_) => "f32: this processor has no instructions for bf16",
                _ => "f32 for this task; only eval and infer compute in bf16",
            };
            return Err(Error::Config { field: "precision", got: "bf16".into(), want: want.into() });
        }
        let anywhere = match self {
            Self::Bench(bench) => bench.is_speed(),
            Self::Demo(_) | Self::Eval(_) | Self::Infer(_) | Self::Localize(_) | Self::Repair(_) => true,
            _ => false,
        };
        // Export computes nothing: its precision is that of the graph it writes.
        let is_export = matches!(self, Self::Export(_)) && compute.device.is_cpu();
        if anywhere || is_export || compute.is_host() {
            return Ok(());
        }
        let tasks = "only demo, infer, eval, localize, repair and bench speed compute otherwise";
        let refused = |field, got, want: &str| {
            Err(Error::Config { field, got, want: format!("{want} for this task; {tasks}") })
        };
        match global.device {
            DeviceChoice::Cpu => refused("precision", global.precision.to_string(), "f32"),
            device => refused("device", device.to_string(), "cpu"),
        }
    }
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
    if let Some(name) = std::env::var_os(INSTRUCTIONS) {
        name.to_string_lossy().parse::<Instructions>()?.choose()?;
    }
    // A device that is not there is an error before any work.
    let compute = cli.global.compute()?;
    cli.command.check(&cli.global, &compute)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(cli.global.threads).build();
    let pool = pool.map_err(|error| Error::Config {
        field: "threads",
        got: cli.global.threads.to_string(),
        want: format!("a number of threads this system starts ({error})"),
    })?;
    pool.install(|| match &cli.command {
        Command::Bench(bench) => bench.run((&cli.global, &compute), console),
        Command::Corrupt(corrupt) => corrupt.run(&cli.global, console),
        Command::Demo(demo) => demo.run((&cli.global, &compute), console),
        Command::Eval(eval) => eval.run((&cli.global, &compute), console),
        Command::Export(export) => export.run(compute.precision, console),
        Command::Infer(infer) => infer.run(&compute, console),
        Command::Inspect(inspect) => inspect.run(console),
        Command::Localize(localize) => localize.run((&cli.global, &compute), console),
        Command::Repair(repair) => repair.run((&cli.global, &compute), console),
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
