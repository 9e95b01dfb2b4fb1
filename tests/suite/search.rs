//! A relaxed part starts as the deployed one, and keeps its shapes.

use std::collections::BTreeSet;

use archrepair::engine::infer::infer;
use archrepair::fit::samples::Store;
use archrepair::fit::{Level, Samples, Site};
use archrepair::graph::Graph;
use archrepair::graph::op::Op;
use archrepair::memory::cache::Precision;
use archrepair::rng::Rng;
use archrepair::search::candidate::CleanStatistics;
use archrepair::search::paths::{n_paths, path_graph};
use archrepair::search::space::{relax, relaxed_graph, trial, trial_graph};

use crate::determinism::noise;
use crate::support::{CLOSE, assert_close, open_network};

#[test]
fn every_relaxed_block_starts_as_the_deployed_one() {
    let deployed = open_network("resnet18_cifar", [28, 28]);
    let images = noise(6, 3);
    let folder = std::env::temp_dir();
    let store = Store { folder: &folder, precision: Precision::F32 };
    for block in deployed.network.blocks() {
        let site = Site::new(&deployed, Level::Block(block.name.clone())).unwrap();
        let samples = Samples::new(&site, &images, &deployed.normalize().unwrap(), store).unwrap();
        let clean = CleanStatistics::measure(&samples).unwrap();
        let x = samples.batch(&[0, 1, 2, 3, 4, 5]).unwrap();
        let want = infer(&site.graph, &site.params, &x).unwrap();
        let space = relax(&site, &clean, &mut Rng::new(1)).unwrap();
        // Four choices at the input and one at each convolution.
        let convolutions = site.params.iter().filter(|(_, weight)| weight.shape().len() == 4).count();
        assert_eq!(space.positions.len(), 4 + convolutions);
        assert_close(&block.name, &infer(&space.graph, &space.params, &x).unwrap(), &want, CLOSE);
        assert_eq!(relaxed_graph(&site).unwrap(), space.graph);
        let short = trial(&site, &clean, &mut Rng::new(1)).unwrap();
        assert_close(&block.name, &infer(&short.graph, &short.params, &x).unwrap(), &want, CLOSE);
        assert_eq!(trial_graph(&site).unwrap(), short.graph);
    }
}

#[test]
fn paths_have_one_alternative_each_and_all_of_them_together() {
    let deployed = open_network("resnet18_cifar", [28, 28]);
    for block in ["layer1.0", "layer2.0"] {
        let site = Site::new(&deployed, Level::Block(block.into())).unwrap();
        let whole = relaxed_graph(&site).unwrap();
        let names = |graph: &Graph| -> BTreeSet<String> {
            graph.params(&site.input).unwrap().into_iter().map(|p| p.name).collect()
        };
        let n = n_paths(&whole);
        // Nine alternatives to a convolution that keeps its shape; skipping is none to another.
        assert_eq!(n, 9, "{block}");
        let mut together = BTreeSet::new();
        for i in 0..n {
            let path = path_graph(&whole, i);
            let mixtures = path.nodes.iter().filter(|node| node.op == Op::Mix);
            assert!(mixtures.map(|mix| mix.inputs.len()).all(|inputs| inputs == 2));
            assert!(path.params(&site.input).unwrap().len() < names(&whole).len());
            together.extend(names(&path));
        }
        assert_eq!(together, names(&whole));
    }
}
