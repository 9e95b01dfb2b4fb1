//! The process behind the first rows of `archrepair bench footprint`: what a network takes that
//! only runs, with its weights in the file and then on the heap.

use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::noise;
use crate::cli::base::Base;
use crate::cli::{Console, Global};
use crate::data::Images;
use crate::error::Result;
use crate::eval::Runner;
use crate::kernels::missing_thread_bytes;
use crate::memory::meter;
use crate::repair::patching::{deploy, deploy_mapped};
use crate::report::footprint::{self, Row};
use crate::rng::Rng;

/// Part of `bench footprint`: measure this process while it runs a network
#[derive(Debug, Args)]
pub(super) struct Inference {
    #[command(flatten)]
    base: Base,
    /// Images that run together
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
}

/// Bytes that are not followed one by one: lists of images, the queue of the threads.
const SMALL: usize = 16 << 10;

/// Passes of which the fastest counts.
const PASSES: usize = 5;

impl Inference {
    pub(super) fn run(&self, global: &Global, console: &Console) -> Result<u8> {
        let mut rows = vec![now("start", None)];
        let begun = Instant::now();
        let model = self.base.open()?;
        let mapped = deploy_mapped(&model, None)?.runner()?;
        rows.push(now("opened", Some(begun)));
        let images = noise::images(&model.network, self.batch as usize, &mut Rng::new(global.seed))?;
        rows.push(inference("inference", &mapped, &images)?);
        drop(mapped);
        meter::mark();
        let begun = Instant::now();
        let widened = deploy(&model, None)?.runner()?;
        rows.push(now("widened", Some(begun)));
        rows.push(inference("inference, widened", &widened, &images)?);
        console.result(&footprint::text(&rows), &json!(rows))?;
        Ok(0)
    }
}

/// A phase that ends now, for which nothing was planned.
fn now(phase: &str, begun: Option<Instant>) -> Row {
    Row {
        phase: phase.into(),
        peak_bytes: Some(meter::mark()),
        seconds: begun.map(|begun| begun.elapsed().as_secs_f64()),
        process: meter::process(),
        ..Row::default()
    }
}

/// All `images` together, in memory that is planned: bytes of all passes, time of one.
fn inference(phase: &str, runner: &Runner, images: &Images) -> Result<Row> {
    let indices: Vec<usize> = (0..images.len()).collect();
    let bytes = runner.session_bytes(images.shape(), images.len())?;
    let planned = meter::current() + bytes + missing_thread_bytes() + SMALL;
    meter::mark();
    let mut session = runner.session(images.shape(), images.len())?;
    let mut fastest = f64::INFINITY;
    for _ in 0..PASSES {
        let begun = Instant::now();
        session.logits(images, &indices)?;
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    let row = Row { planned_bytes: Some(planned), seconds: Some(fastest), ..now(phase, None) };
    Ok(row.judged())
}
