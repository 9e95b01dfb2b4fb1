//! Times of convolution and of matrix products, forward and backward, at the sizes of the shipped
//! network and of ImageNet networks: `cargo bench --bench kernels`.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

use std::hint::black_box;

use archrepair::graph::op::Conv2d;
use archrepair::kernels::conv2d::{self, Epilogue};
use archrepair::rng::Rng;
use candle_core::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Name, convolution, shape of the input.
fn cases() -> [(&'static str, Conv2d, [usize; 4]); 8] {
    [
        ("3x3-16ch-28px", Conv2d::same(16, 3, 1), [64, 16, 28, 28]),
        ("3x3-16to32ch-stride2", Conv2d::same(32, 3, 2), [64, 16, 28, 28]),
        ("3x3-64ch-32px", Conv2d::same(64, 3, 1), [64, 64, 32, 32]),
        ("3x3-128ch-4px", Conv2d::same(128, 3, 1), [64, 128, 4, 4]),
        ("3x3-512ch-4px", Conv2d::same(512, 3, 1), [64, 512, 4, 4]),
        ("3x3-64ch-56px-single", Conv2d::same(64, 3, 1), [1, 64, 56, 56]),
        ("depthwise-5x5-32ch", Conv2d { groups: 32, ..Conv2d::same(32, 5, 1) }, [64, 32, 14, 14]),
        ("7x7-stem-224px", Conv2d::same(64, 7, 2), [1, 3, 224, 224]),
    ]
}

fn normal(shape: &[usize], rng: &mut Rng) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn convolutions(c: &mut Criterion) {
    let mut rng = Rng::new(0);
    for (name, conv, shape) in cases() {
        let x = normal(&shape, &mut rng);
        let w = normal(&conv.weight_shape(shape[1]), &mut rng);
        let dy = conv2d::forward(&conv, &x, &w, Epilogue::default()).unwrap();
        let macs = dy.elem_count() * w.elem_count() / conv.outputs;
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(macs as u64)); // multiply-adds
        group.bench_function("forward", |b| {
            b.iter(|| conv2d::forward(&conv, black_box(&x), &w, Epilogue::default()).unwrap());
        });
        group.bench_function("dx", |b| b.iter(|| conv2d::dx(&conv, black_box(&dy), &w, &shape).unwrap()));
        group.bench_function("dw", |b| b.iter(|| conv2d::dw(&conv, black_box(&dy), &x).unwrap()));
        group.finish();
    }
}

/// Outputs, inputs, height and width: a 1x1 convolution of one image, whose forward pass is the
/// product of an `outputs x inputs` matrix with one of `inputs x pixels`, on one thread. These are
/// the shapes of the products in the networks, those of 3x3 convolutions included.
const PRODUCTS: [[usize; 4]; 12] = [
    [16, 9, 28, 28],
    [16, 144, 28, 28],
    [32, 288, 14, 14],
    [64, 576, 7, 7],
    [128, 1152, 4, 4],
    [64, 64, 32, 32],
    [64, 576, 16, 32],
    [512, 4608, 4, 4],
    [256, 64, 56, 56],
    [64, 576, 9, 65],
    [64, 256, 56, 56],
    [128, 1152, 7, 7],
];

fn products(c: &mut Criterion) {
    let mut rng = Rng::new(0);
    let mut group = c.benchmark_group("product");
    for [outputs, inputs, h, w] in PRODUCTS {
        let name = format!("{outputs}x{inputs}x{}", h * w);
        let conv = Conv2d::same(outputs, 1, 1);
        let x = normal(&[1, inputs, h, w], &mut rng);
        let dy = normal(&[1, outputs, h, w], &mut rng);
        let weight = normal(&conv.weight_shape(inputs), &mut rng);
        group.throughput(Throughput::Elements((outputs * inputs * h * w) as u64)); // multiply-adds
        group.bench_function(format!("{name}/y"), |b| {
            b.iter(|| conv2d::forward(&conv, black_box(&x), &weight, Epilogue::default()).unwrap());
        });
        group.bench_function(format!("{name}/dw"), |b| {
            b.iter(|| conv2d::dw(&conv, black_box(&dy), &x).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, convolutions, products);
criterion_main!(benches);
