//! How alternatives are put together: nodes, and tensors for them.

use std::iter::repeat_n;
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::error::{During, Result};
use crate::graph::op::{Conv2d, Op, elements};
use crate::graph::{Graph, Params, Value};
use crate::rng::Rng;

/// A graph in the making, with the tensors of its new nodes.
pub(super) struct Builder<'a> {
    pub(super) graph: Graph,
    pub(super) params: Params,
    /// Draws new weights; without it the graph is made and its tensors are not.
    pub(super) rng: Option<&'a mut Rng>,
    /// Where new tensors are kept, each in an unnamed file; without it they are on the heap.
    pub(super) folder: Option<&'a Path>,
    /// Most groups of the channels that a dense convolution sees.
    pub(super) groups: usize,
}

impl Builder<'_> {
    pub(super) fn plain(&mut self, name: &str, op: Op, x: Value) -> Value {
        self.graph.push(name, op, &[x])
    }

    pub(super) fn tensor(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = f32>,
        shape: &[usize],
    ) -> Result<()> {
        if self.rng.is_none() {
            return Ok(());
        }
        let mut all = Vec::with_capacity(shape.iter().product());
        all.extend(values);
        let tensor = Tensor::from_vec(all, shape, &Device::Cpu).during("making new weights")?;
        let new = Params::from_iter([(name.to_owned(), tensor)]);
        self.params.extend(&match self.folder {
            Some(folder) => new.spooled(folder)?,
            None => new,
        });
        Ok(())
    }

    /// A convolution with bias and weights drawn for a ReLU's fan-in (He et al. 2015).
    pub(super) fn conv(&mut self, name: &str, conv: Conv2d, c: usize, x: Value) -> Result<Value> {
        let shape = conv.weight_shape(c);
        let scale = (2.0 / (shape[1] * shape[2] * shape[3]) as f32).sqrt();
        if let Some(rng) = self.rng.take() {
            let weights: Vec<f32> = (0..elements(&shape)).map(|_| rng.normal() * scale).collect();
            self.rng = Some(rng);
            self.tensor(&format!("{name}.weight"), weights, &shape)?;
        }
        self.tensor(&format!("{name}.bias"), repeat_n(0.0, conv.outputs), &[conv.outputs])?;
        Ok(self.plain(name, Op::Conv2d(Conv2d { bias: true, ..conv }), x))
    }

    pub(super) fn zero_pointwise(&mut self, name: &str, [c, outputs]: [usize; 2], x: Value) -> Result<Value> {
        self.tensor(&format!("{name}.weight"), repeat_n(0.0, c * outputs), &[outputs, c, 1, 1])?;
        self.tensor(&format!("{name}.bias"), repeat_n(0.0, outputs), &[outputs])?;
        Ok(self.plain(name, Op::Conv2d(Conv2d { bias: true, ..Conv2d::valid(outputs, 1, 1) }), x))
    }

    pub(super) fn separable(
        &mut self,
        name: &str,
        depthwise: Conv2d,
        outputs: usize,
        x: Value,
    ) -> Result<Value> {
        let c = depthwise.outputs;
        let x = self.conv(&format!("{name}.depthwise"), Conv2d { groups: c, ..depthwise }, c, x)?;
        self.dense(&format!("{name}.pointwise"), Conv2d::valid(outputs, 1, 1), c, x)
    }

    /// A convolution over all channels, or over as many groups of them as there may be.
    pub(super) fn dense(&mut self, name: &str, conv: Conv2d, c: usize, x: Value) -> Result<Value> {
        let divides = |g: &usize| c.is_multiple_of(*g) && conv.outputs.is_multiple_of(*g);
        let groups = (1..=self.groups).rev().find(divides).unwrap_or(1);
        self.conv(name, Conv2d { groups, ..conv }, c, x)
    }

    /// `x` with `outputs` channels: itself, or by a 1x1 convolution.
    pub(super) fn widened(&mut self, name: &str, [c, outputs]: [usize; 2], x: Value) -> Result<Value> {
        if c == outputs { Ok(x) } else { self.dense(name, Conv2d::valid(outputs, 1, 1), c, x) }
    }
}
