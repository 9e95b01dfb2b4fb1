//! The gradient by the weight: sums over pixels.
//!
//! Plain version, for one group:
//!
//! ```text
//! dw[o, c][s, t] = sum over images, i, j of  dy[o][i][j] * x[c][window of i, j at s, t]
//! ```
//!
//! `dw` can be larger than any cache and there can be few images, so the work is cut by shapes
//! alone: `dw` into *blocks*, a panel of output channels and some input channels each, and the
//! images into *parts*. A task is one block over one part. Some tasks at a time are summed in blocks of
//! their own; when all of them are done, these are added to `dw` in the order of the tasks. So no sum
//! depends on the number of threads, and besides `dw` there are a few blocks.
//!
//! In a task the gradients of a few output rows are copied pixel by pixel, so that a tile holds neighbouring
//! output channels side by side, and so is what windows read there: then the sums over pixels for all input channels
//! of a tap are a matrix product, and for a row of taps, too; see `tile`.

mod cut;

use std::mem::MaybeUninit;
use std::ops::Range;

use self::cut::{Cut, Task};
use super::sums::Target;
use super::tile::{self, Pixels, Rows};
use super::winograd::dw::{ByTiles, Read};
use super::{CONVOLVING, Sizes};
use crate::error::Result;
use crate::kernels::Real;
use crate::kernels::matmul::Matrix;
use crate::kernels::matmul::pack::{self, Columns, Run};
use crate::kernels::share::{self, Scratch, share, zeros};
use crate::kernels::simd::{Isa, Job, Lanes};
use crate::kernels::unfold::Unfold;

/// Bytes beside `dw`.
pub(super) fn scratch_bytes<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    let cut = Cut::new(sizes, T::widths());
    cut.scratch_lens(threads).into_iter().map(share::scratch_bytes::<T>).sum()
}

pub(super) fn dw<T: Real>(sizes: &Sizes, dy: &[T], x: &[T]) -> Result<Vec<T>> {
    // SAFETY: the job demands nothing beside its processor.
    dw_by((sizes, T::widths()), [dy, x], &|sum| unsafe { T::dispatch(sum) })
}

/// The same by a set of instructions that the processor knows, with their widths.
#[cfg(test)]
pub(super) fn dw_on(set: usize, (sizes, widths): (&Sizes, [usize; 2]), of: [&[f32]; 2]) -> Result<Vec<f32>> {
    // SAFETY: as in `dw`.
    dw_by((sizes, widths), of, &|sum| assert!(unsafe { crate::kernels::simd::run(set, sum) }))
}

/// The same with tasks done by `sum`, for instructions of these widths.
fn dw_by<T: Real>(
    (sizes, widths): (&Sizes, [usize; 2]),
    [dy, x]: [&[T]; 2],
    sum: &(dyn Fn(Sum<T>) + Sync),
) -> Result<Vec<T>> {
    assert_eq!(x.len(), sizes.n * sizes.x_len(), "x");
    assert_eq!(dy.len(), sizes.n * sizes.y_len(), "dy");
    let cut = &Cut::new(sizes, widths);
    let (len, depth) = (cut.lens().iter().sum(), cut.sizes.depth());
    let [scratch, blocks] = cut.scratch_lens(rayon::current_num_threads());
    let mut scratch = Scratch::new(CONVOLVING, scratch)?;
    let scratch = scratch.numbers();
    if cut.parts == 1 {
        let fill = |dw: &mut [MaybeUninit<T>]| {
            let target = Target::new(dw);
            share((scratch, len), (cut.tasks(), 0..cut.tasks()), |scratch, index| {
                let task = &cut.task(index);
                let to = Columns { to: target.at(cut.place(task)), stride: depth, whole: false };
                sum(Sum { cut, task, dy, x, to, scratch });
            });
        };
        // SAFETY: all tasks together have every weight, each of them its own.
        return unsafe { share::filled(CONVOLVING, sizes.weight_len(), fill) };
    }
    let (mut dw, block) = (zeros(CONVOLVING, sizes.weight_len())?, cut.block());
    let mut blocks = Scratch::new(CONVOLVING, blocks)?;
    let blocks = blocks.numbers();
    // Entering the pool once makes the many short steps within it cheap.
    rayon::scope(|_| {
        for first in (0..cut.tasks()).step_by((blocks.len() / block).max(1)) {
            let tasks = first..cut.tasks().min(first + blocks.len() / block);
            let work = blocks.chunks_exact_mut(block).zip(tasks.clone());
            share((&mut *scratch, len), (tasks.len(), work), |scratch, (to, index)| {
                let task = &cut.task(index);
                let to = Columns { to: to.as_mut_ptr(), stride: cut.terms(task), whole: false };
                sum(Sum { cut, task, dy, x, to, scratch });
            });
            let done = tasks.map(|task| cut.task(task)).zip(blocks.chunks_exact(block));
            done.for_each(|(task, sums)| add(cut, &task, sums, &mut dw));
        }
    });
    Ok(dw)
}

/// The sum of a task, in columns of `[c][taps]` for each output: there must be place for them.
struct Sum<'a, T> {
    cut: &'a Cut,
    task: &'a Task,
    dy: &'a [T],
    x: &'a [T],
    to: Columns<T>,
    scratch: &'a mut [T],
}

impl<T: Real> Job<T> for Sum<'_, T> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let (block, scratch) = self.scratch.split_at_mut(self.cut.block());
        let work = Work { cut: self.cut, task: self.task, dy: self.dy, x: self.x };
        if let Some(by_tiles) = &self.cut.by_tiles {
            // SAFETY: the caller promises the processor.
            unsafe { work.sum_tiles::<S>(by_tiles, block, scratch) };
            let from = Run { from: block, stride: self.cut.width, n: self.cut.terms(self.task) };
            // SAFETY: the caller promises the processor and the place.
            return unsafe { pack::transposed::<S>(from, self.task.outputs.len(), self.to) };
        }
        // SAFETY: the caller promises the processor.
        unsafe { work.sum_pixels::<S>(block, scratch) };
        // SAFETY: the caller promises the processor and the place.
        unsafe { work.write::<S>(block, scratch, self.to) };
    }
}

/// What the sum of a task reads.
struct Work<'a, T> {
    cut: &'a Cut,
    task: &'a Task,
    dy: &'a [T],
    x: &'a [T],
}

impl<T: Real> Work<'_, T> {
    /// The first elements of `x` and `dy` that an image of the task has, and those of all its channels.
    fn places(&self, image: usize) -> [usize; 2] {
        let (Sizes { c, conv, unfold, .. }, task) = (&self.cut.sizes, self.task);
        let x = (image * c + task.group * (c / conv.groups) + task.inputs.start) * unfold.h * unfold.w;
        let output = image * conv.outputs + task.group * (conv.outputs / conv.groups) + task.outputs.start;
        [x, output * unfold.oh * unfold.ow]
    }

    /// The sums over tiles, `[c][taps][width]`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn sum_tiles<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        by_tiles: &ByTiles,
        block: &mut [T],
        scratch: &mut [T],
    ) {
        let (sizes, task) = (&self.cut.sizes, self.task);
        let [x, dy] = self.places(task.images.start);
        let x = Read { data: &self.x[x..], channels: task.inputs.len(), image: sizes.x_len() };
        let dy = Read { data: &self.dy[dy..], channels: task.outputs.len(), image: sizes.y_len() };
        // SAFETY: the caller promises the processor.
        unsafe { by_tiles.sum::<S>((x, dy), task.images.len(), (block, self.cut.width), scratch) }
    }

    /// The sums over pixels, `[taps][c][width]`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn sum_pixels<S: Isa<Register: Lanes<Element = T>>>(&self, block: &mut [T], scratch: &mut [T]) {
        let Unfold { h, w, oh, ow, .. } = self.cut.sizes.unfold;
        let (gradients, copy) = scratch.split_at_mut(self.cut.lens()[1]);
        block.fill(T::zero());
        for image in self.task.images.clone() {
            let [x, dy] = self.places(image);
            let x = &self.x[x..][..self.task.inputs.len() * h * w];
            let dy = &self.dy[dy..][..self.task.outputs.len() * oh * ow];
            for start in (0..oh).step_by(self.cut.rows) {
                let rows = start..oh.min(start + self.cut.rows);
                let (data, cols) = (&dy[start * ow..], self.task.outputs.len());
                let matrix = Matrix { data, rows: rows.len() * ow, cols, row_stride: 1, col_stride: oh * ow };
                // SAFETY: the caller promises the processor.
                unsafe { pack::rows::<S>(gradients, matrix, self.cut.width) };
                // SAFETY: the caller promises the processor.
                unsafe { self.copy::<S>(x, &rows, copy) };
                // SAFETY: the caller promises the processor.
                unsafe { self.add::<S>(rows.len(), [copy, gradients], block) };
            }
        }
    }

    /// Copies what output rows read of `x`, with zeros outside: `[row][column][c]`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn copy<S: Isa<Register: Lanes<Element = T>>>(&self, x: &[T], rows: &Range<usize>, to: &mut [T]) {
        let (Cut { axes: [down, across], .. }, Unfold { h, w, .. }) = (self.cut, self.cut.sizes.unfold);
        let ([ys, xs], n) = ([down.reads(rows), across.reads(&(0..across.outputs))], self.task.inputs.len());
        let before = ((-xs.start).max(0) as usize).min(xs.len());
        let first = xs.start.max(0) as usize;
        let inside = w.saturating_sub(first).min(xs.len() - before);
        for (y, to) in ys.step_by(down.row_step()).zip(to.chunks_exact_mut(xs.len() * n)) {
            if y < 0 || y >= h as isize || inside == 0 {
                to.fill(T::zero());
                continue;
            }
            to[..before * n].fill(T::zero());
            to[(before + inside) * n..].fill(T::zero());
            let from = Run { from: &x[y as usize * w + first..], stride: h * w, n };
            let columns = Columns { to: to[before * n..].as_mut_ptr(), stride: n, whole: false };
            // SAFETY: the caller promises the processor; there is place for all channels of each pixel.
            unsafe { pack::transposed::<S>(from, inside, columns) };
        }
    }

    /// Adds the products of so many rows of what was read, and of gradients, `[pixel][width]`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn add<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        rows: usize,
        [x, gradients]: [&[T]; 2],
        block: &mut [T],
    ) {
        let (Cut { axes: [down, across], width, sizes, .. }, n) = (self.cut, self.task.inputs.len());
        let (ow, row) = (across.outputs, across.reads(&(0..across.outputs)).len() * n);
        // Neighbouring taps read neighbouring terms where nothing lies between them.
        let together = if sizes.conv.dilation == 1 { across.taps } else { 1 };
        for (i, j) in (0..down.taps).flat_map(|i| (0..across.taps).step_by(together).map(move |j| (i, j))) {
            let (y, x_of) = (i * sizes.conv.dilation / down.row_step(), j * sizes.conv.dilation);
            let products = Pixels {
                x: x[y * row + x_of * n..].as_ptr(),
                x_step: 1,
                x_strides: [0, down.stride / down.row_step() * row, across.stride * n].map(|of| of as isize),
                w: gradients.as_ptr(),
                w_strides: [0, ow * width, *width],
                counts: [1, rows, ow],
                sums: block[(i * across.taps + j) * n * width..].as_mut_ptr(),
                width: *width,
                adds: true,
            };
            // SAFETY: the caller promises the processor; what is read and gradients of all pixels are there, and the
            // block has sums for all terms.
            unsafe { tile::pixels::<S>(&products, (Rows::ONE, together * n), width / S::Register::LANES) };
        }
    }

    /// Writes the sums over pixels to their columns, with `room` for those of a channel.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and there must be place for them.
    unsafe fn write<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        block: &[T],
        room: &mut [T],
        to: Columns<T>,
    ) {
        let (width, taps, channels) = (self.cut.width, self.cut.sizes.unfold.taps(), self.task.inputs.len());
        let room = &mut room[..taps * width];
        for c in 0..channels {
            for (tap, to) in room.chunks_exact_mut(width).enumerate() {
                to.copy_from_slice(&block[(tap * channels + c) * width..][..width]);
            }
            let from = Run { from: &*room, stride: width, n: taps };
            let to = Columns { to: to.to.wrapping_add(c * taps), ..to };
            // SAFETY: the caller's promise.
            unsafe { pack::transposed::<S>(from, self.task.outputs.len(), to) };
        }
    }
}

/// Adds the sums of a task to their place in `dw`.
fn add<T: Real>(cut: &Cut, task: &Task, sums: &[T], dw: &mut [T]) {
    let (start, terms) = (cut.place(task), cut.terms(task));
    for (i, sums) in sums.chunks_exact(terms.max(1)).enumerate().take(task.outputs.len()) {
        let to = &mut dw[start + i * cut.sizes.depth()..][..terms];
        to.iter_mut().zip(sums).for_each(|(to, &sum)| *to += sum);
    }
}
