//! Windows that lie around a pixel, one or two pixels apart: planes are read as they are.
//!
//! The loops are `beside`, for windows that lie side by side, and `halved`, for those around every other pixel.

use super::beside::{Sums, Weights};
use super::halved::{HalvedSums, HalvedWeights, Spread};
use crate::graph::op::Window;
use crate::kernels::Real;
use crate::kernels::simd::{Isa, Job, Lanes};

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
                if w <= S::Register::LANES || 2 * $k * 2 > S::BUDGET.registers {
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
                // A sum for each weight, what a row of weights reads, gradients, and registers to shift by.
                if const { $k * $k + $k + 4 <= S::BUDGET.registers } {
                    of!($k, $d, $k)
                } else if const { 3 * $k + $k + 4 <= S::BUDGET.registers } {
                    of!($k, $d, 3)
                } else {
                    of!($k, $d, 1)
                }
            }};
            ($k:literal, $d:literal, $g:literal) => {
                for (i, dw) in dw.chunks_mut($g * $k).enumerate() {
                    let (first, sums) = (i * $g, &mut [[T::zero(); $k]; $g]);
                    if stride == 1 {
                        let weights = Weights::<_, $k, $d, $g> { x, dy, sums, first, size };
                        // SAFETY: the caller promises the processor; both planes have their size.
                        unsafe { S::vectorize(weights) };
                    } else {
                        let weights = HalvedWeights::<_, $k, $d, $g> { x, dy, sums, first, size, dy_size };
                        // SAFETY: as above.
                        unsafe { S::vectorize(weights) };
                    }
                    dw.iter_mut().zip(sums.as_flattened()).for_each(|(dw, &sum)| *dw += sum);
                }
            };
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
