//! Comparing lines of numbers by registers.

use crate::kernels::Real;
use crate::kernels::simd::{Isa, Job, Kernel, Lanes, MOST};

/// Brings what is greater in the first of `rivals` to the first of `best`, with `BESIDE` what stands beside it in
/// the second. Of equals what is there stays; what is not a number is greater than every number.
///
/// # Panics
///
/// When lines of `best` are not equally long and a multiple of [`MOST`], or those of `rivals` are shorter.
pub(super) fn bring_greater<T: Real, const BESIDE: bool>(best: [&mut [T]; 2], rivals: [&[T]; 2]) {
    let n = best[0].len();
    assert!(best[1].len() == n && rivals.iter().all(|rival| rival.len() >= n), "lines of {n}");
    assert!(n.is_multiple_of(MOST), "whole registers");
    let [values, taps] = best;
    let best = [values.as_mut_ptr(), taps.as_mut_ptr()];
    // SAFETY: as asserted.
    unsafe { T::dispatch(Compare::<T, BESIDE> { best, rivals: rivals.map(<[T]>::as_ptr), n }) };
}

/// [`bring_greater`] over `n` numbers. Demands as many of each line.
struct Compare<T, const BESIDE: bool> {
    best: [*mut T; 2],
    rivals: [*const T; 2],
    n: usize,
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
        for i in (0..self.n).step_by(V::LANES) {
            let ([values, taps], [x, at]) = (self.best, self.rivals);
            let load = |from: *const V::Element| {
                // SAFETY: the caller promises the processor and `n` numbers, a multiple of what is read.
                unsafe { V::load(from.wrapping_add(i)) }
            };
            let (best, rival) = (load(values), load(x));
            let beside = if BESIDE { [load(taps), load(at)] } else { [best, rival] };
            let [value, tap] = V::greater([best, beside[0]], [rival, beside[1]]);
            // SAFETY: as above.
            unsafe { value.store(values.wrapping_add(i)) };
            if BESIDE {
                // SAFETY: as above.
                unsafe { tap.store(taps.wrapping_add(i)) };
            }
        }
    }
}
