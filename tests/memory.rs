//! The counting allocator, held against figures worked out by hand. It needs a process of its
//! own without other threads, so this file has no test harness: a failed assertion is a failure. `black_box` keeps the
//! compiler from leaving out an allocation that nobody looks at.

#![allow(clippy::unwrap_used)] // a failed call is a failed test

use std::hint::black_box;

use archrepair::graph::op::Conv2d;
use archrepair::kernels::conv2d::{self, Epilogue};
use archrepair::memory::{Meter, meter};

#[path = "memory/scratch.rs"]
mod scratch;
#[path = "memory/state.rs"]
mod state;

#[global_allocator]
static METER: Meter = Meter;

fn main() {
    a_block_counts_from_its_allocation_to_its_release();
    the_peak_remembers_what_is_gone_until_it_is_reset();
    a_resized_block_counts_once();
    blocks_of_other_threads_count();
    the_kernel_sees_touched_pages();
    a_limit_refuses_and_the_process_goes_on();
    state::steps_allocate_nothing_after_the_first();
    state::a_batch_of_a_cache_is_its_result();
    // Last, since it leaves threads behind that end when they like.
    scratch::kernels_need_what_they_say();
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

fn the_kernel_sees_touched_pages() {
    let Some(before) = meter::process() else { return };
    let block = black_box(vec![1u8; 32 << 20]);
    let Some(with) = meter::process() else { return };
    assert!(with.rss_anon >= before.rss_anon + (31 << 20), "{before:?} {with:?}");
    assert!(with.vm_hwm >= block.len());
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
    assert!(text.starts_with("a convolution needs 131072 bytes, ") && text.ends_with("; raise --memory"));
    {
        let _wider = meter::limit(usize::MAX);
        assert!(forward().is_ok());
    }
    assert!(forward().is_err(), "the limit before holds again");
    drop(guard);
    assert!(forward().is_ok());
}
