//! The innermost loops of convolutions: sums that stay in registers.
//!
//! Both loops multiply a register of weights, or of gradients, which holds numbers of neighbouring
//! *output channels*, with single pixels. Pixels can then lie anywhere: any stride, dilation and
//! padding is a matter of addresses, and images are read as they are.

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

/// Sums over pixels, for some taps and a panel of output channels:
///
/// ```text
/// for y, x, q, v:  sums[q][v] += xs[q][y][x step] * dy[y][x][v]
/// ```
pub(super) struct Taps<T> {
    /// From a row of pixels and from a pixel to the next.
    pub(super) x_strides: [usize; 2],
    pub(super) dy: *const T,
    /// Rows of pixels and pixels in a row.
    pub(super) counts: [usize; 2],
    /// Sums of a tap, and gradients of a pixel, stand side by side, `width` of them.
    pub(super) sums: *mut T,
    pub(super) width: usize,
}

/// Most pixels, or taps, of a tile with a panel of so many registers.
pub(super) fn most(registers: usize) -> usize {
    if registers > 2 { 6 } else { 12 }
}

/// The sizes a tile may have.
const SIZES: [usize; 9] = [12, 8, 7, 6, 5, 4, 3, 2, 1];

/// `0..n` cut into tiles of nearly the same size: `(start, size)`.
pub(super) fn tiles(n: usize, registers: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = n - start;
        let even = left.div_ceil(left.div_ceil(most(registers)).max(1));
        let size = SIZES.into_iter().find(|&size| size <= even)?;
        start += size;
        Some((start - size, size))
    })
}

/// `P` pixels and `V` registers; pixels lie side by side where `DENSE`.
struct PixelTile<'a, S: Isa, const P: usize, const V: usize, const DENSE: bool>(&'a Pixels<Num<S>>);

impl<S: Isa, const P: usize, const V: usize, const DENSE: bool> Kernel<S::Register>
    for PixelTile<'_, S, P, V, DENSE>
{
    #[inline(always)]
    unsafe fn run(self) {
        let (tile, lanes) = (self.0, S::Register::LANES);
        let step = if DENSE { 1 } else { tile.x_step };
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
}

/// `Q` taps and `V` registers; pixels of a row lie side by side where `DENSE`.
struct TapTile<'a, T, const Q: usize, const V: usize, const DENSE: bool>(
    &'a Taps<T>,
    /// Where each tap reads the first pixel.
    &'a [*const T; Q],
);

impl<R: Lanes, const Q: usize, const V: usize, const DENSE: bool> Kernel<R>
    for TapTile<'_, R::Element, Q, V, DENSE>
{
    #[inline(always)]
    unsafe fn run(self) {
        let Self(tile, &(mut rows)) = self;
        let step = if DENSE { 1 } else { tile.x_strides[1] };
        // SAFETY: the caller promises the processor.
        let zero = unsafe { R::zero() };
        let mut sums = [[zero; V]; Q];
        let mut dy = tile.dy;
        for _ in 0..tile.counts[0] {
            for i in 0..tile.counts[1] {
                let mut gradients = [zero; V];
                for (v, gradient) in gradients.iter_mut().enumerate() {
                    // SAFETY: the caller promises the gradients.
                    *gradient = unsafe { R::load(dy.wrapping_add(v * R::LANES)) };
                }
                for (sums, x) in sums.iter_mut().zip(rows) {
                    // SAFETY: the caller promises the pixels.
                    let pixel = unsafe { R::splat(x.wrapping_add(i * step)) };
                    for (sum, gradient) in sums.iter_mut().zip(gradients) {
                        *sum = sum.add_product(pixel, gradient);
                    }
                }
                dy = dy.wrapping_add(tile.width);
            }
            rows = rows.map(|x| x.wrapping_add(tile.x_strides[0]));
        }
        for (q, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let to = tile.sums.wrapping_add(q * tile.width + v * R::LANES);
                // SAFETY: the caller promises the sums.
                let before = unsafe { R::load(to) };
                // SAFETY: as above.
                unsafe { before.add(sum).store(to) };
            }
        }
    }
}

/// Expands `$of!(SIZE, REGISTERS)` for the size and the number of registers.
macro_rules! by_size {
    ($size:expr, $registers:expr, $of:ident) => {
        match ($size, $registers) {
            (12, 1) => $of!(12, 1),
            (12, _) => $of!(12, 2),
            (8, 1) => $of!(8, 1),
            (8, _) => $of!(8, 2),
            (7, 1) => $of!(7, 1),
            (7, _) => $of!(7, 2),
            (6, 1) => $of!(6, 1),
            (6, 2) => $of!(6, 2),
            (6, 3) => $of!(6, 3),
            (6, _) => $of!(6, 4),
            (5, 1) => $of!(5, 1),
            (5, 2) => $of!(5, 2),
            (5, 3) => $of!(5, 3),
            (5, _) => $of!(5, 4),
            (4, 1) => $of!(4, 1),
            (4, 2) => $of!(4, 2),
            (4, 3) => $of!(4, 3),
            (4, _) => $of!(4, 4),
            (3, 1) => $of!(3, 1),
            (3, 2) => $of!(3, 2),
            (3, 3) => $of!(3, 3),
            (3, _) => $of!(3, 4),
            (2, 1) => $of!(2, 1),
            (2, 2) => $of!(2, 2),
            (2, 3) => $of!(2, 3),
            (2, _) => $of!(2, 4),
            (_, 1) => $of!(1, 1),
            (_, 2) => $of!(1, 2),
            (_, 3) => $of!(1, 3),
            (_, _) => $of!(1, 4),
        }
    };
}

/// Runs the tile, of one of [`tiles`] sizes and of 1 to 4 registers.
///
/// # Safety
///
/// The processor must know the instructions of `S`, and all that the tile reads and writes must be
/// accessible.
pub(super) unsafe fn pixels<S: Isa>(tile: &Pixels<Num<S>>, size: usize, registers: usize) {
    macro_rules! of {
        ($p:literal, $v:literal) => {
            if tile.x_step == 1 {
                // SAFETY: the caller's promise.
                unsafe { S::vectorize(PixelTile::<S, $p, $v, true>(tile)) }
            } else {
                // SAFETY: the caller's promise.
                unsafe { S::vectorize(PixelTile::<S, $p, $v, false>(tile)) }
            }
        };
    }
    by_size!(size, registers, of)
}

/// Runs the tile, of one of [`tiles`] sizes and of 1 to 4 registers; the taps read their first pixels at
/// the addresses.
///
/// # Safety
///
/// As [`pixels`].
pub(super) unsafe fn taps<S: Isa>(
    tile: &Taps<Num<S>>,
    (size, address): (usize, impl Fn(usize) -> *const Num<S>),
    registers: usize,
) {
    macro_rules! of {
        ($q:literal, $v:literal) => {{
            let xs = std::array::from_fn(&address);
            if tile.x_strides[1] == 1 {
                // SAFETY: the caller's promise.
                unsafe { S::vectorize(TapTile::<_, $q, $v, true>(tile, &xs)) }
            } else {
                // SAFETY: the caller's promise.
                unsafe { S::vectorize(TapTile::<_, $q, $v, false>(tile, &xs)) }
            }
        }};
    }
    by_size!(size, registers, of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_pixel_once_and_evenly() {
        for registers in 1..=4 {
            for n in 0..100 {
                let tiles: Vec<(usize, usize)> = tiles(n, registers).collect();
                let mut end = 0;
                for &(start, size) in &tiles {
                    assert_eq!(start, end);
                    assert!((1..=most(registers)).contains(&size));
                    end += size;
                }
                assert_eq!(end, n);
            }
        }
        assert_eq!(tiles(32, 4).map(|(_, size)| size).collect::<Vec<_>>(), [6, 6, 5, 5, 5, 5]);
    }
}
