//! Vector instructions: what differs between processors, and nothing else.
//!
//! An innermost loop is a [`Kernel`], written once for every kind of register. The loops around it
//! are a [`Job`], written once for every set of instructions; [`Element::dispatch`] does it by the
//! best set this processor knows. Tests take every set it knows, by [`run`].

mod budget;
mod lanes;
pub(crate) mod pair;
mod portable;

#[cfg(target_arch = "aarch64")]
#[path = "neon.rs"]
mod native;
#[cfg(target_arch = "x86_64")]
#[path = "x86.rs"]
mod native;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
use portable as native;

use std::sync::atomic::{AtomicUsize, Ordering};

use lanes::Widths;
pub(crate) use lanes::{Element, Isa, Job, Kernel, Lanes, MOST, Num};
pub(crate) use native::{NAMES, prefetch};
use portable::Portable;

/// Bytes of a line of a cache, on most processors.
pub(crate) const LINE: usize = 64;

/// Sets of instructions, the fastest first; the last is of every processor.
pub(crate) const SETS: usize = NAMES.len();

/// Does the job by the set of this number; whether the processor knows it.
///
/// # Safety
///
/// What the job demands beside its processor.
pub(crate) unsafe fn run(set: usize, job: impl Job<f32>) -> bool {
    if set + 1 < SETS {
        // SAFETY: the caller's promise.
        return unsafe { native::run(set, job) };
    }
    // SAFETY: every processor knows these instructions; the rest is the caller's promise.
    unsafe { job.run::<Portable<f32>>() };
    true
}

/// [`Element::widths`] of this set, if the processor knows it.
pub(crate) fn widths(set: usize) -> Option<[usize; 2]> {
    let mut widths = [0; 2];
    // SAFETY: the job demands nothing.
    unsafe { run(set, Widths(&mut widths)) }.then_some(widths)
}

/// Runs a loop that is written plainly, compiled for the widest registers of this processor. It gives
/// the same bits as without: compilers do not reorder sums.
#[inline]
pub(crate) fn widened<R>(f: impl FnOnce() -> R) -> R {
    let mut result = None;
    // SAFETY: the job demands nothing beside its processor.
    unsafe { f32::dispatch(Plain(|| result = Some(f()))) }
    #[allow(clippy::expect_used)] // a job runs
    result.expect("the job ran")
}

/// A loop that is written plainly.
struct Plain<F>(F);

impl<F: FnOnce()> Job<f32> for Plain<F> {
    unsafe fn run<S: Isa<Register: Lanes<Element = f32>>>(self) {
        // SAFETY: the caller promises the processor.
        unsafe { S::vectorize(self) }
    }
}

impl<V: Lanes, F: FnOnce()> Kernel<V> for Plain<F> {
    #[inline(always)]
    unsafe fn run(self) {
        (self.0)();
    }
}

/// The set that kernels use, or [`SETS`] as long as none did.
static IN_USE: AtomicUsize = AtomicUsize::new(SETS);

/// The set that kernels use: the fastest that this processor knows, unless another was [chosen](choose) before.
pub(crate) fn best() -> usize {
    match IN_USE.load(Ordering::Relaxed) {
        SETS => choose((0..SETS).find(|&set| widths(set).is_some()).unwrap_or(SETS - 1)),
        set => set,
    }
}

/// Has kernels use a set that the processor knows, unless they use one already: the one that they use from now on.
pub(crate) fn choose(set: usize) -> usize {
    match IN_USE.compare_exchange(SETS, set, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => set,
        Err(other) => other,
    }
}

impl Element for f32 {
    unsafe fn dispatch(job: impl Job<Self>) {
        // SAFETY: the caller's promise.
        unsafe { run(best(), job) };
    }

    unsafe fn dispatch_pairs(job: impl Job<Self>) {
        if has_pairs() {
            // SAFETY: the caller's promise, and the processor knows pairs.
            return unsafe { native::run_pairs(job) };
        }
        // SAFETY: the caller's promise.
        unsafe { Self::dispatch(Apart(job)) }
    }
}

/// A job with pairs taken apart.
struct Apart<J>(J);

impl<J: Job<f32>> Job<f32> for Apart<J> {
    unsafe fn run<S: Isa<Register: Lanes<Element = f32>>>(self) {
        // SAFETY: the caller's promise.
        unsafe { self.0.run::<pair::Emulated<S>>() }
    }
}

/// Whether the set that kernels use has instructions that multiply [pairs](pair), and this processor has them.
pub(crate) fn has_pairs() -> bool {
    best() == 0 && native::has_pairs()
}

impl Element for f64 {
    unsafe fn dispatch(job: impl Job<Self>) {
        // SAFETY: every processor knows these instructions; the rest is the caller's promise.
        unsafe { job.run::<Portable<Self>>() };
    }

    unsafe fn dispatch_pairs(job: impl Job<Self>) {
        // SAFETY: the caller's promise.
        unsafe { Self::dispatch(job) };
    }
}
