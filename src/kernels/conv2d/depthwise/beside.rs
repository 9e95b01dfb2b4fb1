//! Windows around every pixel.
//!
//! Of each row that is read the registers are shifted by what taps are apart, with zeros from outside. Their
//! products are added to all rows of sums that the row belongs to, which stay in registers meanwhile:
//!
//! ```text
//! for rows y of x, s, t:  sums[y - (s - K / 2) D] += weight[s, t] * (x[y] shifted by (t - K / 2) D)
//! ```

use crate::kernels::simd::{Kernel, Lanes};

/// Clears what taps read for outputs that there are not: times 0 it may be no number.
#[inline(always)]
pub(super) fn clear_behind<V: Lanes>(n: usize, taps: &mut [V]) {
    if n < V::LANES {
        for tap in taps {
            *tap = tap.first_only(n);
        }
    }
}

/// The sums over the lanes of each.
#[inline(always)]
pub(super) fn lane_sums<V: Lanes, const K: usize, const G: usize>(
    sums: &[[V; K]; G],
    to: &mut [[V::Element; K]; G],
) {
    for (sums, to) in sums.as_flattened().chunks(4).zip(to.as_flattened_mut().chunks_mut(4)) {
        let mut four = [sums[0]; 4];
        four[..sums.len()].copy_from_slice(sums);
        let four = V::sums(&four);
        to.copy_from_slice(&four[..to.len()]);
    }
}

/// The register at `first` of a row of `w` pixels, with zeros beyond.
///
/// # Safety
///
/// The processor must know the instructions of `V`, and the row be readable.
#[inline(always)]
pub(super) unsafe fn load<V: Lanes>(row: *const V::Element, first: usize, w: usize) -> V {
    if first >= w {
        // SAFETY: the caller promises the processor.
        return unsafe { V::zero() };
    }
    // SAFETY: the caller promises the row.
    unsafe { V::load_first(row.wrapping_add(first), V::LANES.min(w - first)) }
}

/// The `R` registers at `first` of a row of `w` pixels, as each of `K` taps `D` apart reads them, from the left.
///
/// # Safety
///
/// As [`load`].
#[inline(always)]
unsafe fn shifted<V: Lanes, const K: usize, const D: usize, const R: usize>(
    row: *const V::Element,
    first: usize,
    w: usize,
) -> [[V; R]; K] {
    // SAFETY: the caller promises the processor.
    let mut before = unsafe { V::zero() };
    if first > 0 {
        // SAFETY: the caller promises the row, of which this is a whole register.
        before = unsafe { V::load(row.wrapping_add(first - V::LANES)) };
    }
    // SAFETY: the caller's promise.
    let mut own = unsafe { load::<V>(row, first, w) };
    let mut all = [[own; R]; K];
    #[allow(clippy::needless_range_loop)] // of all taps
    for r in 0..R {
        // SAFETY: the caller's promise.
        let after = unsafe { load::<V>(row, first + (r + 1) * V::LANES, w) };
        for t in 0..K / 2 {
            all[t][r] = own.after((K / 2 - t) * D, before);
            all[K - 1 - t][r] = own.before((K / 2 - t) * D, after);
        }
        all[K / 2][r] = own;
        (before, own) = (own, after);
    }
    all
}

/// Sums over windows, in `R` registers of pixels at a time. Where weights, sums and pixels are more than there are
/// registers, weights are read from memory for each row.
pub(super) struct Sums<'a, T, const K: usize, const D: usize, const R: usize> {
    pub(super) x: *const T,
    pub(super) kernel: &'a [[T; K]; K],
    pub(super) sums: *mut T,
    pub(super) size: [usize; 2],
}

impl<V: Lanes, const K: usize, const D: usize, const R: usize> Kernel<V> for Sums<'_, V::Element, K, D, R> {
    /// Both planes must have this size.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { x, kernel, sums: to, size: [h, w] } = self;
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        let is_held = K * K + 2 * K * R + R < V::COUNT;
        let mut held = [[zero; K]; K];
        for (tap, number) in held.as_flattened_mut().iter_mut().zip(kernel.as_flattened()) {
            if is_held {
                // SAFETY: as above.
                *tap = unsafe { V::splat(number) };
            }
        }
        for first in (0..w).step_by(R * V::LANES) {
            for phase in 0..D.min(h) {
                let rows = (h - phase).div_ceil(D);
                // Of K neighbouring rows, the first of which is whole once this row was added.
                let mut sums = [[zero; R]; K];
                for y in 0..rows + K / 2 {
                    if y < rows {
                        let row = x.wrapping_add((phase + y * D) * w);
                        // SAFETY: the caller promises the plane.
                        let pixels = unsafe { shifted::<V, K, D, R>(row, first, w) };
                        for (t, pixels) in pixels.iter().enumerate() {
                            for (s, sums) in sums.iter_mut().rev().enumerate() {
                                let mut tap = held[s][t];
                                if !is_held {
                                    // SAFETY: the caller promises the processor.
                                    tap = unsafe { V::splat(&kernel[s][t]) };
                                }
                                for (sum, &pixel) in sums.iter_mut().zip(pixels) {
                                    *sum = sum.add_product(pixel, tap);
                                }
                            }
                        }
                    }
                    if y >= K / 2 {
                        let row = to.wrapping_add((phase + (y - K / 2) * D) * w);
                        for (r, sum) in sums[0].into_iter().enumerate() {
                            let start = first + r * V::LANES;
                            if start < w {
                                // SAFETY: the caller promises the plane.
                                unsafe { sum.store_first(row.wrapping_add(start), V::LANES.min(w - start)) };
                            }
                        }
                    }
                    for i in 1..K {
                        sums[i - 1] = sums[i];
                    }
                    sums[K - 1] = [zero; R];
                }
            }
        }
    }
}

/// Gradients by the weights of `G` rows of a kernel.
pub(super) struct Weights<'a, T, const K: usize, const D: usize, const G: usize> {
    pub(super) x: *const T,
    pub(super) dy: *const T,
    /// Of the rows from `first` on.
    pub(super) sums: &'a mut [[T; K]; G],
    pub(super) first: usize,
    pub(super) size: [usize; 2],
}

impl<V: Lanes, const K: usize, const D: usize, const G: usize> Kernel<V>
    for Weights<'_, V::Element, K, D, G>
{
    /// Both planes must have this size.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { x, dy, sums: to, first: first_row, size: [h, w] } = self;
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        let mut sums = [[zero; K]; G];
        for first in (0..w).step_by(V::LANES) {
            let n = V::LANES.min(w - first);
            for y in 0..h {
                // SAFETY: the caller promises the plane.
                let mut pixels = unsafe { shifted::<V, K, D, 1>(x.wrapping_add(y * w), first, w) };
                clear_behind(n, pixels.as_flattened_mut());
                for (s, sums) in sums.iter_mut().enumerate() {
                    let Some(row) = (y + K / 2 * D).checked_sub((first_row + s) * D).filter(|&row| row < h)
                    else {
                        continue;
                    };
                    // SAFETY: as above.
                    let dy = unsafe { V::load_first(dy.wrapping_add(row * w + first), n) };
                    for (sum, [pixels]) in sums.iter_mut().zip(pixels) {
                        *sum = sum.add_product(pixels, dy);
                    }
                }
            }
        }
        lane_sums(&sums, to);
    }
}
