//! Weights that stay in the file: the same bits as on the heap, whatever is done with them.

use std::path::Path;

use archrepair::engine::grad::{Wanted, backward, forward};
use archrepair::engine::infer::infer;
use archrepair::eval::Deployed;
use archrepair::graph::lower::lower;
use archrepair::graph::{Graph, Params};
use archrepair::repair::patching::{Origin, deploy, deploy_mapped, difference};
use archrepair::rng::Rng;
use archrepair::storage::Bytes;
use archrepair::zoo::{Model, Overrides};
use candle_core::{DType, Device, Tensor};

use crate::support::{EXACT, assert_close, data, normal};

const SHIPPED: &[u8] = include_bytes!("../../models/fashion-resnet18/model.safetensors");

/// The shipped model, stored in f16.
fn shipped() -> Model {
    read(SHIPPED.to_vec()).unwrap()
}

fn read(bytes: Vec<u8>) -> archrepair::Result<Model> {
    Model::from_bytes(Bytes::from(bytes), Path::new("model"))
}

fn deployed(model: &Model, params: Params) -> Deployed {
    Deployed::new(model.network.clone(), params)
}

fn images(model: &Model) -> Tensor {
    let [c, h, w] = [0, 1, 2].map(|i| model.network.input.shape[i]);
    normal(&[2, c, h, w], &mut Rng::new(7)).to_dtype(DType::F32).unwrap()
}

/// Fails unless both give the same bits, as they are and lowered.
#[track_caller]
fn assert_same_function(model: &Model, mapped: &Params, resident: &Params) {
    let (whole, x) = (model.network.joined(0..model.network.parts.len()), images(model));
    let y = infer(&whole, resident, &x).unwrap();
    assert_close("y", &infer(&whole, mapped, &x).unwrap(), &y, EXACT);
    let [mapped, resident] = [mapped, resident].map(|params| lower(&whole, params).unwrap());
    let y = infer(&resident.graph, &resident.params, &x).unwrap();
    assert_close("lowered y", &infer(&mapped.graph, &mapped.params, &x).unwrap(), &y, EXACT);
}

#[test]
fn a_network_with_mapped_weights_is_the_same_function() {
    let overrides = Overrides { size: Some([64, 48]), ..Overrides::default() };
    let single = Model::open(&data("resnet18_small_f32.safetensors"), &overrides).unwrap();
    for model in [shipped(), single] {
        assert_same_function(&model, &model.mapped_params().unwrap(), &model.params().unwrap());
    }
}

/// A header that is one byte longer moves all weights to odd addresses.
#[test]
fn weights_at_odd_addresses_are_the_same() {
    let mut bytes = SHIPPED.to_vec();
    let length = u64::from_le_bytes(*SHIPPED.first_chunk().unwrap()) + 1;
    bytes.splice(..8, length.to_le_bytes());
    bytes.insert(7 + length as usize, b' ');
    let odd = read(bytes).unwrap();
    assert_same_function(&odd, &odd.mapped_params().unwrap(), &shipped().params().unwrap());
}

#[test]
fn gradients_pass_through_mapped_weights_as_through_resident_ones() {
    let model = shipped();
    let whole = model.network.joined(0..model.network.parts.len());
    let gradient = |params: &Params| {
        let lowered = lower(&whole, params).unwrap();
        let (graph, params): (&Graph, _) = (&lowered.graph, &lowered.params);
        let trace = forward(graph, params, &images(&model), Wanted::INPUT_ONLY).unwrap();
        let dy = trace.y.ones_like().unwrap();
        backward(graph, params, Wanted::INPUT_ONLY, (trace, dy)).unwrap().input.unwrap()
    };
    let want = gradient(&model.params().unwrap());
    assert_close("dx", &gradient(&model.mapped_params().unwrap()), &want, EXACT);
}

#[test]
fn matrices_stay_in_the_file_and_vectors_do_not() {
    let params = shipped().mapped_params().unwrap();
    for (name, weight) in params.iter() {
        assert_eq!(weight.is_mapped(), weight.shape().len() > 1, "{name}");
        assert_eq!(params.shape(name), Some(weight.shape()));
    }
    assert!(params.to(&Device::Cpu, DType::F32).unwrap().mapped_bytes() == params.mapped_bytes());
    let resident = params.resident().unwrap();
    assert_eq!((resident.mapped_bytes(), params.mapped_bytes() > 0), (0, true));
    let widened: usize = params.iter().map(|(name, _)| params.widened_bytes(name)).sum();
    assert_eq!(resident.bytes(), params.bytes() + widened);
    assert_eq!(resident.widened_bytes("fc.weight"), 0);
}

#[test]
fn a_patch_is_resident_and_leaves_the_rest_of_its_base_mapped() {
    let model = shipped();
    let base = deployed(&model, model.mapped_params().unwrap());
    let mut repaired = base.clone();
    let changed = ["fc.weight", "layer2.0.conv1.weight"];
    for name in changed {
        repaired.params.insert(name, (base.params.get(name).unwrap() * 1.5).unwrap());
    }
    let patch = difference(model.file.digest(), &base, &repaired, Origin::default()).unwrap();
    assert!(patch.tensors.keys().eq(&changed));
    let with = Some((&patch, Path::new("patch")));
    let mapped = deploy_mapped(&model, with).unwrap();
    for (name, weight) in mapped.params.iter() {
        let stays = weight.shape().len() > 1 && !changed.contains(&name.as_str());
        assert_eq!(weight.is_mapped(), stays, "{name}");
    }
    let resident = deploy(&model, with).unwrap();
    assert_eq!(resident.params.mapped_bytes(), 0);
    assert_same_function(&model, &mapped.params, &resident.params);
}

#[test]
fn a_damaged_weight_is_refused_though_it_stays_in_the_file() {
    let name = "layer4.1.conv2.weight";
    let known = Model::from_bytes(Bytes::from_static(SHIPPED), Path::new("model")).unwrap();
    let start = known.file.raw(name).unwrap().as_ptr().addr() - SHIPPED.as_ptr().addr();
    let mut bytes = SHIPPED.to_vec();
    bytes[start + 2 * 1000..][..2].copy_from_slice(&[0x00, 0xFC]);
    let error = read(bytes).unwrap().mapped_params().unwrap_err().to_string();
    let want = format!("tensor `{name}` in model holds -inf at element 1000; every weight must be finite");
    assert_eq!(error, want);
}
