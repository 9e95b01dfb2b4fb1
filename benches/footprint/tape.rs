//! The step by candle alone: its operations, its tape, its Adam.
//!
//! candle 0.11 has no gradient for pooling windows that overlap, so those are written as the
//! maximum or the mean of shifted inputs. Everything else is the operation that candle has.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use archrepair::graph::op::{Activation, Conv2d, Op, Pool};
use archrepair::graph::{Graph, Node};
use archrepair::memory::meter;
use candle_core::{Device, Error, Result, Tensor, Var, bail};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use crate::case::{Step, suffix};
use crate::measured::Measured;

/// Runs `steps` steps.
pub(crate) fn run(folder: &Path, steps: usize) -> Result<Measured> {
    let step = Step::open(folder);
    let load = |name: &str| candle_core::safetensors::load(folder.join(name), &Device::Cpu);
    let tensors = load("block.safetensors")?.into_iter().chain(load("suffix.safetensors")?);
    let mut tape = Tape { tensors: tensors.collect() };
    let vars = tape.train(&step.trained)?;
    let behind: Vec<Graph> = suffix(folder).into_iter().map(|part| part.graph).collect();
    let x = load("batch.safetensors")?.remove("x").ok_or_else(|| Error::msg("no features"))?;
    let labels = Tensor::new(step.labels.as_slice(), &Device::Cpu)?;
    let settings = ParamsAdamW { lr: step.rate, weight_decay: 0.0, ..ParamsAdamW::default() };
    let mut adam = AdamW::new(vars, settings)?;
    let mut measured = Measured::start("adam");
    for _ in 0..steps {
        let start = Instant::now();
        let mut y = tape.forward(&step.graph, &x)?;
        for graph in &behind {
            y = tape.forward(graph, &y)?;
        }
        let loss = candle_nn::loss::cross_entropy(&y, &labels)?;
        let grads = loss.backward()?;
        for name in &step.trained {
            if let Some(grad) = grads.get(&tape.tensors[name]) {
                measured.gradient(name, grad, 1.0)?;
            }
        }
        adam.step(&grads)?;
        drop(grads);
        measured.step(start.elapsed(), f64::from(loss.to_scalar::<f32>()?));
    }
    measured.engine_peak = Some(meter::peak());
    Ok(measured.end())
}

struct Tape {
    tensors: BTreeMap<String, Tensor>,
}

impl Tape {
    /// Makes variables of the tensors `names`.
    fn train(&mut self, names: &[String]) -> Result<Vec<Var>> {
        let mut vars = Vec::new();
        for name in names {
            let var = Var::from_tensor(&self.tensors[name])?;
            self.tensors.insert(name.clone(), var.as_tensor().clone());
            vars.push(var);
        }
        Ok(vars)
    }

    fn forward(&self, graph: &Graph, x: &Tensor) -> Result<Tensor> {
        let last = graph.last_uses();
        let mut values = vec![Some(x.clone())];
        for (i, node) in graph.nodes.iter().enumerate() {
            let inputs: Option<Vec<&Tensor>> = node.inputs.iter().map(|&v| values[v].as_ref()).collect();
            let y = self.node(node, &inputs.ok_or_else(|| Error::msg("a value is gone"))?)?;
            values.push(Some(y));
            node.inputs.iter().filter(|&&v| last[v] == Some(i)).for_each(|&v| values[v] = None);
        }
        values.pop().flatten().ok_or_else(|| Error::msg("an empty graph"))
    }

    fn node(&self, node: &Node, xs: &[&Tensor]) -> Result<Tensor> {
        let x = xs[0];
        let own = |suffix: &str| &self.tensors[&node.param(suffix)];
        match &node.op {
            Op::Activation { kind } => activate(x, *kind),
            Op::Add => x.broadcast_add(xs[1]),
            Op::AvgPool(pool) => avg_pool(x, *pool),
            Op::BatchNorm { eps } => {
                let scale = own("weight").div(&(own("running_var") + *eps)?.sqrt()?)?;
                let shift = own("bias").sub(&own("running_mean").mul(&scale)?)?;
                x.broadcast_mul(&spread(&scale)?)?.broadcast_add(&spread(&shift)?)
            }
            Op::Concat => Tensor::cat(xs, 1),
            Op::Conv2d(conv) => convolve(x, conv, own("weight"), conv.bias.then(|| own("bias"))),
            Op::Flatten => x.flatten_from(1),
            Op::Gate => x + (xs[1] - x)?.broadcast_mul(&spread(own("gate"))?)?,
            Op::GlobalAvgPool => x.mean_keepdim((2, 3)),
            Op::GlobalStdPool { eps } => deviation(&centered(x)?, *eps),
            Op::Identity => Ok(x.clone()),
            Op::InstanceNorm { eps } => {
                let x = centered(x)?;
                let e = x.broadcast_div(&deviation(&x, *eps)?)?;
                e.broadcast_mul(&spread(own("weight"))?)?.broadcast_add(&spread(own("bias"))?)
            }
            Op::Linear { bias, .. } => {
                let y = x.matmul(&own("weight").t()?)?;
                if *bias { y.broadcast_add(own("bias")) } else { Ok(y) }
            }
            Op::MaxPool(pool) => max_pool(x, *pool),
            Op::Mix => mix(xs, own("alpha")),
            Op::Mul => x.broadcast_mul(xs[1]),
            Op::Zero { outputs, stride } => {
                let (n, _, h, w) = x.dims4()?;
                Tensor::zeros((n, *outputs, h.div_ceil(*stride), w.div_ceil(*stride)), x.dtype(), x.device())
            }
            other => bail!("no way to say {other:?} in candle"),
        }
    }
}

/// One value a channel, as `[1, c, 1, 1]`.
fn spread(of: &Tensor) -> Result<Tensor> {
    of.reshape((1, of.elem_count(), 1, 1))
}

fn activate(x: &Tensor, kind: Activation) -> Result<Tensor> {
    match kind {
        Activation::Relu => x.relu(),
        Activation::Relu6 => x.clamp(0f32, 6f32),
        Activation::Sigmoid => candle_nn::ops::sigmoid(x),
        Activation::Silu => x.silu(),
        other => bail!("no way to say {other:?} in candle"),
    }
}

fn convolve(x: &Tensor, conv: &Conv2d, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut y = x.conv2d(weight, conv.padding, conv.stride, conv.dilation, conv.groups)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(&spread(bias)?)?;
    }
    conv.activation.map_or(Ok(y.clone()), |kind| activate(&y, kind))
}

fn centered(x: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(&x.mean_keepdim((2, 3))?)
}

fn deviation(centered: &Tensor, eps: f64) -> Result<Tensor> {
    (centered.sqr()?.mean_keepdim((2, 3))? + eps)?.sqrt()
}

/// The choice weights are not trained in this step: their shares are plain numbers.
fn mix(xs: &[&Tensor], alpha: &Tensor) -> Result<Tensor> {
    let shares = candle_nn::ops::softmax(alpha, 0)?.to_vec1::<f32>()?;
    let mut sum = (xs[0] * f64::from(shares[0]))?;
    for (x, share) in xs.iter().zip(shares).skip(1) {
        sum = (sum + (*x * f64::from(share))?)?;
    }
    Ok(sum)
}

fn max_pool(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let mut taps = taps(x, pool, f32::NEG_INFINITY)?.into_iter();
    let first = taps.next().ok_or_else(|| Error::msg("a window without taps"))?;
    taps.try_fold(first, |most, tap| most.maximum(&tap))
}

fn avg_pool(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let sum = |x: &Tensor| -> Result<Tensor> {
        let taps = taps(x, pool, 0.0)?;
        taps[1..].iter().try_fold(taps[0].clone(), |sum, tap| sum + tap)
    };
    let share = sum(&Tensor::ones((1, 1, h, w), x.dtype(), x.device())?)?.recip()?;
    sum(x)?.broadcast_mul(&share)
}

/// For each tap of the window what it sees, `[n, c, h out, w out]`.
fn taps(x: &Tensor, pool: Pool, fill: f32) -> Result<Vec<Tensor>> {
    let (_, _, h, w) = x.dims4()?;
    let windows = |pixels| pool.window().count(pixels).ok_or_else(|| Error::msg("no window fits"));
    let (rows, columns) = (windows(h)?, windows(w)?);
    let padded = pad(&pad(x, 2, pool.padding, fill)?, 3, pool.padding, fill)?;
    let mut taps = Vec::new();
    for i in 0..pool.k {
        let rows = strided(&padded, 2, (i, rows, pool.stride))?;
        for j in 0..pool.k {
            taps.push(strided(&rows, 3, (j, columns, pool.stride))?);
        }
    }
    Ok(taps)
}

fn strided(x: &Tensor, dim: usize, (start, n, stride): (usize, usize, usize)) -> Result<Tensor> {
    if stride == 1 {
        return x.narrow(dim, start, n);
    }
    let at: Vec<u32> = (0..n).map(|i| (start + i * stride) as u32).collect();
    x.contiguous()?.index_select(&Tensor::new(at, x.device())?, dim)
}

fn pad(x: &Tensor, dim: usize, by: usize, fill: f32) -> Result<Tensor> {
    if by == 0 {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    shape[dim] = by;
    let edge = Tensor::full(fill, shape, x.device())?;
    Tensor::cat(&[&edge, x, &edge], dim)
}
