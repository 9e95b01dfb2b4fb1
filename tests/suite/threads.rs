//! Kernels give the same bits on one, two and three threads, whatever the shapes.

use archrepair::graph::op::{Activation, Conv2d, Pool};
use archrepair::kernels::conv2d::{self, Epilogue};
use archrepair::kernels::{
    activation, batch_norm, cross_entropy, gate, global_pool, instance_norm, linear, mix, pool,
};
use archrepair::rng::Rng;
use candle_core::{DType, Tensor};
use proptest::prelude::*;

use crate::determinism::assert_same_on_any_threads;
use crate::support::{normal, repeatable};

const TYPES: [DType; 2] = [DType::F32, DType::F64];

/// The bits of all elements: `f32` in `f64` is exact.
fn bits(tensors: &[Tensor]) -> Vec<u64> {
    let of = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>();
    tensors.iter().flat_map(|tensor| of(tensor).unwrap()).map(f64::to_bits).collect()
}

/// Dense, grouped, depthwise and dilated windows, with enough channels and pixels for several tasks.
fn convolutions() -> impl Strategy<Value = (Conv2d, [usize; 4])> {
    let windows = (1usize..=5, 1usize..=2, 0usize..=2, 1usize..=2);
    // Groups, channels of a group in and out.
    let channels = prop_oneof![
        (Just(1usize), 1usize..50, 1usize..140),
        (2usize..4, 1usize..20, 1usize..40),
        (2usize..24, Just(1usize), 1usize..3),
    ];
    let sizes = (1usize..=9, 0usize..24, 0usize..24);
    (windows, channels, sizes).prop_map(|((k, stride, padding, dilation), (groups, c, o), (n, h, w))| {
        let conv = Conv2d { padding, dilation, groups, ..Conv2d::valid(groups * o, k, stride) };
        let least = (dilation * (k - 1) + 1).saturating_sub(2 * padding).max(1);
        (conv, [n, groups * c, least + h, least + w])
    })
}

proptest! {
    #![proptest_config(repeatable(48))]

    #[test]
    fn convolutions_do_not_depend_on_threads((conv, shape) in convolutions(), seed in any::<u64>()) {
        let rng = &mut Rng::new(seed);
        let drawn = [normal(&shape, rng), normal(&conv.weight_shape(shape[1]), rng)];
        for dtype in TYPES {
            let [x, w] = drawn.each_ref().map(|t| t.to_dtype(dtype).unwrap());
            assert_same_on_any_threads(|| {
                let y = conv2d::forward(&conv, &x, &w, Epilogue::default()).unwrap();
                let gradients = [
                    conv2d::dx(&conv, &y, &w, &shape).unwrap(),
                    conv2d::dw(&conv, &y, &x).unwrap(),
                    conv2d::dbias(&y).unwrap(),
                ];
                [bits(&[y]), bits(&gradients)]
            });
        }
    }

    #[test]
    fn other_operations_do_not_depend_on_threads(
        (n, c, h, w) in (1usize..20, 1usize..30, 2usize..40, 2usize..40),
        (k, stride) in (1usize..3, 1usize..3),
        seed in any::<u64>(),
    ) {
        let rng = &mut Rng::new(seed);
        let shape = [n, c, h, w];
        let drawn = [normal(&shape, rng), normal(&shape, rng)];
        let per_channel = [normal(&[c], rng), normal(&[c], rng)];
        let (alpha, weight) = (normal(&[2], rng), normal(&[7, h * w], rng));
        let shares = vec![1.0 / (n * c) as f64; n * c];
        for dtype in TYPES {
            let of = |t: &Tensor| t.to_dtype(dtype).unwrap();
            let ([x, dy], [weight_c, bias]) = (drawn.each_ref().map(of), per_channel.each_ref().map(of));
            let (alpha, weight) = (of(&alpha), of(&weight));
            let affine = batch_norm::Affine { weight: weight_c.clone(), bias: bias.clone(), eps: 0.1 };
            let window = Pool { k, stride, padding: 0 };
            let rows = x.reshape((n * c, h * w)).unwrap();
            let targets = cross_entropy::softmax(&dy.reshape((n * c, h * w)).unwrap()).unwrap();
            let all = || -> archrepair::Result<Vec<Tensor>> {
                let (y, statistics) = batch_norm::batch(&x, &affine)?;
                let (dx, dweight, dbias) = batch_norm::batch_backward(&dy, &x, &affine, &statistics)?;
                let mut all = vec![y, dx, dweight, dbias];
                let (dx, dweight, dbias) = instance_norm::backward(&dy, &x, &weight_c, 0.1)?;
                all.extend([instance_norm::forward(&x, &weight_c, &bias, 0.1)?, dx, dweight, dbias]);
                all.extend([gate::forward(&x, &dy, &bias)?, gate::dgate(&dy, &x, &dy)?]);
                all.extend([mix::forward(&[&x, &dy], &alpha)?, mix::dalpha(&dy, &x, &alpha, 1)?]);
                all.extend([activation::forward(Activation::Silu, &x)?]);
                all.extend([global_pool::avg(&x)?, global_pool::std(&x, 0.1)?, global_pool::std_dx(
                    &global_pool::avg(&dy)?, &x, 0.1,
                )?]);
                let (most, argmax) = pool::max(&window, &x)?;
                let mean = pool::avg(&window, &x)?;
                all.extend([pool::max_dx(&most, &argmax, &shape)?, pool::avg_dx(&window, &mean, &shape)?]);
                let logits = linear::forward(&rows, &weight, None)?;
                all.extend([linear::dx(&logits, &weight)?, linear::dw(&logits, &rows)?]);
                all.push(cross_entropy::forward_backward(&rows, &targets, &shares)?.1);
                Ok(all)
            };
            assert_same_on_any_threads(|| bits(&all().unwrap()));
        }
    }
}
