//! Every gradient against finite differences, for random settings and for whole random graphs.

use std::collections::BTreeSet;

use archrepair::engine::grad::{Gradients, Norms, Trace, Wanted, backward, forward};
use archrepair::engine::infer::infer;
use archrepair::graph::lower::lower;
use archrepair::graph::op::{Activation, Conv2d, Op, elements};
use archrepair::graph::{Graph, INPUT, Params};
use archrepair::kernels::conv2d::{self, Epilogue};
use archrepair::rng::Rng;
use candle_core::Tensor;
use proptest::prelude::*;

use crate::random_graphs::Drawn;
use crate::support::{EXACT, assert_close, assert_gradient, normal, open_network, repeatable};

/// Groups, channels of a group in, channels of a group out: dense, grouped, depthwise with one
/// or more outputs a channel.
fn channels() -> impl Strategy<Value = [usize; 3]> {
    let count = || 1usize..4;
    let dense = (count(), count()).prop_map(|(c, o)| [1, c, o]);
    let grouped = (2usize..4, 2usize..4, count()).prop_map(|(g, c, o)| [g, c, o]);
    let depthwise = (2usize..5, 1usize..4).prop_map(|(g, multiplier)| [g, 1, multiplier]);
    prop_oneof![dense, grouped, depthwise]
}

/// Settings of a convolution and an input shape into which its window fits.
pub(crate) fn convolutions() -> impl Strategy<Value = (Conv2d, [usize; 4])> {
    let windows = (1usize..=5, 1usize..=3, 0usize..=3, 1usize..=2);
    let sizes = (1usize..=3, 0usize..5, 0usize..5);
    (windows, channels(), sizes).prop_map(|((k, stride, padding, dilation), [groups, c, o], (n, h, w))| {
        let conv = Conv2d { padding, dilation, groups, bias: true, ..Conv2d::valid(groups * o, k, stride) };
        let least = (dilation * (k - 1) + 1).saturating_sub(2 * padding).max(1);
        (conv, [n, groups * c, least + h, least + w])
    })
}

proptest! {
    #![proptest_config(repeatable(96))]

    #[test]
    fn gradients_of_a_convolution_are_those_of_differences(
        (conv, shape) in convolutions(),
        seed in any::<u64>(),
    ) {
        let rng = &mut Rng::new(seed);
        let x = normal(&shape, rng);
        let w = normal(&conv.weight_shape(shape[1]), rng);
        let bias = normal(&[conv.outputs], rng);
        let run = |x: &Tensor, w: &Tensor, bias: &Tensor| {
            conv2d::forward(&conv, x, w, Epilogue { bias: Some(bias), residual: None }).unwrap()
        };
        let dy = normal(run(&x, &w, &bias).dims(), rng);
        let dx = conv2d::dx(&conv, &dy, &w, &shape).unwrap();
        assert_gradient("dx", &dx, (&x, &dy), |x| run(x, &w, &bias));
        assert_gradient("dw", &conv2d::dw(&conv, &dy, &x).unwrap(), (&w, &dy), |w| run(&x, w, &bias));
        assert_gradient("dbias", &conv2d::dbias(&dy).unwrap(), (&bias, &dy), |bias| run(&x, &w, bias));
    }
}

/// A pass that forms no gradients.
fn frozen(norms: Norms) -> Wanted<'static> {
    Wanted { input: false, norms, ..Wanted::INPUT_ONLY }
}

fn output(graph: &Graph, params: &Params, (x, norms): (&Tensor, Norms)) -> Tensor {
    forward(graph, params, x, frozen(norms)).unwrap().y
}

fn gradients(drawn: &Drawn, dy: &Tensor, wanted: Wanted) -> Gradients {
    let trace = forward(&drawn.graph, &drawn.params, &drawn.x, wanted).unwrap();
    backward(&drawn.graph, &drawn.params, wanted, (trace, dy.clone())).unwrap()
}

/// All gradients of a graph against differences.
fn check_graph(drawn: &Drawn, norms: Norms, rng: &mut Rng) {
    let Drawn { graph, params, x } = drawn;
    let dy = normal(output(graph, params, (x, norms)).dims(), rng);
    let all = gradients(drawn, &dy, Wanted { trained: &|_| true, input: true, norms });
    let dx = all.input.unwrap_or_else(|| x.zeros_like().unwrap());
    assert_gradient("input", &dx, (x, &dy), |x| output(graph, params, (x, norms)));
    let trainable = drawn.trainable();
    assert!(all.params.iter().all(|(name, _)| trainable.contains(name)), "a statistic has a gradient");
    for name in trainable {
        let w = params.get(&name).unwrap();
        // A tensor that only leads into a `Zero` has none.
        let dw = all.params.get(&name).unwrap_or_else(|_| w.zeros_like().unwrap());
        assert_gradient(&name, &dw, (&w, &dy), |w| {
            let mut changed = params.clone();
            changed.insert(&*name, w.clone());
            output(graph, &changed, (x, norms))
        });
    }
}

proptest! {
    #![proptest_config(repeatable(48))]

    #[test]
    fn gradients_of_a_graph_are_those_of_differences(seed in any::<u64>()) {
        let drawn = Drawn::new(seed);
        for norms in [Norms::Fixed, Norms::Batch] {
            check_graph(&drawn, norms, &mut Rng::new(seed));
        }
    }

    #[test]
    fn a_pass_for_gradients_gives_the_output_of_a_pass_without(seed in any::<u64>()) {
        let Drawn { graph, params, x } = Drawn::new(seed);
        let wanted = Wanted { trained: &|_| true, ..Wanted::INPUT_ONLY };
        let y = forward(&graph, &params, &x, wanted).unwrap().y;
        assert_close("y", &y, &infer(&graph, &params, &x).unwrap(), EXACT);
    }

    #[test]
    fn training_less_changes_no_gradient_of_the_rest(seed in any::<u64>()) {
        let drawn = Drawn::new(seed);
        let rng = &mut Rng::new(seed);
        let subset: BTreeSet<String> = drawn.trainable().into_iter().filter(|_| rng.below(3) == 0).collect();
        let trained = |name: &str| subset.contains(name);
        for norms in [Norms::Fixed, Norms::Batch] {
            let dy = normal(output(&drawn.graph, &drawn.params, (&drawn.x, norms)).dims(), rng);
            let all = gradients(&drawn, &dy, Wanted { trained: &|_| true, input: true, norms });
            for input in [true, false] {
                let some = gradients(&drawn, &dy, Wanted { trained: &trained, input, norms });
                assert_eq!(some.input.is_some(), input && all.input.is_some());
                if let (Some(got), Some(want)) = (&some.input, &all.input) {
                    assert_close("input", got, want, EXACT);
                }
                let names = all.params.iter().map(|(name, _)| name).filter(|name| trained(name));
                assert!(some.params.iter().map(|(name, _)| name).eq(names));
                for (name, got) in some.params.iter() {
                    assert_close(name, &got.tensor().unwrap(), &all.params.get(name).unwrap(), EXACT);
                }
            }
        }
    }
}

/// Bytes of one bit for each output of a ReLU of `graph`.
fn mask_bytes(graph: &Graph, input: &[usize], n: usize) -> usize {
    let shapes = graph.shapes(input).unwrap();
    let is_relu = |op: &Op| match op {
        Op::Activation { kind } => *kind == Activation::Relu,
        Op::Conv2d(conv) => conv.activation == Some(Activation::Relu),
        _ => false,
    };
    let relus = graph.nodes.iter().zip(&shapes[1..]).filter(|(node, _)| is_relu(&node.op));
    relus.map(|(_, shape)| (n * elements(shape)).div_ceil(8)).sum()
}

fn trace(graph: &Graph, params: &Params, x: &Tensor) -> Trace {
    forward(graph, params, x, Wanted::INPUT_ONLY).unwrap()
}

#[test]
fn a_frozen_resnet_keeps_one_bit_for_each_output_of_a_relu() {
    let deployed = open_network("resnet18_cifar", [28, 28]);
    let lowered = lower(&deployed.network.joined(0..deployed.network.parts.len()), &deployed.params).unwrap();
    let x = normal(&[3, 1, 28, 28], &mut Rng::new(1)).to_dtype(candle_core::DType::F32).unwrap();
    let bytes = trace(&lowered.graph, &lowered.params, &x).kept_bytes();
    assert_eq!(bytes, mask_bytes(&lowered.graph, &[1, 28, 28], 3));
    // Widths 8, 16, 32, 64 on 28, 14, 7, 4 pixels a side: one ReLU of the stem, four a layer.
    let outputs = 5 * 8 * 784 + 4 * (16 * 196 + 32 * 49 + 64 * 16);
    assert_eq!(bytes, 3 * outputs / 8);
}

/// 3 x 5 x 5 outputs are 75 bits, 10 bytes.
#[test]
fn a_mask_is_rounded_up_to_whole_bytes() {
    let mut graph = Graph::default();
    let conv = Conv2d { activation: Some(Activation::Relu), ..Conv2d::same(3, 3, 1) };
    graph.push("conv", Op::Conv2d(conv), &[INPUT]);
    let rng = &mut Rng::new(1);
    let mut params = Params::default();
    params.insert("conv.weight", normal(&[3, 2, 3, 3], rng));
    let x = normal(&[1, 2, 5, 5], rng);
    assert_eq!(trace(&graph, &params, &x).kept_bytes(), 10);
    assert_eq!(mask_bytes(&graph, &[2, 5, 5], 1), 10);
}
