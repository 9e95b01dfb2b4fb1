//! The same bytes out on any number of threads.

use archrepair::data::Images;
use archrepair::eval::Deployed;
use archrepair::fit::samples::Store;
use archrepair::fit::scratch::{self, Run};
use archrepair::fit::{Config, Level, Part, Samples, Sets, Site, fit};
use archrepair::graph::{Params, Weight};
use archrepair::localize::{gradient, neurons};
use archrepair::memory::cache::Precision;
use archrepair::rng::Rng;
use rayon::ThreadPoolBuilder;

use crate::support::open_network;

fn network() -> Deployed {
    open_network("resnet18_cifar", [28, 28])
}

/// Images of noise with labels drawn from ten classes.
pub(crate) fn noise(n: usize, seed: u64) -> Images {
    let rng = &mut Rng::new(seed);
    let pixels = (0..n * 28 * 28).map(|_| rng.below(256) as u8).collect();
    let labels = (0..n).map(|_| rng.below(10) as u32).collect();
    Images::from_parts([1, 28, 28], pixels, labels, "noise").unwrap()
}

/// Runs `body` on one, two and three threads, and fails unless all results are equal.
#[track_caller]
pub(crate) fn assert_same_on_any_threads<R: PartialEq + Send>(body: impl Fn() -> R + Sync) -> R {
    let on = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            assert_eq!(rayon::current_num_threads(), threads);
            body()
        })
    };
    let one = on(1);
    for threads in [2, 3] {
        assert!(on(threads) == one, "another result on {threads} threads");
    }
    one
}

/// Names and bits of all tensors.
pub(crate) fn bits(params: &Params) -> Vec<(String, Vec<u32>)> {
    let bits = |weight: &Weight| -> Vec<u32> {
        weight
            .tensor()
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f32::to_bits)
            .collect()
    };
    params.iter().map(|(name, weight)| (name.clone(), bits(weight))).collect()
}

fn fitted(block: &str) -> Params {
    let deployed = network();
    let site = Site::new(&deployed, Level::Block(block.into())).unwrap();
    let store = Store { folder: &std::env::temp_dir(), precision: Precision::F16 };
    let samples = |images| Samples::taught(&site, &images, &deployed.normalize().unwrap(), store).unwrap();
    let (failures, replay) = (samples(noise(20, 1)), samples(noise(30, 2)));
    let part = Part::new(site.graph.clone(), site.params.clone(), &site).unwrap();
    let config = Config { steps: 4, batch: 24, ..Config::default() };
    let sets = Sets { failures: &failures, surrogates: None, replay: &replay };
    fit(&site, part, sets, (&config, Rng::new(3)), &mut |_, _| {}).unwrap().params
}

#[test]
fn fitting_a_block_gives_the_same_bytes_on_any_number_of_threads() {
    for block in ["layer1.0", "layer3.0"] {
        let after = assert_same_on_any_threads(|| bits(&fitted(block)));
        assert_ne!(after, bits(&Site::new(&network(), Level::Block(block.into())).unwrap().params));
    }
}

#[test]
fn gradients_by_neurons_are_the_same_on_any_number_of_threads() {
    let (deployed, images) = (network(), noise(7, 4));
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    let layers = neurons::layers(&deployed, &whole);
    let norms = assert_same_on_any_threads(|| {
        let rows = gradient::norms(&deployed, &layers, &images, &std::env::temp_dir()).unwrap();
        let mut all = Vec::new();
        rows.each(0..rows.len(), |row| all.extend(row.iter().map(|x| x.to_bits()))).unwrap();
        all
    });
    assert_eq!(norms.len(), 7 * layers.iter().map(|layer| layer.n).sum::<usize>());
}

#[test]
fn training_from_scratch_gives_the_same_bytes_on_any_number_of_threads() {
    let config = scratch::Config { epochs: 1, batch: 16, ..scratch::Config::default() };
    let images = noise(32, 5);
    assert_same_on_any_threads(|| {
        let mut run = Run::new(network(), &config);
        let loss = run.epoch(&images, &config, &mut |_, _| {}).unwrap();
        (loss.to_bits(), bits(&run.deployed.params))
    });
}
