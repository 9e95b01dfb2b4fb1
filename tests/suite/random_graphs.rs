//! Small random graphs that hold every operation: a stem, joined branches, a squeeze, a head.

use archrepair::graph::op::{Activation, Conv2d, Margins, Op, Pool, Shape};
use archrepair::graph::shape::Param;
use archrepair::graph::{Graph, INPUT, Params, Value};
use archrepair::rng::Rng;
use candle_core::Tensor;

use crate::support::normal;

/// Large enough that a plane of constants is far from a pole of a norm.
const EPS: [f64; 2] = [0.1, 0.01];

/// All activations.
const ACTIVATIONS: [Activation; 6] = [
    Activation::HardSigmoid,
    Activation::HardSwish,
    Activation::Relu,
    Activation::Relu6,
    Activation::Sigmoid,
    Activation::Silu,
];

/// A graph, its tensors and an input for it, all in `f64`.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) graph: Graph,
    pub(crate) params: Params,
    pub(crate) x: Tensor,
}

impl Drawn {
    /// The graph of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let [n, c, h, w] = [2 + rng.below(2), 1 + rng.below(3), 4 + rng.below(3), 4 + rng.below(3)];
        let mut draft = Draft { graph: Graph::default(), input: vec![c, h, w], rng };
        draft.draw();
        let Draft { graph, input, rng } = draft;
        let named = graph.params(&input).unwrap().into_iter();
        let params = named.map(|named| (named.name, values_of(&named.param, rng))).collect();
        let x = normal(&[n, c, h, w], rng);
        Self { graph, params, x }
    }

    /// Shape of one image.
    pub(crate) fn input(&self) -> &[usize] {
        &self.x.dims()[1..]
    }

    /// Names of all tensors that gradients change.
    pub(crate) fn trainable(&self) -> Vec<String> {
        let params = self.graph.params(self.input()).unwrap().into_iter();
        params.filter(|named| named.param.trainable).map(|named| named.name).collect()
    }
}

/// Convolutions that keep the size of what they get; variances over 0.
fn values_of(param: &Param, rng: &mut Rng) -> Tensor {
    let drawn = normal(&param.shape, rng);
    match param.suffix {
        "running_var" => (drawn.sqr().unwrap() + 0.5).unwrap(),
        _ => {
            let fan_in: usize = param.shape[1..].iter().product();
            (drawn / (fan_in as f64).sqrt()).unwrap()
        }
    }
}

/// A graph in the making.
struct Draft<'a> {
    graph: Graph,
    input: Shape,
    rng: &'a mut Rng,
}

impl Draft<'_> {
    fn draw(&mut self) {
        let (outputs, stride) = (2 + self.rng.below(3), 1 + self.rng.below(2));
        let stem = Conv2d { bias: self.flip(), ..Conv2d::same(outputs, 3, stride) };
        let x = self.push(Op::Conv2d(stem), &[INPUT]);
        let x = self.normed(x);
        let mut y = x;
        for _ in 0..2 {
            let z = self.branch(y);
            y = self.joined(y, z);
        }
        let y = self.squeezed(y);
        let y = self.push(Op::Add, &[y, x]);
        self.head(y);
    }

    fn push(&mut self, op: Op, inputs: &[Value]) -> Value {
        self.graph.push(format!("n{}", self.graph.nodes.len()), op, inputs)
    }

    fn flip(&mut self) -> bool {
        self.rng.below(2) == 0
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.below(from.len())]
    }

    fn channels(&self, v: Value) -> usize {
        self.graph.shapes(&self.input).unwrap()[v][0]
    }

    fn activated(&mut self, x: Value) -> Value {
        let kind = self.choose(&ACTIVATIONS);
        self.push(Op::Activation { kind }, &[x])
    }

    fn normed(&mut self, x: Value) -> Value {
        let eps = self.choose(&EPS);
        let norm = if self.flip() { Op::BatchNorm { eps } } else { Op::InstanceNorm { eps } };
        let x = self.push(norm, &[x]);
        self.activated(x)
    }

    /// Something of the shape of `x`.
    fn branch(&mut self, x: Value) -> Value {
        let c = self.channels(x);
        let pool = Pool { k: 3, stride: 1, padding: 1 };
        let k = self.choose(&[1, 3, 5]);
        match self.rng.below(7) {
            0 => {
                let y = self.push(Op::Conv2d(Conv2d::same(c, k, 1)), &[x]);
                self.normed(y)
            }
            1 => self.push(Op::Conv2d(Conv2d { groups: c, bias: true, ..Conv2d::same(c, k, 1) }), &[x]),
            2 => self.push(Op::MaxPool(pool), &[x]),
            3 => self.push(Op::AvgPool(pool), &[x]),
            4 => self.push(Op::Zero { outputs: c, stride: 1 }, &[x]),
            5 => self.push(Op::Identity, &[x]),
            _ => self.normed(x),
        }
    }

    /// `a` and `b`, of one shape, become one.
    fn joined(&mut self, a: Value, b: Value) -> Value {
        match self.rng.below(5) {
            0 => self.push(Op::Add, &[a, b]),
            1 => self.push(Op::Gate, &[a, b]),
            2 => self.push(Op::Mul, &[a, b]),
            3 => {
                let third = self.branch(a);
                // Gates that the mixture applies itself, or not.
                let [b, third] =
                    [b, third].map(|z| if self.flip() { self.push(Op::Gate, &[a, z]) } else { z });
                let reader = self.flip().then_some(third);
                let mixed = self.push(Op::Mix, &[a, b, third]);
                reader.map_or(mixed, |third| self.push(Op::Add, &[mixed, third]))
            }
            _ => {
                let c = self.channels(a);
                let both = self.push(Op::Concat, &[a, b]);
                self.push(Op::Conv2d(Conv2d::valid(c, 1, 1)), &[both])
            }
        }
    }

    /// `x` times or plus one number a channel that is made of its own statistics.
    fn squeezed(&mut self, x: Value) -> Value {
        let eps = self.choose(&EPS);
        let mean = self.push(Op::GlobalAvgPool, &[x]);
        let deviation = self.push(Op::GlobalStdPool { eps }, &[x]);
        let both = self.push(Op::Add, &[mean, deviation]);
        let factor = self.activated(both);
        let inputs = if self.flip() { [x, factor] } else { [factor, x] };
        let op = if self.flip() { Op::Mul } else { Op::Add };
        self.push(op, &inputs)
    }

    fn head(&mut self, x: Value) -> Value {
        let x = match self.rng.below(4) {
            0 => {
                let [top, left, bottom, right] = [0, 1, 2, 1];
                let x = self.push(Op::Pad(Margins { top, left, bottom, right }), &[x]);
                self.push(Op::AvgPool(Pool { k: 2, stride: 2, padding: 0 }), &[x])
            }
            1 => self.push(Op::MaxPool(Pool { k: 2, stride: 2, padding: 0 }), &[x]),
            2 => self.push(Op::AvgPool(Pool { k: 3, stride: 2, padding: 1 }), &[x]),
            _ => self.push(Op::GlobalAvgPool, &[x]),
        };
        let x = self.push(Op::Flatten, &[x]);
        let bias = self.flip();
        self.push(Op::Linear { outputs: 3, bias }, &[x])
    }
}

#[test]
fn together_they_hold_every_operation() {
    let name = |op: &Op| serde_json::to_value(op).unwrap()["op"].as_str().unwrap().to_owned();
    let drawn = (0..64).flat_map(|seed| Drawn::new(seed).graph.nodes);
    let names: std::collections::BTreeSet<String> = drawn.map(|node| name(&node.op)).collect();
    let all = "activation add avg_pool batch_norm concat conv2d flatten gate global_avg_pool global_std_pool \
               identity instance_norm linear max_pool mix mul pad zero";
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), all.split(' ').collect::<Vec<_>>());
}
