//! The gradient by the weight, as products of `dy` with columns.
//!
//! Plain version, for one group:
//!
//! ```text
//! dw = sum over images of  dy[image] * transposed(columns(x[image]))
//! ```
//!
//! `dw` can be larger than any cache and there can be few images, so the work is cut twice, by
//! shapes alone: `dw` by input channels into *blocks*, and the images into *parts*. A task is
//! one block over one part. Each worker sums a task in a block of its own; when all workers are
//! done, the blocks are added to `dw` in the order of the tasks. So no sum depends on the
//! number of threads, and besides `dw` there is one block for each worker.

use rayon::prelude::*;

use super::general::window_of;
use super::{CONVOLVING, Sizes};
use crate::error::Result;
use crate::kernels::matmul::{Matrix, MatrixMut, Write, matmul};
use crate::kernels::share::{self, zeros};
use crate::kernels::{Real, unfold::Unfold};

/// Most elements of a block, where one input channel allows it: 256 KiB of f32, for the
/// second-level cache.
const BLOCK: usize = 1 << 16;

/// Tasks there should be at least. It has many divisors, so that few threads end up idle.
const TASKS: usize = 24;

/// How the work is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Output channels of a group: rows of a block.
    rows: usize,
    /// Input channels of a block.
    channels: usize,
    /// Blocks of a group.
    blocks: usize,
    /// Images of a part.
    images: usize,
    parts: usize,
    tasks: usize,
}

/// What one task computes.
struct Task {
    group: usize,
    /// First input channel within the group, and how many.
    first: usize,
    channels: usize,
    /// Rows of the columns of a whole block, which decide about tiles.
    depth: usize,
    images: std::ops::Range<usize>,
}

impl Cut {
    fn new(sizes: &Sizes) -> Self {
        let Sizes { n, conv, .. } = *sizes;
        let (rows, c) = (conv.outputs / conv.groups, sizes.c / conv.groups);
        let most = (BLOCK / (rows * sizes.unfold.taps()).max(1)).clamp(1, c.max(1));
        let large = c.div_ceil(most).max(1);
        let parts = TASKS.div_ceil(large * conv.groups).clamp(1, n.max(1));
        // With few images there are few parts: then more blocks.
        let blocks = TASKS.div_ceil(parts * conv.groups).clamp(large, c.max(large));
        let channels = c.div_ceil(blocks).max(1);
        let (blocks, images) = (c.div_ceil(channels), n.div_ceil(parts).max(1));
        let parts = n.div_ceil(images);
        Self { rows, channels, blocks, images, parts, tasks: conv.groups * blocks * parts }
    }

    fn task(&self, index: usize, sizes: &Sizes) -> Task {
        let (block, part) = (index / self.parts, index % self.parts);
        let (group, first) = (block / self.blocks, block % self.blocks * self.channels);
        let c = sizes.c / sizes.conv.groups;
        let start = part * self.images;
        let images = start..sizes.n.min(start + self.images);
        let depth = self.channels * sizes.unfold.taps();
        Task { group, first, channels: self.channels.min(c - first), depth, images }
    }

    /// Elements of a worker's block and of its columns.
    fn lens(&self, sizes: &Sizes) -> [usize; 2] {
        let width = self.channels * sizes.unfold.taps();
        [self.rows * width, if sizes.unfold.is_plain() { 0 } else { sizes.tile_len(width) }]
    }
}

/// Bytes beside `dw` for elements of `size` bytes.
pub(super) fn scratch_bytes(sizes: &Sizes, size: usize, threads: usize) -> usize {
    let cut = Cut::new(sizes);
    share::scratch_len(cut.tasks, cut.lens(sizes).iter().sum(), threads) * size
}

pub(super) fn dw<T: Real>(sizes: &Sizes, dy: &[T], x: &[T]) -> Result<Vec<T>> {
    let cut = Cut::new(sizes);
    let [block_len, tile_len] = cut.lens(sizes);
    let len = (block_len + tile_len).max(1);
    let mut dw = zeros(CONVOLVING, sizes.weight_len())?;
    let mut scratch = share::scratch(CONVOLVING, cut.tasks, len)?;
    let workers = scratch.len() / len;
    // Entering the pool once makes the many short steps within it cheap.
    rayon::scope(|_| {
        for first in (0..cut.tasks).step_by(workers) {
            let tasks = first..cut.tasks.min(first + workers);
            let work = scratch.par_chunks_exact_mut(len).zip(tasks.clone()).with_max_len(1);
            work.for_each(|(own, task)| {
                let (block, columns) = own.split_at_mut(block_len);
                sum(sizes, &cut.task(task, sizes), [dy, x], (block, columns));
            });
            let done = tasks.map(|task| cut.task(task, sizes)).zip(scratch.chunks_exact(len));
            done.for_each(|(task, own)| add(sizes, &task, own, &mut dw));
        }
    });
    Ok(dw)
}

/// The sum of a task into `block`, row by row, with room for columns.
fn sum<T: Real>(sizes: &Sizes, task: &Task, [dy, x]: [&[T]; 2], (block, columns): (&mut [T], &mut [T])) {
    let Unfold { h, w, oh, ow, .. } = sizes.unfold;
    let (rows, c) = (sizes.conv.outputs / sizes.conv.groups, sizes.c / sizes.conv.groups);
    let width = task.channels * sizes.unfold.taps();
    let block = &mut block[..rows * width];
    block.fill(T::zero());
    for image in task.images.clone() {
        let channel = image * sizes.c + task.group * c + task.first;
        let x = &x[channel * h * w..][..task.channels * h * w];
        let dy = &dy[(image * sizes.conv.outputs + task.group * rows) * oh * ow..][..rows * oh * ow];
        if sizes.unfold.is_plain() {
            let (dy, x) = (Matrix::row_major(dy, rows, oh * ow), Matrix::row_major(x, width, oh * ow));
            matmul(MatrixMut { data: block, row_stride: width }, dy, x.transpose(), Write::Add);
            continue;
        }
        for lines in sizes.tiles(task.depth) {
            let columns = &mut columns[..width * lines.len() * ow];
            sizes.unfold.columns(x, &lines, columns);
            let columns = Matrix::row_major(columns, width, lines.len() * ow).transpose();
            let dy = window_of(dy, &lines, [oh, ow]);
            matmul(MatrixMut { data: block, row_stride: width }, dy, columns, Write::Add);
        }
    }
}

/// Adds the sums of a task to their place in `dw`.
fn add<T: Real>(sizes: &Sizes, task: &Task, block: &[T], dw: &mut [T]) {
    let (rows, depth, taps) = (sizes.conv.outputs / sizes.conv.groups, sizes.depth(), sizes.unfold.taps());
    let width = task.channels * taps;
    let own = dw[task.group * rows * depth..].chunks_exact_mut(depth).zip(block.chunks_exact(width));
    for (to, from) in own.take(rows) {
        to[task.first * taps..].iter_mut().zip(from).for_each(|(t, &f)| *t += f);
    }
}
