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
//! In a task the gradients of a few output rows are copied pixel by pixel, so that a tile holds
//! neighbouring output channels side by side; see `tile`.

mod cut;

use std::mem::MaybeUninit;

use self::cut::{Cut, Task};
use super::source::{Source, source};
use super::sums::Target;
use super::tile::{self, Taps};
use super::winograd::dw::Read;
use super::{CONVOLVING, Sizes};
use crate::error::Result;
use crate::kernels::Real;
use crate::kernels::matmul::Matrix;
use crate::kernels::matmul::pack::{self, Columns, Run};
use crate::kernels::share::{self, Scratch, share, zeros};
use crate::kernels::simd::{Isa, Job, Lanes, Num};

/// Bytes beside `dw`.
pub(super) fn scratch_bytes<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    let cut = Cut::new(sizes, T::widths());
    cut.scratch_lens(threads).iter().sum::<usize>() * size_of::<T>()
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
        let Self { cut, task, dy, x, to, scratch } = self;
        let (block, scratch) = scratch.split_at_mut(cut.block());
        // SAFETY: the caller promises the processor.
        unsafe { sum::<S, T>(cut, task, [dy, x], block, scratch) };
        let from = Run { from: block, stride: cut.width, n: cut.terms(task) };
        // SAFETY: the caller promises the processor and the place.
        unsafe { pack::transposed::<S>(from, task.outputs.len(), to) };
    }
}

/// The sum of a task, `[c][taps][width]`.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
unsafe fn sum<S: Isa<Register: Lanes<Element = T>>, T: Real>(
    cut: &Cut,
    task: &Task,
    [dy, x]: [&[T]; 2],
    block: &mut [T],
    scratch: &mut [T],
) {
    let Sizes { c, conv, unfold, .. } = cut.sizes;
    let ([x_plane, y_plane], ow) = ([unfold.h * unfold.w, unfold.oh * unfold.ow], unfold.ow);
    let first_x = (task.group * (c / conv.groups) + task.inputs.start) * x_plane;
    let first_dy = (task.group * (conv.outputs / conv.groups) + task.outputs.start) * y_plane;
    if let Some(by_tiles) = &cut.by_tiles {
        let (image_x, image_dy) = (c * x_plane, conv.outputs * y_plane);
        let x = &x[task.images.start * image_x + first_x..];
        let dy = &dy[task.images.start * image_dy + first_dy..];
        let x = Read { data: x, channels: task.inputs.len(), image: image_x };
        let dy = Read { data: dy, channels: task.outputs.len(), image: image_dy };
        // SAFETY: the caller promises the processor.
        return unsafe { by_tiles.sum::<S>((x, dy), task.images.len(), (block, cut.width), scratch) };
    }
    let (gradients, copy) = scratch.split_at_mut(cut.lens()[1]);
    block.fill(T::zero());
    for image in task.images.clone() {
        let x = &x[image * c * x_plane + first_x..][..task.inputs.len() * x_plane];
        let dy = &dy[image * conv.outputs * y_plane + first_dy..][..task.outputs.len() * y_plane];
        for start in (0..unfold.oh).step_by(cut.rows) {
            let rows = start..unfold.oh.min(start + cut.rows);
            let (data, cols) = (&dy[start * ow..], task.outputs.len());
            let matrix = Matrix { data, rows: rows.len() * ow, cols, row_stride: 1, col_stride: y_plane };
            // SAFETY: the caller promises the processor.
            unsafe { pack::rows::<S>(gradients, matrix, cut.width) };
            let axes = [&cut.axes[0], &cut.axes[1]];
            // SAFETY: the caller promises the processor.
            let from = unsafe { source::<S>(x, [unfold.h, unfold.w], axes, &rows, copy) };
            // SAFETY: the caller promises the processor.
            unsafe { sum_rows::<S>(cut, [task.inputs.len(), rows.len()], (from, gradients), block) };
        }
    }
}

/// Adds what some rows of an image give to `block`.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
unsafe fn sum_rows<S: Isa>(
    cut: &Cut,
    [channels, rows]: [usize; 2],
    (x, dy): (Source<Num<S>>, &[Num<S>]),
    block: &mut [Num<S>],
) {
    let registers = cut.width / S::Register::LANES;
    let (k, taps, dilation) = (cut.sizes.conv.k, cut.sizes.unfold.taps(), cut.sizes.conv.dilation);
    let [down, across] = &cut.axes;
    let address = |index: usize| {
        let (c, tap) = (index / taps, index % taps);
        x.data.as_ptr().wrapping_add(c * x.channel + tap / k * dilation * x.row + tap % k * dilation)
    };
    for (start, size) in tile::tiles(channels * taps, registers) {
        let tile = Taps {
            x_strides: [down.stride * x.row, across.stride],
            dy: dy.as_ptr(),
            counts: [rows, across.outputs],
            sums: block.as_mut_ptr().wrapping_add(start * cut.width),
            width: cut.width,
        };
        // SAFETY: the caller promises the processor. `x` holds all that the rows read, `dy` a gradient for
        // each of their pixels, and the block sums for all taps.
        unsafe { tile::taps::<S>(&tile, (size, |q| address(start + q)), registers) }
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
