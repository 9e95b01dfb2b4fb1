//! `archrepair bench speed`: how fast a network runs here, for each size of batch and, if asked,
//! operation by operation.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::passes::{Passes, on_device};
use crate::cli::base::Base;
use crate::cli::{Console, Global};
use crate::device::{self, Compute, Precision};
use crate::engine::packing::{has_bf16, packed};
use crate::error::{Error, Result};
use crate::graph::lower::{Lowered, lower};
use crate::graph::op::Shape;
use crate::graph::{Graph, Node};
use crate::kernels::instructions::Instructions;
use crate::kernels::peak;
use crate::memory::meter;
use crate::repair::patching::deploy_mapped;
use crate::report::speed::{self, Layer, Row, Weights};
use crate::storage::Patch;
use crate::zoo::Model;

/// Measure how fast a network runs, with its weights in the file and on the heap
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair bench speed model.safetensors
  archrepair bench speed model.safetensors --batch 1 --layers --threads 1
  archrepair bench speed model.safetensors --patch fog.patch --batch 1,64 --json
  archrepair bench speed model.safetensors --device cuda --precision f16

Passes run over noise: what they say does not matter. A busy machine measures something else; the
median of the passes leaves out what comes and goes.")]
pub(super) struct Speed {
    #[command(flatten)]
    base: Base,
    /// Run the model with this patch applied
    #[arg(long)]
    patch: Option<PathBuf>,
    /// Images that run together, as 1,8,32
    #[arg(
        long = "batch",
        default_value = "1,8,32",
        value_delimiter = ',',
        num_args = 1,
        value_name = "N,...",
        value_parser = clap::value_parser!(u32).range(1..100_000)
    )]
    batches: Vec<u32>,
    /// Show every operation too
    #[arg(long)]
    layers: bool,
    /// How long passes are repeated for each row, at least five times
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds from 0 to 3600".into())
}

/// A network whose passes are measured.
struct Subject<'a> {
    model: &'a Model,
    patch: Option<(&'a Patch, &'a Path)>,
    peak_macs_per_second: f64,
}

/// Passes over batches of one size, with weights in one place.
struct Measured {
    row: Row,
    graph: Graph,
    /// Seconds of each node; none when nobody asked.
    nodes: Vec<f64>,
}

impl Speed {
    pub(super) fn run(&self, (global, compute): (&Global, &Compute), console: &Console) -> Result<u8> {
        if self.layers && !compute.is_host() {
            let got = format!("{} in {}", device::kind(&compute.device), compute.precision);
            let want = "f32 on the CPU, where operations end one by one".into();
            return Err(Error::Config { field: "layers", got, want });
        }
        let model = self.base.open()?;
        let patch = self.patch.as_deref().map(|path| Ok((Patch::open(path)?, path))).transpose()?;
        let patch = patch.as_ref().map(|(patch, path)| (patch, *path));
        let subject = Subject { model: &model, patch, peak_macs_per_second: peak_macs_per_second() };
        let (mut rows, mut layers) = (Vec::new(), Vec::new());
        for &batch in &self.batches {
            console.note(&format!("passes over batches of {batch}"));
            if !compute.is_host() {
                rows.push(self.placed(&subject, (batch as usize, compute), global.seed)?);
                continue;
            }
            let measure = |weights| self.measure(&subject, (batch as usize, weights), global.seed);
            let (mapped, heap) = (measure(Weights::Mapped)?, measure(Weights::Heap)?);
            layers.extend(subject.layers(&mapped, &heap)?);
            rows.extend([mapped.row, heap.row]);
            if has_bf16() {
                rows.push(measure(Weights::Bf16)?.row);
            }
        }
        let Subject { peak_macs_per_second, .. } = subject;
        let (threads, instructions) = (rayon::current_num_threads(), Instructions::in_use().to_string());
        let table = speed::Speed { threads, instructions, peak_macs_per_second, rows, layers };
        console.result(&table.text(), &json!(table))?;
        Ok(0)
    }

    fn measure(&self, subject: &Subject, (batch, weights): (usize, Weights), seed: u64) -> Result<Measured> {
        let network = subject.network(weights)?;
        let input = subject.input();
        let mut passes = Passes::new(&network, (input, batch), (seed, self.seconds))?;
        meter::mark();
        let seconds = passes.whole()?;
        let peak_bytes = meter::mark();
        let nodes = if self.layers { passes.by_node()? } else { Vec::new() };
        let macs = network.graph.cost(input)?.macs * batch as u64;
        let images_per_second = batch as f64 / seconds;
        let share_of_peak = Some(subject.share_of_peak(macs, seconds));
        let row = Row { batch, weights, seconds, images_per_second, share_of_peak, peak_bytes };
        Ok(Measured { row, graph: network.graph, nodes })
    }

    /// The row of passes on a device, or of halves.
    fn placed(&self, subject: &Subject, (batch, compute): (usize, &Compute), seed: u64) -> Result<Row> {
        let network = subject.network(Weights::Mapped)?.placed(compute)?;
        meter::mark();
        let seconds = on_device((&network, compute), (subject.input(), batch), (seed, self.seconds))?;
        let peak_bytes = meter::mark();
        let on_device = device::memory(&compute.device)?.map(|memory| memory.used);
        let weights = match compute.precision {
            Precision::F16 => Weights::DeviceF16,
            _ => Weights::DeviceF32,
        };
        let images_per_second = batch as f64 / seconds;
        let peak_bytes = on_device.unwrap_or(peak_bytes);
        Ok(Row { batch, weights, seconds, images_per_second, share_of_peak: None, peak_bytes })
    }
}

impl Subject<'_> {
    fn input(&self) -> &[usize] {
        &self.model.network.input.shape
    }

    /// The network as inference runs it.
    fn network(&self, weights: Weights) -> Result<Lowered> {
        let deployed = deploy_mapped(self.model, self.patch)?;
        let lowered = lower(&deployed.network.joined(0..deployed.network.parts.len()), &deployed.params)?;
        match weights {
            Weights::Bf16 => packed(lowered, Precision::Bf16),
            Weights::Heap => packed(lowered, Precision::F32),
            Weights::Mapped | Weights::DeviceF32 | Weights::DeviceF16 => Ok(lowered),
        }
    }

    /// Each node with its times, if it has some.
    fn layers(&self, mapped: &Measured, heap: &Measured) -> Result<Vec<Layer>> {
        let (batch, shapes) = (heap.row.batch, heap.graph.shapes(self.input())?);
        let times = heap.nodes.iter().zip(&mapped.nodes);
        let layer = |((node, output), (&heap_seconds, &mapped_seconds)): ((&Node, &Shape), _)| {
            let inputs: Vec<Shape> = node.inputs.iter().map(|&v| shapes[v].clone()).collect();
            let macs = node.op.macs(&inputs, output) * batch as u64;
            Layer {
                batch,
                node: node.name.clone(),
                operation: node.op.clone(),
                input: inputs.into_iter().next().unwrap_or_default(),
                output: output.clone(),
                macs,
                heap_seconds,
                mapped_seconds,
                share_of_peak: self.share_of_peak(macs, heap_seconds),
            }
        };
        Ok(heap.graph.nodes.iter().zip(&shapes[1..]).zip(times).map(layer).collect())
    }

    /// Multiply-adds a second over the most; 0 for none, however short.
    fn share_of_peak(&self, macs: u64, seconds: f64) -> f64 {
        if macs == 0 { 0.0 } else { macs as f64 / seconds / self.peak_macs_per_second }
    }
}

/// Multiply-adds a second that all threads together do in registers alone: the most of some tries.
fn peak_macs_per_second() -> f64 {
    /// A few milliseconds each: long beside the waking of threads, short enough that some tries are not
    /// disturbed.
    const ROUNDS: usize = 400_000;
    const TRIES: usize = 100;
    let rates = (0..TRIES).map(|_| {
        let begun = Instant::now();
        peak::multiply_adds(ROUNDS) as f64 / begun.elapsed().as_secs_f64()
    });
    rates.fold(0.0, f64::max)
}
