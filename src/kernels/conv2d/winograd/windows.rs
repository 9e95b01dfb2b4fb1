//! Windows at the points: nine taps of a channel, transformed down and across, a register of output channels at a time.

use super::SIDE;
use super::points::Points;
use crate::kernels::simd::{Isa, Kernel, Lanes, Num};

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
        unsafe { V::load(at.wrapping_offset(i * self.steps[0]).wrapping_offset(j * self.steps[1])) }
    }

    /// A column of taps.
    ///
    /// # Safety
    ///
    /// As [`tap`](Self::tap).
    #[inline(always)]
    unsafe fn column<V: Lanes<Element = T>>(&self, c: usize, j: isize) -> [V; 3] {
        // SAFETY: the caller promises the processor.
        let mut column = [unsafe { V::zero() }; 3];
        for (i, tap) in (0..).zip(&mut column) {
            // SAFETY: the caller's promise.
            *tap = unsafe { self.tap(c, [i, j]) };
        }
        column
    }

    /// Each row of taps at a pair of points, see [`Points::window`].
    ///
    /// # Safety
    ///
    /// As [`tap`](Self::tap).
    #[inline(always)]
    unsafe fn at<V: Lanes<Element = T>>(&self, points: &Points<V>, c: usize, pair: usize) -> [[V; 2]; 3] {
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        let mut at = [[zero; 2]; 3];
        for (i, at) in (0..).zip(&mut at) {
            let mut row = [zero; 3];
            for (j, tap) in (0..).zip(&mut row) {
                // SAFETY: the caller's promise.
                *tap = unsafe { self.tap(c, [i, j]) };
            }
            *at = points.window(pair, row);
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
    mut to: *mut Num<S>,
    point: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { store_point::<S>([first[0], second[0]], to) };
    for pair in 0..2 {
        let of = points.window(pair, first);
        let next = if S::DEPTH == 1 { of } else { points.window(pair, second) };
        for sign in 0..2 {
            to = to.wrapping_add(SIDE * point);
            // SAFETY: the caller's promise.
            unsafe { store_point::<S>([of[sign], next[sign]], to) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { store_point::<S>([first[2], second[2]], to.wrapping_add(SIDE * point)) };
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
