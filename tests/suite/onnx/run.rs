//! ONNX graphs run as the specification of the operators says, by plain tensors and loops. Only the
//! operators that are written; anything unknown fails.

use std::collections::BTreeMap;

use archrepair::export::proto::{FLOAT, FLOAT16, INT64, ModelProto, NodeProto, TensorProto};
use candle_core::{DType, Device, Tensor};
use half::f16;

/// The graph's output for the input `x`. Halves are read as such and computed with in `f32`.
pub(crate) fn run(model: &ModelProto, x: &Tensor) -> Tensor {
    let graph = model.graph.as_ref().unwrap();
    let mut values: BTreeMap<String, Tensor> =
        graph.initializer.iter().map(|tensor| (tensor.name.clone(), read(tensor))).collect();
    assert_eq!(values.len(), graph.initializer.len(), "names of initializers are unique");
    values.insert(graph.input[0].name.clone(), x.clone());
    for node in &graph.node {
        let inputs: Vec<&Tensor> = node.input.iter().map(|name| &values[name]).collect();
        let y = compute(node, &inputs);
        assert!(values.insert(node.output[0].clone(), y).is_none(), "{} is made twice", node.output[0]);
    }
    values.remove(&graph.output[0].name).unwrap()
}

fn read(tensor: &TensorProto) -> Tensor {
    let shape: Vec<usize> = tensor.dims.iter().map(|&side| side as usize).collect();
    let values: Vec<f32> = match tensor.data_type {
        FLOAT => tensor.raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        FLOAT16 => {
            let half = |b: &[u8]| f16::from_le_bytes(b.try_into().unwrap()).to_f32();
            tensor.raw_data.chunks(2).map(half).collect()
        }
        INT64 => {
            let whole = |b: &[u8]| i64::from_le_bytes(b.try_into().unwrap()) as f32;
            tensor.raw_data.chunks(8).map(whole).collect()
        }
        other => panic!("{} is of type {other}", tensor.name),
    };
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The integers of an attribute: one, several, or those of `default`.
fn ints(node: &NodeProto, name: &str, default: &[i64]) -> Vec<usize> {
    let found = node.attribute.iter().find(|attribute| attribute.name == name);
    let values = match found.map(|attribute| (attribute.kind, attribute)) {
        Some((2, attribute)) => vec![attribute.i.unwrap()],
        Some((7, attribute)) => attribute.ints.clone(),
        None => default.to_vec(),
        Some((kind, _)) => panic!("{name} of {} is of kind {kind}", node.name),
    };
    values.into_iter().map(|value| value as usize).collect()
}

fn float(node: &NodeProto, name: &str) -> f64 {
    let attribute = node.attribute.iter().find(|attribute| attribute.name == name).unwrap();
    assert_eq!(attribute.kind, 1);
    attribute.f.unwrap().into()
}

fn compute(node: &NodeProto, inputs: &[&Tensor]) -> Tensor {
    let x = inputs[0];
    match &*node.op_type {
        "Add" => x.broadcast_add(inputs[1]),
        "AveragePool" | "MaxPool" => Ok(pool(node, x)),
        "BatchNormalization" => {
            let [scale, shift, mean, var] = [1, 2, 3, 4].map(|i| channels(inputs[i]));
            normalized(x, [&mean, &var], [&scale, &shift], float(node, "epsilon"))
        }
        "Cast" => Ok(x.clone()),
        "Clip" => {
            let [least, most] = [1, 2].map(|i| inputs[i].to_scalar::<f32>().unwrap());
            x.clamp(least, most)
        }
        "Concat" => Tensor::cat(inputs, ints(node, "axis", &[])[0]),
        "Conv" => Ok(conv(node, inputs)),
        "Div" => x.broadcast_div(inputs[1]),
        "Flatten" => x.flatten_from(ints(node, "axis", &[1])[0]),
        "Gemm" => {
            assert_eq!(ints(node, "transB", &[0]), [1]);
            let y = x.matmul(&inputs[1].t().unwrap()).unwrap();
            inputs.get(2).map_or_else(|| Ok(y.clone()), |bias| y.broadcast_add(bias))
        }
        "GlobalAveragePool" => x.mean_keepdim((2, 3)),
        "HardSigmoid" => {
            let line = x.affine(float(node, "alpha"), float(node, "beta")).unwrap();
            line.clamp(0f32, 1f32)
        }
        "Identity" => Ok(x.clone()),
        "InstanceNormalization" => {
            let mean = x.mean_keepdim((2, 3)).unwrap();
            let var = x.broadcast_sub(&mean).unwrap().sqr().unwrap().mean_keepdim((2, 3)).unwrap();
            let [scale, shift] = [1, 2].map(|i| channels(inputs[i]));
            normalized(x, [&mean, &var], [&scale, &shift], float(node, "epsilon"))
        }
        "Mul" => x.broadcast_mul(inputs[1]),
        "Pad" => {
            let pads = inputs[1].to_vec1::<f32>().unwrap();
            let [_, _, top, left, _, _, bottom, right] = pads.as_slice() else { panic!("{pads:?}") };
            let (top, left, bottom, right) =
                (*top as usize, *left as usize, *bottom as usize, *right as usize);
            x.pad_with_zeros(2, top, bottom).and_then(|x| x.pad_with_zeros(3, left, right))
        }
        "ReduceMean" => {
            assert_eq!((ints(node, "axes", &[]), ints(node, "keepdims", &[1])), (vec![2, 3], vec![1]));
            x.mean_keepdim((2, 3))
        }
        "Relu" => x.relu(),
        "Sigmoid" => (x.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip(),
        "Sqrt" => x.sqrt(),
        "Sub" => x.broadcast_sub(inputs[1]),
        other => panic!("{} is of the unknown operator {other}", node.name),
    }
    .unwrap()
}

/// `[c]` as `[1, c, 1, 1]`.
fn channels(x: &Tensor) -> Tensor {
    x.reshape((1, x.elem_count(), 1, 1)).unwrap()
}

fn normalized(
    x: &Tensor,
    [mean, var]: [&Tensor; 2],
    [scale, shift]: [&Tensor; 2],
    eps: f64,
) -> candle_core::Result<Tensor> {
    let factor = (var + eps)?.sqrt()?.recip()?.broadcast_mul(scale)?;
    x.broadcast_sub(mean)?.broadcast_mul(&factor)?.broadcast_add(shift)
}

fn conv(node: &NodeProto, inputs: &[&Tensor]) -> Tensor {
    let side = |name, default: &[i64]| {
        let sides = ints(node, name, default);
        assert!(sides.iter().all(|side| *side == sides[0]), "{name} of {}", node.name);
        sides[0]
    };
    let weight = inputs[1];
    let (stride, pad) = (side("strides", &[1, 1]), side("pads", &[0; 4]));
    let (dilation, group) = (side("dilations", &[1, 1]), side("group", &[1]));
    let k = weight.dims()[2..].iter().map(|&k| k as i64).collect::<Vec<_>>();
    assert_eq!(ints(node, "kernel_shape", &k), [k[0] as usize, k[1] as usize]);
    let y = inputs[0].conv2d(weight, pad, stride, dilation, group).unwrap();
    inputs.get(2).map_or_else(|| y.clone(), |bias| y.broadcast_add(&channels(bias)).unwrap())
}

/// Greatest value or mean of each window, of the positions that are not padding.
fn pool(node: &NodeProto, x: &Tensor) -> Tensor {
    let [n, c, h, w] = <[usize; 4]>::try_from(x.dims()).unwrap();
    let [k, stride, pad] = ["kernel_shape", "strides", "pads"].map(|name| ints(node, name, &[])[0]);
    let is_max = node.op_type == "MaxPool";
    assert!(is_max || ints(node, "count_include_pad", &[0]) == [0]);
    let count = |side: usize| (side + 2 * pad - k) / stride + 1;
    let pixels: Vec<f32> = x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let mut y = Vec::new();
    for plane in pixels.chunks(h * w) {
        for (row, column) in (0..count(h)).flat_map(|r| (0..count(w)).map(move |c| (r, c))) {
            let inside = |at: usize, side: usize| {
                (at * stride).saturating_sub(pad)..side.min((at * stride + k).saturating_sub(pad))
            };
            let seen: Vec<f32> =
                inside(row, h).flat_map(|r| inside(column, w).map(move |c| plane[r * w + c])).collect();
            y.push(match is_max {
                true => seen.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                false => seen.iter().sum::<f32>() / seen.len() as f32,
            });
        }
    }
    Tensor::from_vec(y, (n, c, count(h), count(w)), &Device::Cpu).unwrap()
}
