//! Times of kernels, with their spread and against the last run: `cargo bench --bench kernels -- [FILTER]`.
//!
//! What they are of what the machine can do: `cargo bench --bench operations`.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

#[path = "shared/kernels.rs"]
mod shared;

use archrepair::graph::op::Conv2d;
use archrepair::memory::meter;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shared::{Convolution, Kernel};

/// Convolutions of the shipped network and of ImageNet networks: name, convolution, shape of the input.
fn layers() -> [(&'static str, Conv2d, [usize; 4]); 8] {
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

/// Every kernel, at the sizes that `operations` has too.
fn all(c: &mut Criterion) {
    // As the program does: what a kernel frees is there for the next.
    meter::set_up_heap();
    shared::all().into_iter().for_each(|group| time(c, group.name, (group.make)()));
}

fn convolutions(c: &mut Criterion) {
    for (name, conv, shape) in layers() {
        time(c, name, Convolution::new(conv, shape).kernels());
    }
}

fn products(c: &mut Criterion) {
    for [outputs, inputs, h, w] in PRODUCTS {
        let product = Convolution::new(Conv2d::same(outputs, 1, 1), [1, inputs, h, w]);
        time(c, &format!("product {outputs}x{inputs}x{}", h * w), product.kernels());
    }
}

/// Multiply-adds a second, or bytes where there are none.
fn time(c: &mut Criterion, name: &str, kernels: Vec<Kernel>) {
    let mut group = c.benchmark_group(name);
    for Kernel { name, macs, bytes, mut run } in kernels {
        let bytes = Throughput::Bytes(bytes.iter().sum());
        group.throughput(if macs > 0 { Throughput::Elements(macs) } else { bytes });
        group.bench_function(name, |b| b.iter(&mut run));
    }
    group.finish();
}

criterion_group!(benches, all, convolutions, products);
criterion_main!(benches);
