//! Lowering keeps the function and its gradient, and folds only what is there to fold.

use archrepair::engine::grad::{Wanted, backward, forward};
use archrepair::engine::infer::infer;
use archrepair::graph::lower::{Lowered, lower, lower_to_differentiate};
use archrepair::graph::op::{Activation, Conv2d, Op};
use archrepair::graph::{Graph, INPUT, Params};
use archrepair::rng::Rng;
use candle_core::{DType, Tensor};
use proptest::prelude::*;

use crate::random_graphs::Drawn;
use crate::support::{CLOSE, DIFFERENCE, EXACT, assert_close, normal, repeatable};

proptest! {
    #![proptest_config(repeatable(128))]

    #[test]
    fn a_lowered_graph_has_the_same_output_and_gradient(seed in any::<u64>()) {
        let Drawn { graph, params, x } = Drawn::new(seed);
        let lowered = lower(&graph, &params).unwrap();
        let y = infer(&graph, &params, &x).unwrap();
        assert_close("y", &infer(&lowered.graph, &lowered.params, &x).unwrap(), &y, DIFFERENCE);
        let lowered = lower_to_differentiate(&graph, &params).unwrap();
        assert_close("y", &infer(&lowered.graph, &lowered.params, &x).unwrap(), &y, DIFFERENCE);
        let dy = normal(y.dims(), &mut Rng::new(seed));
        let got = input_gradient(&lowered.graph, &lowered.params, (&x, &dy));
        assert_close("dx", &got, &input_gradient(&graph, &params, (&x, &dy)), DIFFERENCE);
    }
}

fn input_gradient(graph: &Graph, params: &Params, (x, dy): (&Tensor, &Tensor)) -> Tensor {
    let trace = forward(graph, params, x, Wanted::INPUT_ONLY).unwrap();
    backward(graph, params, Wanted::INPUT_ONLY, (trace, dy.clone())).unwrap().input.unwrap()
}

/// `conv` on 3 channels, and an input for it.
fn small(seed: u64) -> (Graph, Params, Tensor) {
    let mut graph = Graph::default();
    graph.push("conv", Op::Conv2d(Conv2d::same(4, 3, 1)), &[INPUT]);
    let rng = &mut Rng::new(seed);
    let draw = |shape: &[usize], rng: &mut Rng| normal(shape, rng).to_dtype(DType::F32).unwrap();
    let mut params = Params::default();
    params.insert("conv.weight", draw(&[4, 3, 3, 3], rng));
    for suffix in ["weight", "bias", "running_mean"] {
        params.insert(format!("norm.{suffix}"), draw(&[4], rng));
    }
    params.insert("norm.running_var", draw(&[4], rng).sqr().unwrap());
    let x = draw(&[2, 3, 5, 6], rng);
    (graph, params, x)
}

fn assert_same_function(what: &str, graph: &Graph, params: &Params, x: &Tensor) -> Lowered {
    let lowered = lower(graph, params).unwrap();
    let got = infer(&lowered.graph, &lowered.params, x).unwrap();
    assert_close(what, &got, &infer(graph, params, x).unwrap(), CLOSE);
    lowered
}

#[test]
fn a_value_that_is_used_twice_is_not_fused_away() {
    let (mut graph, params, x) = small(1);
    let norm = graph.push("norm", Op::BatchNorm { eps: 1e-5 }, &[1]);
    graph.push("add", Op::Add, &[1, norm]);
    let lowered = assert_same_function("used twice", &graph, &params, &x);
    assert_eq!(lowered.graph, graph);
}

#[test]
fn a_node_that_leads_nowhere_changes_no_output() {
    let (mut graph, params, x) = small(2);
    graph.push("dead", Op::Activation { kind: Activation::Relu }, &[INPUT]);
    graph.push("relu", Op::Activation { kind: Activation::Relu }, &[1]);
    assert_same_function("dead end", &graph, &params, &x);
}

#[test]
fn a_tensor_that_the_graph_does_not_use_is_not_folded_in() {
    let (mut graph, mut params, x) = small(3);
    graph.push("norm", Op::BatchNorm { eps: 1e-5 }, &[1]);
    let want = assert_same_function("without", &graph, &params, &x);
    let stray = params.get("norm.bias").unwrap();
    params.insert("conv.bias", stray);
    let got = assert_same_function("with", &graph, &params, &x);
    let bias = |lowered: &Lowered| lowered.params.get("conv.bias").unwrap();
    assert_close("bias", &bias(&got), &bias(&want), EXACT);
}

#[test]
fn nothing_but_the_identity_lowers_to_nothing() {
    let mut graph = Graph::default();
    graph.push("same", Op::Identity, &[INPUT]);
    let (_, params, x) = small(4);
    let lowered = assert_same_function("identity", &graph, &params, &x);
    assert!(lowered.graph.nodes.is_empty() && lowered.params.is_empty());
}
