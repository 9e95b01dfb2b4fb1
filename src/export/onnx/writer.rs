//! Nodes and initializers of a graph in the making, under names that are unique.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::export::onnx::{INPUT_NAME, OUTPUT_NAME, Pixels};
use crate::export::proto::{AttributeProto, FLOAT, FLOAT16, INT64, NodeProto, TensorProto};
use crate::graph::Params;
use crate::graph::network::Input;
use crate::storage::Storage;

/// What has been written so far.
pub(super) struct Writer<'a> {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
    pub(super) params: &'a Params,
    pub(super) numbers: Storage,
    /// Of all values and initializers.
    names: BTreeSet<String>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(params: &'a Params, numbers: Storage) -> Result<Self> {
        if numbers == Storage::Bf16 {
            let want = "f32 or f16 in an ONNX graph".into();
            return Err(Error::Config { field: "precision", got: numbers.to_string(), want });
        }
        let names = params.iter().map(|(name, _)| name.clone());
        let names = names.chain([INPUT_NAME, OUTPUT_NAME].map(str::to_owned)).collect();
        Ok(Self { nodes: Vec::new(), initializers: Vec::new(), params, numbers, names })
    }

    /// The first value of the network, made of the graph's input.
    pub(super) fn begin(&mut self, input: &Input, pixels: Pixels) -> Result<String> {
        let mut x = INPUT_NAME.to_owned();
        if pixels == Pixels::Unit {
            let dims = [1, input.mean.len(), 1, 1];
            let mean = self.initializer("normalize.mean", &dims, &input.mean, Storage::F32)?;
            let std = self.initializer("normalize.std", &dims, &input.std, Storage::F32)?;
            x = self.node("Sub", "normalize.centred", &[&x, &mean], Vec::new());
            x = self.node("Div", "normalize", &[&x, &std], Vec::new());
        }
        Ok(self.cast_to(self.numbers, "input.cast", x))
    }

    /// Makes `value` the graph's output.
    pub(super) fn end(&mut self, value: &str) {
        let last = self.nodes.last_mut().filter(|node| node.output == [value]);
        match last.filter(|_| self.numbers == Storage::F32) {
            Some(node) => node.output = vec![OUTPUT_NAME.into()],
            None => {
                let cast = vec![integer("to", FLOAT.into())];
                self.node("Cast", OUTPUT_NAME, &[value], cast);
                if let Some(node) = self.nodes.last_mut() {
                    node.output = vec![OUTPUT_NAME.into()];
                }
            }
        }
    }

    /// `x` in `f32`, where the graph is of halves.
    pub(super) fn widened(&mut self, name: &str, x: String) -> String {
        if self.numbers == Storage::F32 { x } else { self.cast(Storage::F32, name, &x) }
    }

    /// `x`, which is in `f32`, as numbers of this type.
    pub(super) fn cast_to(&mut self, numbers: Storage, name: &str, x: String) -> String {
        if numbers == Storage::F32 { x } else { self.cast(numbers, name, &x) }
    }

    fn cast(&mut self, numbers: Storage, name: &str, x: &str) -> String {
        self.node("Cast", name, &[x], vec![integer("to", data_type(numbers).into())])
    }

    /// Adds a node and returns the name of its value: `name`, or with a number where that is taken.
    pub(super) fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> String {
        let name = self.unused(name);
        self.nodes.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: operator.into(),
            attribute,
        });
        name
    }

    /// The tensor `name` of the network as an initializer of these sides, which hold as many numbers.
    pub(super) fn weight(&mut self, name: String, dims: &[usize]) -> Result<String> {
        let missing = || Error::Graph { node: name.clone(), problem: "has no tensor".into() };
        let values = self.params.find(&name).ok_or_else(missing)?.floats()?;
        self.store(&name, dims, &values, self.numbers)?;
        Ok(name)
    }

    /// Numbers of our own as an initializer.
    pub(super) fn initializer(
        &mut self,
        name: &str,
        dims: &[usize],
        values: &[f32],
        numbers: Storage,
    ) -> Result<String> {
        let name = self.unused(name);
        self.store(&name, dims, values, numbers)?;
        Ok(name)
    }

    /// Whole numbers of our own as an initializer of one axis.
    pub(super) fn whole_numbers(&mut self, name: &str, values: &[usize]) -> String {
        let name = self.unused(name);
        self.initializers.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: INT64,
            name: name.clone(),
            raw_data: values.iter().flat_map(|&value| (value as i64).to_le_bytes()).collect(),
        });
        name
    }

    fn store(&mut self, name: &str, dims: &[usize], values: &[f32], numbers: Storage) -> Result<()> {
        if let Some(index) = numbers.first_unfit(values) {
            let value = values[index];
            let want = format!("f32, since tensor `{name}` holds {value} at element {index}");
            return Err(Error::Config { field: "precision", got: numbers.to_string(), want });
        }
        let mut raw_data = Vec::with_capacity(values.len() * numbers.size_bytes());
        numbers.narrow(values, &mut raw_data);
        self.initializers.push(TensorProto {
            dims: dims.iter().map(|&side| side as i64).collect(),
            data_type: data_type(numbers),
            name: name.into(),
            raw_data,
        });
        Ok(())
    }

    fn unused(&mut self, name: &str) -> String {
        let numbered = (2..).map(|i| format!("{name}_{i}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let free = names.find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(free.clone());
        free
    }
}

fn data_type(numbers: Storage) -> i32 {
    if numbers == Storage::F32 { FLOAT } else { FLOAT16 }
}

/// An attribute of one integer.
pub(super) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(value), kind: 2, ..AttributeProto::default() }
}

/// An attribute of integers.
pub(super) fn integers(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&value| value as i64).collect();
    AttributeProto { name: name.into(), ints, kind: 7, ..AttributeProto::default() }
}

/// An attribute of one number.
pub(super) fn number(name: &str, value: f64) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(value as f32), kind: 1, ..AttributeProto::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let params = Params::default();
        let mut writer = Writer::new(&params, Storage::F32).unwrap();
        let names = [0; 3].map(|_| writer.node("Relu", "relu", &["input"], Vec::new()));
        assert_eq!(names, ["relu", "relu_2", "relu_3"]);
        assert_eq!(writer.node("Relu", "input", &["relu"], Vec::new()), "input_2");
    }

    #[test]
    fn what_halves_cannot_hold_is_refused_by_name() {
        let params = Params::default();
        let mut writer = Writer::new(&params, Storage::F16).unwrap();
        let error = writer.initializer("a", &[2], &[1.0, 7e4], Storage::F16).unwrap_err();
        let want = "precision is f16, expected f32, since tensor `a` holds 70000 at element 1";
        assert_eq!((error.code(), error.to_string()), (10, want.into()));
        assert_eq!(Writer::new(&params, Storage::Bf16).err().map(|error| error.code()), Some(10));
    }
}
