//! Times of convolution, forward and backward, at the sizes of the shipped network and of an
//! ImageNet stem: `cargo bench --bench kernels`.

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

criterion_group!(benches, convolutions);
criterion_main!(benches);
