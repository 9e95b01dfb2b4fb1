//! Strips of an image, a row of tiles each, at the points.

use super::points::Points;
use super::transform::{Across, Down, Gradients};
use super::{SIDE, TILE};
use crate::kernels::Real;
use crate::kernels::conv2d::axis::Axis;
use crate::kernels::matmul::pack::{self, Columns, Run};
use crate::kernels::simd::{Isa, Lanes, Num};

/// How images are cut into strips.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strips {
    /// Pixels of a plane that is read.
    source: [usize; 2],
    axes: [Axis; 2],
    /// Tiles of an image, down and across.
    pub(super) tiles: [usize; 2],
}

/// Where tiles at the points go: `to[at * point + tile * step]` on, channel by channel.
pub(super) struct Tiles<'a, T> {
    pub(super) to: &'a mut [T],
    pub(super) point: usize,
    pub(super) step: usize,
}

/// Channels of an image: the planes from the first of them on.
#[derive(Clone, Copy)]
pub(super) struct Planes<'a, T> {
    pub(super) data: &'a [T],
    pub(super) channels: usize,
}

impl<T: Copy> Planes<'_, T> {
    /// Copies pixels from `start` on, of planes of `plane` pixels: a register each, with the channels from
    /// `first` on.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn turned<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        first: usize,
        (plane, start): (usize, usize),
        to: &mut [T],
    ) {
        let stride = S::Register::LANES;
        let n = stride.min(self.channels - first);
        let (from, pixels) = (&self.data[first * plane + start..], to.len() / stride);
        let columns = Columns { to: to.as_mut_ptr(), stride, whole: true };
        // SAFETY: the caller promises the processor. There is a register for each pixel.
        unsafe { pack::transposed::<S>(Run { from, stride: plane, n }, pixels, columns) };
    }
}

impl Strips {
    /// Those of windows of 3 x 3 at stride 1, if they are of this kind.
    pub(super) fn of(source: [usize; 2], axes: [Axis; 2]) -> Option<Self> {
        let tiles = axes.each_ref().map(|axis| axis.outputs.div_ceil(TILE));
        axes.iter().all(|axis| axis.is_a_window_of(3)).then_some(Self { source, axes, tiles })
    }

    /// Outputs of an image, down and across.
    pub(super) fn outputs(&self) -> [usize; 2] {
        self.axes.each_ref().map(|axis| axis.outputs)
    }

    /// Whether taps stand in falling order, down and across.
    pub(super) fn flipped(&self) -> [bool; 2] {
        self.axes.each_ref().map(|axis| axis.advance < 0)
    }

    /// Output rows of the strip at `row`.
    pub(super) fn rows(&self, row: usize) -> usize {
        TILE.min(self.axes[0].outputs - TILE * row)
    }

    /// Columns that a strip reads.
    fn columns(&self) -> usize {
        TILE * self.tiles[1] + SIDE - TILE
    }

    /// Elements for the pixels of a strip, and for the same at the points of one axis.
    pub(super) fn lens(&self, lanes: usize) -> [usize; 2] {
        let pixels = (SIDE * self.source[1]).max(TILE * self.axes[1].outputs);
        [pixels, SIDE * self.columns()].map(|n| n * lanes)
    }

    /// What the strip at `row` reads, at the points.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and `to` have place for all channels of all tiles
    /// of the strip in whole registers at all points, as operands.
    pub(super) unsafe fn inputs<S: Isa>(
        &self,
        (planes, row): (Planes<Num<S>>, usize),
        (points, scratch): (&Points<Num<S>>, &mut [Num<S>]),
        to: &mut Tiles<Num<S>>,
    ) where
        Num<S>: Real,
    {
        let ([h, w], lanes, cols) = (self.source, S::Register::LANES, self.columns());
        let (raw, down) = scratch.split_at_mut(self.lens(lanes)[0]);
        // Of six rows, and of the strip's columns, those within the image.
        let inside = |start: isize, n: usize, end: usize| {
            let clamp = |at: isize| at.clamp(0, n as isize) as usize;
            clamp(-start)..clamp(end as isize - start)
        };
        let [top, left] = self.axes.each_ref().map(|axis| axis.reads(&(0..1)).start);
        let top = (TILE * row) as isize + top;
        let (ys, xs) = (inside(top, SIDE, h), inside(left, cols, w));
        let zero = Num::<S>::default();
        raw[..ys.start * w * lanes].fill(zero);
        raw[ys.end * w * lanes..SIDE * w * lanes].fill(zero);
        for down in down.chunks_exact_mut(cols * lanes) {
            down[..xs.start * lanes].fill(zero);
            down[xs.end * lanes..].fill(zero);
        }
        for first in (0..planes.channels).step_by(lanes) {
            if !ys.is_empty() {
                let start = (top + ys.start as isize) as usize * w;
                let to = &mut raw[ys.start * w * lanes..ys.end * w * lanes];
                // SAFETY: the caller promises the processor.
                unsafe { planes.turned::<S>(first, (h * w, start), to) };
            }
            if !xs.is_empty() {
                let kernel = Down {
                    points,
                    from: raw[(left + xs.start as isize) as usize * lanes..].as_ptr(),
                    to: down[xs.start * lanes..].as_mut_ptr(),
                    rows: [w, cols].map(|n| n * lanes),
                    n: xs.len(),
                };
                // SAFETY: the caller promises the processor; both hold six rows of these pixels.
                unsafe { S::vectorize(kernel) };
            }
            let (from, row, tiles) = (down.as_ptr(), cols * lanes, self.tiles[1]);
            let (point, step) = (to.point, to.step);
            let to = to.to[first / S::DEPTH..].as_mut_ptr();
            // SAFETY: the caller promises the processor and the places. A tile has its six columns.
            unsafe { S::vectorize(Across::<S> { points, from, row, to, point, step, tiles }) };
        }
    }

    /// The gradients by the outputs of the strip at `row`, at the points.
    ///
    /// # Safety
    ///
    /// As [`inputs`](Self::inputs).
    pub(super) unsafe fn gradients<S: Isa>(
        &self,
        (planes, row): (Planes<Num<S>>, usize),
        (points, scratch): (&Points<Num<S>>, &mut [Num<S>]),
        to: &mut Tiles<Num<S>>,
    ) where
        Num<S>: Real,
    {
        let ([h, w], lanes, rows) = (self.outputs(), S::Register::LANES, self.rows(row));
        for first in (0..planes.channels).step_by(lanes) {
            // SAFETY: the caller promises the processor.
            unsafe { planes.turned::<S>(first, (h * w, TILE * row * w), &mut scratch[..rows * w * lanes]) };
            let (from, size, tiles, point, step) =
                (scratch.as_ptr(), [rows, w], self.tiles[1], to.point, to.step);
            let to = to.to[first..].as_mut_ptr();
            // SAFETY: the caller promises the processor and the places; the strip's pixels were copied.
            unsafe { S::vectorize(Gradients { points, from, size, tiles, to, point, step }) };
        }
    }
}
