//! Levers of memory that keep arithmetic: the same bytes with and without them.

use archrepair::data::Images;
use archrepair::engine::checkpoint::Depth;
use archrepair::engine::optim::{Optimizer, Rule};
use archrepair::eval::Deployed;
use archrepair::fit::samples::Store;
use archrepair::fit::train::Sampler;
use archrepair::fit::{Level, Part, Samples, Sets, Site};
use archrepair::memory::Levers;
use archrepair::memory::cache::Precision;
use archrepair::repair::{Config, Counts, Inputs, Target, plan, repair_as_planned};
use archrepair::rng::Rng;
use archrepair::search::candidate::CleanStatistics;
use archrepair::search::space::relax;
use archrepair::zoo::{Model, Overrides};

use crate::determinism::noise;
use crate::support::{data, open_network};

/// Noise with the labels that `network` gives it, or others.
fn labelled(network: &Deployed, n: usize, right: bool) -> Images {
    let noise = noise(n, u64::from(right));
    let classes = network.runner().unwrap().classes(&noise).unwrap();
    noise.relabelled(classes.into_iter().map(|class| ((class + usize::from(!right)) % 10) as u32).collect())
}

fn short() -> Config {
    let target = Target::Fixed(Level::Block("layer2.0".into()));
    let mut config = Config { target, ..Config::default() };
    config.search.steps = 4;
    config.fit.steps = 7;
    config.fit.batch = 8;
    config
}

/// The patch of a short repair under `levers`.
fn patch(model: &Model, inputs: Inputs, (features, levers): (Precision, Levers)) -> Vec<u8> {
    let config = Config { features, ..short() };
    let mut plan = plan(model, &config, Counts::of(&inputs)).unwrap();
    plan.levers = levers;
    repair_as_planned(model, inputs, (&config, &plan), &mut |_, _, _| {}).unwrap().patch.to_vec()
}

#[test]
fn a_patch_has_the_same_bytes_whatever_is_computed_again_or_left_in_files() {
    let model = Model::open(&data("resnet18_cifar.safetensors"), &Overrides::default()).unwrap();
    let network = open_network("resnet18_cifar", [28, 28]);
    let [failures, replay] = [labelled(&network, 20, false), labelled(&network, 40, true)];
    let folder = std::env::temp_dir();
    let inputs = Inputs { failures: &failures, replay: &replay, guard: None, folder: &folder };
    let [halves, singles] = [Precision::F16, Precision::F32].map(|features| {
        let fastest = patch(&model, inputs, (features, Levers::FASTEST));
        for depth in [Depth::Nothing, Depth::Mixtures, Depth::Segments] {
            for mapped in [false, true] {
                let levers = Levers { depth, mapped, ..Levers::FASTEST };
                assert!(patch(&model, inputs, (features, levers)) == fastest, "{features}, {levers:?}");
            }
        }
        fastest
    });
    // The check can fail: features of half precision give another patch, and so do levers that change
    // the training or the search.
    assert!(halves != singles);
    for other in [
        Levers { by_path: true, ..Levers::FASTEST },
        Levers { grouped: true, ..Levers::FASTEST },
        Levers { stateless: true, ..Levers::FASTEST },
        Levers { micro_batch: 2, streamed: true, ..Levers::FASTEST },
    ] {
        assert!(patch(&model, inputs, (Precision::F16, other)) != halves, "{other:?}");
    }
}

#[test]
fn gradients_that_step_as_they_come_give_the_bits_of_those_that_wait() {
    let (network, folder) = (open_network("resnet18_cifar", [28, 28]), std::env::temp_dir());
    for (rule, block) in [(Rule::ADAM, "layer1.0"), (Rule::Normalized, "layer3.0")] {
        let site = Site::new(&network, Level::Block(block.into())).unwrap();
        let store = Store { folder: &folder, precision: Precision::F16 };
        let normalize = network.normalize().unwrap();
        let samples = Samples::taught(&site, &noise(20, 1), &normalize, store).unwrap();
        let clean = CleanStatistics::measure(&samples).unwrap();
        let part = || {
            let space = relax(&site, &clean, &mut Rng::new(2)).unwrap();
            Part::new(space.graph, space.params, &site).unwrap()
        };
        let (mut at_once, mut waiting) = (part(), part());
        let mut optimizers = [&at_once, &waiting].map(|part| Optimizer::owning(rule, &part.params).unwrap());
        let sets = Sets { failures: &samples, surrogates: None, replay: &samples };
        let rate = |name: &str| if name.ends_with("weight") { 1e-2 } else { 3e-3 };
        for seed in 0..3 {
            let draws = Sampler::new().draw(sets, 8, &mut Rng::new(seed));
            let [first, second] = &mut optimizers;
            let loss = at_once.step(&site, (&draws, 3.0), (first, &rate)).unwrap();
            let (same_loss, gradients) = waiting.gradients(&site, &draws, 3.0).unwrap();
            second.step(&mut waiting.params, &gradients, rate).unwrap();
            assert_eq!(loss.to_bits(), same_loss.to_bits());
        }
        for (name, weight) in at_once.params.iter() {
            let bits = |weight: &archrepair::graph::Weight| {
                let numbers = weight.tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(bits(weight), bits(waiting.params.find(name).unwrap()), "{name}");
        }
    }
}
