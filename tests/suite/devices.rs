//! What devices run: in half precision on the CPU, with numbers rounded as devices round them; or on the
//! device that `ARCHREPAIR_TEST_DEVICE` names, as `cuda`, in halves and in singles.

use std::path::Path;
use std::sync::LazyLock;

use archrepair::data::corrupt::Corruption;
use archrepair::data::{Images, open};
use archrepair::device::{Compute, DeviceChoice, Precision, to_host};
use archrepair::engine::grad::{Norms, Wanted, backward, forward};
use archrepair::engine::optim::{Optimizer, Rule};
use archrepair::eval::{Deployed, accuracy};
use archrepair::fit::samples::Store;
use archrepair::fit::train::Sampler;
use archrepair::fit::{Level, Part, Samples, Sets, Site};
use archrepair::graph::Params;
use archrepair::graph::op::Conv2d;
use archrepair::kernels::conv2d::{self, Epilogue};
use archrepair::localize::{self, Ranking, localize};
use archrepair::memory::cache::Cache;
use archrepair::repair::patching::deploy;
use archrepair::repair::sets::prepare;
use archrepair::repair::{Config, Inputs, Outcome, Target, repair};
use archrepair::rng::Rng;
use archrepair::storage::Patch;
use archrepair::zoo::{Model, Overrides};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use crate::determinism::{assert_same_on_any_threads, noise};
use crate::gradients::convolutions;
use crate::random_graphs::Drawn;
use crate::support::{Tolerance, assert_close, normal, repeatable, values};

static DEVICE: LazyLock<Device> = LazyLock::new(|| {
    let name = std::env::var("ARCHREPAIR_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    name.parse::<DeviceChoice>().unwrap().open().unwrap()
});

fn halves() -> Compute {
    Compute { device: DEVICE.clone(), precision: Precision::F16 }
}

/// What is tested: halves; and singles where they take the same way.
fn computes() -> Vec<Compute> {
    let singles = Compute { precision: Precision::F32, ..halves() };
    [halves(), singles].into_iter().filter(|compute| !compute.is_host()).collect()
}

/// Halves have 11 bits, so a rounded number is off by a part in 2,048; a result has two or three such
/// roundings, none of them of a sum under way. Singles have sums of a few hundred terms in any order.
fn rounded(compute: &Compute) -> Tolerance {
    match compute.precision {
        Precision::F16 => Tolerance { absolute: 1e-3, relative: 2e-3 },
        _ => Tolerance { absolute: 1e-5, relative: 1e-5 },
    }
}

fn wide(x: &Tensor) -> Tensor {
    to_host(x).unwrap().to_dtype(DType::F64).unwrap()
}

proptest! {
    #![proptest_config(repeatable(96))]

    #[test]
    fn a_convolution_is_that_of_the_same_numbers_on_the_host_but_for_rounding(
        (conv, shape) in convolutions(),
        seed in any::<u64>(),
    ) {
        for compute in computes() {
            assert_convolution(&compute, (&conv, shape), &mut Rng::new(seed));
        }
    }
}

fn assert_convolution(compute: &Compute, (conv, shape): (&Conv2d, [usize; 4]), rng: &mut Rng) {
    let tolerance = rounded(compute);
    let mut drawn = |shape: &[usize]| compute.value(&normal(shape, rng)).unwrap();
    let [x, w] = [&shape[..], &conv.weight_shape(shape[1])].map(&mut drawn);
    let bias = compute.master(&drawn(&[conv.outputs])).unwrap();
    let run = |x: &Tensor, w: &Tensor, bias: &Tensor| {
        conv2d::forward(conv, x, w, Epilogue { bias: Some(bias), residual: None }).unwrap()
    };
    let (y, want) = (run(&x, &w, &bias), run(&wide(&x), &wide(&w), &wide(&bias)));
    assert_eq!(y.dtype(), x.dtype());
    assert_close("y", &wide(&y), &want, tolerance);
    let dy = drawn(want.dims());
    let dx = conv2d::dx(conv, &dy, &w, &shape).unwrap();
    assert_close("dx", &wide(&dx), &conv2d::dx(conv, &wide(&dy), &wide(&w), &shape).unwrap(), tolerance);
    let dw = conv2d::dw(conv, &dy, &x).unwrap();
    assert_eq!(dw.dtype(), DType::F32);
    assert_close("dw", &wide(&dw), &conv2d::dw(conv, &wide(&dy), &wide(&x)).unwrap(), tolerance);
    let dbias = conv2d::dbias(&dy).unwrap();
    assert_close("dbias", &wide(&dbias), &conv2d::dbias(&wide(&dy)).unwrap(), tolerance);
}

/// How far all gradients of the graph of `seed` are off: the length of the difference over that of the
/// gradient.
fn gradients_off(compute: &Compute, seed: u64) -> Vec<f64> {
    let Drawn { graph, params, x } = Drawn::new(seed);
    let wanted = Wanted { trained: &|_| true, input: true, norms: Norms::Fixed };
    let run = |params: &Params, x: &Tensor| {
        let trace = forward(&graph, params, x, wanted).unwrap();
        let dy = trace.y.ones_like().unwrap();
        let found = backward(&graph, params, wanted, (trace, dy)).unwrap();
        let input = found.input.map(|dx| ("input".to_owned(), dx));
        found.params.tensors().unwrap().into_iter().chain(input).collect::<Vec<_>>()
    };
    // Both begin at the same rounded numbers.
    let placed = params.masters(&Compute::HOST).unwrap().placed(compute).unwrap();
    let wide_params = placed.iter().map(|(name, w)| (name.clone(), wide(&w.tensor().unwrap())));
    let (x, length) = (compute.value(&x).unwrap(), |of: &[f64]| of.iter().map(|x| x * x).sum::<f64>().sqrt());
    let (got, want) = (run(&placed, &x), run(&wide_params.collect(), &wide(&x)));
    assert_eq!(got.len(), want.len());
    let off = |((name, got), (same, want)): (&(String, Tensor), &(String, Tensor))| {
        assert_eq!(name, same);
        let (got, want) = (values(&to_host(got).unwrap()), values(want));
        let off: Vec<f64> = got.iter().zip(&want).map(|(got, want)| got - want).collect();
        length(&off) / (length(&want) + 0.1)
    };
    got.iter().zip(&want).map(off).collect()
}

/// A few are further off, where a rounding exchanges a maximum or crosses the kink of a ReLU, or where a
/// gradient is too large for halves.
#[test]
fn gradients_of_graphs_with_every_operation_are_those_of_the_host() {
    for compute in computes() {
        let mut off: Vec<f64> = (0..64).flat_map(|seed| gradients_off(&compute, seed)).collect();
        off.sort_by(f64::total_cmp);
        let [median, most] = [off.len() / 2, off.len() * 95 / 100].map(|i| off[i]);
        let allowed = if compute.precision == Precision::F16 { [0.001, 0.01] } else { [1e-6, 1e-5] };
        assert!(median < allowed[0] && most < allowed[1], "{compute:?}: {median} {most} of {}", off.len());
    }
}

/// Late blocks of the shipped network have few pixels: halves are slow on the CPU.
const LATE: &str = "layer4.0";

fn shipped() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
    Model::open(&path, &Overrides::default()).unwrap()
}

fn late(compute: &Compute) -> Site {
    let network = deploy(&shipped(), None).unwrap().on(compute);
    Site::new(&network, Level::Block(LATE.into())).unwrap()
}

/// Noise, and the network's opinion about it.
fn samples(site: &Site) -> Samples {
    let normalize = deploy(&shipped(), None).unwrap().normalize().unwrap();
    let store = Store { folder: &std::env::temp_dir(), precision: Precision::F16 };
    Samples::taught(site, &noise(16, 1), &normalize, store).unwrap()
}

/// The block with its weights turned round: the network no longer is of its own opinion.
fn disagreeing(site: &Site) -> Part {
    let turned = |(name, w): (String, Tensor)| (name, if w.rank() > 1 { w.neg().unwrap() } else { w });
    let params = site.params.tensors().unwrap().into_iter().map(turned).collect();
    Part::new(site.graph.clone(), params, site).unwrap()
}

fn bits(params: &Params) -> Vec<Vec<u64>> {
    let bits = |w: Tensor| values(&to_host(&w).unwrap()).into_iter().map(f64::to_bits).collect();
    params.tensors().unwrap().into_values().map(bits).collect()
}

/// Features a thousand times too large make gradients by weights that no half can hold.
#[test]
fn a_step_whose_gradients_overflow_is_left_out_and_the_factor_is_halved() {
    let site = late(&halves());
    let shape = [&[8], site.input.as_slice()].concat();
    let mut large = Cache::create(&std::env::temp_dir(), &site.input, Precision::F32).unwrap();
    let features = normal(&shape, &mut Rng::new(1)).to_dtype(DType::F32).unwrap();
    large.push(&(features * 1000.0).unwrap()).unwrap();
    large.finish().unwrap();
    let samples = Samples::of(large, (0..8).collect::<Vec<_>>(), site.classes).unwrap();
    let mut part = Part::new(site.graph.clone(), site.params.clone(), &site).unwrap();
    part.move_to(&site.compute).unwrap();
    let mut optimizer = Optimizer::new(Rule::ADAM);
    let sets = Sets { failures: &samples, surrogates: None, replay: &samples };
    let draws = Sampler::new().draw(sets, 8, &mut Rng::new(1));
    let (before, first) = (bits(&part.params), part.scale().factor());
    let mut step = |part: &mut Part| {
        let loss = part.step(&site, (&draws, 0.0), (&mut optimizer, &|_| 1e-3)).unwrap();
        assert!(loss.is_finite());
        optimizer.steps
    };
    assert_eq!((step(&mut part), part.scale().factor()), (0, first / 2.0));
    assert_eq!(bits(&part.params), before);
    // Half by half until the gradients fit; then steps are made again, with the weights in `f32`.
    while step(&mut part) == 0 {}
    assert!(part.scale().factor() >= 1.0 && part.scale().factor() < first / 2.0);
    assert_ne!(bits(&part.params), before);
    assert!(part.params.tensors().unwrap().values().all(|w| w.dtype() == DType::F32));
}

#[test]
fn gradients_are_the_same_again_and_on_any_number_of_threads() {
    let site = late(&halves());
    let samples = samples(&site);
    let sets = Sets { failures: &samples, surrogates: None, replay: &samples };
    let draws = Sampler::new().draw(sets, 8, &mut Rng::new(1));
    assert_same_on_any_threads(|| bits(&disagreeing(&site).gradients(&site, &draws, 3.0).unwrap().1));
}

/// Of the loss itself, though they were taken by 32,768 times the loss.
#[test]
fn gradients_of_a_part_in_halves_are_nearly_those_in_singles() {
    let (site, single) = (late(&halves()), late(&Compute::HOST));
    let samples = samples(&single);
    let sets = Sets { failures: &samples, surrogates: None, replay: &samples };
    let draws = Sampler::new().draw(sets, 8, &mut Rng::new(1));
    let gradients = |site: &Site| disagreeing(site).gradients(site, &draws, 3.0).unwrap();
    let ((loss, got), (want_loss, want)) = (gradients(&site), gradients(&single));
    assert!((loss - want_loss).abs() < 2e-3 * want_loss, "{loss} {want_loss}");
    for (name, want) in want.tensors().unwrap() {
        let tolerance = Tolerance { absolute: 1e-6, relative: 0.03 };
        assert_close(&name, &got.get(&name).unwrap(), &want, tolerance);
    }
}

/// The shipped network in a field of low contrast: failures and clean images.
struct Field {
    model: Model,
    failures: Images,
    replay: Images,
    held_out: [Images; 2],
}

impl Field {
    fn new() -> Self {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let model = shipped();
        let set = |name| open(&models.join("fashion-sample").join(name), "test").unwrap();
        let few = |images: &Images, n: usize| images.subset(&(0..n).collect::<Vec<_>>());
        let corruption: Corruption = "contrast:5".parse().unwrap();
        let runner = deploy(&model, None).unwrap().runner().unwrap();
        let field = corruption.apply(&few(&set("pool"), 200), 1);
        let classes = runner.classes(&field).unwrap();
        let wrong: Vec<usize> = (0..200).filter(|&i| classes[i] != field.targets()[i]).take(40).collect();
        let clean = few(&set("heldout"), 200);
        let held_out = [corruption.apply(&clean, 2), clean];
        Self { failures: field.subset(&wrong), replay: few(&set("replay"), 100), model, held_out }
    }

    fn inputs<'a>(&'a self, folder: &'a Path) -> Inputs<'a> {
        Inputs { failures: &self.failures, replay: &self.replay, guard: None, folder }
    }

    fn ranking(&self, compute: &Compute) -> Ranking {
        let folder = std::env::temp_dir();
        let network = deploy(&self.model, None).unwrap().on(compute);
        let split = prepare(&network, self.inputs(&folder), 0).unwrap();
        let mut config = localize::Config { race_steps: 6, candidates: 3, ..localize::Config::default() };
        config.fit.batch = 8;
        let store = Store { folder: &folder, precision: Precision::F16 };
        localize(&network, split.field(), (&config, store), &mut |_, _| {}).unwrap()
    }

    fn repair(&self, compute: &Compute) -> Outcome {
        let target = Target::Fixed(Level::Block("layer2.0".into()));
        let mut config = Config { target, compute: compute.clone(), ..Config::default() };
        (config.search.steps, config.fit.steps, config.fit.batch) = (4, 20, 16);
        config.fit.rate = 2e-3;
        let folder = std::env::temp_dir();
        repair(&self.model, self.inputs(&folder), &config, &mut |_, _, _| {}).unwrap()
    }

    /// What was published is what was judged, whichever precision reads it.
    fn assert_published(&self, outcome: &Outcome, compute: &Compute) {
        let name = Path::new("patch");
        let patch = Patch::read(outcome.patch.clone(), name).unwrap();
        let loaded = deploy(&self.model, Some((&patch, name))).unwrap();
        let [corrupted, _] = &self.held_out;
        let classes = |network: &Deployed| network.runner().unwrap().classes(corrupted).unwrap();
        let judged = classes(&outcome.repaired);
        assert_eq!(classes(&loaded.clone().on(compute)), judged);
        let same = classes(&loaded).into_iter().zip(judged).filter(|(loaded, judged)| loaded == judged);
        let same = same.count();
        assert!(same >= 194, "{same} of 200 answers are the same on the host");
    }

    /// Shares of held-out images that are right: corrupted, clean.
    fn accuracies(&self, network: &Deployed) -> [f64; 2] {
        let runner = network.runner().unwrap();
        self.held_out.each_ref().map(|set| accuracy(&runner.classes(set).unwrap(), &set.targets()))
    }
}

#[test]
fn the_ranking_of_blocks_is_that_of_the_host() {
    let field = Field::new();
    let host = field.ranking(&Compute::HOST);
    for compute in computes() {
        let ranking = field.ranking(&compute);
        assert_eq!(host.blocks[0].block, ranking.blocks[0].block);
        for block in &host.blocks {
            let of = ranking.blocks.iter().find(|of| of.block == block.block).unwrap();
            let off = (of.score - block.score).abs();
            assert!(off < 0.05, "{} on {compute:?}: {} {}", block.block, of.score, block.score);
        }
    }
}

#[test]
fn a_repair_is_as_good_as_that_of_the_host_and_its_patch_loads() {
    let field = Field::new();
    let before = field.accuracies(&deploy(&field.model, None).unwrap());
    let on_host = field.accuracies(&field.repair(&Compute::HOST).trained);
    for compute in computes() {
        let outcome = field.repair(&compute);
        let after = field.accuracies(&outcome.trained);
        for (host, after) in on_host.iter().zip(after) {
            assert!((host - after).abs() < 0.06, "{host} on the host, {after} on {compute:?}");
        }
        assert!(after[0] > before[0] + 0.05, "{before:?} became {after:?}");
        field.assert_published(&outcome, &compute);
    }
}
