//! Strips of an image, a row of tiles each, at the points.

use std::ops::Range;

use super::points::Points;
use super::transform::{Across, Down, Gradients, ROOM};
use super::{SIDE, TILE};
use crate::kernels::Real;
use crate::kernels::conv2d::axis::Axis;
use crate::kernels::matmul::pack::{self, Run};
use crate::kernels::simd::{Isa, Lanes, Num};

/// How images are cut into strips. Where taps are `dilation` pixels apart, outputs as far apart share
/// inputs: these are a *phase* along an axis, and a strip is rows of one phase, tiles phase by phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strips {
    /// Pixels of a plane that is read.
    source: [usize; 2],
    axes: [Axis; 2],
    dilation: [usize; 2],
    /// Phases along each axis, and tiles of each.
    phases: [usize; 2],
    in_phase: [usize; 2],
    /// Strips of an image, and tiles of a strip.
    pub(super) tiles: [usize; 2],
}

/// The output rows of a strip.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// The first of them, and from one to the next.
    pub(super) first: usize,
    pub(super) step: usize,
    pub(super) n: usize,
}

impl Rows {
    /// Runs of neighbouring rows: where each begins in the strip and in the image, and how many there are.
    pub(super) fn runs(self) -> impl Iterator<Item = [usize; 3]> {
        let Self { first, step, n } = self;
        let (runs, of_run) = if step == 1 { (usize::from(n > 0), n) } else { (n, 1) };
        (0..runs).map(move |i| [i, first + i * step, of_run])
    }
}

/// The columns of a phase.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    /// The first of them, and from one to the next.
    pub(super) first: usize,
    pub(super) step: usize,
    pub(super) n: usize,
    /// The first tile of them in a strip, and how many there are.
    pub(super) tile: usize,
    pub(super) tiles: usize,
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
        let columns = pack::Columns { to: to.as_mut_ptr(), stride, whole: true };
        // SAFETY: the caller promises the processor. There is a register for each pixel.
        unsafe { pack::transposed::<S>(Run { from, stride: plane, n }, pixels, columns) };
    }
}

impl Strips {
    /// Those of windows of 3 x 3 at stride 1, if they are of this kind.
    pub(super) fn of(source: [usize; 2], axes: [Axis; 2]) -> Option<Self> {
        let dilation = [axes[0].window_of(3)?, axes[1].window_of(3)?];
        let of_axis = |f: fn(usize, usize) -> usize| [0, 1].map(|i| f(axes[i].outputs, dilation[i]));
        let phases = of_axis(|outputs, dilation| dilation.min(outputs));
        let in_phase = of_axis(|outputs, dilation| outputs.div_ceil(dilation).div_ceil(TILE));
        let tiles = [0, 1].map(|i| phases[i] * in_phase[i]);
        Some(Self { source, axes, dilation, phases, in_phase, tiles })
    }

    /// Outputs of an image, down and across.
    pub(super) fn outputs(&self) -> [usize; 2] {
        self.axes.each_ref().map(|axis| axis.outputs)
    }

    /// Whether taps stand in falling order, down and across.
    pub(super) fn flipped(&self) -> [bool; 2] {
        self.axes.each_ref().map(|axis| axis.advance < 0)
    }

    /// Output rows of strip `at` of an image.
    pub(super) fn rows(&self, at: usize) -> Rows {
        let (phase, tile) = (at / self.in_phase[0], at % self.in_phase[0]);
        let step = self.dilation[0];
        let in_phase = (self.axes[0].outputs - phase).div_ceil(step);
        Rows { first: phase + TILE * tile * step, step, n: in_phase.saturating_sub(TILE * tile).min(TILE) }
    }

    /// Output columns, phase by phase.
    pub(super) fn columns(&self) -> impl Iterator<Item = Columns> + use<> {
        let (outputs, step, tiles) = (self.axes[1].outputs, self.dilation[1], self.in_phase[1]);
        (0..self.phases[1]).map(move |first| {
            let n = (outputs - first).div_ceil(step);
            Columns { first, step, n, tile: first * tiles, tiles }
        })
    }

    /// Columns that the tiles of a phase read.
    fn reads(&self) -> usize {
        TILE * self.in_phase[1] + SIDE - TILE
    }

    /// Elements for what is between two passes, for the pixels of a strip, and for those of a phase at the points of
    /// one axis.
    pub(super) fn lens(&self, lanes: usize) -> [usize; 3] {
        let pixels = (SIDE * self.source[1]).max(TILE * self.axes[1].outputs);
        [ROOM, pixels, SIDE * self.reads()].map(|n| n * lanes)
    }

    /// What strip `at` of an image reads, at the points.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and `to` have place for all channels of all tiles
    /// of the strip in whole registers at all points, as operands.
    pub(super) unsafe fn inputs<S: Isa>(
        &self,
        (planes, at): (Planes<Num<S>>, usize),
        (points, scratch): (&Points<Num<S>>, &mut [Num<S>]),
        to: &mut Tiles<Num<S>>,
    ) where
        Num<S>: Real,
    {
        let ([h, w], lanes, reads) = (self.source, S::Register::LANES, self.reads());
        let [room, raw, _] = self.lens(lanes);
        let (raw, down) = scratch[room..].split_at_mut(raw);
        let [above, before] = self.axes.each_ref().map(|axis| axis.reads(&(0..1)).start);
        let Rows { first: row, step, .. } = self.rows(at);
        let top = row as isize + above;
        let ys = inside((top, step), SIDE, h);
        let zero = Num::<S>::default();
        raw[..ys.start * w * lanes].fill(zero);
        raw[ys.end * w * lanes..SIDE * w * lanes].fill(zero);
        let read = Rows { first: (top + (ys.start * step) as isize).max(0) as usize, step, n: ys.len() };
        for first in (0..planes.channels).step_by(lanes) {
            for [i, y, rows] in read.runs() {
                let to = &mut raw[(ys.start + i) * w * lanes..][..rows * w * lanes];
                // SAFETY: the caller promises the processor.
                unsafe { planes.turned::<S>(first, (h * w, y * w), to) };
            }
            for Columns { first: column, step, tile, tiles, .. } in self.columns() {
                let left = column as isize + before;
                let xs = inside((left, step), reads, w);
                for down in down.chunks_exact_mut(reads * lanes) {
                    down[..xs.start * lanes].fill(zero);
                    down[xs.end * lanes..].fill(zero);
                }
                if !xs.is_empty() {
                    let from = (left + (xs.start * step) as isize) as usize;
                    let kernel = Down {
                        points,
                        from: raw[from * lanes..].as_ptr(),
                        step: step * lanes,
                        to: down[xs.start * lanes..].as_mut_ptr(),
                        rows: [w, reads].map(|n| n * lanes),
                        n: xs.len(),
                    };
                    // SAFETY: the caller promises the processor; both hold six rows of these pixels.
                    unsafe { S::vectorize(kernel) };
                }
                let (from, row, point, step) = (down.as_ptr(), reads * lanes, to.point, to.step);
                let to = to.to[tile * step + first / S::DEPTH..].as_mut_ptr();
                // SAFETY: the caller promises the processor and the places. A tile has its six columns.
                unsafe { S::vectorize(Across::<S> { points, from, row, to, point, step, tiles }) };
            }
        }
    }

    /// The gradients by the outputs of strip `at` of an image, at the points.
    ///
    /// # Safety
    ///
    /// As [`inputs`](Self::inputs).
    pub(super) unsafe fn gradients<S: Isa>(
        &self,
        (planes, at): (Planes<Num<S>>, usize),
        (points, scratch): (&Points<Num<S>>, &mut [Num<S>]),
        to: &mut Tiles<Num<S>>,
    ) where
        Num<S>: Real,
    {
        let ([h, w], lanes, rows) = (self.outputs(), S::Register::LANES, self.rows(at));
        let (room, scratch) = scratch.split_at_mut(self.lens(lanes)[0]);
        for first in (0..planes.channels).step_by(lanes) {
            for [i, y, n] in rows.runs() {
                let to = &mut scratch[i * w * lanes..][..n * w * lanes];
                // SAFETY: the caller promises the processor.
                unsafe { planes.turned::<S>(first, (h * w, y * w), to) };
            }
            for columns in self.columns() {
                let kernel = Gradients {
                    points,
                    from: scratch.as_ptr(),
                    row: w,
                    rows: rows.n,
                    columns,
                    to: to.to[columns.tile * to.step + first..].as_mut_ptr(),
                    room: room.as_mut_ptr(),
                    point: to.point,
                    step: to.step,
                };
                // SAFETY: the caller promises the processor and the places; the strip's pixels were copied.
                unsafe { S::vectorize(kernel) };
            }
        }
    }
}

/// Which of `n` positions from `start` on, `step` apart, lie below `end` and not below 0.
fn inside((start, step): (isize, usize), n: usize, end: usize) -> Range<usize> {
    let reach = |to: isize| (to.max(0) as usize).div_ceil(step).min(n);
    reach(-start)..reach(end as isize - start)
}
