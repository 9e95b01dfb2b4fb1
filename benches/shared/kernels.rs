//! Kernels with something to do: what `cargo bench --bench kernels` times and `operations` compares.
//!
//! Convolutions are those of a block with 64 channels at 32 x 32, the rest has values that few caches hold.
//! Bytes are the least that a kernel can move: each input read once, each output written once.

use std::rc::Rc;

use archrepair::engine::optim::{Optimizer, Rule};
use archrepair::graph::Params;
use archrepair::graph::op::{Conv2d, Pool};
use archrepair::kernels::batch_norm::{self, Affine, Statistics};
use archrepair::kernels::conv2d::{self, Epilogue};
use archrepair::kernels::{cross_entropy, global_pool, mix, pool};
use archrepair::memory::cache::{Cache, Precision};
use archrepair::rng::Rng;
use archrepair::storage::Storage;
use candle_core::{Device, Tensor};

/// One function with its inputs.
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    /// Multiply-adds; 0 where memory alone can be what it waits for.
    pub(crate) macs: u64,
    /// Bytes read and written.
    pub(crate) bytes: [u64; 2],
    pub(crate) run: Box<dyn FnMut()>,
}

/// Functions that belong together, and what makes their inputs.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) make: Box<dyn Fn() -> Vec<Kernel>>,
}

/// Makes kernels of one size.
type Make = fn() -> Vec<Kernel>;

/// All groups.
pub(crate) fn all() -> Vec<Group> {
    let convolutions = convolutions().into_iter();
    let convolutions = convolutions.map(|(name, conv, shape)| {
        let make = move || Convolution::new(conv, shape).kernels();
        Group { name, make: Box::new(make) }
    });
    let others: [(&'static str, Make); 9] = [
        ("max pooling 3x3 stride 2", max_pooling),
        ("average pooling 3x3", average_pooling),
        ("global average pooling", global_pooling),
        ("batch norm", normalization),
        ("softmax cross entropy", loss),
        ("mixture of 4", mixture),
        ("Adam", optimizer),
        ("f16", conversion),
        ("feature cache", features),
    ];
    let others = others.into_iter().map(|(name, make)| Group { name, make: Box::new(make) });
    convolutions.chain(others).collect()
}

/// Name, convolution, shape of the input.
pub(crate) fn convolutions() -> [(&'static str, Conv2d, [usize; 4]); 9] {
    let block = [32, 64, 32, 32];
    let depthwise = |k| Conv2d { groups: 64, ..Conv2d::same(64, k, 1) };
    let dilated = Conv2d { dilation: 2, padding: 2, ..Conv2d::same(64, 3, 1) };
    [
        ("3x3", Conv2d::same(64, 3, 1), block),
        ("3x3 stride 2", Conv2d::same(64, 3, 2), block),
        ("1x1", Conv2d::same(64, 1, 1), block),
        ("1x1 stride 2", Conv2d::same(64, 1, 2), block),
        ("depthwise 3x3", depthwise(3), block),
        ("depthwise 5x5", depthwise(5), block),
        ("dilated 3x3", dilated, block),
        ("depthwise dilated 3x3", Conv2d { groups: 64, ..dilated }, block),
        ("7x7 stride 2 at 224 px", Conv2d::same(64, 7, 2), [4, 3, 224, 224]),
    ]
}

/// A convolution with its tensors.
pub(crate) struct Convolution {
    conv: Conv2d,
    pub(crate) x: Tensor,
    pub(crate) w: Tensor,
    pub(crate) dy: Tensor,
}

impl Convolution {
    /// The same tensors each time.
    pub(crate) fn new(conv: Conv2d, shape: [usize; 4]) -> Self {
        let rng = &mut Rng::new(0);
        let x = normal(&shape, rng);
        let w = normal(&conv.weight_shape(shape[1]), rng);
        let y = conv2d::forward(&conv, &x, &w, Epilogue::default()).unwrap();
        let dy = normal(y.dims(), rng);
        Self { conv, x, w, dy }
    }

    pub(crate) fn forward(&self) -> Tensor {
        conv2d::forward(&self.conv, &self.x, &self.w, Epilogue::default()).unwrap()
    }

    pub(crate) fn dx(&self) -> Tensor {
        conv2d::dx(&self.conv, &self.dy, &self.w, self.x.dims()).unwrap()
    }

    pub(crate) fn dw(&self) -> Tensor {
        conv2d::dw(&self.conv, &self.dy, &self.x).unwrap()
    }

    pub(crate) fn kernels(self) -> Vec<Kernel> {
        let [x, w, y] = [&self.x, &self.w, &self.dy].map(bytes);
        let macs = (self.dy.elem_count() * self.w.elem_count() / self.conv.outputs) as u64;
        let own = Rc::new(self);
        let kernel = |name, bytes, compute: fn(&Self) -> Tensor| {
            let own = Rc::clone(&own);
            Kernel { macs, ..kernel(name, bytes, move || compute(&own)) }
        };
        vec![
            kernel("forward", [x + w, y], Self::forward),
            kernel("dx", [y + w, x], Self::dx),
            kernel("dw", [x + y, w], Self::dw),
        ]
    }
}

/// Values of 24 MiB: two of them are more than most caches hold, and one is less than what glibc asks the
/// system for at each allocation, whose pages would then take longer than the kernel.
const LARGE: [usize; 4] = [32, 64, 56, 56];

fn max_pooling() -> Vec<Kernel> {
    let x = normal(&LARGE, &mut Rng::new(0));
    let windows = Pool { k: 3, stride: 2, padding: 1 };
    let (y, at) = pool::max(&windows, &x).unwrap();
    let [read, written] = [&x, &y].map(bytes);
    let dx = move || pool::max_dx(&y, &at, &LARGE).unwrap();
    let x_only = x.clone();
    vec![
        kernel("forward", [read, written], move || pool::max_only(&windows, &x_only).unwrap()),
        kernel("forward for gradients", [read, 2 * written], move || pool::max(&windows, &x).unwrap()),
        kernel("dx", [2 * written, read], dx),
    ]
}

fn average_pooling() -> Vec<Kernel> {
    let x = normal(&LARGE, &mut Rng::new(0));
    let windows = Pool { k: 3, stride: 1, padding: 1 };
    let (dy, n) = (x.clone(), bytes(&x));
    vec![
        kernel("forward", [n, n], move || pool::avg(&windows, &x).unwrap()),
        kernel("dx", [n, n], move || pool::avg_dx(&windows, &dy, &LARGE).unwrap()),
    ]
}

fn global_pooling() -> Vec<Kernel> {
    let x = normal(&LARGE, &mut Rng::new(0));
    let (dy, n) = (global_pool::avg(&x).unwrap(), bytes(&x));
    let [_, _, h, w] = LARGE;
    let small = bytes(&dy);
    vec![
        kernel("forward", [n, small], move || global_pool::avg(&x).unwrap()),
        kernel("dx", [small, n], move || global_pool::avg_dx(&dy, [h, w]).unwrap()),
    ]
}

fn normalization() -> Vec<Kernel> {
    let rng = &mut Rng::new(0);
    let (x, dy) = (normal(&LARGE, rng), normal(&LARGE, rng));
    let affine = Affine { weight: normal(&[64], rng), bias: normal(&[64], rng), eps: 1e-5 };
    let own = Rc::new((batch_norm::statistics(&x).unwrap(), affine, x, dy));
    let n = bytes(&own.2);
    type Own = (Statistics, Affine, Tensor, Tensor);
    let kernel = |name, bytes, compute: fn(&Own) -> Tensor| {
        let own = Rc::clone(&own);
        kernel(name, bytes, move || compute(&own))
    };
    vec![
        kernel("forward", [n, n], |(at, affine, x, _)| batch_norm::fixed(x, affine, at).unwrap()),
        kernel("dx", [n, n], |(at, affine, _, dy)| batch_norm::fixed_dx(dy, affine, at).unwrap()),
        kernel("dw", [2 * n, 0], |(at, affine, x, dy)| {
            batch_norm::fixed_dparams(dy, x, affine, at).unwrap().0
        }),
        // Statistics before anything is written, so that the values are read twice.
        kernel("forward, own statistics", [2 * n, n], |(_, affine, x, _)| {
            batch_norm::batch(x, affine).unwrap().0
        }),
        kernel("dx and dw, own statistics", [4 * n, n], |(at, affine, x, dy)| {
            batch_norm::batch_backward(dy, x, affine, at).unwrap().0
        }),
    ]
}

fn loss() -> Vec<Kernel> {
    let (n, classes) = (4096, 1000);
    let logits = normal(&[n, classes], &mut Rng::new(0));
    let targets = cross_entropy::softmax(&logits).unwrap();
    let (read, weights) = (2 * bytes(&logits), vec![1.0; n]);
    let run = move || cross_entropy::forward_backward(&logits, &targets, &weights).unwrap();
    vec![kernel("forward and dx", [read, read / 2], run)]
}

fn mixture() -> Vec<Kernel> {
    let rng = &mut Rng::new(0);
    let (xs, alpha) = ([(); 4].map(|()| normal(&LARGE, rng)), normal(&[4], rng));
    let n = bytes(&xs[0]);
    let (x, dy, alphas) = (xs[0].clone(), xs[1].clone(), alpha.clone());
    let (dy_too, alphas_too) = (dy.clone(), alpha.clone());
    vec![
        kernel("forward", [4 * n, n], move || mix::forward(&xs.each_ref(), &alpha).unwrap()),
        kernel("dx of one", [n, n], move || mix::dx(&dy_too, &alphas_too, 0).unwrap()),
        kernel("dw of one", [2 * n, 0], move || mix::dalpha(&dy, &x, &alphas, 0).unwrap()),
    ]
}

fn optimizer() -> Vec<Kernel> {
    let rng = &mut Rng::new(0);
    let (w, g) = (normal(&LARGE, rng), normal(&LARGE, rng));
    let n = bytes(&w);
    let mut params = Params::from_iter([("w".to_owned(), w)]);
    let gradients = Params::from_iter([("w".to_owned(), g)]);
    let mut optimizer = Optimizer::owning(Rule::ADAM, &params).unwrap();
    let step = move || optimizer.step(&mut params, &gradients, |_| 1e-3).unwrap();
    // Weight, mean and mean square are read and written, the gradient is read.
    vec![kernel("step", [4 * n, 3 * n], step)]
}

fn conversion() -> Vec<Kernel> {
    let rng = &mut Rng::new(0);
    let mut wide: Vec<f32> = (0..LARGE.iter().product()).map(|_| rng.normal()).collect();
    let (n, mut halves) = (4 * wide.len() as u64, Vec::with_capacity(2 * wide.len()));
    Storage::F16.narrow(&wide, &mut halves);
    let (values, mut room) = (wide.clone(), halves.clone());
    let narrow = move || {
        room.clear();
        Storage::F16.narrow(&values, &mut room);
    };
    let widen = move || Storage::F16.widen_into(&halves, &mut wide);
    vec![kernel("to f32", [n / 2, n], widen), kernel("from f32", [n, n / 2], narrow)]
}

/// Batches of 32 in no order, as a repair at an early block draws them.
fn features() -> Vec<Kernel> {
    let rng = &mut Rng::new(0);
    let shape = [64, 56, 56];
    let mut cache = Cache::create(&std::env::temp_dir(), &shape, Precision::F16).unwrap();
    for _ in 0..16 {
        cache.push(&normal(&LARGE, rng)).unwrap();
    }
    cache.finish().unwrap();
    let mut order = rng.permutation(cache.len());
    let n = 4 * LARGE.iter().product::<usize>() as u64;
    let read = move || {
        order.rotate_left(32);
        cache.batch(&order[..32]).unwrap()
    };
    vec![kernel("read of 32", [n / 2, n], read)]
}

/// What reads and writes these bytes and computes nothing to speak of.
fn kernel<R>(name: &'static str, bytes: [u64; 2], mut compute: impl FnMut() -> R + 'static) -> Kernel {
    let run = move || {
        std::hint::black_box(compute());
    };
    Kernel { name, macs: 0, bytes, run: Box::new(run) }
}

fn bytes(tensor: &Tensor) -> u64 {
    4 * tensor.elem_count() as u64
}

fn normal(shape: &[usize], rng: &mut Rng) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}
