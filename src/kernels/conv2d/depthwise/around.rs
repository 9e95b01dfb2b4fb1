//! Windows that lie around a pixel, one or two pixels apart: planes are read as they are.
//!
//! Of each row that is read the registers are shifted by what taps are apart, with zeros from outside. Their
//! products are added to all rows of sums that the row belongs to, which stay in registers meanwhile:
//!
//! ```text
//! for rows y of x, s, t:  sums[y - (s - K / 2) D] += weight[s, t] * (x[y] shifted by (t - K / 2) D)
//! ```
//!
//! With windows two pixels apart it is `halved`.

use super::halved::{HalvedSums, HalvedWeights, Spread};
use crate::graph::op::Window;
use crate::kernels::Real;
use crate::kernels::simd::{Isa, Job, Kernel, Lanes};

const OTHER_SIZE: &str = "a plane has another size";

/// Windows of planes of one size.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Around {
    shape: Shape,
    stride: usize,
    /// Pixels of a plane that windows read, and of one that they make.
    source: [usize; 2],
    target: [usize; 2],
}

/// Windows of a side, with taps so far apart.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Three,
    ThreeApart,
    Five,
}

/// Expands `$of!(K, D)` for the windows.
macro_rules! by_shape {
    ($shape:expr, $of:ident) => {
        match $shape {
            Shape::Three => $of!(3, 1),
            Shape::ThreeApart => $of!(3, 2),
            Shape::Five => $of!(5, 1),
        }
    };
}

impl Around {
    /// These windows on planes of `[h, w]` pixels, if they are of this kind.
    pub(in crate::kernels) fn of(window: Window, source: [usize; 2]) -> Option<Self> {
        let shape = match (window.k, window.dilation, window.padding) {
            (3, 1, 1) => Shape::Three,
            (3, 2, 2) => Shape::ThreeApart,
            (5, 1, 2) => Shape::Five,
            _ => return None,
        };
        let target = source.map(|pixels| pixels.div_ceil(window.stride.max(1)));
        let stride = window.stride;
        (1..=2).contains(&stride).then_some(Self { shape, stride, source, target })
    }

    /// Fills a plane with the sums over windows of `x`, all taps 1.
    pub(in crate::kernels) fn sum_of_ones<T: Real>(&self, x: &[T], sums: &mut [T]) {
        // SAFETY: the job demands nothing beside its processor.
        unsafe { T::dispatch(Ones { around: self, from: x, to: sums, spreads: false }) };
    }

    /// Fills a plane with the gradients by what was read for `dy`, all taps 1.
    pub(in crate::kernels) fn spread_ones<T: Real>(&self, dy: &[T], dx: &mut [T]) {
        // SAFETY: the job demands nothing beside its processor.
        unsafe { T::dispatch(Ones { around: self, from: dy, to: dx, spreads: true }) };
    }

    /// Fills a plane with the sums over windows of `x`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn sum<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        (x, kernel): (&[T], &[T]),
        sums: &mut [T],
    ) {
        if self.stride == 1 {
            // SAFETY: the caller's promise.
            return unsafe { self.sum_side_by_side::<S, T>((x, kernel), false, sums) };
        }
        let Self { source: size, target: to_size, .. } = *self;
        assert!(x.len() == size[0] * size[1] && sums.len() == to_size[0] * to_size[1], "{OTHER_SIZE}");
        let (x, sums) = (x.as_ptr(), sums.as_mut_ptr());
        macro_rules! of {
            ($k:literal, $d:literal) => {{
                let kernel = &square::<T, $k>(kernel, false);
                // SAFETY: the caller promises the processor; both planes have their size.
                unsafe { S::vectorize(HalvedSums::<_, $k, $d> { x, kernel, sums, size, to_size }) }
            }};
        }
        by_shape!(self.shape, of);
    }

    /// Fills a plane with the gradients by what was read for `dy`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn spread<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        (dy, kernel): (&[T], &[T]),
        dx: &mut [T],
    ) {
        if self.stride == 1 {
            // SAFETY: the caller's promise.
            return unsafe { self.sum_side_by_side::<S, T>((dy, kernel), true, dx) };
        }
        let Self { source: size, target: from_size, .. } = *self;
        assert!(dx.len() == size[0] * size[1] && dy.len() == from_size[0] * from_size[1], "{OTHER_SIZE}");
        let (dy, dx) = (dy.as_ptr(), dx.as_mut_ptr());
        macro_rules! of {
            ($k:literal, $d:literal) => {{
                let kernel = &square::<T, $k>(kernel, false);
                // SAFETY: the caller promises the processor; both planes have their size.
                unsafe { S::vectorize(Spread::<_, $k, $d> { dy, kernel, dx, size, from_size }) }
            }};
        }
        by_shape!(self.shape, of);
    }

    /// Fills a plane with the sums over windows a pixel apart, of the kernel turned round if `flipped`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn sum_side_by_side<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        (x, kernel): (&[T], &[T]),
        flipped: bool,
        sums: &mut [T],
    ) {
        let size @ [h, w] = self.source;
        assert!(x.len() == h * w && sums.len() == h * w, "{OTHER_SIZE}");
        let (x, sums) = (x.as_ptr(), sums.as_mut_ptr());
        macro_rules! of {
            ($k:literal, $d:literal) => {{
                let kernel = &square::<T, $k>(kernel, flipped);
                if w <= S::Register::LANES {
                    // SAFETY: the caller promises the processor; both planes have this size.
                    unsafe { S::vectorize(Sums::<_, $k, $d, 1> { x, kernel, sums, size }) }
                } else {
                    // SAFETY: as above.
                    unsafe { S::vectorize(Sums::<_, $k, $d, 2> { x, kernel, sums, size }) }
                }
            }};
        }
        by_shape!(self.shape, of);
    }

    /// Adds to each weight the products of the gradients `dy` with what it is multiplied with in `x`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn add_weights<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        (x, dy): (&[T], &[T]),
        dw: &mut [T],
    ) {
        let Self { source: size, target: dy_size, stride, .. } = *self;
        assert!(x.len() == size[0] * size[1] && dy.len() == dy_size[0] * dy_size[1], "{OTHER_SIZE}");
        let (x, dy) = (x.as_ptr(), dy.as_ptr());
        macro_rules! of {
            ($k:literal, $d:literal) => {{
                let sums = &mut [[T::zero(); $k]; $k];
                if stride == 1 {
                    // SAFETY: the caller promises the processor; both planes have their size.
                    unsafe { S::vectorize(Weights::<_, $k, $d> { x, dy, sums, size }) };
                } else {
                    // SAFETY: as above.
                    unsafe { S::vectorize(HalvedWeights::<_, $k, $d> { x, dy, sums, size, dy_size }) };
                }
                dw.iter_mut().zip(sums.as_flattened()).for_each(|(dw, &sum)| *dw += sum);
            }};
        }
        by_shape!(self.shape, of);
    }
}

struct Ones<'a, T> {
    around: &'a Around,
    from: &'a [T],
    to: &'a mut [T],
    spreads: bool,
}

impl<T: Real> Job<T> for Ones<'_, T> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let Self { around, from, to, spreads } = self;
        let taps = if matches!(around.shape, Shape::Five) { 25 } else { 9 };
        let of = (from, &[T::one(); 25][..taps]);
        if spreads {
            // SAFETY: the caller promises the processor.
            unsafe { around.spread::<S, T>(of, to) };
        } else {
            // SAFETY: the caller promises the processor.
            unsafe { around.sum::<S, T>(of, to) };
        }
    }
}

/// The kernel by rows, turned round if `flipped`.
fn square<T: Real, const K: usize>(kernel: &[T], flipped: bool) -> [[T; K]; K] {
    let mut square = [[T::zero(); K]; K];
    square.as_flattened_mut().copy_from_slice(kernel);
    if flipped {
        square.as_flattened_mut().reverse();
    }
    square
}

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
pub(super) fn lane_sums<V: Lanes, const K: usize>(sums: &[[V; K]; K], to: &mut [[V::Element; K]; K]) {
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
                let mut pixels = unsafe { shifted::<V, K, D, 1>(x.wrapping_add(y * w), first, w) };
                clear_behind(n, pixels.as_flattened_mut());
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
        lane_sums(&sums, to);
    }
}
