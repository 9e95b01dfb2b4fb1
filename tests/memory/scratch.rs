//! What kernels allocate beside their results, held against what they say.

use archrepair::Result;
use archrepair::graph::op::{Conv2d, Op, Pool};
use archrepair::kernels::batch_norm::{self, Affine};
use archrepair::kernels::conv2d::{self, Epilogue};
use archrepair::kernels::{CALL_BYTES, Pass, gate, instance_norm, linear, mix, pool, scratch_bytes};
use archrepair::memory::meter;
use archrepair::rng::Rng;
use candle_core::{Device, Tensor};
use rayon::ThreadPool;

/// What is said may be over what is needed by this much, or by a fifth.
const SLACK_BYTES: usize = 64 << 10;

type Call<'a> = Box<dyn Fn() -> Result<Vec<Tensor>> + Send + Sync + 'a>;

pub(crate) fn normal(shape: &[usize]) -> Tensor {
    let rng = &mut Rng::new(1);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn bytes(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum()
}

/// The most bytes that `call` holds at once beyond its results.
fn measured(call: &Call) -> usize {
    drop(call().unwrap());
    meter::reset_peak();
    let before = meter::current();
    let results = call().unwrap();
    // The pool may have freed a little of its own meanwhile.
    meter::peak().saturating_sub(before + bytes(&results))
}

/// Pools of one and of two threads. They stay to the end: a thread that ends frees what it kept,
/// whenever it does so.
pub(crate) fn pools() -> [ThreadPool; 2] {
    [1, 2].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.broadcast(|_| keep_scratch());
        pool
    })
}

/// Lets this thread make what it keeps for matrix products.
pub(crate) fn keep_scratch() {
    drop(linear::forward(&normal(&[1, 16]), &normal(&[20, 16]), None).unwrap());
}

fn assert_as_said(pools: &[ThreadPool], op: &Op, x: &[usize], (pass, call): (Pass, &Call)) {
    for pool in pools {
        let threads = pool.current_num_threads();
        let got = pool.install(|| measured(call));
        let said = scratch_bytes(op, x, pass, threads).unwrap();
        let case = format!("{op:?} {x:?} {pass:?} on {threads} threads: needs {got}, says {said}");
        assert!(got <= said + CALL_BYTES, "{case}");
        assert!(got + SLACK_BYTES >= said || got * 5 >= said * 4, "{case}");
    }
}

pub(crate) fn kernels_need_what_they_say(pools: &[ThreadPool]) {
    let rng = &mut Rng::new(7);
    for _ in 0..40 {
        let (k, n) = ([1, 3, 5][rng.below(3)], 1 + rng.below(6));
        let c = 1 + rng.below(70);
        let groups = [1, 1, 1, c][rng.below(4)];
        let outputs = if groups == 1 { 1 + rng.below(70) } else { c };
        let conv = Conv2d { groups, ..Conv2d::same(outputs, k, 1 + rng.below(2)) };
        convolution(pools, conv, [n, c, 6 + rng.below(30), 6 + rng.below(30)]);
    }
    convolution(pools, Conv2d::same(256, 3, 1), [4, 256, 4, 4]);
    convolution(pools, Conv2d { groups: 4, ..Conv2d::same(32, 3, 1) }, [3, 64, 14, 14]);
    others(pools, [3, 40, 17, 19]);
    others(pools, [5, 300, 4, 4]);
}

fn convolution(pools: &[ThreadPool], conv: Conv2d, shape: [usize; 4]) {
    let (x, w) = (normal(&shape), normal(&conv.weight_shape(shape[1])));
    let dy = conv2d::forward(&conv, &x, &w, Epilogue::default()).unwrap();
    let calls: [(Pass, Call); 4] = [
        (Pass::Forward, Box::new(|| Ok(vec![conv2d::forward(&conv, &x, &w, Epilogue::default())?]))),
        (Pass::Dx, Box::new(|| Ok(vec![conv2d::dx(&conv, &dy, &w, &shape)?]))),
        (Pass::Dw, Box::new(|| Ok(vec![conv2d::dw(&conv, &dy, &x)?]))),
        (Pass::Dw, Box::new(|| Ok(vec![conv2d::dw(&conv, &dy, &x)?, conv2d::dbias(&dy)?]))),
    ];
    for (pass, call) in calls {
        assert_as_said(pools, &Op::Conv2d(conv), &shape, (pass, &call));
    }
}

fn others(pools: &[ThreadPool], shape: [usize; 4]) {
    let (x, z, dy) = (normal(&shape), normal(&shape), normal(&shape));
    let [weight, bias, alpha] = [shape[1], shape[1], 2].map(|n| normal(&[n]));
    let affine = Affine { weight: weight.clone(), bias: bias.clone(), eps: 1e-5 };
    let (_, at) = batch_norm::batch(&x, &affine).unwrap();
    let window = Pool { k: 3, stride: 2, padding: 1 };
    let (_, argmax) = pool::max(&window, &x).unwrap();
    let dy_pool = pool::max_only(&window, &x).unwrap();
    let (norm, instance) = (Op::BatchNorm { eps: 1e-5 }, Op::InstanceNorm { eps: 1e-5 });
    let (greatest, means) = (Op::MaxPool(window), Op::AvgPool(window));
    let three = |(a, b, c): (Tensor, Tensor, Tensor)| vec![a, b, c];
    let two = |(a, b): (Tensor, Tensor)| vec![a, b];
    let calls: Vec<(&Op, Pass, Call)> = vec![
        (&norm, Pass::Forward, Box::new(|| Ok(vec![batch_norm::fixed(&x, &affine, &at)?]))),
        (
            &norm,
            Pass::Forward,
            Box::new(|| batch_norm::batch(&x, &affine).map(|(y, at)| vec![y, at.mean, at.var])),
        ),
        (&norm, Pass::Dx, Box::new(|| Ok(vec![batch_norm::fixed_dx(&dy, &affine, &at)?]))),
        (&norm, Pass::Dw, Box::new(|| batch_norm::fixed_dparams(&dy, &x, &affine, &at).map(two))),
        (&norm, Pass::Dx, Box::new(|| batch_norm::batch_backward(&dy, &x, &affine, &at).map(three))),
        (&instance, Pass::Forward, Box::new(|| Ok(vec![instance_norm::forward(&x, &weight, &bias, 1e-5)?]))),
        (&instance, Pass::Dx, Box::new(|| instance_norm::backward(&dy, &x, &weight, 1e-5).map(three))),
        (&greatest, Pass::Forward, Box::new(|| pool::max(&window, &x).map(two))),
        (&greatest, Pass::Forward, Box::new(|| Ok(vec![pool::max_only(&window, &x)?]))),
        (&greatest, Pass::Dx, Box::new(|| Ok(vec![pool::max_dx(&dy_pool, &argmax, &shape)?]))),
        (&means, Pass::Forward, Box::new(|| Ok(vec![pool::avg(&window, &x)?]))),
        (&means, Pass::Dx, Box::new(|| Ok(vec![pool::avg_dx(&window, &dy_pool, &shape)?]))),
        (&Op::Gate, Pass::Forward, Box::new(|| Ok(vec![gate::forward(&x, &z, &weight)?]))),
        (&Op::Gate, Pass::Dx, Box::new(|| Ok(vec![gate::dx(&dy, &weight)?]))),
        (&Op::Gate, Pass::Dw, Box::new(|| Ok(vec![gate::dgate(&dy, &x, &z)?]))),
        (&Op::Mix, Pass::Forward, Box::new(|| Ok(vec![mix::forward(&[&x, &z], &alpha)?]))),
        (&Op::Mix, Pass::Dx, Box::new(|| Ok(vec![mix::dx(&dy, &alpha, 1)?]))),
        (&Op::Mix, Pass::Dw, Box::new(|| Ok(vec![mix::dalpha(&dy, &x, &alpha, 1)?]))),
    ];
    for (op, pass, call) in calls {
        assert_as_said(pools, op, &shape, (pass, &call));
    }
}
