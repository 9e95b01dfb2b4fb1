//! x
use archrepair::graph::op::Conv2d;
use archrepair::kernels::conv2d::*;
use candle_core::*;
use std::time::Instant;
fn main() {
    for (n, c, o, h, k, s) in [
        (64, 16, 16, 28, 3, 1),
        (64, 32, 32, 14, 3, 1),
        (64, 64, 64, 7, 3, 1),
        (64, 128, 128, 4, 3, 1),
        (64, 16, 32, 28, 3, 2),
        (64, 16, 16, 28, 1, 1),
        (64, 1, 16, 28, 3, 1),
        (1, 64, 64, 56, 3, 1),
    ] {
        let conv = Conv2d::same(o, k, s);
        let x = Tensor::randn(0f32, 1., (n, c, h, h), &Device::Cpu).unwrap();
        let w = Tensor::randn(0f32, 1., (o, c, k, k), &Device::Cpu).unwrap();
        let y = forward(&conv, &x, &w, Epilogue::default()).unwrap();
        let fl = 2.0 * (y.elem_count() * c * k * k) as f64;
        let t = |f: &dyn Fn()| {
            f();
            let mut best = f64::MAX;
            for _ in 0..10 {
                let t = Instant::now();
                f();
                best = best.min(t.elapsed().as_secs_f64());
            }
            best
        };
        let a = t(&|| {
            forward(&conv, &x, &w, Epilogue::default()).unwrap();
        });
        let b = t(&|| {
            dx(&conv, &y, &w, x.dims()).unwrap();
        });
        let d = t(&|| {
            dw(&conv, &y, &x).unwrap();
        });
        println!(
            "n{n} {c}->{o} {h}px k{k} s{s}: fwd {:.2} ms {:.0} GF/s, dx {:.2} ms {:.0}, dw {:.2} ms {:.0}",
            a * 1e3,
            fl / a / 1e9,
            b * 1e3,
            fl / b / 1e9,
            d * 1e3,
            fl / d / 1e9
        );
    }
}
