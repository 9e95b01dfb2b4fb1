//! Trial repairs of several blocks: features from one pass, trainings that wait, steps that are told.

use archrepair::data::Images;
use archrepair::eval::Deployed;
use archrepair::fit::samples::Store;
use archrepair::fit::{Config, Cuts, Level, Part, Samples, Sets, Site, Training};
use archrepair::localize::race::{Field, most_steps, race};
use archrepair::memory::cache::Precision;
use archrepair::rng::Rng;

use crate::determinism::{assert_same_on_any_threads, bits, noise};
use crate::support::open_network;

fn network() -> Deployed {
    open_network("resnet18_cifar", [28, 28])
}

fn names(blocks: &[&str]) -> Vec<String> {
    blocks.iter().map(|&block| block.into()).collect()
}

/// The bits of all features, and of what they are trained towards with the deployed network's opinion.
fn seen(samples: &Samples, distill: f64) -> (Vec<u32>, Vec<f32>) {
    let all: Vec<usize> = (0..samples.len()).collect();
    let features = samples.batch(&all).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut targets = vec![0.0; 10 * all.len()];
    samples.targets_into(&all, distill, &mut targets).unwrap();
    (features.into_iter().map(f32::to_bits).collect(), targets)
}

#[test]
fn features_from_one_pass_are_those_of_a_pass_for_each_block() {
    let (deployed, images) = (network(), noise(9, 1));
    let deployed =
        Deployed { levers: archrepair::memory::Levers { infer_batch: 4, ..deployed.levers }, ..deployed };
    let store = Store { folder: &std::env::temp_dir(), precision: Precision::F32 };
    let blocks = names(&["layer1.0", "layer2.0", "layer4.1"]);
    let cuts = Cuts::new(&deployed, &blocks).unwrap();
    let (plain, taught) = (cuts.samples(&images, store).unwrap(), cuts.taught(&images, store).unwrap());
    for ((block, plain), taught) in blocks.iter().zip(&plain).zip(&taught) {
        let site = Site::new(&deployed, Level::Block(block.clone())).unwrap();
        let one = Samples::taught(&site, &images, &deployed.normalize().unwrap(), store).unwrap();
        assert!(seen(plain, 0.0) == seen(&one, 0.0), "{block}");
        let ((_, got), (_, want)) = (seen(taught, 3.0), seen(&one, 3.0));
        let off = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{block}: opinions are off by {off}");
    }
}

#[test]
fn blocks_out_of_order_are_refused() {
    let error = Cuts::new(&network(), &names(&["layer2.0", "layer1.0"])).unwrap_err().to_string();
    assert_eq!(error, "node `cuts`: blocks layer2.0, layer1.0 are not in the network's order");
}

#[test]
fn a_training_that_waited_in_a_file_goes_on_as_one_that_did_not() {
    let deployed = network();
    let site = Site::new(&deployed, Level::Block("layer2.0".into())).unwrap();
    let store = Store { folder: &std::env::temp_dir(), precision: Precision::F16 };
    let samples = |images| Samples::taught(&site, &images, &deployed.normalize().unwrap(), store).unwrap();
    let (failures, replay) = (samples(noise(20, 1)), samples(noise(30, 2)));
    let sets = Sets { failures: &failures, surrogates: None, replay: &replay };
    let config = Config { steps: 3, batch: 16, ..Config::default() };
    let after = |waits: bool| {
        let part = Part::new(site.graph.clone(), site.params.clone(), &site).unwrap();
        let mut training = Training::new(&site, part, Rng::new(3));
        for _ in 0..2 {
            training.round(&site, sets, &config, &mut |_, _| {}).unwrap();
            if waits {
                training.set_aside(store.folder).unwrap();
                assert!(training.part.params.iter().all(|(_, weight)| weight.is_mapped()));
                training = training.resumed(&site).unwrap();
            }
        }
        bits(&training.part.params)
    };
    assert!(after(true) == after(false));
}

/// Losses and steps of a race between three blocks, and how many steps were told.
fn raced(images: &[Images; 6]) -> (Vec<(u64, usize)>, usize) {
    let [failures, surrogates, replay, held_failures, held_surrogates, held_replay] = images;
    let field = Field { failures, surrogates, replay, held_failures, held_surrogates, held_replay };
    let store = Store { folder: &std::env::temp_dir(), precision: Precision::F16 };
    let config = Config { steps: 4, batch: 8, ..Config::default() };
    let blocks = names(&["layer1.0", "layer2.0", "layer3.1"]);
    let mut told = 0;
    let mut tell = |_: &str, _| told += 1;
    let trials = race(&network(), field, &blocks, (&config, store, 5), &mut tell).unwrap();
    (trials.iter().map(|trial| (trial.loss().to_bits(), trial.steps)).collect(), told)
}

#[test]
fn a_race_is_the_same_on_any_number_of_threads_and_tells_every_step() {
    let images = [12, 20, 20, 6, 10, 10].map(|n| noise(n, n as u64));
    let (trials, told) = assert_same_on_any_threads(|| raced(&images));
    assert_eq!(told, trials.iter().map(|(_, steps)| steps).sum::<usize>());
    // Two steps of each block, then none, or two more of two or three.
    assert!([6, 10, 12].contains(&told) && told <= most_steps(3, 4), "{told}");
}
