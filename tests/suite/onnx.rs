//! ONNX files, decoded and run by a second reading of the operators: [`run`].

mod run;

use archrepair::engine::infer::infer;
use archrepair::eval::Deployed;
use archrepair::export::proto::{Dimension, FLOAT, FLOAT16, ModelProto};
use archrepair::export::{Batch, Origin, Pixels, Settings, onnx};
use archrepair::graph::network::{Input, VERSION};
use archrepair::graph::op::Op;
use archrepair::graph::{Graph, Network, Params, Part};
use archrepair::rng::Rng;
use archrepair::storage::{Digest, Storage};
use candle_core::{DType, Tensor};
use proptest::prelude::*;
use prost::Message;
use std::path::Path;

use crate::random_graphs::Drawn;
use crate::support::{Tolerance, assert_close, normal, open_network, repeatable};

/// Two ways to the same `f32` numbers, through layers that may enlarge what they differ by.
const NEAR: Tolerance = Tolerance { absolute: 1e-5, relative: 1e-4 };
/// Weights of 11 bits.
const HALF: Tolerance = Tolerance { absolute: 0.0, relative: 1e-2 };

fn origin() -> Origin {
    Origin { base: Digest::of(b"base"), patch: Some(Digest::of(b"patch")) }
}

/// A network of one part.
fn network(graph: Graph, params: Params, shape: &[usize]) -> Deployed {
    let input = Input { shape: shape.to_vec(), mean: vec![0.25; shape[0]], std: vec![0.5; shape[0]] };
    let parts = vec![Part { name: "all".into(), graph }];
    let (architecture, class_names) = ("drawn".into(), ["a", "b", "c"].map(String::from).to_vec());
    let network = Network { version: VERSION, architecture, input, classes: 3, class_names, parts };
    Deployed::new(network, params)
}

/// The file of a network, read again.
fn written(deployed: &Deployed, settings: &Settings) -> ModelProto {
    let model = onnx::model(deployed, settings, &origin()).unwrap();
    let bytes = onnx::encode(&model, Path::new("f")).unwrap();
    let read = ModelProto::decode(&*bytes).unwrap();
    assert_eq!(read, model);
    read
}

fn f32(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap()
}

proptest! {
    #![proptest_config(repeatable(128))]

    #[test]
    fn a_graph_written_and_read_by_another_is_the_same_function(seed in any::<u64>()) {
        let Drawn { graph, params, x } = Drawn::new(seed);
        let params: Params = params.iter().map(|(name, w)| (name.clone(), f32(&w.tensor().unwrap()))).collect();
        let has_mix = graph.reaching(graph.output()).nodes.iter().any(|node| node.op == Op::Mix);
        let deployed = network(graph.clone(), params.clone(), &x.dims()[1..]);
        if has_mix {
            let error = onnx::model(&deployed, &Settings::default(), &origin()).unwrap_err();
            prop_assert_eq!(error.code(), 26);
            prop_assert!(error.to_string().contains("only finished networks have an ONNX form"));
        } else {
            let model = written(&deployed, &Settings::default());
            let want = infer(&graph, &params, &f32(&x)).unwrap();
            assert_close("logits", &run::run(&model, &f32(&x)), &want, NEAR);
        }
    }
}

#[test]
fn a_resnet_gives_its_logits_in_both_precisions() {
    let deployed = open_network("resnet50_small", [64, 64]);
    let x = f32(&normal(&[2, 3, 64, 64], &mut Rng::new(1)));
    let want = deployed.runner().unwrap().run(&x).unwrap();
    let whole = written(&deployed, &Settings::default());
    assert_close("f32", &run::run(&whole, &x), &want, NEAR);
    let halves = written(&deployed, &Settings { numbers: Storage::F16, ..Settings::default() });
    assert_close("f16", &run::run(&halves, &x), &want, HALF);

    let types = |model: &ModelProto| {
        model.graph.as_ref().unwrap().initializer.iter().map(|tensor| tensor.data_type).max()
    };
    assert_eq!((types(&whole), types(&halves)), (Some(FLOAT), Some(FLOAT16)));
    let operators = |model: &ModelProto| {
        model.graph.as_ref().unwrap().node.iter().map(|node| node.op_type.clone()).collect::<Vec<_>>()
    };
    let (whole, halves) = (operators(&whole), operators(&halves));
    assert_eq!(halves[1..halves.len() - 1], whole, "casts at both ends, nothing else differs");
    assert_eq!([&halves[0], &halves[halves.len() - 1]], ["Cast", "Cast"]);
    assert!(!whole.contains(&"BatchNormalization".into()), "all are folded");
}

#[test]
fn weights_have_the_names_of_the_model_and_the_surface_is_as_asked() {
    let deployed = open_network("resnet18_small", [32, 32]);
    let settings = Settings { batch: Batch::Fixed(4), ..Settings::default() };
    let model = written(&deployed, &settings);
    let graph = model.graph.as_ref().unwrap();
    let fixed: Vec<&str> = graph.initializer.iter().map(|tensor| &*tensor.name).collect();
    for name in ["conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.conv2.bias", "fc.weight"] {
        assert!(fixed.contains(&name), "{name} in {fixed:?}");
    }
    let sides = |value: &archrepair::export::proto::ValueInfoProto| {
        let tensor = value.r#type.clone().unwrap().tensor_type.unwrap();
        assert_eq!(tensor.elem_type, FLOAT);
        tensor.shape.unwrap().dim.into_iter().map(|side| side.value.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sides(&graph.input[0]), [4, 3, 32, 32].map(Dimension::Value));
    let dynamic = written(&deployed, &Settings::default());
    assert_eq!(sides(&dynamic.graph.unwrap().output[0])[0], Dimension::Param("n".into()));
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, onnx::OPSET));
}

#[test]
fn a_graph_that_takes_pixels_normalizes_them() {
    let Drawn { graph, params, x } = Drawn::new(2);
    let params: Params = params.iter().map(|(name, w)| (name.clone(), f32(&w.tensor().unwrap()))).collect();
    let deployed = network(graph, params, &x.dims()[1..]);
    let (x, settings) = (f32(&x), Settings { pixels: Pixels::Unit, ..Settings::default() });
    let want = run::run(&written(&deployed, &Settings::default()), &x);
    // x = (pixel - 0.25) / 0.5
    let pixels = ((x * 0.5).unwrap() + 0.25).unwrap();
    let model = written(&deployed, &settings);
    assert_close("logits", &run::run(&model, &pixels), &want, NEAR);
    let entry = |key: &str| {
        model.metadata_props.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone()).unwrap()
    };
    assert_eq!((&*entry("input"), &*entry("class_names")), ("pixels in 0 to 1", r#"["a","b","c"]"#));
    assert_eq!(entry("std"), serde_json::json!(vec![0.5; deployed.network.input.std.len()]).to_string());
    assert_eq!(entry("patch"), Digest::of(b"patch").to_string());
}
