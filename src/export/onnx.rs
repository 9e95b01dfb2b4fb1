//! A network as an ONNX file, of operators that TensorRT takes.
//!
//! The graph is lowered first: batch norms that follow a convolution are folded into its weights, and
//! the sums and activations behind a convolution follow it directly, where TensorRT fuses them again.
//! Weights are initializers under the names of their tensors. The set of operators is version
//! [`OPSET`]; the ones used stand in onnx-tensorrt's list of supported operators, and what that list
//! asks of them holds (weights of `Conv` and `InstanceNormalization` are initializers):
//!
//! | operation | nodes |
//! |---|---|
//! | activation | `Relu`, `Clip`, `Sigmoid`, `HardSigmoid`; `Sigmoid` `Mul` for SiLU, `HardSigmoid` `Mul` for hard swish |
//! | add, concat, mul | `Add`, `Concat`, `Mul` |
//! | avg_pool, max_pool | `AveragePool` (padding is not counted), `MaxPool` |
//! | batch_norm that is not folded | `BatchNormalization` |
//! | conv2d | `Conv`, and `Add` and the activation where they are fused |
//! | flatten, identity, linear | `Flatten`, `Identity`, `Gemm` |
//! | gate | `Sub` `Mul` `Add` |
//! | global_avg_pool | `GlobalAveragePool` |
//! | global_std_pool | `ReduceMean` `Sub` `Mul` `ReduceMean` `Add` `Sqrt`, in `f32` |
//! | instance_norm | `InstanceNormalization` |
//! | pad | `Pad` |
//! | zero | `Conv` with weights 0 |
//!
//! `input` `[n, c, h, w]` and `logits` `[n, classes]` are `f32` in either precision; with
//! [`Storage::F16`] all weights and values between are halves. What the pixels are to be, names of
//! classes and where the network is from stand in the file's metadata.

mod nodes;
mod writer;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use prost::Message;
use serde_json::json;

use self::writer::Writer;
use super::Origin;
use super::proto::{
    Dimension, DimensionProto, FLOAT, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::graph::INPUT;
use crate::graph::lower::lower;
use crate::storage::Storage;

/// The version of ONNX's operators.
pub const OPSET: i64 = 17;

/// The version of the encoding that came with that.
const IR_VERSION: i64 = 8;

/// Most bytes of a message in the encoding of Protocol Buffers.
const MOST_BYTES: usize = i32::MAX as usize;

/// Name of the graph's input.
pub const INPUT_NAME: &str = "input";
/// Name of the graph's output.
pub const OUTPUT_NAME: &str = "logits";

/// How a graph is written.
///
/// | field | default |
/// |---|---|
/// | `batch` | dynamic |
/// | `numbers` | `f32` |
/// | `pixels` | normalized |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Images that run together.
    pub batch: Batch,
    /// Weights and values: `f32` or `f16`.
    pub numbers: Storage,
    /// What the input holds.
    pub pixels: Pixels,
}

impl Default for Settings {
    fn default() -> Self {
        Self { batch: Batch::Dynamic, numbers: Storage::F32, pixels: Pixels::Normalized }
    }
}

/// How many images run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// As many as are given when the graph runs.
    Dynamic,
    /// Always so many.
    Fixed(u32),
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Dynamic => f.write_str("dynamic"),
            Self::Fixed(n) => n.fmt(f),
        }
    }
}

impl FromStr for Batch {
    type Err = Error;

    /// `dynamic` or a number over 0.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Config {
            field: "batch",
            got: text.into(),
            want: "dynamic or a number of images, 1 or more".into(),
        };
        match text {
            "dynamic" => Ok(Self::Dynamic),
            _ => text.parse().ok().filter(|&n| n > 0).map(Self::Fixed).ok_or_else(wrong),
        }
    }
}

/// What a graph's input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// `(x - mean) / std` of pixels `x` in 0 to 1, as PyTorch models take it.
    Normalized,
    /// Pixels in 0 to 1; the graph normalizes them.
    Unit,
}

impl Pixels {
    /// The word for it in a file's metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normalized => "(pixels in 0 to 1 - mean) / std",
            Self::Unit => "pixels in 0 to 1",
        }
    }
}

/// The network as the message of a file.
///
/// # Errors
///
/// [`Error::Graph`] when a tensor is missing or an operation belongs to an unfinished search,
/// [`Error::Config`] when a weight is too large for [`Settings::numbers`], [`Error::Tensor`] when one
/// cannot be read.
pub fn model(deployed: &Deployed, settings: &Settings, origin: &Origin) -> Result<ModelProto> {
    let network = &deployed.network;
    let lowered = lower(&network.joined(0..network.parts.len()), &deployed.params)?;
    let shapes = lowered.graph.shapes(&network.input.shape)?;
    let mut writer = Writer::new(&lowered.params, settings.numbers)?;
    let mut values = vec![writer.begin(&network.input, settings.pixels)?];
    for node in &lowered.graph.nodes {
        let value = writer.operation(node, &values, &shapes)?;
        values.push(value);
    }
    writer.end(&values[lowered.graph.output()]);
    let graph = GraphProto {
        node: writer.nodes,
        name: network.architecture.clone(),
        initializer: writer.initializers,
        input: vec![value_info(INPUT_NAME, settings.batch, &shapes[INPUT])],
        output: vec![value_info(OUTPUT_NAME, settings.batch, &shapes[lowered.graph.output()])],
    };
    Ok(ModelProto {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: metadata(deployed, settings, origin),
    })
}

/// The bytes of a file, which errors call `path`.
///
/// # Errors
///
/// [`Error::Config`] when they are more than the format holds.
pub fn encode(model: &ModelProto, path: &Path) -> Result<Vec<u8>> {
    match model.encoded_len() {
        n if n > MOST_BYTES => Err(Error::Config {
            field: "the size of the ONNX file",
            got: format!("{n} bytes for {}", path.display()),
            want: format!("at most {MOST_BYTES}, as the format holds; try --precision f16"),
        }),
        _ => Ok(model.encode_to_vec()),
    }
}

/// A value of the graph's surface: `[n, shape...]` in `f32`.
fn value_info(name: &str, batch: Batch, shape: &[usize]) -> ValueInfoProto {
    let first = match batch {
        Batch::Dynamic => Dimension::Param("n".into()),
        Batch::Fixed(n) => Dimension::Value(n.into()),
    };
    let sides = std::iter::once(first).chain(shape.iter().map(|&side| Dimension::Value(side as i64)));
    let shape = TensorShapeProto { dim: sides.map(|side| DimensionProto { value: Some(side) }).collect() };
    let tensor_type = Some(TensorTypeProto { elem_type: FLOAT, shape: Some(shape) });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

/// Everything but the graph that who runs it needs; lists are JSON.
fn metadata(deployed: &Deployed, settings: &Settings, origin: &Origin) -> Vec<StringStringEntryProto> {
    let network = &deployed.network;
    let names: Vec<String> = (0..network.classes).map(|class| network.class_name(class)).collect();
    let entries = [
        ("architecture", Some(network.architecture.clone())),
        ("base", Some(origin.base.to_string())),
        ("class_names", Some(json!(names).to_string())),
        ("input", Some(settings.pixels.name().into())),
        ("mean", Some(json!(network.input.mean).to_string())),
        ("patch", origin.patch.map(|digest| digest.to_string())),
        ("std", Some(json!(network.input.std).to_string())),
    ];
    let entry = |(key, value): (&str, Option<String>)| {
        value.map(|value| StringStringEntryProto { key: key.into(), value })
    };
    entries.into_iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_read_from_text() {
        assert_eq!("dynamic".parse::<Batch>().unwrap(), Batch::Dynamic);
        assert_eq!("8".parse::<Batch>().unwrap().to_string(), "8");
        for wrong in ["0", "-1", "all", ""] {
            let error = wrong.parse::<Batch>().unwrap_err().to_string();
            assert_eq!(error, format!("batch is {wrong}, expected dynamic or a number of images, 1 or more"));
        }
    }

    /// Field 1 is an integer (tag 1 << 3), field 7 a message (7 << 3 | 2): 08 08, 3A length.
    #[test]
    fn messages_have_the_field_numbers_of_the_schema() {
        let graph = GraphProto { name: "g".into(), ..GraphProto::default() };
        let model = ModelProto { ir_version: 8, graph: Some(graph), ..ModelProto::default() };
        let bytes = encode(&model, Path::new("f")).unwrap();
        assert_eq!(bytes, [0x08, 8, 0x3A, 3, 0x12, 1, b'g']);
    }
}
