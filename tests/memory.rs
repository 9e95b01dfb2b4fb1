//! The counting allocator, held against figures worked out by hand. It needs a process of its
//! own without other threads, so this file has no test harness: a failed assertion is a failure. `black_box` keeps the
//! compiler from leaving out an allocation that nobody looks at.

// Clippy does not take this file for a test, as it has no harness.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use archrepair::kernels::linear;
use archrepair::memory::{Meter, meter};
use candle_core::{DType, Device, Tensor};

#[global_allocator]
static METER: Meter = Meter;

fn main() {
    a_block_counts_from_its_allocation_to_its_release();
    the_peak_remembers_what_is_gone_until_it_is_reset();
    a_resized_block_counts_once();
    blocks_of_other_threads_count();
    a_matrix_product_allocates_its_result_alone();
    the_kernel_sees_touched_pages();
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
