//! Memory that kernels ask for, and work that needs some beside its result.
//!
//! Every large vector of a kernel is made by [`zeros`] or [`room`], which ask the memory limit
//! first. Scratch is made before the work starts, a piece for each worker, so its bytes follow
//! from shapes and the number of threads and not from how the threads happen to run.

use std::sync::{Mutex, PoisonError};

use candle_core::WithDType;
use rayon::prelude::*;

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

/// An empty vector for `what` with room for exactly `n` elements.
///
/// # Errors
///
/// As [`zeros`].
pub(crate) fn room<T>(what: &str, n: usize) -> Result<Vec<T>> {
    reserve(what, n * size_of::<T>())?;
    Ok(Vec::with_capacity(n))
}

/// How many workers share `items` pieces of work on `threads` threads.
pub(crate) fn count(items: usize, threads: usize) -> usize {
    items.min(threads).max(1)
}

/// A vector of `n` zeros for each of the workers that share `items` pieces of work here.
///
/// # Errors
///
/// As [`zeros`].
pub(crate) fn scratch<T: WithDType>(what: &str, items: usize, n: usize) -> Result<Vec<Vec<T>>> {
    let workers = count(items, rayon::current_num_threads());
    reserve(what, workers * n * size_of::<T>())?;
    Ok((0..workers).map(|_| vec![T::zero(); n]).collect())
}

/// Bytes of [`scratch`] for elements of `size` bytes.
pub(crate) fn scratch_bytes(items: usize, n: usize, size: usize, threads: usize) -> usize {
    count(items, threads) * (n * size + size_of::<Vec<u8>>())
}

/// Gives each piece of `work` to the next worker that is free; each has one piece of `scratch`.
pub(crate) fn share<S: Send, I: Send>(
    scratch: &mut [S],
    work: impl Iterator<Item = I> + Send,
    f: impl Fn(&mut S, I) + Sync,
) {
    let work = Mutex::new(work);
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    scratch.par_iter_mut().with_max_len(1).for_each(|own| {
        while let Some(item) = next() {
            f(own, item);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_whatever_the_number_of_workers() {
        for workers in 1..4 {
            let mut done = [0; 100];
            let mut scratch = vec![0usize; workers];
            share(&mut scratch, done.iter_mut().enumerate(), |own, (i, done)| {
                *own += 1;
                *done += i + 1;
            });
            assert!(done.iter().enumerate().all(|(i, &done)| done == i + 1));
            assert_eq!(scratch.iter().sum::<usize>(), 100);
        }
    }

    #[test]
    fn there_are_never_more_workers_than_pieces() {
        assert_eq!((count(0, 4), count(3, 4), count(9, 4)), (1, 3, 4));
        let bytes = scratch_bytes(3, 100, 4, 8);
        assert_eq!(bytes, 3 * (400 + 24));
    }
}
