//! The loops that apply the transforms along both axes, a register of channels at a time.

use super::points::Points;
use super::strip::Columns;
use super::{POINTS, SIDE, TILE};
use crate::kernels::simd::{Isa, Kernel, Lanes, Num};

/// Inputs transformed down: `n` columns of a strip of six rows, a register a pixel.
pub(super) struct Down<'a, T> {
    pub(super) points: &'a Points<T>,
    pub(super) from: *const T,
    /// From a column that is read to the next.
    pub(super) step: usize,
    pub(super) to: *mut T,
    /// From a row to the next.
    pub(super) rows: [usize; 2],
    pub(super) n: usize,
}

impl<V: Lanes> Kernel<V> for Down<'_, V::Element> {
    /// The six rows must be readable and writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, step, to, rows, n } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<V>() };
        for x in 0..n {
            // SAFETY: the caller promises six rows of `n` pixels.
            let d = std::array::from_fn(|i| unsafe { V::load(from.wrapping_add(i * rows[0] + x * step)) });
            for (i, y) in points.inputs(d).into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { y.store(to.wrapping_add(i * rows[1] + x * V::LANES)) };
            }
        }
    }
}

/// Inputs transformed across, from six rows: those of each point stand together as operands,
/// `step` apart from tile to tile.
pub(super) struct Across<'a, S: Isa> {
    pub(super) points: &'a Points<Num<S>>,
    pub(super) from: *const Num<S>,
    pub(super) row: usize,
    pub(super) to: *mut Num<S>,
    /// From a point to the next.
    pub(super) point: usize,
    pub(super) step: usize,
    pub(super) tiles: usize,
}

impl<S: Isa> Kernel<S::Register> for Across<'_, S> {
    /// All pixels of the tiles must be readable, and their points writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, row, to, point, step, tiles } = self;
        let lanes = S::Register::LANES;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<S::Register>() };
        for tile in 0..tiles {
            for i in 0..SIDE {
                let from = from.wrapping_add(i * row + TILE * tile * lanes);
                // SAFETY: the caller promises six pixels of six rows for each tile.
                let d = std::array::from_fn(|j| unsafe { S::Register::load(from.wrapping_add(j * lanes)) });
                for (j, y) in points.inputs(d).into_iter().enumerate() {
                    // SAFETY: the caller promises the points of each tile.
                    unsafe { S::store_operand(y, to.wrapping_add((i * SIDE + j) * point + tile * step)) };
                }
            }
        }
    }
}

/// Outputs of the tiles of a phase from the products at their points: `[row][pixel]`, a register each.
pub(super) struct Outputs<'a, T> {
    pub(super) points: &'a Points<T>,
    pub(super) from: *const T,
    /// From a point to the next, and from a tile to the next.
    pub(super) strides: [usize; 2],
    pub(super) to: *mut T,
    /// Pixels of a row, rows that are written, and columns.
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) columns: Columns,
}

impl<V: Lanes> Kernel<V> for Outputs<'_, V::Element> {
    /// All points of the tiles must be readable, and the pixels writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, strides: [point, step], to, row, rows, columns } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<V>() };
        for tile in 0..columns.tiles {
            let mut down = [[points.zero(); SIDE]; TILE];
            for j in 0..SIDE {
                let at = |i: usize| from.wrapping_add((i * SIDE + j) * point + tile * step);
                // SAFETY: the caller promises the points of each tile.
                let m = std::array::from_fn(|i| unsafe { V::load(at(i)) });
                for (row, y) in down.iter_mut().zip(points.outputs(m)) {
                    row[j] = y;
                }
            }
            let n = columns.n.saturating_sub(TILE * tile);
            for (i, m) in down.into_iter().enumerate().take(rows) {
                for (j, y) in points.outputs(m).into_iter().enumerate().take(n) {
                    let x = columns.first + (TILE * tile + j) * columns.step;
                    // SAFETY: the caller promises these pixels.
                    unsafe { y.store(to.wrapping_add((i * row + x) * V::LANES)) };
                }
            }
        }
    }
}

/// Windows of the input channels of one operand: nine taps each, `width` output channels, at all points.
pub(super) struct Windows<'a, S: Isa> {
    pub(super) points: &'a Points<Num<S>>,
    pub(super) from: *const Num<S>,
    pub(super) to: *mut Num<S>,
    /// From a point to the next.
    pub(super) point: usize,
    pub(super) width: usize,
    /// Whether taps stand in falling order, down and across.
    pub(super) flipped: [bool; 2],
}

impl<S: Isa> Kernel<S::Register> for Windows<'_, S> {
    /// The taps must be readable, and the points writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, to, point, width, flipped } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<S::Register>() };
        let turned = |i: usize, flipped: bool| if flipped { 2 - i } else { i };
        for at in (0..width).step_by(S::Register::LANES) {
            let mut down = [[[points.zero(); 3]; SIDE]; 2];
            for (c, down) in down.iter_mut().enumerate().take(S::DEPTH) {
                for j in 0..3 {
                    let tap = |i: usize| 9 * c + 3 * turned(i, flipped[0]) + turned(j, flipped[1]);
                    let load = |i| from.wrapping_add(tap(i) * width + at);
                    // SAFETY: the caller promises nine taps of each channel.
                    let g = std::array::from_fn(|i| unsafe { S::Register::load(load(i)) });
                    for (row, u) in down.iter_mut().zip(points.window(g)) {
                        row[j] = u;
                    }
                }
            }
            let [first, second] = down;
            for (i, (first, second)) in first.into_iter().zip(second).enumerate() {
                let first = points.window(first);
                let second = if S::DEPTH == 1 { first } else { points.window(second) };
                for (j, u) in first.into_iter().zip(second).map(|(first, second)| [first, second]).enumerate()
                {
                    // SAFETY: the caller promises the processor.
                    let operand = unsafe { S::operand(u) };
                    // SAFETY: the caller promises the points.
                    unsafe { operand.store(to.wrapping_add((i * SIDE + j) * point + at)) };
                }
            }
        }
    }
}

/// Gradients by the outputs of the tiles of a phase at the points; those beyond the edge are 0.
pub(super) struct Gradients<'a, T> {
    pub(super) points: &'a Points<T>,
    /// `[row][pixel]`, a register each.
    pub(super) from: *const T,
    /// Pixels of a row, rows that there are, and columns.
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) columns: Columns,
    pub(super) to: *mut T,
    /// From a point to the next, and from a tile to the next.
    pub(super) point: usize,
    pub(super) step: usize,
}

impl<V: Lanes> Kernel<V> for Gradients<'_, V::Element> {
    /// The pixels must be readable, and the points of all tiles writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, row, rows, columns, to, point, step } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<V>() };
        for tile in 0..columns.tiles {
            let mut down = [[points.zero(); TILE]; SIDE];
            for j in 0..columns.n.saturating_sub(TILE * tile).min(TILE) {
                let x = columns.first + (TILE * tile + j) * columns.step;
                let mut y = [points.zero(); TILE];
                for (i, y) in y.iter_mut().enumerate().take(rows) {
                    let at = i * row + x;
                    // SAFETY: the caller promises these pixels.
                    *y = unsafe { V::load(from.wrapping_add(at * V::LANES)) };
                }
                for (row, y) in down.iter_mut().zip(points.gradients(y)) {
                    row[j] = y;
                }
            }
            for (i, row) in down.into_iter().enumerate() {
                for (j, y) in points.gradients(row).into_iter().enumerate() {
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
    pub(super) points: &'a Points<T>,
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
        let Self { points, from, point, to, width } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<V>() };
        for at in (0..width).step_by(V::LANES) {
            let mut down = [[points.zero(); SIDE]; 3];
            for j in 0..SIDE {
                let from = |i: usize| from.wrapping_add((i * SIDE + j) * point + at);
                // SAFETY: the caller promises the points.
                let u = std::array::from_fn(|i| unsafe { V::load(from(i)) });
                for (row, w) in down.iter_mut().zip(points.taps(u)) {
                    row[j] = w;
                }
            }
            for (i, row) in down.into_iter().enumerate() {
                for (j, w) in points.taps(row).into_iter().enumerate() {
                    // SAFETY: the caller promises nine taps.
                    unsafe { w.store(to.wrapping_add((3 * i + j) * width + at)) };
                }
            }
        }
    }
}

const _: () = assert!(POINTS == SIDE * SIDE);
