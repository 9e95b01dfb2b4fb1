//! `archrepair bench`: tables of memory and time on this device.

mod child;
mod footprint;
mod inference;
mod noise;
mod passes;
mod speed;

use clap::{Args, Subcommand};

use super::{Console, Global};
use crate::error::Result;

/// Measure what a model takes on this device
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Footprint(footprint::Footprint),
    #[command(hide = true)]
    Inference(inference::Inference),
    Speed(speed::Speed),
}

impl Bench {
    pub(super) fn run(&self, global: &Global, console: &Console) -> Result<u8> {
        match &self.what {
            What::Footprint(footprint) => footprint.run(global, console),
            What::Inference(inference) => inference.run(global, console),
            What::Speed(speed) => speed.run(global, console),
        }
    }
}
