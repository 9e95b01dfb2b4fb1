//! The step by this library, as a repair runs it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use archrepair::engine::checkpoint::Depth;
use archrepair::engine::optim::Optimizer;
use archrepair::eval::Deployed;
use archrepair::fit::train::Draw;
use archrepair::fit::{Level, Part, Samples, Site};
use archrepair::graph::network::{self, Input, Network};
use archrepair::graph::op::elements;
use archrepair::graph::{Graph, Params};
use archrepair::kernels::missing_thread_bytes;
use archrepair::memory::cache::{Cache, Precision};
use archrepair::memory::plan::{self, Fate};
use archrepair::memory::{Levers, meter};
use archrepair::storage::WeightFile;
use archrepair::zoo::{Model, Overrides};
use candle_core::{Device, Tensor};

use crate::case::Step;
use crate::measured::Measured;
use crate::options::Options;

const LEVERS: &str = "not nothing, mixtures or segments, with -mapped, -stateless, :MICRO-BATCH behind it";

/// The levers that `DEPTH[-mapped][-stateless][:MICRO-BATCH]` stands for. Levers are chosen here
/// and nowhere else.
pub(crate) fn levers(text: &str) -> Result<Levers, String> {
    let (text, micro_batch) = text.split_once(':').map_or((text, None), |(text, n)| (text, Some(n)));
    let micro_batch = micro_batch.map_or(Ok(usize::MAX), |n| n.parse().map_err(|_| LEVERS))?;
    let mut words = text.split('-');
    let depth = match words.next() {
        Some("nothing") => Depth::Nothing,
        Some("mixtures") => Depth::Mixtures,
        Some("segments") => Depth::Segments,
        _ => return Err(LEVERS.into()),
    };
    let mut levers = Levers { depth, micro_batch, ..Levers::FASTEST };
    for word in words {
        match word {
            "mapped" => levers.mapped = true,
            "stateless" => levers.stateless = true,
            _ => return Err(LEVERS.into()),
        }
    }
    Ok(levers)
}

/// What runs the step with these levers: this program as a child.
pub(crate) fn command(folder: &Path, levers: &str) -> Command {
    let mut own = Options::own(folder);
    own.args(["--child", "archrepair", "--levers", levers]);
    own
}

/// Runs `steps` steps.
pub(crate) fn run(folder: &Path, levers: Levers, steps: usize) -> archrepair::Result<Measured> {
    let step = Step::open(folder);
    let site = site(folder, &step, levers)?;
    let mut part = part(folder, &step, &site)?;
    let samples = samples(folder, &step)?;
    let draws: Vec<Draw> =
        (0..samples.len()).map(|index| Draw { from: &samples, index, taught: false }).collect();
    let mut optimizer = Optimizer::owning(levers.rule(), &part.params)?;
    let said = meter::current() + said(&site, &part, draws.len())?;
    meter::reset_peak();
    let mut measured = Measured::start(if levers.stateless { "stateless" } else { "adam" });
    for _ in 0..steps {
        let start = Instant::now();
        let loss = if levers.steps_at_once(draws.len()) {
            let loss = part.step(&site, (&draws, 0.0), (&mut optimizer, &|_| step.rate))?;
            // Gradients are gone; after one step, Adam's mean of them is a share of the only one.
            note(&mut measured, &optimizer.first, ADAM_SHARE)?;
            loss
        } else {
            // What `Part::step` does, with a look at the gradients in between.
            let (loss, gradients) = part.gradients(&site, &draws, 0.0)?;
            note(&mut measured, &gradients, 1.0)?;
            optimizer.step(&mut part.params, &gradients, |_| step.rate)?;
            loss
        };
        measured.step(start.elapsed(), loss);
    }
    (measured.said, measured.engine_peak) = (Some(said), Some(meter::peak()));
    Ok(measured.end())
}

/// Share of the newest gradient in Adam's mean.
const ADAM_SHARE: f64 = 0.1;

/// Notes the gradients that `tensors` are `share` of.
fn note(measured: &mut Measured, tensors: &Params, share: f64) -> archrepair::Result<()> {
    for (name, tensor) in tensors.iter() {
        measured.gradient(name, &tensor.tensor()?, share).unwrap();
    }
    Ok(())
}

/// Where the step happens. Nothing stands before it, since the features are there already.
fn site(folder: &Path, step: &Step, levers: Levers) -> archrepair::Result<Site> {
    let model = Model::open(&folder.join("model.safetensors"), &Overrides::default())?;
    let level: Level = step.level.parse()?;
    let trained = level.parts(&model.network)?;
    let nothing = network::Part { name: "stem".into(), graph: Graph::default() };
    let before = (trained.start > 0).then_some(nothing);
    let parts = before.into_iter().chain(model.network.parts[trained.start..].iter().cloned()).collect();
    let input = Input { shape: step.input.clone(), mean: Vec::new(), std: Vec::new() };
    let network = Network { input, parts, ..model.network.clone() };
    let weights = network.params()?.into_iter();
    let weights = weights.map(|p| Ok((p.name.clone(), model.weight(&p.name, &p.param.shape)?)));
    let params = weights.collect::<archrepair::Result<Params>>()?;
    let deployed = Deployed::new(network, params).under(levers)?;
    // A step does not read the block as it was deployed.
    Ok(Site { params: Params::default(), ..Site::new(&deployed, level)? })
}

/// The part in training; choice weights stand still.
fn part(folder: &Path, step: &Step, site: &Site) -> archrepair::Result<Part> {
    let params = tensors(&step.graph, &step.input, &WeightFile::open(&folder.join("block.safetensors"))?)?;
    let mut part = Part::new(step.graph.clone(), params, site)?;
    part.trained = step.trained.iter().cloned().collect();
    Ok(part)
}

fn tensors(graph: &Graph, input: &[usize], file: &WeightFile) -> archrepair::Result<Params> {
    let named = graph.params(input)?.into_iter();
    named.map(|p| Ok((p.name.clone(), file.tensor(&p.name, &p.param.shape, &Device::Cpu)?))).collect()
}

/// The features in an unnamed file, as a repair keeps them. They are copied an image at a time, so
/// that this is not what the process needs most for.
fn samples(folder: &Path, step: &Step) -> archrepair::Result<Samples> {
    let mut cache = Cache::create(folder, &step.input, Precision::F32)?;
    let mut file = File::open(folder.join("batch.safetensors")).unwrap();
    let mut header = [0; 8];
    file.read_exact(&mut header).unwrap();
    file.seek(SeekFrom::Current(i64::from_le_bytes(header))).unwrap();
    let shape: Vec<usize> = std::iter::once(1).chain(step.input.iter().copied()).collect();
    let mut row = vec![0; 4 * elements(&step.input)];
    for _ in &step.labels {
        file.read_exact(&mut row).unwrap();
        let values: Vec<f32> =
            row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        cache.push(&Tensor::from_vec(values, &*shape, &Device::Cpu).unwrap())?;
    }
    cache.finish()?;
    Samples::of(cache, step.labels.clone(), step.classes)
}

/// Bytes that the planner expects of a step, beside what is there.
fn said(site: &Site, part: &Part, batch: usize) -> archrepair::Result<usize> {
    let trained = part.params.iter().filter(|(name, _)| part.trained.contains(*name));
    let step = plan::Step {
        graph: &part.graph,
        trained: &part.trained,
        trained_bytes: trained.map(|(_, weight)| weight.bytes()).sum(),
        recompute: &part.recompute,
        input: &site.input,
        params: None,
        gradients: if site.levers.steps_at_once(batch) { Fate::Stepped } else { Fate::Summed },
        suffix: &site.suffix,
        mapped: site.levers.mapped,
        batch,
        micro_batch: site.levers.micro_batch,
        states: site.levers.rule().states(),
        threads: rayon::current_num_threads(),
    };
    Ok(step.peak()?.bytes + missing_thread_bytes())
}
