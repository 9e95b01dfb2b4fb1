//! What a processor brings along: numbers, registers of numbers, and loops compiled for them.

use std::ops::AddAssign;

use super::tile::Tile;
use super::{Matrix, MatrixMut, Write, blocks, native, portable};

/// `C = A B` or `C += A B` on one instruction set.
///
/// # Safety
///
/// The processor must know the instructions. Shapes must meet, and every element of the three
/// matrices lie within its slice, as [`matmul`](super::matmul) asserts.
pub(crate) type Product<T> = unsafe fn(MatrixMut<T>, Matrix<T>, Matrix<T>, Write);

/// A number that [`matmul`](super::matmul) multiplies.
pub(crate) trait Element: Copy + Default + AddAssign + 'static {
    /// The fastest product that this processor knows: always the same one in a process.
    fn product() -> Product<Self>;

    /// Rows as columns.
    #[inline(always)]
    fn transpose([a, b, c, d]: [[Self; 4]; 4]) -> [[Self; 4]; 4] {
        std::array::from_fn(|i| [a[i], b[i], c[i], d[i]])
    }
}

impl Element for f32 {
    fn product() -> Product<Self> {
        native::products().into_iter().flatten().next().unwrap_or(blocks::product::<portable::Portable<Self>>)
    }

    #[inline(always)]
    fn transpose(rows: [[Self; 4]; 4]) -> [[Self; 4]; 4] {
        native::transpose(rows)
    }
}

impl Element for f64 {
    fn product() -> Product<Self> {
        blocks::product::<portable::Portable<Self>>
    }
}

/// A register of [`LANES`](Self::LANES) numbers.
///
/// Only the `unsafe` functions make a register, and each of them demands a processor that knows
/// the instructions. Whoever holds a register has kept that promise, so the rest is safe.
pub(super) trait Lanes: Copy {
    type Element: Element;

    /// Numbers in a register.
    const LANES: usize;

    /// Whether [`load_part`](Self::load_part) is as fast as [`load`](Self::load).
    const IS_MASKED: bool;

    /// All lanes 0.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of this type.
    unsafe fn zero() -> Self;

    /// All lanes `*from`.
    ///
    /// # Safety
    ///
    /// As [`zero`](Self::zero), and `from` must be readable.
    unsafe fn splat(from: *const Self::Element) -> Self;

    /// The numbers from `from` on.
    ///
    /// # Safety
    ///
    /// As [`zero`](Self::zero), and `LANES` numbers from `from` on must be readable.
    unsafe fn load(from: *const Self::Element) -> Self;

    /// The `n` numbers from `from` on, then zeros. `n` is at least 1 and at most `LANES`.
    ///
    /// # Safety
    ///
    /// As [`zero`](Self::zero), and `n` numbers from `from` on must be readable.
    unsafe fn load_part(from: *const Self::Element, n: usize) -> Self;

    /// Writes all lanes.
    ///
    /// # Safety
    ///
    /// `LANES` numbers from `to` on must be writable.
    unsafe fn store(self, to: *mut Self::Element);

    /// Writes the first `n` lanes. `n` is at least 1 and at most `LANES`.
    ///
    /// # Safety
    ///
    /// `n` numbers from `to` on must be writable.
    unsafe fn store_part(self, to: *mut Self::Element, n: usize);

    /// `self + a * b`
    fn add_product(self, a: Self, b: Self) -> Self;

    /// `self + other`
    fn add(self, other: Self) -> Self;

    /// The sum over the lanes of each.
    fn sums(registers: &[Self; 4]) -> [Self::Element; 4];
}

/// The innermost loops, compiled for one instruction set, and the tiles that fit its registers.
pub(super) trait Isa {
    type Register: Lanes;

    /// Registers side by side in a tile, at most 3.
    const REGISTERS: usize;

    /// Rows of a tile of two or three registers: 4, 6 or 8.
    const ROWS: usize;

    /// Rows of a tile of one register: 8 or 16.
    const TALL: usize;

    /// [`tile::outer`](super::tile::outer).
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn outer<const ROWS: usize, const REGISTERS: usize>(tile: &Tile<Num<Self>>);

    /// [`tile::inner`](super::tile::inner).
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn inner<const ROWS: usize, const COLS: usize>(tile: &Tile<Num<Self>>, sides: [usize; 2]);
}

/// The numbers an instruction set works on.
pub(super) type Num<S> = <<S as Isa>::Register as Lanes>::Element;
