//! The innermost loops: a tile of the product that stays in registers for the whole sum.

use super::Write;
use crate::kernels::simd::{Kernel, Lanes};

/// Where a tile of `C += A B` lies, and how long its sums are.
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    /// Rows 0, 4, 8 and 12 of `A`. Four short walks, since the compiler makes one long chain of
    /// additions from a single start, and the longest tile would wait for it.
    pub(super) a: [*const T; 4],
    /// From one row of `A` to the next.
    pub(super) a_row: usize,
    /// From one column of `A` to the next.
    pub(super) a_col: usize,
    pub(super) b: *const T,
    /// From one row of `B` to the next, or for [`inner`] from one column to the next.
    pub(super) b_stride: usize,
    pub(super) k: usize,
    pub(super) c: *mut T,
    pub(super) c_row: usize,
    /// Numbers in the last register of each row, 1 to `LANES`.
    pub(super) last: usize,
    pub(super) write: Write,
}

/// [`outer`] as a kernel.
pub(super) struct Outer<'a, T, const ROWS: usize, const REGISTERS: usize>(pub(super) &'a Tile<T>);

impl<V: Lanes, const ROWS: usize, const REGISTERS: usize> Kernel<V>
    for Outer<'_, V::Element, ROWS, REGISTERS>
{
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: the caller's promise.
        unsafe { outer::<V, ROWS, REGISTERS>(self.0) }
    }
}

/// [`inner`] as a kernel.
pub(super) struct Inner<'a, T, const ROWS: usize, const COLS: usize>(
    pub(super) &'a Tile<T>,
    pub(super) [usize; 2],
);

impl<V: Lanes, const ROWS: usize, const COLS: usize> Kernel<V> for Inner<'_, V::Element, ROWS, COLS> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: the caller's promise.
        unsafe { inner::<V, ROWS, COLS>(self.0, self.1) }
    }
}

/// A tile of `ROWS` rows and `REGISTERS` registers, as a sum of outer products:
///
/// ```text
/// for l in 0..k { for i in 0..ROWS { for r in 0..REGISTERS { sums[i][r] += a[i][l] * b[l][r] } } }
/// ```
///
/// # Safety
///
/// The processor must know the instructions of `V`. All elements of `a` and `c` must be
/// accessible, and rows of `b` readable to their end: for an [`IS_MASKED`](Lanes::IS_MASKED) `V`
/// that is `last` numbers into the last register, else all of it.
#[inline(always)]
unsafe fn outer<V: Lanes, const ROWS: usize, const REGISTERS: usize>(tile: &Tile<V::Element>) {
    // SAFETY: the caller promises the processor.
    let zero = unsafe { V::zero() };
    let mut sums = [[zero; REGISTERS]; ROWS];
    let (mut a, mut b) = (tile.a, tile.b);
    for _ in 0..tile.k {
        let mut row = [zero; REGISTERS];
        for (r, x) in row.iter_mut().enumerate() {
            let from = b.wrapping_add(r * V::LANES);
            *x = if V::IS_MASKED && r + 1 == REGISTERS {
                // SAFETY: the caller promises `last` numbers of the last register.
                unsafe { V::load_part(from, tile.last) }
            } else {
                // SAFETY: the caller promises whole registers.
                unsafe { V::load(from) }
            };
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller promises the elements of `a`.
            let x = unsafe { V::splat(a[i / 4].wrapping_add(i % 4 * tile.a_row)) };
            for (sum, y) in sums.iter_mut().zip(row) {
                *sum = sum.add_product(x, y);
            }
        }
        a = a.map(|a| a.wrapping_add(tile.a_col));
        b = b.wrapping_add(tile.b_stride);
    }
    for (i, sums) in sums.iter().enumerate() {
        for (r, &sum) in sums.iter().enumerate() {
            let to = tile.c.wrapping_add(i * tile.c_row + r * V::LANES);
            if r + 1 < REGISTERS || tile.last == V::LANES {
                let sum = match tile.write {
                    // SAFETY: the caller promises whole registers but for the last.
                    Write::Add => unsafe { V::load(to) }.add(sum),
                    Write::Set => sum,
                };
                // SAFETY: as above.
                unsafe { sum.store(to) };
            } else {
                let sum = match tile.write {
                    // SAFETY: the caller promises `last` numbers of the last register.
                    Write::Add => unsafe { V::load_part(to, tile.last) }.add(sum),
                    Write::Set => sum,
                };
                // SAFETY: as above.
                unsafe { sum.store_part(to, tile.last) };
            }
        }
    }
}

/// A tile of `rows` rows and `cols` columns, at most `ROWS` and `COLS`, as inner products: for
/// matrices whose elements lie side by side along the sum. Neither `rows` nor `cols` may be 0, and
/// `ROWS * COLS` must be a multiple of 4.
///
/// # Safety
///
/// The processor must know the instructions of `V`, and all elements must be accessible.
#[inline(always)]
unsafe fn inner<V: Lanes, const ROWS: usize, const COLS: usize>(
    tile: &Tile<V::Element>,
    [rows, cols]: [usize; 2],
) {
    // SAFETY: the caller promises the processor.
    let zero = unsafe { V::zero() };
    let mut sums = [[zero; COLS]; ROWS];
    // Rows and columns beyond the edge repeat the last one; their sums are dropped.
    let mut a: [_; ROWS] = std::array::from_fn(|i| tile.a[0].wrapping_add(i.min(rows - 1) * tile.a_row));
    let mut b: [_; COLS] = std::array::from_fn(|j| tile.b.wrapping_add(j.min(cols - 1) * tile.b_stride));
    for _ in 0..tile.k / V::LANES {
        // SAFETY: the caller promises the elements.
        unsafe { inner_step::<V, ROWS, COLS>(&mut sums, a, b, V::LANES) };
        a = a.map(|a| a.wrapping_add(V::LANES));
        b = b.map(|b| b.wrapping_add(V::LANES));
    }
    if !tile.k.is_multiple_of(V::LANES) {
        // SAFETY: the caller promises the elements, and these are left.
        unsafe { inner_step::<V, ROWS, COLS>(&mut sums, a, b, tile.k % V::LANES) };
    }
    for (four, sums) in sums.as_flattened().as_chunks().0.iter().enumerate() {
        for (q, sum) in V::sums(sums).into_iter().enumerate() {
            let (i, j) = ((4 * four + q) / COLS, (4 * four + q) % COLS);
            if i >= rows || j >= cols {
                continue;
            }
            let to = tile.c.wrapping_add(i * tile.c_row + j);
            match tile.write {
                // SAFETY: the caller promises the elements of `c`.
                Write::Add => unsafe { *to += sum },
                // SAFETY: as above.
                Write::Set => unsafe { *to = sum },
            }
        }
    }
}

/// Adds the products of the next `n` elements of each row and column.
#[inline(always)]
unsafe fn inner_step<V: Lanes, const ROWS: usize, const COLS: usize>(
    sums: &mut [[V; COLS]; ROWS],
    a: [*const V::Element; ROWS],
    b: [*const V::Element; COLS],
    n: usize,
) {
    // SAFETY: the caller promises the processor.
    let mut columns = [unsafe { V::zero() }; COLS];
    for (column, from) in columns.iter_mut().zip(b) {
        // SAFETY: the caller promises `n` elements.
        *column = unsafe { V::load_first(from, n) };
    }
    for (sums, from) in sums.iter_mut().zip(a) {
        // SAFETY: the caller promises `n` elements.
        let x = unsafe { V::load_first(from, n) };
        for (sum, y) in sums.iter_mut().zip(columns) {
            *sum = sum.add_product(x, y);
        }
    }
}
