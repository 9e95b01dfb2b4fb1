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
    ///
    /// Columns of points come one or two at a time, each from all taps: so few numbers are alive that they stay in
    /// registers.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { points, from, to, point, width, flipped } = self;
        // SAFETY: the caller promises the processor.
        let points = unsafe { points.registers::<S::Register>() };
        for at in (0..width).step_by(S::Register::LANES) {
            let taps = Nine::new(from.wrapping_add(at), width, flipped);
            let to = to.wrapping_add(at);
            for (column, j) in [(0, 0), (5, 2)] {
                // SAFETY: the caller promises nine taps of each channel.
                let first = unsafe { taps.column(0, j) };
                let mut second = first;
                if S::DEPTH == 2 {
                    // SAFETY: as above.
                    second = unsafe { taps.column(1, j) };
                }
                let numbers = [first, second];
                // SAFETY: the caller promises the processor and the points.
                unsafe { store_column::<S>(&points, numbers, to.wrapping_add(column * point), point) };
            }
            for (columns, pair) in [([1, 2], 0), ([3, 4], 1)] {
                // SAFETY: the caller promises nine taps of each channel.
                let first = unsafe { taps.at(&points, 0, pair) };
                let mut second = first;
                if S::DEPTH == 2 {
                    // SAFETY: as above.
                    second = unsafe { taps.at(&points, 1, pair) };
                }
                for (sign, column) in columns.into_iter().enumerate() {
                    let numbers = [
                        [first[0][sign], first[1][sign], first[2][sign]],
                        [second[0][sign], second[1][sign], second[2][sign]],
                    ];
                    // SAFETY: the caller promises the processor and the points.
                    unsafe { store_column::<S>(&points, numbers, to.wrapping_add(column * point), point) };
                }
            }
        }
    }
}

/// The taps of channels, nine each, `width` numbers side by side.
struct Nine<T> {
    /// The first that a window meets.
    first: *const T,
    /// From a tap to the next, down and across, and from a channel to the next.
    steps: [isize; 2],
    channel: usize,
}

impl<T> Nine<T> {
    #[inline(always)]
    fn new(from: *const T, width: usize, flipped: [bool; 2]) -> Self {
        let (mut first, mut steps) = (from, [3 * width as isize, width as isize]);
        for (step, flipped) in steps.iter_mut().zip(flipped) {
            if flipped {
                first = first.wrapping_offset(2 * *step);
                *step = -*step;
            }
        }
        Self { first, steps, channel: 9 * width }
    }

    /// # Safety
    ///
    /// The processor must know the instructions of `V`, and the tap be readable.
    #[inline(always)]
    unsafe fn tap<V: Lanes<Element = T>>(&self, c: usize, [i, j]: [isize; 2]) -> V {
        let at = self.first.wrapping_add(c * self.channel);
        // SAFETY: the caller's promise.
        unsafe { V::load(at.wrapping_offset(i * self.steps[0] + j * self.steps[1])) }
    }

    /// # Safety
    ///
    /// As [`tap`](Self::tap).
    #[inline(always)]
    unsafe fn column<V: Lanes<Element = T>>(&self, c: usize, j: isize) -> [V; 3] {
        // SAFETY: the caller's promise.
        [0, 1, 2].map(|i| unsafe { self.tap(c, [i, j]) })
    }

    /// Each row of taps at a pair of points, see [`Points::window`].
    ///
    /// # Safety
    ///
    /// As [`tap`](Self::tap).
    #[inline(always)]
    unsafe fn at<V: Lanes<Element = T>>(&self, points: &Points<V>, c: usize, pair: usize) -> [[V; 2]; 3] {
        // SAFETY: there is a register already.
        let mut at = [[unsafe { V::zero() }; 2]; 3];
        for (i, at) in (0..).zip(&mut at) {
            // SAFETY: the caller's promise.
            *at = points.window(pair, [0, 1, 2].map(|j| unsafe { self.tap(c, [i, j]) }));
        }
        at
    }
}

/// Writes a column of points, from three numbers of one channel or of each of two.
///
/// # Safety
///
/// The processor must know the instructions of `S`, and the points be writable.
#[inline(always)]
unsafe fn store_column<S: Isa>(
    points: &Points<S::Register>,
    [first, second]: [[S::Register; 3]; 2],
    to: *mut Num<S>,
    point: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { store_point::<S>([first[0], second[0]], to) };
    for pair in 0..2 {
        let of = points.window(pair, first);
        let next = if S::DEPTH == 1 { of } else { points.window(pair, second) };
        for sign in 0..2 {
            let to = to.wrapping_add((1 + 2 * pair + sign) * SIDE * point);
            // SAFETY: the caller's promise.
            unsafe { store_point::<S>([of[sign], next[sign]], to) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { store_point::<S>([first[2], second[2]], to.wrapping_add(5 * SIDE * point)) };
}

/// # Safety
///
/// As [`store_column`].
#[inline(always)]
unsafe fn store_point<S: Isa>(numbers: [S::Register; 2], to: *mut Num<S>) {
    // SAFETY: the caller promises the processor.
    let operand = unsafe { S::operand(numbers) };
    // SAFETY: the caller promises the point.
    unsafe { operand.store(to) };
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
/// [`Windows`] the other way.
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

/// Registers for factors and for what is computed; taps take two sums and differences more of each.
const FACTORS: usize = 7;

/// Registers between two passes at most.
pub(super) const ROOM: usize = SIDE * TILE;

const _: () = assert!(POINTS == SIDE * SIDE);
