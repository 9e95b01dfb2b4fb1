//! Lowering: the same function in fewer, fused nodes.
//!
//! 1. A batch norm with fixed statistics behind a convolution is folded into its weight and
//!    bias: `s = weight / sqrt(running_var + eps)`, `w' = s w`, `b' = bias + s (b - running_mean)`.
//! 2. A sum behind a convolution becomes the convolution's residual input.
//! 3. An activation behind a convolution becomes its epilogue.
//!
//! Weights on the heap are folded into new tensors; those in a mapped file stay there, with `s`
//! beside them ([`Weight`]).
//!
//! A node is fused only when nothing else uses the value between. Lowered graphs are ordinary
//! graphs: the engine runs them, the planner counts them. To be differentiated, an activation
//! stays a node of its own where its slope cannot be told from its result
//! ([`lower_to_differentiate`]).

use std::collections::BTreeSet;

use candle_core::Tensor;

use super::op::{Activation, Conv2d, Op};
use super::{Graph, Node, Params, Value, Weight};
use crate::device::Compute;
use crate::error::{During, Result};

/// A lowered graph and its parameters; those that were not folded are shared with the original.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The fused graph.
    pub graph: Graph,
    /// All its tensors.
    pub params: Params,
}

impl Lowered {
    /// The same network with its tensors as passes of `compute` read them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when the device refuses.
    pub fn placed(self, compute: &Compute) -> Result<Self> {
        Ok(Self { params: self.params.placed(compute)?, ..self })
    }
}

/// Folds and fuses `graph`.
///
/// # Errors
///
/// [`crate::Error::Graph`] when a tensor is missing, [`crate::Error::Tensor`] when one has a
/// shape that does not fit.
pub fn lower(graph: &Graph, params: &Params) -> Result<Lowered> {
    lowered(graph, params, |_| true)
}

/// As [`lower`], to a graph that gradients can be taken through.
///
/// # Errors
///
/// As [`lower`].
pub fn lower_to_differentiate(graph: &Graph, params: &Params) -> Result<Lowered> {
    lowered(graph, params, Activation::is_known_from_output)
}

fn lowered(graph: &Graph, params: &Params, fuses: fn(Activation) -> bool) -> Result<Lowered> {
    // A node that leads nowhere could end up last, where the output is read.
    let graph = &graph.reaching(graph.output());
    let mut lowering = Lowering {
        graph: Graph::default(),
        params: Params::default(),
        of: vec![0],
        uses: graph.uses(),
        source: params,
        fuses,
    };
    for node in &graph.nodes {
        let value = lowering.node(node)?;
        lowering.of.push(value);
    }
    lowering.copy_params();
    Ok(Lowered { graph: lowering.graph, params: lowering.params })
}

struct Lowering<'a> {
    graph: Graph,
    params: Params,
    /// For each old value the new one.
    of: Vec<Value>,
    /// Uses of each old value.
    uses: Vec<usize>,
    source: &'a Params,
    /// Which activations become an epilogue.
    fuses: fn(Activation) -> bool,
}

impl Lowering<'_> {
    /// Adds the node, or fuses it into one that is there; returns the value of its result.
    fn node(&mut self, node: &Node) -> Result<Value> {
        let fused = match &node.op {
            Op::Identity => Some(self.alias(node.inputs[0])),
            Op::BatchNorm { eps } => self.fold(node, *eps)?,
            Op::Add => self.add_residual(node),
            Op::Activation { kind } if (self.fuses)(*kind) => self
                .fusable(node.inputs[0], |conv| conv.activation.is_none())
                .map(|value| self.change(value, |conv| conv.activation = Some(*kind))),
            _ => None,
        };
        if let Some(value) = fused {
            return Ok(value);
        }
        let inputs: Vec<Value> = node.inputs.iter().map(|&v| self.of[v]).collect();
        Ok(self.graph.push(node.name.clone(), node.op.clone(), &inputs))
    }

    /// The new value of `old` if it is a convolution that nothing else uses and that `fits`.
    fn fusable(&self, old: Value, fits: impl Fn(&Conv2d) -> bool) -> Option<Value> {
        let value = self.of[old];
        let node = self.graph.nodes.get(value.checked_sub(1)?)?;
        match &node.op {
            Op::Conv2d(conv) if self.uses[old] == 1 && fits(conv) => Some(value),
            _ => None,
        }
    }

    fn change(&mut self, value: Value, change: impl Fn(&mut Conv2d)) -> Value {
        if let Op::Conv2d(conv) = &mut self.graph.nodes[value - 1].op {
            change(conv);
        }
        value
    }

    fn fold(&mut self, norm: &Node, eps: f64) -> Result<Option<Value>> {
        let plain = |conv: &Conv2d| !conv.residual && conv.activation.is_none();
        let Some(value) = self.fusable(norm.inputs[0], plain) else { return Ok(None) };
        let conv = self.graph.nodes[value - 1].clone();
        let has_bias = matches!(&conv.op, Op::Conv2d(conv) if conv.bias);
        let tensor = |suffix| self.source.get(&norm.param(suffix));
        let [weight, bias] = [tensor("weight")?, tensor("bias")?];
        let [mean, var] = [tensor("running_mean")?, tensor("running_var")?];
        let (scale, shift) = affine([&weight, &bias], [&mean, &var], eps).during("folding a batch norm")?;
        let name = conv.param("weight");
        let weight = self.weight(&name).map_or_else(|| self.source.weight(&name), Ok)?.scaled(&scale)?;
        let bias = match self.weight(&conv.param("bias")).filter(|_| has_bias) {
            Some(bias) => {
                ((bias.tensor()? * &scale).and_then(|b| b + shift)).during("folding a batch norm")?
            }
            None => shift,
        };
        self.params.insert(conv.param("weight"), weight);
        self.params.insert(conv.param("bias"), bias);
        Ok(Some(self.change(value, |conv| conv.bias = true)))
    }

    /// Of two summands the later one can take the earlier as its residual input.
    fn add_residual(&mut self, sum: &Node) -> Option<Value> {
        let (a, b) = (sum.inputs[0], sum.inputs[1]);
        let (later, earlier) = if self.of[a] > self.of[b] { (a, b) } else { (b, a) };
        let plain = |conv: &Conv2d| !conv.residual && conv.activation.is_none();
        let value = self.fusable(later, plain)?;
        let residual = self.of[earlier];
        if residual == value {
            return None;
        }
        self.graph.nodes[value - 1].inputs.push(residual);
        Some(self.change(value, |conv| conv.residual = true))
    }

    /// The next old value is `old` under another name: both are used as often as the two together.
    fn alias(&mut self, old: Value) -> Value {
        let next = self.of.len();
        let uses = self.uses[old] + self.uses[next] - 1;
        self.uses[old] = uses;
        self.uses[next] = uses;
        self.of[old]
    }

    /// A weight as folded so far.
    fn weight(&self, name: &str) -> Option<&Weight> {
        self.params.find(name).or_else(|| self.source.find(name))
    }

    fn copy_params(&mut self) {
        let nodes: BTreeSet<&str> = self.graph.nodes.iter().map(|node| node.name.as_str()).collect();
        for (name, weight) in self.source.iter() {
            let node = name.rsplit_once('.').map_or("", |(node, _)| node);
            if self.params.find(name).is_none() && nodes.contains(node) {
                self.params.insert(name.clone(), weight.clone());
            }
        }
    }
}

/// Scale and shift of a batch norm with fixed statistics.
fn affine(
    [weight, bias]: [&Tensor; 2],
    [mean, var]: [&Tensor; 2],
    eps: f64,
) -> candle_core::Result<(Tensor, Tensor)> {
    let scale = weight.div(&(var + eps)?.sqrt()?)?;
    let shift = bias.sub(&mean.mul(&scale)?)?;
    Ok((scale, shift))
}
