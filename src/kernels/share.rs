//! Memory that kernels ask for, and work that needs some beside its result.
//!
//! Every large vector of a kernel is made by [`zeros`] or [`room`], which ask the memory limit
//! first. Scratch is made before the work starts, a piece for each worker, so its bytes follow
//! from shapes and the number of threads and not from how the threads happen to run.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::WithDType;
use rayon::prelude::*;

use super::simd::LINE;
use crate::error::Result;
use crate::meter::reserve;

/// `n` zeros for `what`.
///
/// # Errors
///
/// [`crate::Error::Memory`] when the limit does not allow them.
pub(crate) fn zeros<T: WithDType>(what: &str, n: usize) -> Result<Vec<T>> {
    reserve(what, n * size_of::<T>())?;
    Ok(vec![T::zero(); n])
}

/// `n` elements for `what`, as `fill` writes them: without zeros, since clearing what is written anyway
/// takes as long as many a kernel.
///
/// # Errors
///
/// As [`zeros`].
///
/// # Safety
///
/// `fill` must write every element.
#[allow(unsafe_code)] // memory that was not written yet
pub(crate) unsafe fn filled<T>(
    what: &str,
    n: usize,
    fill: impl FnOnce(&mut [MaybeUninit<T>]),
) -> Result<Vec<T>> {
    let mut all = room(what, n)?;
    fill(&mut all.spare_capacity_mut()[..n]);
    // SAFETY: the caller promises that all were written.
    unsafe { all.set_len(n) };
    Ok(all)
}

/// Memory to write to, whatever it holds.
#[allow(unsafe_code)] // the same memory by another name
pub(crate) fn unwritten<T: Copy>(memory: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: only kernels take it, which write numbers.
    unsafe { &mut *(std::ptr::from_mut(memory) as *mut [MaybeUninit<T>]) }
}

/// An empty vector for `what` with room for exactly `n` elements.
///
/// # Errors
///
/// As [`zeros`].
pub(crate) fn room<T>(what: &str, n: usize) -> Result<Vec<T>> {
    reserve(what, n * size_of::<T>())?;
    Ok(Vec::with_capacity(n))
}

/// Gives each piece of `length` elements of `all`, with its number, to the threads of the pool.
///
/// `f` is behind a reference, so that the pool's code is compiled for each kind of element and not for each `f`.
pub(crate) fn pieces<T: Send>(all: &mut [T], length: usize, f: &(dyn Fn(usize, &mut [T]) + Sync)) {
    all.par_chunks_mut(length.max(1)).enumerate().for_each(|(i, piece)| f(i, piece));
}

/// How many workers share `items` pieces of work on `threads` threads.
fn count(items: usize, threads: usize) -> usize {
    items.min(threads).max(1)
}

/// Memory that kernels write to before they read it, from the start of a line of the cache on: nothing clears it,
/// since that takes as long as many a kernel.
pub(crate) struct Scratch<T> {
    all: Vec<MaybeUninit<T>>,
    n: usize,
}

impl<T: WithDType> Scratch<T> {
    /// `n` elements for `what`, in room that is a line longer.
    ///
    /// # Errors
    ///
    /// As [`zeros`].
    pub(crate) fn new(what: &str, n: usize) -> Result<Self> {
        let len = scratch_bytes::<T>(n) / size_of::<T>();
        let mut all = room(what, len)?;
        // In tests of kernels what is read before it is written shows.
        let poison = || MaybeUninit::new(T::from_f64(f64::NAN));
        all.resize_with(len, || if cfg!(test) { poison() } else { MaybeUninit::uninit() });
        Ok(Self { all, n })
    }

    /// All of it, whatever it holds.
    #[allow(unsafe_code)] // the same memory by another name
    pub(crate) fn numbers(&mut self) -> &mut [T] {
        let first = self.all.as_ptr().align_offset(LINE).min(self.all.len() - self.n);
        // SAFETY: all bits are numbers, and no kernel reads what it has not written.
        unsafe { &mut *(std::ptr::from_mut(&mut self.all[first..first + self.n]) as *mut [T]) }
    }
}

/// Bytes of [`Scratch`] of `n` elements.
pub(crate) fn scratch_bytes<T>(n: usize) -> usize {
    if n == 0 { 0 } else { n * size_of::<T>() + LINE }
}

/// Elements of scratch on `threads` threads: `n` for each of the workers that share `items` pieces of work.
pub(crate) fn scratch_len(items: usize, n: usize, threads: usize) -> usize {
    count(items, threads) * n
}

/// Gives each piece of `work`, of which there are `items`, to the next worker that is free. Each
/// worker has `n` elements of `scratch`, so there are no more workers than these allow.
pub(crate) fn share<T: Send, I: Send>(
    (scratch, n): (&mut [T], usize),
    (items, work): (usize, impl Iterator<Item = I> + Send),
    f: impl Fn(&mut [T], I) + Sync,
) {
    let work = Mutex::new(work);
    workers((scratch, n), items, |own, _| {
        while let Some(item) = next(&work) {
            f(own, item);
        }
    });
}

/// Gives each of `lists * places` tasks, which are numbered list by list, to a worker, with scratch as in
/// [`share`].
///
/// A worker begins with the tasks at its own places, list by list, the calling thread with the first of them:
/// on two threads the same share of images in every kernel, so that much of what a task reads is in the cache
/// of its processor. Then it takes what others have left.
pub(crate) fn share_places<T: Send>(
    (scratch, n): (&mut [T], usize),
    [lists, places]: [usize; 2],
    f: impl Fn(&mut [T], usize) + Sync,
) {
    let taken = [const { Taken(AtomicUsize::new(0)) }; OWNERS];
    let owners = OWNERS.min(rayon::current_num_threads());
    let own = |owner: usize| owner * places / owners..(owner + 1) * places / owners;
    workers((scratch, n), lists * places, |scratch, worker| {
        for owner in (0..owners).map(|i| (worker + i) % owners) {
            let own = own(owner);
            loop {
                let task = taken[owner].0.fetch_add(1, Ordering::Relaxed);
                if task >= lists * own.len() {
                    break;
                }
                f(scratch, task / own.len() * places + own.start + task % own.len());
            }
        }
    });
}

/// Shares that places are cut into at most.
const OWNERS: usize = 16;

/// Tasks of an owner that were taken, in a line of the cache of its own.
#[repr(align(64))]
struct Taken(AtomicUsize);

/// Runs `f` on as many workers as `items` pieces of work need and as scratch allows, each with its own.
fn workers<T: Send>((scratch, n): (&mut [T], usize), items: usize, f: impl Fn(&mut [T], usize) + Sync) {
    let most = scratch.len().checked_div(n).unwrap_or_else(rayon::current_num_threads);
    let scratch = Mutex::new(scratch.chunks_exact_mut(n.max(1)));
    // The caller is the first of them.
    on_each(count(items, most), &|worker| f(next(&scratch).unwrap_or_default(), worker));
}

/// Runs `f` with each number below `n` on a thread, the first on the caller's.
fn on_each(n: usize, f: &(dyn Fn(usize) + Sync)) {
    (0..n).into_par_iter().with_max_len(1).for_each(f);
}

fn next<I: Iterator>(items: &Mutex<I>) -> Option<I::Item> {
    items.lock().unwrap_or_else(PoisonError::into_inner).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_whatever_the_number_of_workers() {
        for workers in 1..4 {
            let mut done = [0; 100];
            let mut scratch = vec![0usize; 2 * workers];
            share((&mut scratch, 2), (100, done.iter_mut().enumerate()), |own, (i, done)| {
                own[1] += 1;
                *done += i + 1;
            });
            assert!(done.iter().enumerate().all(|(i, &done)| done == i + 1));
            assert_eq!(scratch.iter().sum::<usize>(), 100);
        }
    }

    #[test]
    fn every_task_is_done_once_whatever_its_list_and_place() {
        for (lists, places, threads) in [(1, 1, 2), (3, 7, 3), (5, 2, 4), (0, 4, 2), (2, 40, 1), (1, 50, 20)]
        {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let done: Vec<AtomicUsize> = (0..lists * places).map(|_| AtomicUsize::new(0)).collect();
            let scratch = &mut vec![0u8; threads.min(3)];
            pool.install(|| {
                share_places((scratch, 1), [lists, places], |own, task| {
                    assert_eq!(own.len(), 1);
                    done[task].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1), "{lists} {places} {threads}");
        }
    }

    #[test]
    fn there_are_never_more_workers_than_pieces() {
        assert_eq!((count(0, 4), count(3, 4), count(9, 4)), (1, 3, 4));
        assert_eq!(scratch_len(3, 100, 8), 300);
    }

    #[test]
    fn work_without_scratch_is_done_too() {
        let mut done = [0; 9];
        share((&mut [0u8; 0], 0), (9, done.iter_mut()), |own, done| *done = 1 + own.len());
        assert_eq!(done, [1; 9]);
    }
}
