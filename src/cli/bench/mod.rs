//! `archrepair bench`: tables of memory and time on this device.

mod child;
mod footprint;
mod inference;
mod noise;
mod passes;
mod speed;

use clap::{Args, Subcommand};

use super::{Console, Global};
use crate::device::Compute;
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
    /// Whether this measures passes, which can run on any device.
    pub(super) fn is_speed(&self) -> bool {
        matches!(self.what, What::Speed(_))
    }

    pub(super) fn run(&self, (global, compute): (&Global, &Compute), console: &Console) -> Result<u8> {
        match &self.what {
            What::Footprint(footprint) => footprint.run(global, console),
            What::Inference(inference) => inference.run(global, console),
            What::Speed(speed) => speed.run((global, compute), console),
        }
    }
}
