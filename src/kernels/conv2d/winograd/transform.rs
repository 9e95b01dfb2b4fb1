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

/// Numbers between the two passes of a transform that needs `N` registers in all: in registers where a set has as
/// many, else in memory, from where they come sooner than from a stack that the compiler chooses.
struct Between<V: Lanes, const N: usize> {
    held: [V; N],
    room: *mut V::Element,
}

impl<V: Lanes, const N: usize> Between<V, N> {
    const IS_HELD: bool = N < V::COUNT;

    /// # Safety
    ///
    /// The processor must know the instructions of `V`, and `room` have place for `N` registers.
    #[inline(always)]
    unsafe fn new(room: *mut V::Element) -> Self {
        // SAFETY: the caller promises the processor.
        Self { held: [unsafe { V::zero() }; N], room }
    }

    #[inline(always)]
    fn put(&mut self, i: usize, x: V) {
        if Self::IS_HELD {
            self.held[i] = x;
        } else {
            // SAFETY: `new` was promised the place.
            unsafe { x.store(self.room.wrapping_add(i * V::LANES)) };
        }
    }

    #[inline(always)]
    fn get(&self, i: usize) -> V {
        if Self::IS_HELD {
            return self.held[i];
        }
        // SAFETY: `new` was promised the processor and the place, which was written.
        unsafe { V::load(self.room.wrapping_add(i * V::LANES)) }
    }
}

/// Outputs of the tiles of a phase from the products at their points: `[row][pixel]`, a register each.
pub(super) struct Outputs<'a, T> {
    pub(super) points: &'a Points<T>,
    pub(super) from: *const T,
    /// From a point to the next, and from a tile to the next.
    pub(super) strides: [usize; 2],
    pub(super) to: *mut T,
    /// For [`ROOM`] registers.
    pub(super) room: *mut T,
    /// Pixels of a row, rows that are written, and columns.
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) columns: Columns,
}

impl<V: Lanes> Kernel<V> for Outputs<'_, V::Element> {
    /// All points of the tiles must be readable, and the pixels and the room writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, strides: [point, step], to, room, row, rows, columns } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<V>() };
        for tile in 0..columns.tiles {
            // SAFETY: the caller promises the processor and the room.
            let mut down = unsafe { Between::<V, { TILE * SIDE + FACTORS }>::new(room) };
            for j in 0..SIDE {
                let at = |i: usize| from.wrapping_add((i * SIDE + j) * point + tile * step);
                // SAFETY: the caller promises the points of each tile.
                let m = std::array::from_fn(|i| unsafe { V::load(at(i)) });
                for (i, y) in points.outputs(m).into_iter().enumerate() {
                    down.put(i * SIDE + j, y);
                }
            }
            let n = columns.n.saturating_sub(TILE * tile);
            for i in 0..TILE {
                if i >= rows {
                    break;
                }
                let m = std::array::from_fn(|j| down.get(i * SIDE + j));
                for (j, y) in points.outputs(m).into_iter().enumerate().take(n) {
                    let x = columns.first + (TILE * tile + j) * columns.step;
                    // SAFETY: the caller promises these pixels.
                    unsafe { y.store(to.wrapping_add((i * row + x) * V::LANES)) };
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
    /// For [`ROOM`] registers.
    pub(super) room: *mut T,
    /// From a point to the next, and from a tile to the next.
    pub(super) point: usize,
    pub(super) step: usize,
}

impl<V: Lanes> Kernel<V> for Gradients<'_, V::Element> {
    /// The pixels must be readable, and the points of all tiles and the room writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, row, rows, columns, to, room, point, step } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<V>() };
        // SAFETY: as above.
        let zero = unsafe { V::zero() };
        for tile in 0..columns.tiles {
            // SAFETY: the caller promises the processor and the room.
            let mut down = unsafe { Between::<V, { SIDE * TILE + FACTORS }>::new(room) };
            let n = columns.n.saturating_sub(TILE * tile);
            for j in 0..TILE {
                let x = columns.first + (TILE * tile + j) * columns.step;
                let mut y = [zero; TILE];
                for (i, y) in y.iter_mut().enumerate() {
                    if i < rows && j < n {
                        let at = i * row + x;
                        // SAFETY: the caller promises these pixels.
                        *y = unsafe { V::load(from.wrapping_add(at * V::LANES)) };
                    }
                }
                for (i, y) in points.gradients(y).into_iter().enumerate() {
                    down.put(i * TILE + j, y);
                }
            }
            for i in 0..SIDE {
                let row = std::array::from_fn(|j| down.get(i * TILE + j));
                for (j, y) in points.gradients(row).into_iter().enumerate() {
                    // SAFETY: the caller promises the points of each tile.
                    unsafe { y.store(to.wrapping_add((i * SIDE + j) * point + tile * step)) };
                }
            }
        }
    }
}

/// The taps of one input channel from sums at the points, `width` output channels each:
/// [`Windows`](super::windows::Windows) the other way.
pub(super) struct Taps<'a, T> {
    pub(super) points: &'a Points<T>,
    pub(super) from: *const T,
    /// From a point to the next.
    pub(super) point: usize,
    pub(super) to: *mut T,
    pub(super) width: usize,
    /// For [`ROOM`] registers.
    pub(super) room: *mut T,
}

impl<V: Lanes> Kernel<V> for Taps<'_, V::Element> {
    /// The points must be readable, and nine taps and the room writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, point, to, width, room } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<V>() };
        for at in (0..width).step_by(V::LANES) {
            // SAFETY: the caller promises the processor and the room.
            let mut down = unsafe { Between::<V, { 3 * SIDE + 2 * FACTORS }>::new(room) };
            for j in 0..SIDE {
                let from = |i: usize| from.wrapping_add((i * SIDE + j) * point + at);
                // SAFETY: the caller promises the points.
                let u = std::array::from_fn(|i| unsafe { V::load(from(i)) });
                for (i, w) in points.taps(u).into_iter().enumerate() {
                    down.put(i * SIDE + j, w);
                }
            }
            for i in 0..3 {
                let row = std::array::from_fn(|j| down.get(i * SIDE + j));
                for (j, w) in points.taps(row).into_iter().enumerate() {
                    // SAFETY: the caller promises nine taps.
                    unsafe { w.store(to.wrapping_add((3 * i + j) * width + at)) };
                }
            }
        }
    }
}

/// Registers beside those between two passes: six factors, and a number that is computed. The compiler keeps twice as
/// many for taps.
const FACTORS: usize = 7;

/// Registers between two passes at most.
pub(super) const ROOM: usize = SIDE * TILE;

const _: () = assert!(POINTS == SIDE * SIDE);
