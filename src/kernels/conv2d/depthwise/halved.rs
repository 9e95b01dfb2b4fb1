//! Windows around every other pixel, down and across.
//!
//! The pixels of a row at even places and those at odd ones come apart into registers of their own; each tap
//! reads one of the two, shifted by a lane at most.

use super::beside::{clear_behind, lane_sums, load};
use crate::kernels::simd::{Kernel, Lanes};

/// A register of a run of elements, with the one before and the one after it.
#[derive(Clone, Copy)]
struct Own<V> {
    before: V,
    own: V,
    after: V,
}

impl<V: Lanes> Own<V> {
    /// Its elements `by` further on: -1, 0 or 1.
    #[inline(always)]
    fn shifted(&self, by: isize) -> V {
        match by {
            ..0 => self.own.after(1, self.before),
            0 => self.own,
            1.. => self.own.before(1, self.after),
        }
    }
}

/// Elements from `first` on of a row of `n`.
///
/// # Safety
///
/// The processor must know the instructions of `V`, and the row be readable.
#[inline(always)]
unsafe fn own<V: Lanes>(row: *const V::Element, first: usize, n: usize) -> Own<V> {
    // SAFETY: the caller promises the processor.
    let mut before = unsafe { V::zero() };
    if first > 0 {
        // SAFETY: the caller promises the row, of which this is a whole register.
        before = unsafe { V::load(row.wrapping_add(first - V::LANES)) };
    }
    // SAFETY: the caller promises the row.
    let own = unsafe { load(row, first, n) };
    // SAFETY: as above.
    let after = unsafe { load(row, first + V::LANES, n) };
    Own { before, own, after }
}

/// Pixels from `2 * first` on of a row of `w`: those at even places, and those at odd ones.
///
/// # Safety
///
/// The processor must know the instructions of `V`, and the row be readable.
#[inline(always)]
unsafe fn parted<V: Lanes>(row: *const V::Element, first: usize, w: usize) -> [Own<V>; 2] {
    // SAFETY: the caller promises the processor.
    let zero = unsafe { V::zero() };
    let mut before = zero;
    if first > 0 {
        // SAFETY: the caller promises the row, of which this is a whole register.
        before = unsafe { V::load(row.wrapping_add(2 * first - V::LANES)) };
    }
    let mut pixels = [zero; 3];
    for (i, pixels) in pixels.iter_mut().enumerate() {
        // SAFETY: the caller promises the row.
        *pixels = unsafe { load(row, 2 * first + i * V::LANES, w) };
    }
    let [low, high, after] = pixels;
    let (before, own, after) = (zero.parted(before), low.parted(high), after.parted(zero));
    [
        Own { before: before[0], own: own[0], after: after[0] },
        Own { before: before[1], own: own[1], after: after[1] },
    ]
}

/// What each of `K` taps, `D` apart, reads of such a row.
#[inline(always)]
fn of_taps<V: Lanes, const K: usize, const D: usize>(row: [Own<V>; 2]) -> [V; K] {
    let mut taps = [row[0].own; K];
    for (t, tap) in taps.iter_mut().enumerate() {
        let at = (t * D) as isize - (K / 2 * D) as isize;
        *tap = row[at.rem_euclid(2) as usize].shifted(at.div_euclid(2));
    }
    taps
}

/// The row of `h` that kernel row `s` reads for output row `y`.
#[inline(always)]
fn row_of<const K: usize, const D: usize>(y: usize, s: usize, h: usize) -> Option<usize> {
    (2 * y + s * D).checked_sub(K / 2 * D).filter(|&row| row < h)
}

/// Sums over windows.
pub(super) struct HalvedSums<'a, T, const K: usize, const D: usize> {
    pub(super) x: *const T,
    pub(super) kernel: &'a [[T; K]; K],
    pub(super) sums: *mut T,
    /// Of the plane that is read, and of the sums.
    pub(super) size: [usize; 2],
    pub(super) to_size: [usize; 2],
}

impl<V: Lanes, const K: usize, const D: usize> Kernel<V> for HalvedSums<'_, V::Element, K, D> {
    /// Both planes must have their size.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { x, kernel, sums: to, size: [h, w], to_size: [oh, ow] } = self;
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        for first in (0..ow).step_by(V::LANES) {
            for y in 0..oh {
                let mut sum = zero;
                for (s, weights) in kernel.iter().enumerate() {
                    let Some(row) = row_of::<K, D>(y, s, h) else { continue };
                    // SAFETY: the caller promises the plane.
                    let taps = of_taps::<V, K, D>(unsafe { parted(x.wrapping_add(row * w), first, w) });
                    for (&tap, weight) in taps.iter().zip(weights) {
                        // SAFETY: the caller promises the processor.
                        sum = sum.add_product(tap, unsafe { V::splat(weight) });
                    }
                }
                // SAFETY: the caller promises the sums.
                unsafe { sum.store_first(to.wrapping_add(y * ow + first), V::LANES.min(ow - first)) };
            }
        }
    }
}

/// Gradients by what was read.
pub(super) struct Spread<'a, T, const K: usize, const D: usize> {
    pub(super) dy: *const T,
    pub(super) kernel: &'a [[T; K]; K],
    pub(super) dx: *mut T,
    /// Of `dx`, and of `dy`.
    pub(super) size: [usize; 2],
    pub(super) from_size: [usize; 2],
}

impl<V: Lanes, const K: usize, const D: usize> Kernel<V> for Spread<'_, V::Element, K, D> {
    /// Both planes must have their size.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { dy, kernel, dx, size: [h, w], from_size: [oh, ow] } = self;
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        for first in (0..ow).step_by(V::LANES) {
            for y in 0..h {
                let mut sums = [zero; 2];
                for (s, weights) in kernel.iter().enumerate() {
                    let twice = (y + K / 2 * D).checked_sub(s * D);
                    let Some(row) = twice.filter(|row| row % 2 == 0 && row / 2 < oh) else { continue };
                    // SAFETY: the caller promises the plane.
                    let row = unsafe { own::<V>(dy.wrapping_add(row / 2 * ow), first, ow) };
                    for (t, weight) in weights.iter().enumerate() {
                        let at = (K / 2 * D) as isize - (t * D) as isize;
                        let phase = at.rem_euclid(2);
                        // SAFETY: the caller promises the processor.
                        let weight = unsafe { V::splat(weight) };
                        let sum = &mut sums[phase as usize];
                        *sum = sum.add_product(row.shifted((at + phase) / 2), weight);
                    }
                }
                let to = dx.wrapping_add(y * w + 2 * first);
                let [low, high] = sums[0].joined(sums[1]);
                let n = w - 2 * first;
                // SAFETY: the caller promises the plane.
                unsafe { low.store_first(to, V::LANES.min(n)) };
                if n > V::LANES {
                    // SAFETY: as above.
                    unsafe { high.store_first(to.wrapping_add(V::LANES), V::LANES.min(n - V::LANES)) };
                }
            }
        }
    }
}

/// Gradients by the weights of `G` rows of a kernel.
pub(super) struct HalvedWeights<'a, T, const K: usize, const D: usize, const G: usize> {
    pub(super) x: *const T,
    pub(super) dy: *const T,
    /// Of the rows from `first` on.
    pub(super) sums: &'a mut [[T; K]; G],
    pub(super) first: usize,
    /// Of `x`, and of `dy`.
    pub(super) size: [usize; 2],
    pub(super) dy_size: [usize; 2],
}

impl<V: Lanes, const K: usize, const D: usize, const G: usize> Kernel<V>
    for HalvedWeights<'_, V::Element, K, D, G>
{
    /// Both planes must have their size.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { x, dy, sums: to, first: first_row, size: [h, w], dy_size: [oh, ow] } = self;
        // SAFETY: the caller promises the processor.
        let mut sums = [[unsafe { V::zero() }; K]; G];
        for first in (0..ow).step_by(V::LANES) {
            for y in 0..oh {
                // SAFETY: the caller promises the plane.
                let dy: V = unsafe { load(dy.wrapping_add(y * ow), first, ow) };
                for (s, sums) in sums.iter_mut().enumerate() {
                    let Some(row) = row_of::<K, D>(y, first_row + s, h) else { continue };
                    // SAFETY: as above.
                    let mut taps = of_taps::<V, K, D>(unsafe { parted(x.wrapping_add(row * w), first, w) });
                    clear_behind(V::LANES.min(ow - first), &mut taps);
                    for (sum, &tap) in sums.iter_mut().zip(&taps) {
                        *sum = sum.add_product(tap, dy);
                    }
                }
            }
        }
        lane_sums(&sums, to);
    }
}
