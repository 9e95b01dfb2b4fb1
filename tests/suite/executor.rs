//! Passes in planned memory have the bits of those that make a tensor for each node.

use std::collections::BTreeMap;

use archrepair::engine::executor::Executor;
use archrepair::engine::infer::infer;
use archrepair::engine::layout::Layout;
use archrepair::graph::lower::{Lowered, lower};
use archrepair::graph::op::{Activation, Op};
use archrepair::graph::{Graph, INPUT, Params, Value};
use archrepair::rng::Rng;
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use crate::random_graphs::Drawn;
use crate::support::{normal, open_network, repeatable};

fn single(params: &Params) -> Params {
    params.to(&Device::Cpu, DType::F32).unwrap()
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// `x` without images, and the first `n` of them.
fn images(shape: &[usize], n: usize) -> Tensor {
    let shape: Vec<usize> = std::iter::once(n).chain(shape.iter().copied()).collect();
    normal(&shape, &mut Rng::new(n as u64)).to_dtype(DType::F32).unwrap()
}

#[track_caller]
fn assert_same_bits(executor: &mut Executor, (graph, params): (&Graph, &Params), x: &Tensor) {
    let n = x.dims()[0];
    executor.input(n).unwrap().copy_from_slice(&flat(x));
    let got = bits(executor.run(n).unwrap());
    assert_eq!(got, bits(&flat(&infer(graph, params, x).unwrap())), "{n} images, {graph:?}");
}

/// Runs batches of all sizes in one memory, on pools of other sizes than it was laid out for.
#[track_caller]
fn assert_same_passes(graph: &Graph, params: &Params, input: &[usize]) {
    let layout = Layout::new((graph, params), (input, 5), 2).unwrap();
    let mut executor = layout.executor().unwrap();
    for threads in 1..=3 {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            for n in [5, 1, 2, 5, 3] {
                assert_same_bits(&mut executor, (graph, params), &images(input, n));
            }
        });
    }
}

/// Fails unless each node finds its inputs as they were written: no value lies over one that is
/// still read.
#[track_caller]
fn assert_no_value_is_lost(graph: &Graph, layout: &Layout, n: usize) {
    // For each written number its value, by the first of its names.
    let mut written: BTreeMap<usize, Value> = layout.range(INPUT, n).map(|at| (at, INPUT)).collect();
    let mut first_name = vec![INPUT];
    for (i, node) in graph.nodes.iter().enumerate() {
        for &v in &node.inputs {
            let is_there = |at| written.get(&at) == Some(&first_name[v]);
            assert!(layout.range(v, n).all(is_there), "{} reads {v}", node.name);
        }
        if matches!(node.op, Op::Flatten | Op::Identity) {
            assert_eq!(layout.range(i + 1, n), layout.range(node.inputs[0], n));
            first_name.push(first_name[node.inputs[0]]);
            continue;
        }
        first_name.push(i + 1);
        written.extend(layout.range(i + 1, n).map(|at| (at, i + 1)));
    }
    assert!(layout.range(graph.output(), n).all(|at| written[&at] == first_name[graph.output()]));
}

proptest! {
    #![proptest_config(repeatable(96))]

    #[test]
    fn random_graphs_have_the_same_bits_and_lose_no_value(seed in any::<u64>()) {
        let drawn = Drawn::new(seed);
        let params = single(&drawn.params);
        let lowered = lower(&drawn.graph, &params).unwrap();
        for (graph, params) in [(&drawn.graph, &params), (&lowered.graph, &lowered.params)] {
            let layout = Layout::new((graph, params), (drawn.input(), 5), 2).unwrap();
            (1..=5).for_each(|n| assert_no_value_is_lost(graph, &layout, n));
            assert_same_passes(graph, params, drawn.input());
        }
    }
}

#[test]
fn networks_of_the_zoo_have_the_same_bits_from_the_heap_and_from_the_file() {
    for (name, size) in [("resnet18_cifar", [28, 28]), ("resnet50_small", [64, 48])] {
        let deployed = open_network(name, size);
        let whole = deployed.network.joined(0..deployed.network.parts.len());
        let spooled = deployed.params.spooled(&std::env::temp_dir()).unwrap();
        for params in [&deployed.params, &spooled] {
            let Lowered { graph, params } = lower(&whole, params).unwrap();
            assert_same_passes(&graph, &params, &deployed.network.input.shape);
        }
    }
}

/// `x` is read by the sum again, so the activation may not write over it; both names of it too.
#[test]
fn a_value_that_is_read_again_is_not_written_over() {
    let mut graph = Graph::default();
    let same = graph.push("same", Op::Identity, &[INPUT]);
    let y = graph.push("relu", Op::Activation { kind: Activation::Relu }, &[same]);
    let y = graph.push("sum", Op::Add, &[y, INPUT]);
    let twice = graph.push("twice", Op::Add, &[y, y]);
    graph.push("product", Op::Mul, &[twice, same]);
    let params = Params::default();
    let layout = Layout::new((&graph, &params), (&[16], 1), 1).unwrap();
    assert_eq!(layout.range(same, 1), layout.range(INPUT, 1));
    assert_ne!(layout.range(2, 1), layout.range(INPUT, 1));
    // The sum is written over the activation; twice itself cannot be.
    assert_eq!(layout.range(3, 1), layout.range(2, 1));
    assert_ne!(layout.range(4, 1), layout.range(3, 1));
    assert_same_passes(&graph, &params, &[16]);
}

#[test]
fn an_observed_pass_shows_each_node_once_and_has_the_same_bits() {
    let deployed = open_network("resnet18_cifar", [28, 28]);
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    let Lowered { graph, params } = lower(&whole, &deployed.params).unwrap();
    let layout = Layout::new((&graph, &params), (&[1, 28, 28], 2), 2).unwrap();
    let mut executor = layout.executor().unwrap();
    let x = flat(&images(&[1, 28, 28], 2));
    executor.input(2).unwrap().copy_from_slice(&x);
    let want = bits(executor.run(2).unwrap());
    executor.input(2).unwrap().copy_from_slice(&x);
    let mut shown = Vec::new();
    assert_eq!(bits(executor.observe(2, |i| shown.push(i)).unwrap()), want);
    assert_eq!(shown, (0..graph.nodes.len()).collect::<Vec<_>>());
    executor.observe(0, |_| unreachable!("no node runs for no images")).unwrap();
}

#[test]
fn a_graph_of_one_name_only_gives_its_input() {
    let (graph, params) = (Graph::default(), Params::default());
    assert_same_passes(&graph, &params, &[3, 2, 2]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut graph = Graph::default();
    graph.push("head", Op::Linear { outputs: 2, bias: false }, &[INPUT]);
    let with = |weight: Option<Tensor>| {
        let params: Params = weight.map(|w| ("head.weight".to_owned(), w)).into_iter().collect();
        let layout = Layout::new((&graph, &params), (&[3], 1), 1);
        layout.and_then(|layout| layout.executor()?.run(2).map(drop)).unwrap_err().to_string()
    };
    let zeros = |shape, dtype| Some(Tensor::zeros(shape, dtype, &Device::Cpu).unwrap());
    assert_eq!(with(None), "node `head`: has no tensor head.weight");
    assert_eq!(with(zeros((2, 4), DType::F32)), "node `head`: takes head.weight of [2, 3], got [2, 4]");
    assert_eq!(with(zeros((2, 3), DType::F64)), "node `head`: takes head.weight as f32 on the CPU");
    assert_eq!(with(zeros((2, 3), DType::F32)), "images is 2, expected at most 1");
}
