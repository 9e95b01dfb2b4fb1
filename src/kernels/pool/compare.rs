//! Comparing lines of numbers by registers.

use crate::kernels::Real;
use crate::kernels::simd::{Isa, Job, Kernel, Lanes, MOST};

/// Writes to the first of `to` the greatest of `taps` numbers `step` apart in the first of `from`, with `BESIDE` what
/// stands beside it in the second. Of equals the first wins; what is not a number is greater than every number.
///
/// # Panics
///
/// When lines of `to` are not equally long and a multiple of [`MOST`], or those of `from` are shorter than the taps
/// reach.
pub(super) fn greatest_of_taps<T: Real, const BESIDE: bool>(
    to: [&mut [T]; 2],
    from: [&[T]; 2],
    taps: usize,
    step: usize,
) {
    let n = to[0].len();
    let reach = n + taps.saturating_sub(1) * step;
    assert!(to[1].len() == n && from.iter().all(|from| from.len() >= reach), "lines of {n}, read to {reach}");
    assert!(n.is_multiple_of(MOST), "whole registers");
    // SAFETY: as asserted.
    unsafe {
        T::dispatch(Compare::<T, BESIDE> {
            to: to.map(<[T]>::as_mut_ptr),
            from: from.map(<[T]>::as_ptr),
            n,
            taps,
            step,
        })
    };
}

/// [`greatest_of_taps`] for `n` numbers. Demands as many of each line of `to`, and what the taps reach of those of `from`.
struct Compare<T, const BESIDE: bool> {
    to: [*mut T; 2],
    from: [*const T; 2],
    n: usize,
    taps: usize,
    step: usize,
}

impl<T: Real, const BESIDE: bool> Job<T> for Compare<T, BESIDE> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        // SAFETY: the caller's promise.
        unsafe { S::vectorize(self) }
    }
}

impl<V: Lanes, const BESIDE: bool> Kernel<V> for Compare<V::Element, BESIDE> {
    #[inline(always)]
    unsafe fn run(self) {
        let ([to, to_beside], [from, beside]) = (self.to, self.from);
        let load = |from: *const V::Element, i: usize| {
            // SAFETY: the caller promises the processor and `n` numbers, a multiple of what is read, at every tap.
            unsafe { V::load(from.wrapping_add(i)) }
        };
        for i in (0..self.n).step_by(V::LANES) {
            let at = |i: usize| {
                let value = load(from, i);
                [value, if BESIDE { load(beside, i) } else { value }]
            };
            let mut best = at(i);
            for tap in 1..self.taps {
                best = V::greater(best, at(i + tap * self.step));
            }
            let [value, position] = best;
            // SAFETY: as above.
            unsafe { value.store(to.wrapping_add(i)) };
            if BESIDE {
                // SAFETY: as above.
                unsafe { position.store(to_beside.wrapping_add(i)) };
            }
        }
    }
}
