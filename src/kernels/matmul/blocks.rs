//! The outer loops: which part of the product is computed when, and what is copied for it.
//!
//! ```text
//! for each piece l of the sum                        the same pieces for the same shapes
//!     for each block i of rows                       A[i, l] stays in the second-level cache
//!         for each panel j, a few registers wide     B[l, j] stays in the first
//!             copy B[l, j] if it cannot be read as it is
//!             for each tile of rows                  sums stay in registers
//!                 C[i, j] += A[i, l] B[l, j]
//! ```
//!
//! These are the loops of Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008, as BLIS arranges them (Van Zee and van de Geijn, "BLIS: A Framework for
//! Rapidly Instantiating BLAS Functionality", 2015), but for the copies: those pay on matrices of
//! thousands of rows. Ours are small and mostly row-major, and reading them in place is faster.

use std::cell::Cell;
use std::ops::Range;

use super::tile::{Inner, Outer, Tile};
use super::{Matrix, MatrixMut, SCRATCH, Write, pack};
use crate::kernels::simd::{Element, Isa, Job, Lanes, Num};

/// Most columns of a panel: three registers of AVX-512.
const WIDEST: usize = 48;

/// Most terms of a sum that are added in one go: 384, so that a panel fits the scratch.
const DEPTH: usize = SCRATCH / (WIDEST * size_of::<f32>());

/// Most elements of a block of `A`: 256 KiB of f32, a small second-level cache.
const BLOCK: usize = 64 * 1024;

/// Rows of a block are a multiple of this, which tiles of 4, 6 and 8 rows divide.
const ROUND: usize = 24;

/// Rows of `B` that are this many bytes, or a multiple, apart compete for the same few places of
/// a cache.
const ALIAS_BYTES: usize = 4096;

/// `C = A B` or `C += A B`. Shapes must meet, and every element of the three matrices lie within its
/// slice, as [`matmul`](super::matmul) asserts.
pub(super) struct Product<'a, T> {
    pub(super) c: MatrixMut<'a, T>,
    pub(super) a: Matrix<'a, T>,
    pub(super) b: Matrix<'a, T>,
    pub(super) write: Write,
}

impl<T: Element> Job<T> for Product<'_, T> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        // SAFETY: the caller's promise.
        unsafe { product::<S>(self.c, self.a, self.b, self.write) }
    }
}

/// [`Product`] by the instructions of `S`.
///
/// # Safety
///
/// As there.
unsafe fn product<S: Isa>(mut c: MatrixMut<Num<S>>, a: Matrix<Num<S>>, b: Matrix<Num<S>>, write: Write) {
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    if a.cols == 0 {
        let rows = if write == Write::Set { a.rows } else { 0 };
        (0..rows).for_each(|i| c.data[i * c.row_stride..][..b.cols].fill(Default::default()));
        return;
    }
    if wants_inner_products::<S>(&a, &b) {
        // SAFETY: the caller's promise, and `a` and `b` are contiguous along the sum.
        return unsafe { inner_products::<S>(&mut c, a, b, write) };
    }
    let mut scratch = Scratch::take();
    // SAFETY: the caller's promise.
    unsafe { outer_products::<S>(&mut c, a, b, write, scratch.elements()) };
    scratch.give_back();
}

/// Whether both matrices are contiguous along the sum, and so few tiles share a panel that
/// transposing it takes longer than adding up across lanes. Measured.
fn wants_inner_products<S: Isa>(a: &Matrix<Num<S>>, b: &Matrix<Num<S>>) -> bool {
    let lie_along = a.col_stride == 1 && b.row_stride == 1;
    let is_transposed = b.col_stride != 1 && a.rows <= 16 && a.cols >= 16 * S::Register::LANES;
    lie_along && (b.cols == 1 || is_transposed)
}

/// # Safety
///
/// As [`product`]; neither side of `C` nor the sum is empty, and `a` is contiguous by rows and
/// `b` by columns.
unsafe fn inner_products<S: Isa>(
    c: &mut MatrixMut<Num<S>>,
    a: Matrix<Num<S>>,
    b: Matrix<Num<S>>,
    write: Write,
) {
    let mut j = 0;
    while j < b.cols {
        let [rows, cols] = if j + 1 == b.cols { [8, 1] } else { [2, 4] };
        for i in (0..a.rows).step_by(rows) {
            let tile = Tile {
                a: [a.data.as_ptr().wrapping_add(i * a.row_stride); 4],
                a_row: a.row_stride,
                a_col: 1,
                b: b.data.as_ptr().wrapping_add(j * b.col_stride),
                b_stride: b.col_stride,
                k: a.cols,
                c: c.data.as_mut_ptr().wrapping_add(i * c.row_stride + j),
                c_row: c.row_stride,
                last: 1,
                write,
            };
            let sides = [rows.min(a.rows - i), cols.min(b.cols - j)];
            match cols {
                // SAFETY: the tile lies within the matrices, all of whose elements are accessible.
                1 => unsafe { S::vectorize(Inner::<_, 8, 1>(&tile, sides)) },
                // SAFETY: as above.
                _ => unsafe { S::vectorize(Inner::<_, 2, 4>(&tile, sides)) },
            }
        }
        j += cols;
    }
}

/// # Safety
///
/// As [`product`]; neither side of `C` nor the sum is empty.
unsafe fn outer_products<S: Isa>(
    c: &mut MatrixMut<Num<S>>,
    a: Matrix<Num<S>>,
    b: Matrix<Num<S>>,
    write: Write,
    scratch: &mut [Num<S>],
) {
    for l in pieces(a.cols, DEPTH, 1) {
        let write = if l.start == 0 { write } else { Write::Add };
        for i in pieces(a.rows, BLOCK / l.len(), ROUND) {
            let a = a.part(i.clone(), l.clone());
            for j in panels::<S>(b.cols) {
                let registers = j.len().div_ceil(S::Register::LANES);
                // SAFETY: the caller promises the processor.
                let (from, b_stride) = unsafe { panel::<S>(b.part(l.clone(), j.clone()), a.rows, scratch) };
                let mut row = 0;
                while row < a.rows {
                    let rows = rows::<S>(a.rows - row, registers);
                    let start = a.data.as_ptr().wrapping_add(row * a.row_stride);
                    let tile = Tile {
                        a: std::array::from_fn(|q| start.wrapping_add(4 * q * a.row_stride)),
                        a_row: a.row_stride,
                        a_col: a.col_stride,
                        b: from,
                        b_stride,
                        k: l.len(),
                        c: c.data.as_mut_ptr().wrapping_add((i.start + row) * c.row_stride + j.start),
                        c_row: c.row_stride,
                        last: j.len() - (registers - 1) * S::Register::LANES,
                        write,
                    };
                    // SAFETY: the tile lies within the matrices, all of whose elements are
                    // accessible; `panel` gave whole registers unless `S` loads parts.
                    unsafe { outer::<S>(&tile, [rows, registers]) };
                    row += rows;
                }
            }
        }
    }
}

/// `0..n` in pieces of about the same length: at most `most`, but for rounding up to `round`.
fn pieces(n: usize, most: usize, round: usize) -> impl Iterator<Item = Range<usize>> {
    let length = n.div_ceil(n.div_ceil(most.max(1))).next_multiple_of(round);
    (0..n).step_by(length).map(move |start| start..n.min(start + length))
}

/// `0..n` in panels as wide as a tile. The last two share what is left, since a tile of a single
/// register waits for its own sums.
fn panels<S: Isa>(n: usize) -> impl Iterator<Item = Range<usize>> {
    let (mut start, widest) = (0, S::BUDGET.product.len());
    std::iter::from_fn(move || {
        let left = (n - start).div_ceil(S::Register::LANES);
        let registers = if left == widest + 1 { 2 } else { left.min(widest) };
        let panel = start..n.min(start + registers * S::Register::LANES);
        start = panel.end;
        (!panel.is_empty()).then_some(panel)
    })
}

/// Where to read a panel of `B`, which `rows` rows of `A` will be multiplied by, and the step
/// from one of its rows to the next.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
unsafe fn panel<S: Isa>(b: Matrix<Num<S>>, rows: usize, scratch: &mut [Num<S>]) -> (*const Num<S>, usize) {
    let width = b.cols.next_multiple_of(S::Register::LANES);
    let is_ragged = b.cols < width && !S::Register::IS_MASKED;
    let is_aliased = (b.row_stride * size_of::<Num<S>>()).is_multiple_of(ALIAS_BYTES)
        && rows >= 2 * S::BUDGET.product.len() * S::Register::LANES;
    if b.col_stride == 1 && !is_ragged && !is_aliased {
        return (b.data.as_ptr(), b.row_stride);
    }
    // SAFETY: the caller promises the processor.
    unsafe { pack::rows::<S>(scratch, b, width) };
    (scratch.as_ptr(), width)
}

/// Rows of the next tile, when `left` are left.
fn rows<S: Isa>(left: usize, registers: usize) -> usize {
    let most = S::BUDGET.product[registers - 1];
    // Six and two would be a good tile and a poor one.
    if left >= most && left != 8 {
        return most;
    }
    match left {
        1 => 1,
        2..=3 => 2,
        4..=7 => 4,
        _ if most < 8 => 4,
        _ => 8,
    }
}

/// # Safety
///
/// As [`tile::outer`](super::tile::outer), with these rows and registers.
unsafe fn outer<S: Isa>(tile: &Tile<Num<S>>, shape: [usize; 2]) {
    macro_rules! of {
        ($rows:literal, $registers:literal) => {
            if const { S::BUDGET.has_product($rows, $registers) } {
                // SAFETY: the caller's promise.
                unsafe { S::vectorize(Outer::<_, $rows, $registers>(tile)) }
            }
        };
    }
    match shape {
        [16, 1] => of!(16, 1),
        [8, 1] => of!(8, 1),
        [4, 1] => of!(4, 1),
        [2, 1] => of!(2, 1),
        [_, 1] => of!(1, 1),
        [8, 2] => of!(8, 2),
        [6, 2] => of!(6, 2),
        [4, 2] => of!(4, 2),
        [2, 2] => of!(2, 2),
        [_, 2] => of!(1, 2),
        [8, _] => of!(8, 3),
        [4, _] => of!(4, 3),
        [2, _] => of!(2, 3),
        [_, _] => of!(1, 3),
    }
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// The [`SCRATCH`] bytes of a thread.
struct Scratch(Box<[Line]>);

thread_local! {
    static SPARE: Cell<Option<Scratch>> = const { Cell::new(None) };
}

/// Whether this thread has its scratch already.
pub(crate) fn has_scratch() -> bool {
    SPARE
        .try_with(|spare| {
            let scratch = spare.take();
            let has = scratch.is_some();
            spare.set(scratch);
            has
        })
        .unwrap_or(false)
}

impl Scratch {
    fn take() -> Self {
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        spare.unwrap_or_else(|| Self(vec![Line([0; 64]); SCRATCH / size_of::<Line>()].into()))
    }

    /// For the next product on this thread.
    fn give_back(self) {
        // A thread that is ending frees it instead.
        let _ = SPARE.try_with(|spare| spare.set(Some(self)));
    }

    fn elements<T: Element>(&mut self) -> &mut [T] {
        let n = SCRATCH / size_of::<T>();
        // SAFETY: the bytes are initialized, exclusively borrowed and aligned to a cache line;
        // every pattern of bits is an `f32` and an `f64`, the only implementations of `Element`.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), n) }
    }
}
