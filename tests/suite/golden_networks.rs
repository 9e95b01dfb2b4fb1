//! Whole networks from torchvision's tensor names to PyTorch's logits.

use archrepair::engine::infer::infer;
use archrepair::eval::Deployed;
use archrepair::graph::Graph;
use archrepair::graph::lower::lower;
use archrepair::graph::op::Op;
use candle_core::Tensor;

use crate::support::{CLOSE, Golden, Tolerance, assert_close, open_network};

/// Some twenty layers of `f32` sums in another order than PyTorch's.
const LOGITS: Tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };

/// Weights rounded to the 11 bits of an `f16`.
const HALF: Tolerance = Tolerance { absolute: 0.0, relative: 1e-2 };

/// Files of networks, their architecture, and the size of their images.
const NETWORKS: [(&str, &str, [usize; 2]); 3] = [
    ("resnet18_cifar", "resnet18", [28, 28]),
    ("resnet18_small", "resnet18", [64, 48]),
    ("resnet50_small", "resnet50", [64, 64]),
];

fn whole(deployed: &Deployed) -> Graph {
    deployed.network.joined(0..deployed.network.parts.len())
}

fn golden(key: &str) -> Tensor {
    Golden::open("resnets.safetensors").tensor(key)
}

#[test]
fn the_architecture_is_read_off_the_tensor_names() {
    for (name, architecture, [h, w]) in NETWORKS {
        let network = open_network(name, [h, w]).network;
        assert_eq!(network.architecture, architecture);
        assert_eq!(network.input.shape[1..], [h, w]);
        assert_eq!(network.classes, golden(&format!("{name}/logits")).dims()[1]);
    }
}

#[test]
fn logits_are_those_of_pytorch() {
    for (name, _, size) in NETWORKS {
        let logits = open_network(name, size).runner().unwrap().run(&golden(&format!("{name}/x"))).unwrap();
        assert_close(name, &logits, &golden(&format!("{name}/logits")), LOGITS);
    }
}

#[test]
fn weights_stored_in_f32_give_their_own_logits_and_rounded_ones_are_near() {
    let (x, want) = (golden("resnet18_small/x"), golden("resnet18_small/logits_from_f32"));
    let logits = |name| open_network(name, [64, 48]).runner().unwrap().run(&x).unwrap();
    assert_close("f32", &logits("resnet18_small_f32"), &want, LOGITS);
    assert_close("f16", &logits("resnet18_small"), &want, HALF);
}

#[test]
fn the_lowered_network_is_the_same_function() {
    for (name, _, size) in NETWORKS {
        let (deployed, x) = (open_network(name, size), golden(&format!("{name}/x")));
        let plain = infer(&whole(&deployed), &deployed.params, &x).unwrap();
        assert_close(name, &deployed.runner().unwrap().run(&x).unwrap(), &plain, CLOSE);
    }
}

#[test]
fn lowering_leaves_one_node_for_a_convolution_and_what_follows_it() {
    for (name, _, size) in NETWORKS {
        let deployed = open_network(name, size);
        let before = whole(&deployed);
        let lowered = lower(&before, &deployed.params).unwrap();
        let count =
            |graph: &Graph, is: fn(&Op) -> bool| graph.nodes.iter().filter(|node| is(&node.op)).count();
        let is_fused = |op: &Op| matches!(op, Op::Activation { .. } | Op::Add | Op::BatchNorm { .. });
        assert!(count(&before, is_fused) > 0);
        assert_eq!(count(&lowered.graph, is_fused), 0, "{name}");
        let is_conv = |op: &Op| matches!(op, Op::Conv2d(_));
        assert_eq!(count(&lowered.graph, is_conv), count(&before, is_conv), "{name}");
        assert!(lowered.params.len() < deployed.params.len());
    }
}
