//! The counting allocator, held against figures worked out by hand. It needs a process of its
//! own without other threads, so this file has no test harness: a failed assertion is a failure. `black_box` keeps the
//! compiler from leaving out an allocation that nobody looks at.

// Helpers of tests stand outside of the functions that clippy takes for tests.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;

use archrepair::engine::infer::infer;
use archrepair::graph::Params;
use archrepair::graph::lower::{Lowered, lower};
use archrepair::graph::op::Conv2d;
use archrepair::kernels::conv2d::{self, Epilogue};
use archrepair::kernels::instructions::Instructions;
use archrepair::kernels::linear;
use archrepair::memory::{Meter, meter};
use archrepair::zoo::{Model, Overrides};
use candle_core::{DType, Device, Tensor};

#[path = "memory/calls.rs"]
mod calls;
#[path = "memory/inference.rs"]
mod inference;
#[path = "memory/plan.rs"]
mod plan;
#[path = "memory/repairs.rs"]
mod repairs;
#[path = "memory/scratch.rs"]
mod scratch;
#[path = "memory/state.rs"]
mod state;
#[path = "memory/streams.rs"]
mod streams;

#[global_allocator]
static METER: calls::Counted = calls::Counted(Meter);

fn main() {
    // What kernels take beside their results depends on the registers.
    if let Ok(name) = std::env::var("ARCHREPAIR_ISA") {
        name.parse::<Instructions>().and_then(Instructions::choose).unwrap();
    }
    a_block_counts_from_its_allocation_to_its_release();
    the_peak_remembers_what_is_gone_until_it_is_reset();
    a_resized_block_counts_once();
    blocks_of_other_threads_count();
    a_matrix_product_allocates_its_result_alone();
    the_kernel_sees_touched_pages();
    // One thread, so that two runs of a network hold the same scratch at the same time.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    // Work of a single piece is done by the thread that asks, which keeps scratch for its products too.
    scratch::keep_scratch();
    a_limit_refuses_and_the_process_goes_on();
    state::steps_allocate_nothing_after_the_first();
    state::a_batch_of_a_cache_is_its_result();
    a_mapped_weight_allocates_its_widened_bytes_and_nothing_else();
    a_mapped_network_takes_one_weight_beside_its_activations();
    plan::a_pass_that_trains_nothing_holds_what_was_said();
    plan::a_step_holds_what_was_said();
    inference::an_executor_takes_the_bytes_of_its_layout();
    inference::a_set_takes_what_was_said();
    streams::ten_times_as_many_images_take_no_byte_more();
    inference::calls_from_outside_of_the_pool_fill_its_queue_alone();
    repairs::a_transfer_holds_what_was_said();
    repairs::more_replay_takes_no_more_memory();
    repairs::views_take_what_was_said();
    repairs::a_repair_holds_what_was_said();
    repairs::a_localized_repair_holds_what_was_said();
    // Last, since they leave threads behind that end when they like.
    let pools = scratch::pools();
    inference::later_passes_allocate_nothing(&pools);
    scratch::kernels_need_what_they_say(&pools);
    println!("memory: every figure is exact");
}

fn a_block_counts_from_its_allocation_to_its_release() {
    let before = meter::current();
    let filled = black_box(vec![1u8; 1000]);
    let zeroed = black_box(vec![0u64; 100]);
    assert_eq!(meter::current() - before, 1800);
    drop(filled);
    assert_eq!(meter::current() - before, 800);
    drop(zeroed);
    assert_eq!(meter::current(), before);
}

fn the_peak_remembers_what_is_gone_until_it_is_reset() {
    meter::reset_peak();
    let before = meter::current();
    assert_eq!(meter::peak(), before);
    drop(black_box(vec![1u8; 5000]));
    drop(black_box(vec![1u8; 3000]));
    assert_eq!(meter::peak() - before, 5000);
    meter::reset_peak();
    assert_eq!(meter::peak(), before);
}

fn a_resized_block_counts_once() {
    meter::reset_peak();
    let before = meter::current();
    let mut block = black_box(vec![1u8; 100]);
    block.reserve_exact(900);
    assert_eq!(meter::current() - before, 1000);
    block.shrink_to_fit();
    assert_eq!(meter::current() - before, 100);
    assert_eq!(meter::peak() - before, 1000);
}

fn blocks_of_other_threads_count() {
    let before = meter::current();
    let block = std::thread::scope(|scope| scope.spawn(|| black_box(vec![1u8; 70_000])).join());
    let held = meter::current() - before;
    // The rest is what the standard library keeps about threads.
    assert!((70_000..74_000).contains(&held), "{held}");
    drop(block);
}

/// Once the threads that compute have their scratch, a product takes nothing but the result's
/// `32 * 1000 * 4` bytes and a few small things around it, though it transposes all of `w`.
fn a_matrix_product_allocates_its_result_alone() {
    let zeros = |shape| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let (x, w) = (zeros((32, 512)), zeros((1000, 512)));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        drop(linear::forward(&x, &w, None).unwrap());
        meter::reset_peak();
        let before = meter::current();
        drop(black_box(linear::forward(&x, &w, None).unwrap()));
        let taken = meter::peak() - before;
        assert!((128_000..130_000).contains(&taken), "{taken}");
        assert_eq!(meter::current(), before);
    });
}

fn the_kernel_sees_touched_pages() {
    let Some(before) = meter::process() else { return };
    let block = black_box(vec![1u8; 32 << 20]);
    let Some(with) = meter::process() else { return };
    assert!(with.rss_anon >= before.rss_anon + (31 << 20), "{before:?} {with:?}");
    assert!(with.vm_hwm >= block.len());
}

fn shipped() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
    Model::open(&path, &Overrides::default()).unwrap()
}

fn lowered(model: &Model, params: &Params) -> Lowered {
    lower(&model.network.joined(0..model.network.parts.len()), params).unwrap()
}

/// Bytes of `make`'s result, and the most that were held while it was made.
fn held<T>(make: impl FnOnce() -> T) -> (usize, usize) {
    meter::reset_peak();
    let before = meter::current();
    let made = black_box(make());
    let bytes = (meter::current() - before, meter::peak() - before);
    drop(made);
    assert_eq!(meter::current(), before);
    bytes
}

fn a_mapped_weight_allocates_its_widened_bytes_and_nothing_else() {
    let model = shipped();
    let plain = model.mapped_params().unwrap();
    let folded = lowered(&model, &plain).params;
    for params in [plain, folded] {
        for (name, weight) in params.iter().filter(|(_, weight)| weight.is_mapped()) {
            // What candle keeps about a tensor of as many dimensions, without its numbers.
            let one = vec![1; weight.shape().len()];
            let bookkeeping = held(|| Tensor::from_vec(vec![0f32], &*one, &Device::Cpu).unwrap()).0 - 4;
            let want = bookkeeping + params.widened_bytes(name);
            assert_eq!(held(|| params.get(name).unwrap()), (want, want), "{name}");
            assert_eq!(params.widened_bytes(name), 4 * weight.shape().iter().product::<usize>());
        }
    }
}

fn a_mapped_network_takes_one_weight_beside_its_activations() {
    let image = Tensor::zeros((1, 1, 28, 28), DType::F32, &Device::Cpu).unwrap();
    let activations = {
        let model = shipped();
        let Lowered { graph, params } = lowered(&model, &model.params().unwrap());
        let run = || infer(&graph, &params, &image).unwrap();
        drop(run()); // the first run makes what later ones use again
        held(run).1
    };

    meter::reset_peak();
    let before = meter::current();
    let model = shipped();
    let Lowered { graph, params } = lowered(&model, &model.mapped_params().unwrap());
    let (opened, opening) = (meter::current() - before, meter::peak() - before);
    let (_, running) = held(|| infer(&graph, &params, &image).unwrap());

    let widened = || params.iter().map(|(name, _)| params.widened_bytes(name));
    let (all, greatest) = (widened().sum::<usize>(), widened().max().unwrap());
    assert!(running <= activations + greatest + 1024, "{running} > {activations} + {greatest}");
    // The network itself, names, places, and the vectors; while it is read, also its text.
    assert!(opened < all / 40, "{opened} bytes are held, all weights are {all}");
    assert!(opening < all / 15, "opening takes {opening} bytes, all weights are {all}");
}

fn a_limit_refuses_and_the_process_goes_on() {
    let conv = Conv2d::same(8, 3, 1);
    let (x, w) = (scratch::normal(&[4, 8, 32, 32]), scratch::normal(&conv.weight_shape(8)));
    let forward = || conv2d::forward(&conv, &x, &w, Epilogue::default());
    // The output: 4 images of 8 planes of 32 x 32 numbers of 4 bytes.
    let output = 4 * 8 * 32 * 32 * 4;
    let guard = meter::limit(meter::current() + output - 1);
    let in_use = meter::current();
    let error = forward().unwrap_err();
    assert_eq!(error.code(), 29);
    assert!(meter::current() - in_use < 1000, "what was refused was not allocated");
    let text = error.to_string();
    assert!(text.starts_with("a convolution needs 131072 bytes, "), "{text}");
    {
        let _wider = meter::limit(usize::MAX);
        assert!(forward().is_ok());
    }
    assert!(forward().is_err(), "the limit before holds again");
    drop(guard);
    assert!(forward().is_ok());
}
