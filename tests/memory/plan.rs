//! What a training step holds, held against what the planner said before it ran.

use std::path::Path;

use archrepair::data::Images;
use archrepair::engine::checkpoint::{Depth, cut};
use archrepair::engine::grad::{Norms, Wanted};
use archrepair::engine::infer::infer;
use archrepair::engine::optim::Optimizer;
use archrepair::eval::Deployed;
use archrepair::fit::samples::Store;
use archrepair::fit::train::Sampler;
use archrepair::fit::{Level, Part, Samples, Sets, Site};
use archrepair::graph::lower::lower;
use archrepair::graph::op::elements;
use archrepair::memory::cache::Precision;
use archrepair::memory::plan::{Fate, Run, Step};
use archrepair::memory::{Levers, meter};
use archrepair::rng::Rng;
use archrepair::search::candidate::CleanStatistics;
use archrepair::search::space::relax;
use archrepair::zoo::{Model, Overrides};

use super::scratch;

/// Images of a batch.
const BATCH: usize = 32;

fn noise(n: usize) -> Images {
    let rng = &mut Rng::new(1);
    let pixels = (0..n * 784).map(|_| rng.below(256) as u8).collect();
    Images::from_parts([1, 28, 28], pixels, vec![3; n], "noise").unwrap()
}

/// Bytes that a step of the relaxed block needs, said and measured.
fn said_and_measured(model: &Model, block: &str, (levers, mapped): (Levers, bool)) -> [usize; 2] {
    let params = if mapped { model.mapped_params() } else { model.params() };
    let deployed = Deployed { levers, ..Deployed::new(model.network.clone(), params.unwrap()) };
    let site = Site::new(&deployed, Level::Block(block.into())).unwrap();
    let store = Store { folder: &std::env::temp_dir(), precision: Precision::F16 };
    let normalize = deployed.normalize().unwrap();
    let samples = Samples::taught(&site, &noise(40), &normalize, store).unwrap();
    let clean = CleanStatistics::measure(&samples).unwrap();
    let space = relax(&site, &clean, &mut Rng::new(2)).unwrap();
    let mut part = Part::new(space.graph, space.params.resident().unwrap(), &site).unwrap();
    let wanted = Wanted { trained: &|_| true, input: false, norms: Norms::Fixed };
    let named = part.graph.params(&site.input).unwrap();
    let trained = named.iter().filter(|p| p.param.trainable).map(|p| 4 * elements(&p.param.shape));
    let step = Step {
        graph: &part.graph,
        trained: &part.trained,
        trained_bytes: trained.sum(),
        recompute: &cut(&part.graph, &site.input, wanted, levers.depth).unwrap(),
        input: &site.input,
        params: None,
        gradients: Fate::Summed,
        suffix: &site.suffix,
        mapped,
        batch: BATCH,
        micro_batch: levers.micro_batch,
        states: levers.rule().states(),
        threads: rayon::current_num_threads(),
    };
    let said = step.peak().unwrap().bytes;
    let sets = Sets { failures: &samples, surrogates: None, replay: &samples };
    let draws = Sampler::new().draw(sets, BATCH, &mut Rng::new(3));
    drop(part.gradients(&site, &draws, 3.0).unwrap());
    let mut optimizer = Optimizer::owning(levers.rule(), &part.params).unwrap();
    meter::reset_peak();
    let before = meter::current();
    // The optimizer makes its state in the first step; from the second on, it is there.
    for _ in 0..2 {
        let (_, gradients) = part.gradients(&site, &draws, 3.0).unwrap();
        optimizer.step(&mut part.params, &gradients, |_| 1e-3).unwrap();
    }
    [said, meter::peak() - before]
}

pub(crate) fn a_pass_that_trains_nothing_holds_what_was_said() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
    let model = Model::open(&path, &Overrides::default()).unwrap();
    let whole = model.network.joined(0..model.network.parts.len());
    for (batch, mapped) in [(32, false), (8, false), (8, true), (1, true)] {
        let params = if mapped { model.mapped_params() } else { model.params() };
        let lowered = lower(&whole, &params.unwrap()).unwrap();
        let threads = rayon::current_num_threads();
        let run = Run { lowered: &lowered, input: &[1, 28, 28], batch, mapped, threads };
        let said = run.peak().unwrap().bytes;
        drop(infer(&lowered.graph, &lowered.params, &scratch::normal(&[batch, 1, 28, 28])).unwrap());
        meter::reset_peak();
        let before = meter::current();
        let x = scratch::normal(&[batch, 1, 28, 28]);
        drop(infer(&lowered.graph, &lowered.params, &x).unwrap());
        let measured = meter::peak() - before;
        let case = format!("{batch} images, mapped {mapped}: {measured} bytes, said {said}");
        assert!(measured <= said, "{case}");
        assert!(said as f64 <= 1.05 * measured as f64, "{case}");
    }
}

pub(crate) fn a_step_holds_what_was_said() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
    let model = Model::open(&path, &Overrides::default()).unwrap();
    for block in ["layer1.0", "layer2.0", "layer3.1", "layer4.0"] {
        for depth in [Depth::Nothing, Depth::Mixtures, Depth::Segments] {
            for (micro_batch, mapped) in [(32, false), (8, false), (2, true)] {
                let levers = Levers { micro_batch, depth, ..Levers::FASTEST };
                let [said, measured] = said_and_measured(&model, block, (levers, mapped));
                let case = format!("{block}, {levers:?}, mapped {mapped}: {measured} bytes, said {said}");
                assert!(measured <= said, "{case}");
                assert!(said as f64 <= 1.05 * measured as f64, "{case}");
            }
        }
    }
}
