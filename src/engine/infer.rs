//! The forward pass that keeps nothing: a value lives until its last use, a mapped weight is
//! widened for the one operation that reads it.

use candle_core::Tensor;

use crate::error::{During, Result};
use crate::graph::op::Op;
use crate::graph::{Graph, Node, Params, Value};
use crate::kernels::batch_norm::{Affine, Statistics};
use crate::kernels::conv2d::Epilogue;
use crate::kernels::{
    activation, batch_norm, concat, conv2d, elementwise, gate, global_pool, instance_norm, linear, mix, pad,
    pool,
};

/// The output of `graph` for `x`, images first.
///
/// # Errors
///
/// [`crate::Error::Graph`] when a tensor is missing or shapes do not fit,
/// [`crate::Error::Tensor`] when the device refuses.
///
/// # Examples
///
/// ```
/// use archrepair::engine::infer::infer;
/// use archrepair::graph::op::{Activation, Op};
/// use archrepair::graph::{Graph, INPUT, Params};
/// use candle_core::{Device, Tensor};
///
/// let mut graph = Graph::default();
/// graph.push("relu", Op::Activation { kind: Activation::Relu }, &[INPUT]);
/// let x = Tensor::new(&[[-1f32, 2.0]], &Device::Cpu)?;
/// let y = infer(&graph, &Params::default(), &x)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0.0, 2.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn infer(graph: &Graph, params: &Params, x: &Tensor) -> Result<Tensor> {
    observe(graph, params, x, |_, _| Ok(()))
}

/// As [`infer`], and shows each value as it is computed.
///
/// # Errors
///
/// As [`infer`], and what `show` returns.
pub fn observe(
    graph: &Graph,
    params: &Params,
    x: &Tensor,
    mut show: impl FnMut(Value, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    let mut pass = Forward::new(graph, params, x);
    while let Some((value, y)) = pass.step()? {
        show(value, y)?;
    }
    pass.finish()
}

/// A pass under way. Copies of it go on by themselves and share the values that are there.
#[derive(Clone, Debug)]
pub struct Forward<'a> {
    graph: &'a Graph,
    params: &'a Params,
    last_use: Vec<Option<usize>>,
    /// Those computed so far, without those that nothing reads any more.
    values: Vec<Option<Tensor>>,
}

impl<'a> Forward<'a> {
    /// A pass over `x`, images first, of which no node ran yet.
    #[must_use]
    pub fn new(graph: &'a Graph, params: &'a Params, x: &Tensor) -> Self {
        Self { graph, params, last_use: graph.last_uses(), values: vec![Some(x.clone())] }
    }

    /// Runs the next node, if there is one: its value.
    ///
    /// # Errors
    ///
    /// As [`infer`].
    pub fn step(&mut self) -> Result<Option<(Value, &Tensor)>> {
        let i = self.values.len() - 1;
        let Some(node) = self.graph.nodes.get(i) else { return Ok(None) };
        let y = apply(node, self.params, &inputs(node, &self.values)?)?;
        for &v in &node.inputs {
            if self.last_use[v] == Some(i) {
                self.values[v] = None;
            }
        }
        self.values.push(Some(y));
        Ok(self.values[i + 1].as_ref().map(|y| (i + 1, y)))
    }

    /// From now on whoever reads `value` finds `other`.
    ///
    /// # Panics
    ///
    /// When one of them was not computed yet.
    pub fn replace(&mut self, value: Value, other: Value) {
        self.values[value] = self.values[other].clone();
    }

    /// Runs all nodes that are left: the output.
    ///
    /// # Errors
    ///
    /// As [`infer`].
    pub fn finish(mut self) -> Result<Tensor> {
        while self.step()?.is_some() {}
        self.values.pop().flatten().ok_or_else(|| no_value("output"))
    }
}

/// The values a node reads.
pub(super) fn inputs<'a>(node: &Node, values: &'a [Option<Tensor>]) -> Result<Vec<&'a Tensor>> {
    let find = |&v: &Value| values.get(v).and_then(Option::as_ref).ok_or_else(|| no_value(&node.name));
    node.inputs.iter().map(find).collect()
}

fn no_value(node: &str) -> crate::Error {
    crate::Error::Graph { node: node.into(), problem: "uses a value that is not there".into() }
}

/// The affine parameters of a batch norm.
pub(super) fn affine(node: &Node, eps: f64, params: &Params) -> Result<Affine> {
    let tensor = |suffix| params.get(&node.param(suffix));
    Ok(Affine { weight: tensor("weight")?, bias: tensor("bias")?, eps })
}

/// The stored statistics of a batch norm.
pub(super) fn stored(node: &Node, params: &Params) -> Result<Statistics> {
    let tensor = |suffix| params.get(&node.param(suffix));
    Ok(Statistics { mean: tensor("running_mean")?, var: tensor("running_var")? })
}

/// The output of one node.
pub(super) fn apply(node: &Node, params: &Params, inputs: &[&Tensor]) -> Result<Tensor> {
    let &[x, ..] = inputs else { return Err(node.error("has no input")) };
    let tensor = |suffix| params.get(&node.param(suffix));
    let second = || inputs.get(1).copied().ok_or_else(|| node.error("has one input, expected 2"));
    match &node.op {
        Op::Activation { kind } => activation::forward(*kind, x),
        Op::Add => elementwise::add(x, second()?),
        Op::AvgPool(window) => pool::avg(window, x),
        Op::BatchNorm { eps } => batch_norm::fixed(x, &affine(node, *eps, params)?, &stored(node, params)?),
        Op::Concat => concat::forward(inputs),
        Op::Conv2d(conv) => {
            let bias = if conv.bias { Some(tensor("bias")?) } else { None };
            let residual = if conv.residual { Some(second()?) } else { None };
            conv2d::forward(conv, x, &tensor("weight")?, Epilogue { bias: bias.as_ref(), residual })
        }
        Op::Flatten => x.flatten_from(1).during("flattening"),
        Op::Gate => gate::forward(x, second()?, &tensor("gate")?),
        Op::GlobalAvgPool => global_pool::avg(x),
        Op::GlobalStdPool { eps } => global_pool::std(x, *eps),
        Op::Identity => Ok(x.clone()),
        Op::InstanceNorm { eps } => instance_norm::forward(x, &tensor("weight")?, &tensor("bias")?, *eps),
        Op::Linear { bias, .. } => {
            let bias = if *bias { Some(tensor("bias")?) } else { None };
            linear::forward(x, &tensor("weight")?, bias.as_ref())
        }
        Op::MaxPool(window) => pool::max_only(window, x),
        Op::Mix => mix::forward(inputs, &tensor("alpha")?),
        Op::Mul => elementwise::mul(x, second()?),
        Op::Pad(margins) => pad::forward(*margins, x),
        Op::Zero { outputs, stride } => zeros(x, *outputs, *stride),
    }
}

fn zeros(x: &Tensor, outputs: usize, stride: usize) -> Result<Tensor> {
    let (n, _, h, w) = x.dims4().during("reading a shape")?;
    let shape = (n, outputs, h.div_ceil(stride), w.div_ceil(stride));
    let numbers = n * outputs * shape.2 * shape.3;
    crate::meter::reserve("zeros", numbers * x.dtype().size_in_bytes())?;
    Tensor::zeros(shape, x.dtype(), x.device()).during("making zeros")
}
