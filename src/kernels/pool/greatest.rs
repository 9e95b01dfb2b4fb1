//! The greatest value of each window, a few rows of windows at a time.
//!
//! Plainly: for every window, a loop over its rows and columns that remembers the best. Which value wins
//! cannot be predicted, so the branches of that loop cost more than its work. Here the rows under some windows
//! lie in a *frame* with their margins, one behind the other, and each tap is one pass over all of the frame:
//! first across the columns of all possible windows, then down their rows, also of those that the stride
//! skips. These loops have no branches, run in vector registers, and are long where planes are small. Positions
//! go along in registers of their own, as bits that are never computed with.

use std::ops::Range;

use super::Windows;
use super::compare::greatest_of_taps;
use crate::kernels::Real;
use crate::kernels::simd::MOST;

/// Numbers of a frame, unless one row of windows needs more: its lines stay in the caches next to the core.
const FRAME: usize = 1 << 11;

/// How windows are taken together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    windows: &'a Windows,
    /// Rows of windows at most.
    rows: usize,
    /// Numbers of a row of the frame.
    pitch: usize,
    /// Numbers of all possible windows.
    down: usize,
    /// Numbers of a line.
    len: usize,
}

/// What is under some windows, and the best of it: across columns, and then down rows.
pub(super) struct Lines<'a, T> {
    frame: Line<'a, T>,
    across: Line<'a, T>,
    down: Line<'a, T>,
    /// The row of windows whose positions are in the frame.
    start: Option<usize>,
}

/// Values, and beside each its [position](Real::from_position) in the plane.
struct Line<'a, T> {
    values: &'a mut [T],
    at: &'a mut [T],
}

impl<'a> Frame<'a> {
    pub(super) fn new(windows: &'a Windows) -> Self {
        let Windows { h, w, k } = windows;
        let pitch = w.pixels + 2 * w.padding;
        let rows = ((FRAME / pitch).saturating_sub(*k) / h.stride + 1).min(h.count());
        let down = (((rows - 1) * h.stride + 1) * pitch).next_multiple_of(MOST);
        let len = (down + (k - 1) * pitch).next_multiple_of(MOST);
        Self { windows, rows, pitch, down, len }
    }

    /// Numbers of all lines.
    pub(super) fn scratch(&self) -> usize {
        2 * (3 * self.len + self.windows.k)
    }

    /// Cuts [`scratch`](Self::scratch) into lines.
    pub(super) fn lines<'b, T: Real>(&self, scratch: &'b mut [T]) -> Lines<'b, T> {
        let mut rest = scratch;
        let mut line = |n: usize| {
            let (line, behind) = std::mem::take(&mut rest).split_at_mut(2 * n);
            rest = behind;
            let (values, at) = line.split_at_mut(n);
            Line { values, at }
        };
        let [frame, across, down] = [self.len + self.windows.k, self.len, self.len].map(&mut line);
        // So the sides of rows stay, and what is behind the last row.
        frame.values.fill(T::from_f64(f64::NEG_INFINITY));
        Lines { frame, across, down, start: None }
    }

    /// Writes the greatest values of a plane, and their positions `row * w + column` if `at` has place for
    /// them.
    #[inline(always)]
    pub(super) fn greatest<T: Real>(&self, x: &[T], (y, at): (&mut [T], &mut [u32]), lines: &mut Lines<T>) {
        let Windows { h, w, .. } = self.windows;
        for start in (0..h.count()).step_by(self.rows) {
            let rows = start..h.count().min(start + self.rows);
            self.fill(x, &rows, lines.frame.values);
            if !at.is_empty() && lines.start != Some(start) {
                self.fill_positions(start, lines.frame.at);
                lines.start = Some(start);
            }
            if at.is_empty() {
                self.compare::<T, false>(lines)
            } else {
                self.compare::<T, true>(lines)
            }
            for row in rows {
                let from = (row - start) * h.stride * self.pitch;
                let of_row = row * w.count()..(row + 1) * w.count();
                every(w.stride, &lines.down.values[from..], &mut y[of_row.clone()], |best| best);
                if let Some(at) = at.get_mut(of_row) {
                    every(w.stride, &lines.down.at[from..], at, T::position);
                }
            }
        }
    }

    /// Copies what is under these rows of windows.
    #[inline(always)]
    fn fill<T: Real>(&self, x: &[T], rows: &Range<usize>, frame: &mut [T]) {
        let Windows { h, w, k } = self.windows;
        let under = rows.start * h.stride..(rows.end - 1) * h.stride + k;
        for (row, to) in under.zip(frame.chunks_exact_mut(self.pitch)) {
            let to = &mut to[w.padding..][..w.pixels];
            match row.checked_sub(h.padding).and_then(|row| x.get(row * w.pixels..(row + 1) * w.pixels)) {
                Some(x) => to.copy_from_slice(x),
                None => to.fill(T::from_f64(f64::NEG_INFINITY)),
            }
        }
    }

    /// Writes where the numbers stand under windows from row `start` on. In the margin it is the next pixel of
    /// the plane: where all of a window is the least of numbers, its first wins, which may stand there.
    #[inline(always)]
    fn fill_positions<T: Real>(&self, start: usize, at: &mut [T]) {
        let Windows { h, w, .. } = self.windows;
        let next = |row: usize| row.saturating_sub(h.padding).min(h.pixels - 1);
        for (row, at) in at.chunks_mut(self.pitch).enumerate() {
            let first = (next(start * h.stride + row) * w.pixels) as u32;
            let (before, at) = at.split_at_mut(w.padding.min(at.len()));
            let (inside, behind) = at.split_at_mut(w.pixels.min(at.len()));
            before.fill(T::from_position(first));
            inside.iter_mut().zip(first..).for_each(|(at, position)| *at = T::from_position(position));
            behind.fill(T::from_position(first + w.pixels as u32 - 1));
        }
    }

    /// Finds the greatest of each window, and with `AT` where it stands.
    #[inline(always)]
    fn compare<T: Real, const AT: bool>(&self, Lines { frame, across, down, .. }: &mut Lines<T>) {
        let Windows { k, .. } = self.windows;
        greatest_of_taps::<T, AT>(across.first(self.len), frame.all(), *k, 1);
        greatest_of_taps::<T, AT>(down.first(self.down), across.all(), *k, self.pitch);
    }
}

impl<T: Real> Line<'_, T> {
    fn all(&self) -> [&[T]; 2] {
        [self.values, self.at]
    }

    /// The first `n` values and positions.
    fn first(&mut self, n: usize) -> [&mut [T]; 2] {
        [&mut self.values[..n], &mut self.at[..n]]
    }
}

/// Fills `to` with `f` of every `stride`-th number.
#[inline(always)]
fn every<T: Real, R>(stride: usize, from: &[T], to: &mut [R], f: impl Fn(T) -> R) {
    // A stride that is known makes vectors of this loop.
    match stride {
        1 => to.iter_mut().zip(from).for_each(|(to, &x)| *to = f(x)),
        2 => to.iter_mut().zip(from.iter().step_by(2)).for_each(|(to, &x)| *to = f(x)),
        _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, &x)| *to = f(x)),
    }
}
