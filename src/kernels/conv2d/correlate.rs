//! Outputs, and gradients by inputs: both are sums over windows of a source.
//!
//! Plain version, for one group and one image:
//!
//! ```text
//! target[o][i][j] = sum over c, s, t of  weight[o, c][s, t] * source[c][window of i, j at s, t]
//! ```
//!
//! A task is a *panel* of output channels, as many as a tile holds side by side, for some rows of an
//! image or for some whole images. It goes through the input channels a part at a time: the part's
//! weights are copied into the order in which the innermost loop reads them, from wherever and
//! however they lie, and stay in the cache while all pixels of the task are summed. Sums stand
//! pixel by pixel; at the end of a task they are finished and written channel by channel.
//!
//! How work is cut follows from shapes and instructions, so results do not depend on threads.

use std::ops::Range;

use super::correlation::{Correlation, Task};
use super::source::source;
use super::sums::{Sums, Work};
use super::tile::{self, Pixels, Rows};
use crate::kernels::Real;
use crate::kernels::matmul::pack::{self, Columns, Run};
use crate::kernels::share::share_places;
use crate::kernels::simd::{Isa, Job, Lanes};

impl<T: Real> Job<T> for Sums<'_, T, Correlation> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let how = self.how;
        let (work, scratch) = self.work();
        let panel = how.panel(S::BUDGET.panel * S::Register::LANES);
        let tasks = how.tasks(panel);
        share_places((scratch, how.lens::<T>().iter().sum()), tasks, |scratch, index| {
            // SAFETY: the caller promises the processor, and every task has outputs of its own.
            unsafe { work.task::<S>(&how.task(index, panel), scratch) };
        });
    }
}

impl<T: Real> Work<'_, T, Correlation> {
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and no other task may have these outputs.
    unsafe fn task<S: Isa<Register: Lanes<Element = T>>>(&self, task: &Task, scratch: &mut [T]) {
        let [weights, sums, _] = self.how.lens::<T>();
        let (copied, scratch) = scratch.split_at_mut(weights);
        let (sums, copy) = scratch.split_at_mut(sums);
        let registers = task.outputs.len().div_ceil(S::Register::LANES);
        let width = registers * S::Register::LANES;
        let of_part = S::DEPTH * self.how.part();
        for first in (0..self.how.inputs).step_by(of_part) {
            let part = first..self.how.inputs.min(first + of_part);
            let of = ((task.group, &task.outputs), &part);
            let weights = match self.how.taps(self.weights, of) {
                Some(taps) => taps,
                None => {
                    // SAFETY: the caller promises the processor.
                    unsafe { self.how.copy_taps::<T, S>(self.weights, of, copied) };
                    &*copied
                }
            };
            for (image, sums) in task.images.clone().zip(sums.chunks_exact_mut(self.sums_len(task, width))) {
                // SAFETY: the caller promises the processor.
                unsafe { self.sum::<S>(task, (image, &part), weights, (sums, registers), copy) };
            }
        }
        for (image, sums) in task.images.clone().zip(sums.chunks_exact(self.sums_len(task, width))) {
            // SAFETY: the caller promises the processor and the outputs.
            unsafe { self.write::<S>(task, image, (sums, width)) };
        }
    }

    /// Sums of an image of a task.
    fn sums_len(&self, task: &Task, width: usize) -> usize {
        task.rows.len() * self.how.axes[1].outputs * width
    }

    /// Adds a part to the sums of an image of a task.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn sum<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        task: &Task,
        (image, part): (usize, &Range<usize>),
        weights: &[T],
        (sums, registers): (&mut [T], usize),
        copy: &mut [T],
    ) {
        let Correlation { axes: [down, across], k, .. } = self.how;
        let plane = self.how.source[0] * self.how.source[1];
        let channel = (image * self.how.groups + task.group) * self.how.inputs + part.start;
        let planes = &self.source[channel * plane..][..part.len() * plane];
        // SAFETY: the caller promises the processor.
        let from = unsafe { source::<S>(planes, self.how.source, [down, across], &task.rows, copy) };
        let width = registers * S::Register::LANES;
        let first = down.first_read() * from.row + across.first_read();
        let of_row = |advance: isize| advance * from.row as isize;
        let pixels = Pixels {
            x: from.data.as_ptr().wrapping_add(first),
            x_step: across.stride,
            x_strides: [from.channel as isize, of_row(down.advance), across.advance],
            w: weights.as_ptr().wrapping_add((down.first * k + across.first) * width),
            w_strides: [k * k * width, down.step * k * width, across.step * width],
            counts: [part.len().div_ceil(S::DEPTH), down.taps, across.taps],
            sums: sums.as_mut_ptr(),
            width,
            adds: part.start > 0,
        };
        let rows = Rows { count: task.rows.len(), x: down.stride * from.row, sums: across.outputs * width };
        // SAFETY: the caller promises the processor. `pack` wrote all weights of the part, `source` holds all that
        // the rows read, and there are sums for all pixels.
        unsafe { tile::pixels::<S>(&pixels, (rows, across.outputs), registers) };
    }

    /// Finishes the sums of an image of a task.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and no other task may have these outputs.
    unsafe fn write<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        task: &Task,
        image: usize,
        (sums, width): (&[T], usize),
    ) {
        let (plane, row) = (self.how.target[0] * self.how.target[1], self.how.target[1]);
        let first = (image * self.how.groups + task.group) * self.how.outputs + task.outputs.start;
        let channel = task.group * self.how.outputs + task.outputs.start;
        let (start, pixels) = (task.rows.start * row, task.rows.len() * row);
        for at in (0..task.outputs.len()).step_by(S::Register::LANES) {
            let channels = S::Register::LANES.min(task.outputs.len() - at);
            let from = Run { from: &sums[at..], stride: width, n: pixels };
            let to = self.target.at((first + at) * plane + start);
            // SAFETY: the caller promises the processor. The pixels of the task in each of these
            // channels lie within the target, and no other task has them.
            unsafe { pack::transposed::<S>(from, channels, Columns { to, stride: plane, whole: false }) };
            let (planes, pixels) = (first + at..first + at + channels, start..start + pixels);
            // SAFETY: as above, and they were written.
            unsafe { self.target.finish(self.finish, (planes, channel + at), plane, pixels) };
        }
    }
}
