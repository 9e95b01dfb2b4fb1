//! What each operation becomes; the table stands in [`super`].

use super::writer::{Writer, integer, integers, number};
use crate::error::Result;
use crate::graph::op::{Activation, Conv2d, Margins, Op, Pool, Shape};
use crate::graph::{Node, Value};
use crate::storage::Storage;

impl Writer<'_> {
    /// Adds the nodes of `node` and returns the name of its value; `values` are the names of all
    /// values so far.
    pub(super) fn operation(&mut self, node: &Node, values: &[String], shapes: &[Shape]) -> Result<String> {
        let name = &*node.name;
        let inputs: Vec<&str> = node.inputs.iter().map(|&v: &Value| &*values[v]).collect();
        let x = inputs[0];
        let shape = &shapes[node.inputs[0]];
        let plain = |to: &mut Self, operator| Ok(to.node(operator, name, &inputs, Vec::new()));
        match &node.op {
            Op::Activation { kind } => self.activation(*kind, name, x),
            Op::Add => plain(self, "Add"),
            Op::AvgPool(pool) => {
                let mut windows = windows(pool);
                windows.push(integer("count_include_pad", 0));
                Ok(self.node("AveragePool", name, &inputs, windows))
            }
            Op::BatchNorm { eps } => self.batch_norm(node, x, shape[0], *eps),
            Op::Concat => Ok(self.node("Concat", name, &inputs, vec![integer("axis", 1)])),
            Op::Conv2d(conv) => self.conv2d(node, conv, &inputs, shape[0]),
            Op::Flatten => Ok(self.node("Flatten", name, &inputs, vec![integer("axis", 1)])),
            Op::Gate => self.gate(node, &inputs, shape),
            Op::GlobalAvgPool => plain(self, "GlobalAveragePool"),
            Op::GlobalStdPool { eps } => self.global_std_pool(name, x, *eps),
            Op::Identity => plain(self, "Identity"),
            Op::InstanceNorm { eps } => {
                let [weight, bias] = self.per_channel(node, ["weight", "bias"], shape[0])?;
                let inputs = [x, &weight, &bias];
                Ok(self.node("InstanceNormalization", name, &inputs, vec![number("epsilon", *eps)]))
            }
            Op::Linear { outputs, bias } => self.linear(node, x, [*outputs, shape[0]], *bias),
            Op::MaxPool(pool) => Ok(self.node("MaxPool", name, &inputs, windows(pool))),
            Op::Mix => Err(node.error("is an open choice; only finished networks have an ONNX form")),
            Op::Mul => plain(self, "Mul"),
            Op::Pad(margins) => {
                let Margins { top, left, bottom, right } = *margins;
                // Where each axis begins, then where each ends.
                let pads =
                    self.whole_numbers(&format!("{name}.pads"), &[0, 0, top, left, 0, 0, bottom, right]);
                Ok(self.node("Pad", name, &[x, &pads], Vec::new()))
            }
            Op::Zero { outputs, stride } => self.zero(name, x, [*outputs, shape[0], *stride]),
        }
    }

    fn activation(&mut self, kind: Activation, name: &str, x: &str) -> Result<String> {
        Ok(match kind {
            Activation::HardSigmoid => self.hard_sigmoid(name, x),
            Activation::HardSwish => {
                // The operator HardSwish came late to TensorRT; this is its definition.
                let part = self.hard_sigmoid(&format!("{name}.hard_sigmoid"), x);
                self.node("Mul", name, &[x, &part], Vec::new())
            }
            Activation::Relu => self.node("Relu", name, &[x], Vec::new()),
            Activation::Relu6 => {
                let least = self.initializer(&format!("{name}.least"), &[], &[0.0], self.numbers)?;
                let most = self.initializer(&format!("{name}.most"), &[], &[6.0], self.numbers)?;
                self.node("Clip", name, &[x, &least, &most], Vec::new())
            }
            Activation::Sigmoid => self.node("Sigmoid", name, &[x], Vec::new()),
            Activation::Silu => {
                let part = self.node("Sigmoid", &format!("{name}.sigmoid"), &[x], Vec::new());
                self.node("Mul", name, &[x, &part], Vec::new())
            }
        })
    }

    fn hard_sigmoid(&mut self, name: &str, x: &str) -> String {
        self.node("HardSigmoid", name, &[x], vec![number("alpha", 1.0 / 6.0), number("beta", 0.5)])
    }

    fn batch_norm(&mut self, node: &Node, x: &str, c: usize, eps: f64) -> Result<String> {
        let [weight, bias, mean, var] =
            self.per_channel(node, ["weight", "bias", "running_mean", "running_var"], c)?;
        let inputs = [x, &weight, &bias, &mean, &var];
        Ok(self.node("BatchNormalization", &node.name, &inputs, vec![number("epsilon", eps)]))
    }

    fn conv2d(&mut self, node: &Node, conv: &Conv2d, inputs: &[&str], c: usize) -> Result<String> {
        let weight = self.weight(node.param("weight"), &conv.weight_shape(c))?;
        let bias = match conv.bias {
            true => Some(self.weight(node.param("bias"), &[conv.outputs])?),
            false => None,
        };
        let taken: Vec<&str> = [inputs[0], &weight].into_iter().chain(bias.as_deref()).collect();
        let attributes = vec![
            integers("kernel_shape", &[conv.k; 2]),
            integers("strides", &[conv.stride; 2]),
            integers("pads", &[conv.padding; 4]),
            integers("dilations", &[conv.dilation; 2]),
            integer("group", conv.groups as i64),
        ];
        let mut y = self.node("Conv", &node.name, &taken, attributes);
        if conv.residual {
            y = self.node("Add", &format!("{}.add", node.name), &[&y, inputs[1]], Vec::new());
        }
        match conv.activation {
            Some(kind) => self.activation(kind, &format!("{}.activation", node.name), &y),
            None => Ok(y),
        }
    }

    fn linear(&mut self, node: &Node, x: &str, dims: [usize; 2], bias: bool) -> Result<String> {
        let weight = self.weight(node.param("weight"), &dims)?;
        let bias = match bias {
            true => Some(self.weight(node.param("bias"), &dims[..1])?),
            false => None,
        };
        let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
        Ok(self.node("Gemm", &node.name, &inputs, vec![integer("transB", 1)]))
    }

    /// `x + gate * (z - x)`
    fn gate(&mut self, node: &Node, inputs: &[&str], shape: &[usize]) -> Result<String> {
        // One number a channel, repeated over the pixels where there are some.
        let dims: Vec<usize> = shape.iter().enumerate().map(|(i, &c)| if i == 0 { c } else { 1 }).collect();
        let gate = self.weight(node.param("gate"), &dims)?;
        let (name, x) = (&*node.name, inputs[0]);
        let apart = self.node("Sub", &format!("{name}.apart"), &[inputs[1], x], Vec::new());
        let part = self.node("Mul", &format!("{name}.part"), &[&apart, &gate], Vec::new());
        Ok(self.node("Add", name, &[x, &part], Vec::new()))
    }

    /// `sqrt(mean((x - mean(x))^2) + eps)`: the squares need the range of `f32`.
    fn global_std_pool(&mut self, name: &str, x: &str, eps: f64) -> Result<String> {
        let over_pixels = || vec![integers("axes", &[2, 3]), integer("keepdims", 1)];
        let part = |part: &str| format!("{name}.{part}");
        let eps = self.initializer(&part("eps"), &[], &[eps as f32], Storage::F32)?;
        let x = self.widened(&part("wide"), x.to_owned());
        let mean = self.node("ReduceMean", &part("mean"), &[&x], over_pixels());
        let apart = self.node("Sub", &part("apart"), &[&x, &mean], Vec::new());
        let square = self.node("Mul", &part("square"), &[&apart, &apart], Vec::new());
        let variance = self.node("ReduceMean", &part("variance"), &[&square], over_pixels());
        let sum = self.node("Add", &part("sum"), &[&variance, &eps], Vec::new());
        let std = self.node("Sqrt", &part("std"), &[&sum], Vec::new());
        Ok(self.cast_to(self.numbers, name, std))
    }

    /// A 1x1 convolution gives the shape for any number of images, without operators on shapes.
    fn zero(&mut self, name: &str, x: &str, [outputs, c, stride]: [usize; 3]) -> Result<String> {
        let zeros = vec![0.0; outputs * c];
        let weight = self.initializer(&format!("{name}.zeros"), &[outputs, c, 1, 1], &zeros, self.numbers)?;
        Ok(self.node("Conv", name, &[x, &weight], vec![integers("strides", &[stride; 2])]))
    }

    /// The tensors of `node` with these endings, of one number a channel each.
    fn per_channel<const N: usize>(
        &mut self,
        node: &Node,
        suffixes: [&str; N],
        c: usize,
    ) -> Result<[String; N]> {
        for suffix in suffixes {
            self.weight(node.param(suffix), &[c])?;
        }
        Ok(suffixes.map(|suffix| node.param(suffix)))
    }
}

fn windows(pool: &Pool) -> Vec<crate::export::proto::AttributeProto> {
    vec![
        integers("kernel_shape", &[pool.k; 2]),
        integers("strides", &[pool.stride; 2]),
        integers("pads", &[pool.padding; 4]),
    ]
}
