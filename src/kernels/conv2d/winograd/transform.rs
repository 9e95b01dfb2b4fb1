//! The transforms along one axis, and the loops that apply them along both.
//!
//! Points are 0, +-a, +-b and infinity with a = sqrt(1/2) and b = sqrt(2): their squares add up to 5/2
//! and multiply to 1, which keeps numbers of all points of one size. (Points whose pairs are inverse
//! to each other: Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution
//! for Deep Neural Networks", 2020.)

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use super::{POINTS, SIDE, TILE};
use crate::kernels::Real;
use crate::kernels::simd::{Kernel, Lanes};

/// Factors of the transforms in the numbers that are computed with.
#[derive(Clone, Copy)]
pub(super) struct Factors<T> {
    /// a, -a, b, -b
    points: [T; 4],
    /// -a^2, -b^2, -(a^2 + b^2)
    squares: [T; 3],
    /// a^2, b^2, a^3, b^3 and -1
    powers: [T; 5],
    /// Of the polynomials' values at a and b: of the window's outer taps there and of its middle one.
    window: [T; 8],
}

impl<T: Real> Factors<T> {
    pub(super) fn new() -> Self {
        let (a, b) = (FRAC_1_SQRT_2, SQRT_2);
        // 1 over the product of a point's distances to the others.
        let (at_a, at_b) = (1.0 / (2.0 * 0.5 * (0.5 - 2.0)), 1.0 / (2.0 * 2.0 * (2.0 - 0.5)));
        let of = T::from_f64;
        Self {
            points: [a, -a, b, -b].map(of),
            squares: [-0.5, -2.0, -2.5].map(of),
            powers: [0.5, 2.0, 0.5 * a, 2.0 * b, -1.0].map(of),
            window: [at_a, 0.5 * at_a, a * at_a, -a * at_a, at_b, 2.0 * at_b, b * at_b, -b * at_b].map(of),
        }
    }
}

/// Registers of the same numbers.
///
/// # Safety
///
/// The processor must know the instructions of `V`.
#[inline(always)]
unsafe fn splat<V: Lanes, const N: usize>(numbers: &[V::Element; N]) -> [V; N] {
    // SAFETY: the caller promises the processor, and a number can be read.
    std::array::from_fn(|i| unsafe { V::splat(&raw const numbers[i]) })
}

/// Six inputs at the six points.
#[inline(always)]
fn inputs<V: Lanes>(
    d: [V; SIDE],
    [a, minus_a, b, minus_b]: [V; 4],
    [minus_a2, minus_b2, minus_both]: [V; 3],
) -> [V; SIDE] {
    let (even_a, odd_a) = (d[4].add_product(d[2], minus_b2), d[3].add_product(d[1], minus_b2));
    let (even_b, odd_b) = (d[4].add_product(d[2], minus_a2), d[3].add_product(d[1], minus_a2));
    [
        d[0].add(d[4]).add_product(d[2], minus_both),
        even_a.add_product(odd_a, a),
        even_a.add_product(odd_a, minus_a),
        even_b.add_product(odd_b, b),
        even_b.add_product(odd_b, minus_b),
        d[1].add(d[5]).add_product(d[3], minus_both),
    ]
}

/// Four outputs from products at the six points.
#[inline(always)]
fn outputs<V: Lanes>(
    m: [V; SIDE],
    zero: V,
    [a, _, b, _]: [V; 4],
    [a2, b2, a3, b3, minus]: [V; 5],
) -> [V; TILE] {
    let (even_a, odd_a) = (m[1].add(m[2]), m[1].add_product(m[2], minus));
    let (even_b, odd_b) = (m[3].add(m[4]), m[3].add_product(m[4], minus));
    [
        m[0].add(even_a).add(even_b),
        zero.add_product(odd_a, a).add_product(odd_b, b),
        zero.add_product(even_a, a2).add_product(even_b, b2),
        m[5].add_product(odd_a, a3).add_product(odd_b, b3),
    ]
}

/// Three taps at the six points.
#[inline(always)]
fn window<V: Lanes>(g: [V; 3], zero: V, factors: [V; 8]) -> [V; SIDE] {
    let [a, a_last, a_middle, minus_a_middle, b, b_last, b_middle, minus_b_middle] = factors;
    let at_a = zero.add_product(g[0], a).add_product(g[2], a_last);
    let at_b = zero.add_product(g[0], b).add_product(g[2], b_last);
    [
        g[0],
        at_a.add_product(g[1], a_middle),
        at_a.add_product(g[1], minus_a_middle),
        at_b.add_product(g[1], b_middle),
        at_b.add_product(g[1], minus_b_middle),
        g[2],
    ]
}

/// Four gradients at the six points: [`outputs`] the other way.
#[inline(always)]
fn gradients<V: Lanes>(y: [V; TILE], [a, minus_a, b, minus_b]: [V; 4], [a2, b2, ..]: [V; 5]) -> [V; SIDE] {
    let (even_a, odd_a) = (y[0].add_product(y[2], a2), y[1].add_product(y[3], a2));
    let (even_b, odd_b) = (y[0].add_product(y[2], b2), y[1].add_product(y[3], b2));
    [
        y[0],
        even_a.add_product(odd_a, a),
        even_a.add_product(odd_a, minus_a),
        even_b.add_product(odd_b, b),
        even_b.add_product(odd_b, minus_b),
        y[3],
    ]
}

/// Three taps from sums at the six points: [`window`] the other way.
#[inline(always)]
fn taps<V: Lanes>(u: [V; SIDE], zero: V, factors: [V; 8], minus: V) -> [V; 3] {
    let [a, a_last, a_middle, _, b, b_last, b_middle, _] = factors;
    let (even_a, odd_a) = (u[1].add(u[2]), u[1].add_product(u[2], minus));
    let (even_b, odd_b) = (u[3].add(u[4]), u[3].add_product(u[4], minus));
    [
        u[0].add_product(even_a, a).add_product(even_b, b),
        zero.add_product(odd_a, a_middle).add_product(odd_b, b_middle),
        u[5].add_product(even_a, a_last).add_product(even_b, b_last),
    ]
}

/// Inputs transformed down: `n` columns of a strip of six rows, a register a pixel.
pub(super) struct Down<'a, T> {
    pub(super) factors: &'a Factors<T>,
    pub(super) from: *const T,
    pub(super) to: *mut T,
    /// From a row to the next.
    pub(super) rows: [usize; 2],
    pub(super) n: usize,
}

impl<V: Lanes> Kernel<V> for Down<'_, V::Element> {
    /// The six rows must be readable and writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { factors, from, to, rows, n } = self;
        // SAFETY: the caller promises the processor.
        let (points, squares) = unsafe { (splat(&factors.points), splat(&factors.squares)) };
        for x in 0..n {
            let at = |row: usize, i: usize| i * row + x * V::LANES;
            // SAFETY: the caller promises six rows of `n` pixels.
            let d = std::array::from_fn(|i| unsafe { V::load(from.wrapping_add(at(rows[0], i))) });
            for (i, y) in inputs(d, points, squares).into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { y.store(to.wrapping_add(at(rows[1], i))) };
            }
        }
    }
}

/// Inputs transformed across, from six rows: those of each point stand together, `step` apart from
/// tile to tile.
pub(super) struct Across<'a, T> {
    pub(super) factors: &'a Factors<T>,
    pub(super) from: *const T,
    pub(super) row: usize,
    pub(super) to: *mut T,
    /// From a point to the next.
    pub(super) point: usize,
    pub(super) step: usize,
    pub(super) tiles: usize,
}

impl<V: Lanes> Kernel<V> for Across<'_, V::Element> {
    /// All pixels of the tiles must be readable, and their points writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { factors, from, row, to, point, step, tiles } = self;
        // SAFETY: the caller promises the processor.
        let (points, squares) = unsafe { (splat(&factors.points), splat(&factors.squares)) };
        for tile in 0..tiles {
            for i in 0..SIDE {
                let from = from.wrapping_add(i * row + TILE * tile * V::LANES);
                // SAFETY: the caller promises six pixels of six rows for each tile.
                let d = std::array::from_fn(|j| unsafe { V::load(from.wrapping_add(j * V::LANES)) });
                for (j, y) in inputs(d, points, squares).into_iter().enumerate() {
                    // SAFETY: the caller promises the points of each tile.
                    unsafe { y.store(to.wrapping_add((i * SIDE + j) * point + tile * step)) };
                }
            }
        }
    }
}

/// Outputs of a row of tiles from the products at their points: `[row][pixel]`, a register each.
pub(super) struct Outputs<'a, T> {
    pub(super) factors: &'a Factors<T>,
    pub(super) from: *const T,
    /// From a point to the next, and from a tile to the next.
    pub(super) strides: [usize; 2],
    pub(super) tiles: usize,
    pub(super) to: *mut T,
    /// Rows and pixels of a row that are written.
    pub(super) size: [usize; 2],
}

impl<V: Lanes> Kernel<V> for Outputs<'_, V::Element> {
    /// All points of the tiles must be readable, and the pixels writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { factors, from, strides: [point, step], tiles, to, size: [rows, pixels] } = self;
        // SAFETY: the caller promises the processor.
        let (zero, points, powers) = unsafe { (V::zero(), splat(&factors.points), splat(&factors.powers)) };
        for tile in 0..tiles {
            let mut down = [[zero; SIDE]; TILE];
            for j in 0..SIDE {
                let at = |i: usize| from.wrapping_add((i * SIDE + j) * point + tile * step);
                // SAFETY: the caller promises the points of each tile.
                let m = std::array::from_fn(|i| unsafe { V::load(at(i)) });
                for (row, y) in down.iter_mut().zip(outputs(m, zero, points, powers)) {
                    row[j] = y;
                }
            }
            let (x, n) = (TILE * tile, TILE.min(pixels - TILE * tile));
            for (i, row) in down.into_iter().enumerate().take(rows) {
                for (j, y) in outputs(row, zero, points, powers).into_iter().enumerate().take(n) {
                    // SAFETY: the caller promises these pixels.
                    unsafe { y.store(to.wrapping_add((i * pixels + x + j) * V::LANES)) };
                }
            }
        }
    }
}

/// Windows of one input channel: nine taps, `width` output channels each, at all points.
pub(super) struct Windows<'a, T> {
    pub(super) factors: &'a Factors<T>,
    pub(super) from: *const T,
    pub(super) to: *mut T,
    /// From a point to the next.
    pub(super) point: usize,
    pub(super) width: usize,
    /// Whether taps stand in falling order, down and across.
    pub(super) flipped: [bool; 2],
}

impl<V: Lanes> Kernel<V> for Windows<'_, V::Element> {
    /// The taps must be readable, and the points writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { factors, from, to, point, width, flipped } = self;
        // SAFETY: the caller promises the processor.
        let (zero, factors) = unsafe { (V::zero(), splat(&factors.window)) };
        let turned = |i: usize, flipped: bool| if flipped { 2 - i } else { i };
        for at in (0..width).step_by(V::LANES) {
            let mut down = [[zero; 3]; SIDE];
            for j in 0..3 {
                let tap = |i: usize| 3 * turned(i, flipped[0]) + turned(j, flipped[1]);
                // SAFETY: the caller promises nine taps.
                let g = std::array::from_fn(|i| unsafe { V::load(from.wrapping_add(tap(i) * width + at)) });
                for (row, u) in down.iter_mut().zip(window(g, zero, factors)) {
                    row[j] = u;
                }
            }
            for (i, row) in down.into_iter().enumerate() {
                for (j, u) in window(row, zero, factors).into_iter().enumerate() {
                    // SAFETY: the caller promises the points.
                    unsafe { u.store(to.wrapping_add((i * SIDE + j) * point + at)) };
                }
            }
        }
    }
}

/// Gradients by the outputs of a row of tiles at the points; those beyond the edge are 0.
pub(super) struct Gradients<'a, T> {
    pub(super) factors: &'a Factors<T>,
    /// `[row][pixel]`, a register each.
    pub(super) from: *const T,
    /// Rows and pixels of a row that there are.
    pub(super) size: [usize; 2],
    pub(super) tiles: usize,
    pub(super) to: *mut T,
    /// From a point to the next, and from a tile to the next.
    pub(super) point: usize,
    pub(super) step: usize,
}

impl<V: Lanes> Kernel<V> for Gradients<'_, V::Element> {
    /// The pixels must be readable, and the points of all tiles writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { factors, from, size: [rows, pixels], tiles, to, point, step } = self;
        // SAFETY: the caller promises the processor.
        let (zero, points, powers) = unsafe { (V::zero(), splat(&factors.points), splat(&factors.powers)) };
        for tile in 0..tiles {
            let mut down = [[zero; TILE]; SIDE];
            for j in 0..TILE.min(pixels - TILE * tile) {
                let mut y = [zero; TILE];
                for (i, y) in y.iter_mut().enumerate().take(rows) {
                    let at = i * pixels + TILE * tile + j;
                    // SAFETY: the caller promises these pixels.
                    *y = unsafe { V::load(from.wrapping_add(at * V::LANES)) };
                }
                for (row, y) in down.iter_mut().zip(gradients(y, points, powers)) {
                    row[j] = y;
                }
            }
            for (i, row) in down.into_iter().enumerate() {
                for (j, y) in gradients(row, points, powers).into_iter().enumerate() {
                    // SAFETY: the caller promises the points of each tile.
                    unsafe { y.store(to.wrapping_add((i * SIDE + j) * point + tile * step)) };
                }
            }
        }
    }
}

/// The taps of one input channel from sums at the points, `width` output channels each:
/// [`Windows`] the other way.
pub(super) struct Taps<'a, T> {
    pub(super) factors: &'a Factors<T>,
    pub(super) from: *const T,
    /// From a point to the next.
    pub(super) point: usize,
    pub(super) to: *mut T,
    pub(super) width: usize,
}

impl<V: Lanes> Kernel<V> for Taps<'_, V::Element> {
    /// The points must be readable, and nine taps writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { factors, from, point, to, width } = self;
        // SAFETY: the caller promises the processor.
        let (zero, of, [.., minus]) = unsafe { (V::zero(), splat(&factors.window), splat(&factors.powers)) };
        for at in (0..width).step_by(V::LANES) {
            let mut down = [[zero; SIDE]; 3];
            for j in 0..SIDE {
                let from = |i: usize| from.wrapping_add((i * SIDE + j) * point + at);
                // SAFETY: the caller promises the points.
                let u = std::array::from_fn(|i| unsafe { V::load(from(i)) });
                for (row, w) in down.iter_mut().zip(taps(u, zero, of, minus)) {
                    row[j] = w;
                }
            }
            for (i, row) in down.into_iter().enumerate() {
                for (j, w) in taps(row, zero, of, minus).into_iter().enumerate() {
                    // SAFETY: the caller promises nine taps.
                    unsafe { w.store(to.wrapping_add((3 * i + j) * width + at)) };
                }
            }
        }
    }
}

const _: () = assert!(POINTS == SIDE * SIDE);
