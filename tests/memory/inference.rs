//! Inference in planned memory: its bytes are those that were said, and later calls ask for none.

use archrepair::data::Images;
use archrepair::engine::layout::Layout;
use archrepair::eval::{Deployed, Runner};
use archrepair::graph::lower::Lowered;
use archrepair::graph::op::{Activation, Conv2d, Op, Pool};
use archrepair::graph::{Graph, INPUT, Params};
use archrepair::memory::plan::Run;
use archrepair::memory::{Levers, meter};
use archrepair::rng::Rng;
use rayon::ThreadPool;

use super::calls::calls;
use super::{held, lowered, scratch, shipped};

const SHAPE: [usize; 3] = [1, 28, 28];

pub(crate) fn noise(n: usize) -> Images {
    let rng = &mut Rng::new(1);
    let pixels = (0..n * 784).map(|_| rng.below(256) as u8).collect();
    Images::from_parts(SHAPE, pixels, vec![3; n], "noise").unwrap()
}

/// The shipped network, its weights on the heap or in the file.
fn networks() -> [(bool, Lowered); 2] {
    let model = shipped();
    let (resident, mapped) = (model.params().unwrap(), model.mapped_params().unwrap());
    [(false, lowered(&model, &resident)), (true, lowered(&model, &mapped))]
}

pub(crate) fn runner(mapped: bool, infer_batch: usize) -> Runner {
    let model = shipped();
    let params = if mapped { model.mapped_params() } else { model.params() };
    let levers = Levers { infer_batch, ..Levers::FASTEST };
    Deployed { levers, ..Deployed::new(model.network, params.unwrap()) }.runner().unwrap()
}

/// Exactly: the block of values and the lists.
pub(crate) fn an_executor_takes_the_bytes_of_its_layout() {
    for (mapped, Lowered { graph, params }) in networks() {
        for batch in [1, 7, 32] {
            let layout = || Layout::new((&graph, &params), (&SHAPE, batch), 1).unwrap();
            let said = layout().bytes();
            let (bytes, _) = held(|| layout().executor().unwrap());
            assert_eq!(bytes, said, "{batch} images, mapped {mapped}");
        }
    }
}

/// All that a whole set takes is that, the list of its images and their classes.
pub(crate) fn a_set_takes_what_was_said() {
    let images = noise(40);
    for (mapped, lowered) in networks() {
        for batch in [1, 8, 32] {
            let runner = runner(mapped, batch);
            drop(runner.classes(&images).unwrap());
            let run = Run { lowered: &lowered, input: &SHAPE, batch, mapped, threads: 1 };
            let said = run.planned().unwrap().bytes;
            let (_, peak) = held(|| runner.classes(&images).unwrap());
            let lists = images.len() * 2 * size_of::<usize>();
            assert!(peak >= said + lists, "{batch} images, mapped {mapped}: {peak} bytes, said {said}");
            let case = format!("{batch} images, mapped {mapped}: {peak} bytes, said {said} and {lists}");
            assert!(peak as f64 <= 1.01 * (said + lists) as f64, "{case}");
        }
    }
}

/// Every operation that takes scratch, and those that are written in place.
fn every_operation() -> (Graph, Params) {
    let mut graph = Graph::default();
    let conv = Conv2d { bias: true, ..Conv2d::same(8, 3, 1) };
    let x = graph.push("conv", Op::Conv2d(conv), &[INPUT]);
    let x = graph.push("norm", Op::BatchNorm { eps: 0.1 }, &[x]);
    let deep = Conv2d { groups: 8, activation: Some(Activation::Silu), ..Conv2d::same(8, 3, 1) };
    let y = graph.push("deep", Op::Conv2d(deep), &[x]);
    let y = graph.push("instance", Op::InstanceNorm { eps: 0.1 }, &[y]);
    let z = graph.push("gate", Op::Gate, &[x, y]);
    let y = graph.push("mix", Op::Mix, &[x, y, z]);
    let mean = graph.push("mean", Op::GlobalAvgPool, &[y]);
    let std = graph.push("std", Op::GlobalStdPool { eps: 0.1 }, &[y]);
    let both = graph.push("both", Op::Add, &[mean, std]);
    let both = graph.push("sigmoid", Op::Activation { kind: Activation::Sigmoid }, &[both]);
    let y = graph.push("mul", Op::Mul, &[y, both]);
    let pool = Pool { k: 3, stride: 2, padding: 1 };
    let (a, b) = (graph.push("max", Op::MaxPool(pool), &[y]), graph.push("avg", Op::AvgPool(pool), &[y]));
    let none = graph.push("zero", Op::Zero { outputs: 8, stride: 2 }, &[y]);
    let y = graph.push("join", Op::Concat, &[a, b, none]);
    let y = graph.push("flat", Op::Flatten, &[y]);
    graph.push("linear", Op::Linear { outputs: 10, bias: true }, &[y]);
    let named = graph.params(&SHAPE).unwrap();
    let params =
        named.into_iter().map(|p| (p.name, scratch::normal(&p.param.shape).abs().unwrap())).collect();
    (graph, params)
}

/// Calls of the allocator by passes over these batches, within the pool.
fn calls_of((graph, params): (&Graph, &Params), batches: &[usize], pool: &ThreadPool) -> usize {
    pool.install(|| {
        let layout = Layout::new((graph, params), (&SHAPE, 8), rayon::current_num_threads()).unwrap();
        let mut executor = layout.executor().unwrap();
        executor.run(8).unwrap();
        let before = calls();
        for &n in batches {
            executor.input(n).unwrap().fill(0.5);
            executor.run(n).unwrap();
        }
        calls() - before
    })
}

/// In pools whose threads have made what matrix products keep.
pub(crate) fn later_passes_allocate_nothing(pools: &[ThreadPool]) {
    let [(_, resident), (_, mapped)] = networks();
    let (graph, params) = every_operation();
    let all = [(&resident.graph, &resident.params), (&mapped.graph, &mapped.params), (&graph, &params)];
    for network in all {
        for pool in pools {
            let calls = calls_of(network, &[8, 1, 5, 8, 8, 3, 8, 1], pool);
            assert_eq!(calls, 0, "{} threads", pool.current_num_threads());
        }
    }
    // Pixels on their way too: all that later batches of a set do.
    let (images, runner) = (noise(20), runner(true, 8));
    pools[0].install(|| {
        let mut session = runner.session(SHAPE, 8).unwrap();
        session.logits(&images, &[0, 1, 2, 3]).unwrap();
        let before = calls();
        for start in 0..12 {
            let indices: [usize; 8] = std::array::from_fn(|i| start + i);
            session.logits(&images, &indices).unwrap();
        }
        assert_eq!(calls(), before);
    });
}

/// The pool's queue takes a block for some dozen pieces of work from outside. A pass is one.
pub(crate) fn calls_from_outside_of_the_pool_fill_its_queue_alone() {
    let [(_, Lowered { graph, params }), _] = networks();
    let layout = Layout::new((&graph, &params), (&SHAPE, 1), 1).unwrap();
    let mut executor = layout.executor().unwrap();
    executor.run(1).unwrap();
    let (before, bytes) = (calls(), meter::current());
    for _ in 0..100 {
        executor.run(1).unwrap();
    }
    assert!(calls() - before <= 4, "{} allocations", calls() - before);
    assert!(meter::current().abs_diff(bytes) < 4 << 10);
}
