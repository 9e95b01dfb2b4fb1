//! The innermost loops: sums that stay in registers.

use super::plane::Plane;
use crate::kernels::Real;
use crate::kernels::simd::{Isa, Kernel, Lanes};

/// Rows whose sums a kernel keeps at most: enough to hide how long an addition takes.
const ROWS: usize = 8;

impl Plane {
    /// Fills `sums` with the sums over a copy, or adds them to it.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn sum<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        (copy, kernel): (&[T], &[T]),
        sums: &mut [T],
        adds: bool,
    ) {
        let [rows, columns] = [0, 1].map(|i| self.axes[i].outputs);
        assert!(copy.len() >= self.copy_len::<T>() && sums.len() >= self.sums_len(), "a plane is too short");
        assert!(self.taps().iter().all(|(_, place)| *place < kernel.len()), "a kernel is too short");
        let x_row = self.axes[0].stride * self.row();
        for column in (0..columns).step_by(S::Register::LANES) {
            let mut row = 0;
            while row < rows {
                // SAFETY: the caller promises the processor. Rows and columns lie within the sums, what taps read
                // within the copy or less than a register beyond its last row, and the kernel has all places,
                // as asserted above.
                macro_rules! of {
                    ($rows:expr) => {{
                        let tile = Outputs::<_, { $rows }> {
                            x: copy.as_ptr().wrapping_add(row * x_row + column),
                            x_row,
                            taps: self.taps(),
                            kernel: kernel.as_ptr(),
                            sums: sums.as_mut_ptr().wrapping_add(row * columns + column),
                            columns,
                            n: S::Register::LANES.min(columns - column),
                            adds,
                        };
                        // SAFETY: as said above.
                        unsafe { S::vectorize(tile) }
                    }};
                }
                match rows - row {
                    ROWS.. => of!(ROWS),
                    4.. => of!(4),
                    2.. => of!(2),
                    _ => of!(1),
                }
                row += [ROWS, 4, 2, 1].into_iter().find(|n| row + n <= rows).unwrap_or(1);
            }
        }
    }

    /// Adds to each weight the products of the gradients `dy` with what it is multiplied with.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn add_weights<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        (copy, dy): (&[T], &[T]),
        dw: &mut [T],
    ) {
        let counts = [0, 1].map(|i| self.axes[i].outputs);
        assert!(copy.len() >= self.copy_len::<T>() && dy.len() >= self.sums_len(), "a plane is too short");
        let x_row = self.axes[0].stride * self.row();
        let mut taps = self.taps();
        macro_rules! of {
            ($q:literal) => {
                while let Some((some, rest)) = taps.split_first_chunk::<$q>() {
                    let x = some.map(|(offset, _)| copy.as_ptr().wrapping_add(offset));
                    let mut sums = [T::zero(); $q];
                    // SAFETY: the caller promises the processor; what taps read lies within the copy, and
                    // there is a gradient for each output, as asserted above.
                    unsafe { S::vectorize(Taps { x, x_row, dy: dy.as_ptr(), counts, sums: &mut sums }) };
                    some.iter().zip(sums).for_each(|((_, place), sum)| dw[*place] += sum);
                    taps = rest;
                }
            };
        }
        // Whole kernels of three, and rows of those of five.
        if taps.len().is_multiple_of(9) {
            of!(9);
        }
        of!(5);
        of!(2);
        of!(1);
    }
}

/// Sums of a register of pixels in some neighbouring rows:
///
/// ```text
/// for taps (offset, place), r, v:  sums[r][v] += x[offset][r][v] * kernel[place]
/// ```
struct Outputs<'a, T, const R: usize> {
    x: *const T,
    /// From what a row of sums reads to what the next one does.
    x_row: usize,
    taps: &'a [(usize, usize)],
    kernel: *const T,
    sums: *mut T,
    /// From a row of sums to the next.
    columns: usize,
    /// Pixels, at most those of a register.
    n: usize,
    adds: bool,
}

impl<V: Lanes, const R: usize> Kernel<V> for Outputs<'_, V::Element, R> {
    /// What taps read must be whole registers, the kernel readable, and `n` sums in each row writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { x, x_row, taps, kernel, sums: to, columns, n, adds } = self;
        // SAFETY: the caller promises the processor.
        let mut sums = [unsafe { V::zero() }; R];
        if adds {
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller promises the sums.
                *sum = unsafe { V::load_part(to.wrapping_add(r * columns), n) };
            }
        }
        for &(offset, place) in taps {
            // SAFETY: the caller promises the kernel.
            let weight = unsafe { V::splat(kernel.wrapping_add(place)) };
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller promises whole registers of what is read.
                let x = unsafe { V::load(x.wrapping_add(offset + r * x_row)) };
                *sum = sum.add_product(x, weight);
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            // SAFETY: the caller promises the sums.
            unsafe { sum.store_first(to.wrapping_add(r * columns), n) };
        }
    }
}

/// Sums over the pixels of a plane for `Q` taps:
///
/// ```text
/// for rows, columns, q:  sums[q] += x[q][row][column] * dy[row][column]
/// ```
struct Taps<'a, T, const Q: usize> {
    x: [*const T; Q],
    x_row: usize,
    dy: *const T,
    /// Rows and columns.
    counts: [usize; 2],
    sums: &'a mut [T; Q],
}

impl<V: Lanes, const Q: usize> Kernel<V> for Taps<'_, V::Element, Q> {
    #[inline(always)]
    unsafe fn run(self) {
        let [rows, columns] = self.counts;
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        let mut sums = [zero; Q];
        for row in 0..rows {
            let dy = self.dy.wrapping_add(row * columns);
            let mut column = 0;
            while column + V::LANES <= columns {
                // SAFETY: the caller promises the gradients.
                let dy = unsafe { V::load(dy.wrapping_add(column)) };
                for (sum, x) in sums.iter_mut().zip(self.x) {
                    // SAFETY: the caller promises what taps read.
                    let x = unsafe { V::load(x.wrapping_add(row * self.x_row + column)) };
                    *sum = sum.add_product(x, dy);
                }
                column += V::LANES;
            }
            let n = columns - column;
            if n > 0 {
                // SAFETY: as above; these are left.
                let dy = unsafe { V::load_part(dy.wrapping_add(column), n) };
                for (sum, x) in sums.iter_mut().zip(self.x) {
                    // SAFETY: as above. What lies behind may be infinite, so it is not read.
                    let x = unsafe { V::load_part(x.wrapping_add(row * self.x_row + column), n) };
                    *sum = sum.add_product(x, dy);
                }
            }
        }
        for (four, to) in sums.chunks(4).zip(self.sums.chunks_mut(4)) {
            let four = std::array::from_fn(|i| four.get(i).copied().unwrap_or(zero));
            to.iter_mut().zip(V::sums(&four)).for_each(|(to, sum)| *to = sum);
        }
    }
}
