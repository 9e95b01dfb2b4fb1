//! Windows that lie around their output, a pixel apart: planes are read as they are.
//!
//! Of each row that is read the registers are shifted by what taps are apart, with zeros from outside. Their
//! products are added to all rows of sums that the row belongs to, which stay in registers meanwhile:
//!
//! ```text
//! for rows y of x, s, t:  sums[y - (s - K / 2) D] += weight[s, t] * (x[y] shifted by (t - K / 2) D)
//! ```

use super::plane::Plane;
use crate::kernels::Real;
use crate::kernels::simd::{Isa, Kernel, Lanes};

/// `K` by `K` windows with taps `D` apart, around their outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    Three,
    ThreeApart,
    Five,
}

impl Around {
    /// Which of them the windows of this plane are.
    pub(super) fn of(plane: &Plane) -> Option<Self> {
        let is = |taps: usize, apart: usize| {
            plane.axes.iter().zip(plane.source).all(|(axis, pixels)| {
                let centre = -((taps / 2 * apart) as isize);
                axis.window_of(taps) == Some(apart)
                    && axis.outputs == pixels
                    && axis.reads(&(0..1)).start == centre
            })
        };
        let all = [(3, 1, Self::Three), (3, 2, Self::ThreeApart), (5, 1, Self::Five)];
        all.into_iter().find_map(|(taps, apart, around)| is(taps, apart).then_some(around))
    }
}

/// Expands `$of!(K, D)` for the windows.
macro_rules! by_window {
    ($around:expr, $of:ident) => {
        match $around {
            Around::Three => $of!(3, 1),
            Around::ThreeApart => $of!(3, 2),
            Around::Five => $of!(5, 1),
        }
    };
}

impl Plane {
    /// Fills `sums` with the sums over windows of a plane.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn sum_around<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        around: Around,
        (x, kernel): (&[T], &[T]),
        sums: &mut [T],
    ) {
        let size @ [h, w] = self.source;
        assert!(x.len() == h * w && sums.len() == x.len(), "a plane has another size");
        assert!(kernel.len() == self.taps().len(), "a kernel has another size");
        let flipped = self.axes[0].advance < 0;
        macro_rules! of {
            ($k:literal, $d:literal) => {{
                let turned = |i: usize| if flipped { $k * $k - 1 - i } else { i };
                let kernel: [[T; $k]; $k] =
                    std::array::from_fn(|s| std::array::from_fn(|t| kernel[turned($k * s + t)]));
                let (x, kernel, sums) = (x.as_ptr(), &kernel, sums.as_mut_ptr());
                if w <= S::Register::LANES {
                    // SAFETY: the caller promises the processor; both planes have this size.
                    unsafe { S::vectorize(Sums::<_, $k, $d, 1> { x, kernel, sums, size }) }
                } else {
                    // SAFETY: as above.
                    unsafe { S::vectorize(Sums::<_, $k, $d, 2> { x, kernel, sums, size }) }
                }
            }};
        }
        by_window!(around, of);
    }

    /// Adds to each weight the products of the gradients `dy` with what it is multiplied with in `x`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn add_weights_around<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        around: Around,
        (x, dy): (&[T], &[T]),
        dw: &mut [T],
    ) {
        let size @ [h, w] = self.source;
        assert!(x.len() == h * w && dy.len() == x.len(), "a plane has another size");
        assert!(dw.len() == self.taps().len(), "a kernel has another size");
        macro_rules! of {
            ($k:literal, $d:literal) => {{
                let mut sums = [[T::zero(); $k]; $k];
                let (x, dy, to) = (x.as_ptr(), dy.as_ptr(), &mut sums);
                // SAFETY: the caller promises the processor; both planes have this size.
                unsafe { S::vectorize(Weights::<_, $k, $d> { x, dy, sums: to, size }) };
                dw.iter_mut().zip(sums.as_flattened()).for_each(|(dw, &sum)| *dw += sum);
            }};
        }
        by_window!(around, of);
    }
}

/// The register at `first` of a row of `w` pixels, with zeros beyond.
///
/// # Safety
///
/// The processor must know the instructions of `V`, and the row be readable.
#[inline(always)]
unsafe fn load<V: Lanes>(row: *const V::Element, first: usize, w: usize) -> V {
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

struct Sums<'a, T, const K: usize, const D: usize, const R: usize> {
    x: *const T,
    kernel: &'a [[T; K]; K],
    sums: *mut T,
    size: [usize; 2],
}

impl<V: Lanes, const K: usize, const D: usize, const R: usize> Kernel<V> for Sums<'_, V::Element, K, D, R> {
    /// Both planes must have this size.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { x, kernel, sums: to, size: [h, w] } = self;
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        let mut taps = [[zero; K]; K];
        for (tap, number) in taps.as_flattened_mut().iter_mut().zip(kernel.as_flattened()) {
            // SAFETY: as above.
            *tap = unsafe { V::splat(number) };
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
                        for (sums, taps) in sums.iter_mut().rev().zip(&taps) {
                            for (pixels, &tap) in pixels.iter().zip(taps) {
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

struct Weights<'a, T, const K: usize, const D: usize> {
    x: *const T,
    dy: *const T,
    sums: &'a mut [[T; K]; K],
    size: [usize; 2],
}

impl<V: Lanes, const K: usize, const D: usize> Kernel<V> for Weights<'_, V::Element, K, D> {
    /// Both planes must have this size.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { x, dy, sums: to, size: [h, w] } = self;
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        let mut sums = [[zero; K]; K];
        for first in (0..w).step_by(V::LANES) {
            let n = V::LANES.min(w - first);
            for y in 0..h {
                // SAFETY: the caller promises the plane.
                let pixels = unsafe { shifted::<V, K, D, 1>(x.wrapping_add(y * w), first, w) };
                for (s, sums) in sums.iter_mut().enumerate() {
                    let Some(row) = (y + K / 2 * D).checked_sub(s * D).filter(|&row| row < h) else {
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
        for (sums, to) in sums.as_flattened().chunks(4).zip(to.as_flattened_mut().chunks_mut(4)) {
            let four = std::array::from_fn(|i| sums.get(i).copied().unwrap_or(zero));
            to.iter_mut().zip(V::sums(&four)).for_each(|(to, sum)| *to = sum);
        }
    }
}
