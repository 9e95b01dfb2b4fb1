//! What every way of summing over windows has: what it reads and what it writes.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::Finish;
use super::correlation::Correlation;
use super::pointwise::Pointwise;
use super::weights::Weights;
use super::winograd::Winograd;
use crate::kernels::Real;
use crate::kernels::simd::{Job, widened};

/// Fills the target positions of a correlation in the way `how`, with its scratch.
pub(super) struct Sums<'a, T, H> {
    pub(super) how: &'a H,
    pub(super) source: &'a [T],
    pub(super) weights: Weights<'a, T>,
    pub(super) finish: &'a Finish<'a, T>,
    /// Every position of the target is written, whatever it holds.
    pub(super) target: &'a mut [MaybeUninit<T>],
    pub(super) scratch: &'a mut [T],
}

/// The same while its tasks run.
pub(super) struct Work<'a, T, H> {
    pub(super) how: &'a H,
    pub(super) source: &'a [T],
    pub(super) weights: Weights<'a, T>,
    pub(super) finish: &'a Finish<'a, T>,
    pub(super) target: Target<'a, T>,
}

impl<'a, T, H> Sums<'a, T, H> {
    /// The work, and scratch for it.
    pub(super) fn work(self) -> (Work<'a, T, H>, &'a mut [T]) {
        let Self { how, source, weights, finish, target, scratch } = self;
        (Work { how, source, weights, finish, target: Target::new(target) }, scratch)
    }
}

impl<T: Real> Sums<'_, T, Correlation> {
    /// Does it in the fastest way by the best instructions there are.
    pub(super) fn fill(self) {
        let Self { how, source, weights, finish, target, scratch } = self;
        let [from, to] = [how.source, how.target].map(|plane| how.images * how.groups * plane[0] * plane[1]);
        assert_eq!(source.len(), how.inputs * from, "source");
        assert_eq!(target.len(), how.outputs * to, "target");
        assert_eq!(weights.len(), how.weight_len(&weights), "weights");
        if let Some(how) = &Winograd::of(how) {
            Sums { how, source, weights, finish, target, scratch }.dispatch();
        } else if let Some(how) = &Pointwise::of(how) {
            Sums { how, source, weights, finish, target, scratch }.dispatch();
        } else {
            Sums { how, source, weights, finish, target, scratch }.dispatch();
        }
    }
}

impl<T: Real, H> Sums<'_, T, H>
where
    Self: Job<T>,
{
    pub(super) fn dispatch(self) {
        if matches!(self.weights, Weights::Pairs(_)) {
            // SAFETY: the job demands nothing beside its processor.
            unsafe { T::dispatch_pairs(self) }
        } else {
            // SAFETY: as above.
            unsafe { T::dispatch(self) }
        }
    }
}

/// Elements of scratch on `threads` threads.
pub(super) fn scratch_len<T: Real>(how: &Correlation, threads: usize) -> usize {
    let fast = Winograd::of(how).map(|how| how.scratch_len::<T>(threads));
    let fast = fast.or_else(|| Pointwise::of(how).map(|how| how.scratch_len::<T>(threads)));
    fast.unwrap_or_else(|| how.scratch_len::<T>(threads))
}

/// The target, of which every task writes its own part.
pub(super) struct Target<'a, T> {
    start: *mut T,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: tasks write to different elements, by the contracts of the jobs.
unsafe impl<T: Send> Sync for Target<'_, T> {}

impl<'a, T> Target<'a, T> {
    pub(super) fn new(target: &'a mut [MaybeUninit<T>]) -> Self {
        Self { start: target.as_mut_ptr().cast(), of: PhantomData }
    }

    /// Where the element of this number is.
    pub(super) fn at(&self, index: usize) -> *mut T {
        self.start.wrapping_add(index)
    }

    /// A run of elements.
    ///
    /// # Safety
    ///
    /// They were written, lie within the target, and nothing else has them while the slice lives.
    #[allow(clippy::mut_from_ref)] // the contract
    pub(super) unsafe fn run(&self, run: Range<usize>) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(run.start), run.len()) }
    }
}

impl<T: Real> Target<'_, T> {
    /// Finishes sums that stand where they belong: in each of `planes`, of `plane` pixels, those from
    /// `start` on. The first plane is output channel `channel`.
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run).
    pub(super) unsafe fn finish(
        &self,
        finish: &Finish<T>,
        (planes, channel): (Range<usize>, usize),
        plane: usize,
        pixels: Range<usize>,
    ) {
        widened(|| {
            for (i, of) in planes.enumerate() {
                let start = of * plane + pixels.start;
                // SAFETY: the caller's promise.
                finish.apply(unsafe { self.run(start..start + pixels.len()) }, channel + i, start);
            }
        });
    }
}
