//! The innermost loops of convolutions: sums that stay in registers.
//!
//! A register of weights holds numbers of neighbouring *output channels* and is multiplied with single pixels.
//! Pixels can then lie anywhere: dilation and padding are a matter of addresses, and images are read as they
//! are. Matrix products of other kinds, such as sums over pixels for gradients by weights, run as the same loop
//! over other terms. How many pixels and registers a tile has follows from the registers of the set
//! ([`Isa::BUDGET`]).

use crate::kernels::simd::{Isa, Kernel, Lanes, Num};

/// Sums of some neighbouring output pixels in a row, for a panel of output channels:
///
/// ```text
/// for c, i, j, p, v:  sums[p][v] += x[c][i][j + p step] * w[c][i][j][v]
/// ```
///
/// Pixels and weights are operands: with pairs, `c` are two input channels each.
#[derive(Clone, Copy)]
pub(super) struct Pixels<T> {
    /// Where the first pixel reads its first tap.
    pub(super) x: *const T,
    /// From a pixel to the next.
    pub(super) x_step: usize,
    /// From an input channel, a row of taps and a tap to the next.
    pub(super) x_strides: [isize; 3],
    pub(super) w: *const T,
    pub(super) w_strides: [usize; 3],
    /// Input channels, rows of taps and taps in a row.
    pub(super) counts: [usize; 3],
    /// Sums of a pixel stand side by side, `width` of them.
    pub(super) sums: *mut T,
    pub(super) width: usize,
    /// Whether the sums go on, or begin.
    pub(super) adds: bool,
}

impl<T: Copy> Pixels<T> {
    /// The same terms with those of a window of one tap in the innermost loop.
    fn innermost(&self) -> Self {
        let ([n, 1, 1], [x, ..], [w, ..]) = (self.counts, self.x_strides, self.w_strides) else {
            return *self;
        };
        Self { counts: [1, 1, n], x_strides: [0, 0, x], w_strides: [0, 0, w], ..*self }
    }
}

/// Most pixels of a tile, but for the largest of its width.
const SMALL: usize = 8;

/// `0..n` cut into tiles of `most` pixels and of [`SMALL`] at most, as few and as even as there can be: `(size, count)`,
/// one behind the other. (Few divisions: rows can be short.)
fn tiles(n: usize, most: usize) -> [(usize, usize); 3] {
    let count = n.div_ceil(most);
    let (even, more) = (n / count.max(1), n % count.max(1));
    if even + usize::from(more > 0) <= SMALL || (even, more) == (most, 0) {
        return [(even + 1, more), (even, count - more), (0, 0)];
    }
    // One or two are small, the others as large as there are.
    let rest = n - (count - 1) * most;
    let large = if (SMALL - 2..=SMALL).contains(&rest) { count - 1 } else { count.saturating_sub(2) };
    let rest = n - large * most;
    let small = rest.div_ceil(SMALL);
    [(most, large), (rest / small + 1, rest % small), (rest / small, small - rest % small)]
}

/// `count` tiles of `P` pixels and `V` registers, one behind the other; pixels lie side by side where `DENSE`.
struct PixelTiles<'a, S: Isa, const P: usize, const V: usize, const DENSE: bool>(&'a Pixels<Num<S>>, usize);

impl<S: Isa, const P: usize, const V: usize, const DENSE: bool> Kernel<S::Register>
    for PixelTiles<'_, S, P, V, DENSE>
{
    #[inline(always)]
    unsafe fn run(self) {
        let Self(first, count) = self;
        let step = if DENSE { 1 } else { first.x_step };
        for i in 0..count {
            let (x, sums) =
                (first.x.wrapping_add(i * P * step), first.sums.wrapping_add(i * P * first.width));
            // SAFETY: the caller promises all tiles.
            unsafe { sum::<S, P, V>(&Pixels { x, sums, ..*first }, step) };
        }
    }
}

/// Adds up the sums of one tile.
///
/// # Safety
///
/// The processor must know the instructions of `S`, and all that is read and written must be accessible.
#[inline(always)]
unsafe fn sum<S: Isa, const P: usize, const V: usize>(tile: &Pixels<Num<S>>, step: usize) {
    let lanes = S::Register::LANES;
    // SAFETY: the caller promises the processor.
    let zero = unsafe { S::Register::zero() };
    let mut sums = [[zero; V]; P];
    if tile.adds {
        for (p, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller promises the sums.
                *sum = unsafe { S::Register::load(tile.sums.wrapping_add(p * tile.width + v * lanes)) };
            }
        }
    }
    let (mut x_channel, mut w_channel) = (tile.x, tile.w);
    for _ in 0..tile.counts[0] {
        let (mut x_row, mut w_row) = (x_channel, w_channel);
        for _ in 0..tile.counts[1] {
            let (mut x, mut w) = (x_row, w_row);
            for _ in 0..tile.counts[2] {
                let mut weights = [zero; V];
                for (v, weight) in weights.iter_mut().enumerate() {
                    // SAFETY: the caller promises the weights.
                    *weight = unsafe { S::Register::load(w.wrapping_add(v * lanes)) };
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller promises the pixels.
                    let pixel = unsafe { S::Register::splat(x.wrapping_add(p * step)) };
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        // SAFETY: the caller promises the processor.
                        *sum = unsafe { S::add_products(*sum, pixel, weight) };
                    }
                }
                x = x.wrapping_offset(tile.x_strides[2]);
                w = w.wrapping_add(tile.w_strides[2]);
            }
            x_row = x_row.wrapping_offset(tile.x_strides[1]);
            w_row = w_row.wrapping_add(tile.w_strides[1]);
        }
        x_channel = x_channel.wrapping_offset(tile.x_strides[0]);
        w_channel = w_channel.wrapping_add(tile.w_strides[0]);
    }
    for (p, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller promises the sums.
            unsafe { sum.store(tile.sums.wrapping_add(p * tile.width + v * lanes)) };
        }
    }
}

/// Rows of pixels that meet the same weights.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) count: usize,
    /// From a row to the next, in what is read and in the sums.
    pub(super) x: usize,
    pub(super) sums: usize,
}

impl Rows {
    pub(super) const ONE: Self = Self { count: 1, x: 0, sums: 0 };
}

/// Adds up the sums of `n` pixels of each row and so many registers, in tiles that fit the registers of `S`.
///
/// All rows meet the weights of a tile's width before the next, so that these stay in the first cache.
///
/// # Safety
///
/// The processor must know the instructions of `S`, and all that is read and written must be accessible.
pub(super) unsafe fn pixels<S: Isa>(all: &Pixels<Num<S>>, (rows, n): (Rows, usize), registers: usize) {
    let all = all.innermost();
    let widest = S::BUDGET.rows.len();
    for first in (0..registers).step_by(widest) {
        let (width, column) = (widest.min(registers - first), first * S::Register::LANES);
        let tiles = tiles(n, S::BUDGET.most(width));
        for row in 0..rows.count {
            let mut tile = Pixels {
                x: all.x.wrapping_add(row * rows.x),
                w: all.w.wrapping_add(column),
                sums: all.sums.wrapping_add(row * rows.sums + column),
                ..all
            };
            for &(size, count) in tiles.iter().filter(|(_, count)| *count > 0) {
                macro_rules! of {
                    ($p:literal, $v:literal) => {
                        if const { !S::BUDGET.has($p, $v) } {
                            unreachable!("a tile that no budget has")
                        } else if tile.x_step == 1 {
                            // SAFETY: the caller's promise.
                            unsafe { S::vectorize(PixelTiles::<S, $p, $v, true>(&tile, count)) }
                        } else {
                            // SAFETY: the caller's promise.
                            unsafe { S::vectorize(PixelTiles::<S, $p, $v, false>(&tile, count)) }
                        }
                    };
                }
                by_size!(size, width, of);
                tile.x = tile.x.wrapping_add(size * count * tile.x_step);
                tile.sums = tile.sums.wrapping_add(size * count * tile.width);
            }
        }
    }
}

/// Expands `$of!(SIZE, REGISTERS)` for the size and the number of registers.
macro_rules! by_size {
    ($size:expr, $registers:expr, $of:ident) => {
        match $size {
            12 => by_width!(12, $registers, $of),
            8 => by_width!(8, $registers, $of),
            7 => by_width!(7, $registers, $of),
            6 => by_width!(6, $registers, $of),
            5 => by_width!(5, $registers, $of),
            4 => by_width!(4, $registers, $of),
            3 => by_width!(3, $registers, $of),
            2 => by_width!(2, $registers, $of),
            _ => by_width!(1, $registers, $of),
        }
    };
}
use by_size;

macro_rules! by_width {
    ($size:literal, $registers:expr, $of:ident) => {
        match $registers {
            1 => $of!($size, 1),
            2 => $of!($size, 2),
            3 => $of!($size, 3),
            _ => $of!($size, 4),
        }
    };
}
use by_width;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_pixel_once_and_evenly() {
        for most in [2, 4, 6, 12] {
            for n in 0..100 {
                let all = tiles(n, most);
                assert_eq!(all.iter().map(|(size, count)| size * count).sum::<usize>(), n);
                let used = || all.iter().filter(|(_, count)| *count > 0);
                assert!(
                    used().all(|&(size, _)| size == most || (1..=SMALL.min(most)).contains(&size)),
                    "{all:?}"
                );
            }
        }
        assert_eq!(tiles(32, 6), [(6, 2), (5, 4), (0, 0)]);
        assert_eq!(tiles(24, 12)[1], (12, 2));
        assert_eq!(tiles(28, 12), [(12, 1), (9, 0), (8, 2)]);
        assert_eq!(tiles(20, 12), [(12, 1), (9, 0), (8, 1)]);
        assert_eq!(tiles(10, 12), [(12, 0), (6, 0), (5, 2)]);
    }
}
