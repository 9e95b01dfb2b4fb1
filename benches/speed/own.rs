//! The passes of this library, as a session runs them: in memory that is planned.

use std::path::Path;
use std::time::Instant;

use archrepair::device::Precision;
use archrepair::engine::layout::Layout;
use archrepair::engine::packing::packed;
use archrepair::graph::lower::{Lowered, lower};
use archrepair::graph::op::{Shape, elements};
use archrepair::memory::meter;
use archrepair::repair::patching::deploy_mapped;
use archrepair::zoo::{Model, Overrides};
use candle_core::Device;
use clap::ValueEnum;

use crate::measured::Measured;

/// Where the weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// On the heap, for products of `bf16`.
    Bf16,
    /// All widened to `f32`, in the order of the kernels.
    Heap,
    /// In the file, in `f16`.
    Mapped,
}

impl Weights {
    /// The word for it among the arguments.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Heap => "heap",
            Self::Mapped => "mapped",
        }
    }
}

/// As many as the script of the others has: passes that do not count, and those that do at least.
const WARM: usize = 3;
const LEAST: usize = 5;

/// Runs the batch in `folder` again and again for some `seconds`. A pass is timed from where its images
/// are copied into the engine's memory.
pub(crate) fn run(folder: &Path, weights: Weights, seconds: f64) -> archrepair::Result<Measured> {
    let x = batch(folder);
    let before = meter::current();
    let (shape, Lowered { graph, params }) = network(folder, weights)?;
    let n = x.len() / elements(&shape);
    let layout = Layout::new((&graph, &params), (&shape, n), rayon::current_num_threads())?;
    let mut executor = layout.executor()?;
    meter::reset_peak();
    let mut pass = || {
        let begun = Instant::now();
        executor.input(n)?.copy_from_slice(&x);
        let logits = std::hint::black_box(executor.run(n)?).to_vec();
        archrepair::Result::Ok((begun.elapsed().as_secs_f64(), logits))
    };
    for _ in 0..WARM {
        pass()?;
    }
    let engine_bytes = Some(meter::peak() - before);
    let (mut times, begun) = (Vec::new(), Instant::now());
    while times.len() < LEAST || begun.elapsed().as_secs_f64() < seconds {
        times.push(pass()?.0);
    }
    let (_, logits) = pass()?;
    let vm_hwm = meter::process().map_or(0, |memory| memory.vm_hwm);
    Ok(Measured { times, vm_hwm, engine_bytes, logits })
}

/// The numbers of `batch.safetensors`.
fn batch(folder: &Path) -> Vec<f32> {
    let tensors = candle_core::safetensors::load(folder.join("batch.safetensors"), &Device::Cpu).unwrap();
    tensors["x"].flatten_all().unwrap().to_vec1().unwrap()
}

/// Shape of an image, and the network folded and fused.
fn network(folder: &Path, weights: Weights) -> archrepair::Result<(Shape, Lowered)> {
    let model = Model::open(&folder.join("model.safetensors"), &Overrides::default())?;
    let deployed = deploy_mapped(&model, None)?;
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    let lowered = lower(&whole, &deployed.params)?;
    let lowered = match weights {
        Weights::Bf16 => packed(lowered, Precision::Bf16)?,
        Weights::Heap => packed(lowered, Precision::F32)?,
        Weights::Mapped => lowered,
    };
    Ok((model.network.input.shape, lowered))
}
