//! The `archrepair` program: reads the command line, runs a subcommand, turns its end into an
//! exit status.

use std::process::ExitCode;

use archrepair::cli::{self, Cli};
use archrepair::memory::{Meter, meter};
use clap::Parser;

// Every byte the engine allocates is counted, so that reports and limits are exact.
#[global_allocator]
static METER: Meter = Meter;

fn main() -> ExitCode {
    meter::set_up_heap();
    ExitCode::from(cli::run(&Cli::parse()))
}
