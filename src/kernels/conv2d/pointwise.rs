//! Windows of one tap that read every pixel: a matrix product for each image.
//!
//! Plain version, for one group and one image:
//!
//! ```text
//! target[o][p] = sum over c of  weight[o, c] * source[c][p]
//! ```
//!
//! `correlate` does it too, with registers of output channels. Here they hold neighbouring *pixels*, so
//! sums are written as they stand, and not turned round first, which takes as long as a sum over few channels.
//! With many channels more weights are read for each strip than a cache holds, and `correlate` is faster.
//!
//! A task is a panel of output channels for a run of pixels of an image. It goes through *strips*, as many
//! pixels as a tile has registers. A strip is copied, row by row: planes often lie a power of two apart, and
//! then compete for a few places of the cache. The next strip is asked for meanwhile, since its rows are too
//! short for the processor to foresee them.

use std::ops::Range;

use super::correlation::Correlation;
use super::source::joined;
use super::sums::{Sums, Work};
use super::tile::{self, Pixels, Rows};
use crate::kernels::Real;
use crate::kernels::share::{self, share_places};
use crate::kernels::simd::{Isa, Job, LINE, Lanes, prefetch};

/// Pixels of a task at most, about.
const PIXELS: usize = 256;

/// Most input channels: with AVX-512 a strip is then 16 KiB of f32, and so are the weights of a panel.
const DEPTH: usize = 64;

/// Pixels of an image at least: registers of fewer are often not full.
const LEAST: usize = 64;

/// Outputs that are summed between two requests for lines of the next strip: whole tiles of every set.
const ASKED: usize = 12;

/// How the work is cut.
pub(super) struct Pointwise(Correlation);

impl Pointwise {
    /// The cut of these sums, if they are of this kind, of few channels and of pixels enough.
    pub(super) fn of(how: &Correlation) -> Option<Self> {
        // With stride 1 there is no padding where planes are equal; with another, some padding makes them so.
        let is_one = how.axes.iter().all(|axis| axis.window_of(1).is_some());
        let is_plain = how.k == 1 && is_one && how.source == how.target;
        (is_plain && how.inputs <= DEPTH && how.pixels() >= LEAST).then_some(Self(*how))
    }

    /// Pixels of a run: whole registers, or all that are left.
    fn run(&self, lanes: usize) -> usize {
        let pixels = self.0.pixels();
        pixels.div_ceil(pixels.div_ceil(PIXELS)).next_multiple_of(lanes)
    }

    /// Elements that a worker needs: of weights, of a strip, and of sums of its last pixels.
    fn lens(&self, widest: usize) -> [usize; 3] {
        [self.0.inputs * widest, self.0.inputs * widest, self.0.panel(widest) * widest]
    }

    /// Panels, and runs of each.
    fn tasks(&self, [lanes, widest]: [usize; 2]) -> [usize; 2] {
        let panels = self.0.groups * self.0.outputs.div_ceil(self.0.panel(widest));
        [panels, self.0.images * self.0.pixels().div_ceil(self.run(lanes))]
    }

    /// The task of this number. Those of a panel follow one another.
    fn task(&self, index: usize, [lanes, widest]: [usize; 2]) -> Task {
        let (panel, run) = (self.0.panel(widest), self.run(lanes));
        let (panels, runs) = (self.0.outputs.div_ceil(panel), self.0.pixels().div_ceil(run));
        let (index, start) = (index / runs, index % runs * run);
        let (index, image) = (index / self.0.images, index % self.0.images);
        let (group, first) = (index / panels, index % panels * panel);
        Task {
            group,
            outputs: first..self.0.outputs.min(first + panel),
            image,
            pixels: start..self.0.pixels().min(start + run),
        }
    }

    /// Elements of scratch on `threads` threads.
    pub(super) fn scratch_len<T: Real>(&self, threads: usize) -> usize {
        let widths = T::widths();
        share::scratch_len(self.tasks(widths).iter().product(), self.lens(widths[1]).iter().sum(), threads)
    }
}

/// What one task computes, counted within its group.
struct Task {
    group: usize,
    outputs: Range<usize>,
    image: usize,
    pixels: Range<usize>,
}

impl<T: Real> Job<T> for Sums<'_, T, Pointwise> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let how = self.how;
        let (work, scratch) = self.work();
        let widths = [S::Register::LANES, S::BUDGET.panel * S::Register::LANES];
        let tasks = how.tasks(widths);
        share_places((scratch, how.lens(widths[1]).iter().sum()), tasks, |scratch, index| {
            // SAFETY: the caller promises the processor, and every task has outputs of its own.
            unsafe { work.task::<S>(&how.task(index, widths), scratch) };
        });
    }
}

impl<T: Real> Work<'_, T, Pointwise> {
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and no other task may have these outputs.
    unsafe fn task<S: Isa<Register: Lanes<Element = T>>>(&self, task: &Task, scratch: &mut [T]) {
        let (how, plane, lanes) = (&self.how.0, self.how.0.pixels(), S::Register::LANES);
        let [weights, strip, _] = self.how.lens(S::BUDGET.panel * lanes);
        let (copied, scratch) = scratch.split_at_mut(weights);
        let (copy, sums) = scratch.split_at_mut(strip);
        let of = ((task.group, &task.outputs), &(0..how.inputs));
        let weights = match how.taps(self.weights, of) {
            Some(taps) => taps,
            None => {
                // SAFETY: the caller promises the processor.
                unsafe { how.copy_taps::<T, S>(self.weights, of, copied) };
                &*copied
            }
        };
        let first = (task.image * how.groups + task.group) * how.inputs;
        let planes = &self.source[first * plane..][..how.inputs * plane];
        let mut start = task.pixels.start;
        while start < task.pixels.end {
            let left = (task.pixels.end - start).div_ceil(lanes);
            let row = left.div_ceil(left.div_ceil(S::BUDGET.panel)) * lanes;
            let pixels = start..task.pixels.end.min(start + row);
            let copy = &mut copy[..how.inputs.div_ceil(S::DEPTH) * row];
            // SAFETY: the caller promises the processor.
            unsafe { joined::<S>((planes, plane), &pixels, (copy, row)) };
            let next = pixels.end..task.pixels.end.min(pixels.end + row);
            let strip = Strip { copy, row, weights, ahead: Ahead { planes, plane, pixels: next } };
            start = pixels.end;
            // SAFETY: the caller promises the processor and the outputs.
            unsafe { self.sum::<S>(&strip, (task, pixels), sums) };
        }
    }

    /// Writes the sums of a strip.
    ///
    /// # Safety
    ///
    /// As [`task`](Self::task).
    unsafe fn sum<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        strip: &Strip<T>,
        (task, pixels): (&Task, Range<usize>),
        sums: &mut [T],
    ) {
        let (plane, row, outputs) = (self.how.0.pixels(), strip.row, task.outputs.len());
        let channel = task.group * self.how.0.outputs + task.outputs.start;
        let first = task.image * self.how.0.groups * self.how.0.outputs + channel;
        let to = self.target.at(first * plane + pixels.start);
        if pixels.len() == row {
            // SAFETY: the caller promises the processor and the outputs.
            unsafe { strip.fill::<S>(outputs, (to, plane)) };
        } else {
            // Registers that are not full have no place in the target.
            // SAFETY: the caller promises the processor; there is a row of scratch for each output.
            unsafe { strip.fill::<S>(outputs, (sums.as_mut_ptr(), row)) };
            for (o, sums) in sums.chunks_exact(row).take(outputs).enumerate() {
                // SAFETY: the caller promises the outputs.
                unsafe { sums.as_ptr().copy_to_nonoverlapping(to.wrapping_add(o * plane), pixels.len()) };
            }
        }
        // SAFETY: the caller promises the outputs, which were written.
        unsafe { self.target.finish(self.finish, (first..first + outputs, channel), plane, pixels) };
    }
}

/// The strip that is copied next.
struct Ahead<'a, T> {
    planes: &'a [T],
    plane: usize,
    pixels: Range<usize>,
}

impl<T> Ahead<'_, T> {
    /// Asks for a share of it, that of these of all `outputs`.
    fn ask(&self, some: Range<usize>, outputs: usize) {
        let rows = self.planes.len() / self.plane;
        for row in rows * some.start / outputs..rows * some.end / outputs {
            let pixels = &self.planes[row * self.plane..][self.pixels.clone()];
            pixels.chunks(LINE / size_of::<T>()).for_each(|line| prefetch(line.as_ptr()));
        }
    }
}

/// A strip that was copied, and what is multiplied with it.
struct Strip<'a, T> {
    copy: &'a [T],
    /// Pixels of a row, whole registers.
    row: usize,
    weights: &'a [T],
    ahead: Ahead<'a, T>,
}

impl<T: Real> Strip<'_, T> {
    /// Writes a row of sums for each output, and the next one `stride` further on.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`. There must be as many weights, and room for all sums.
    unsafe fn fill<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        outputs: usize,
        (to, stride): (*mut T, usize),
    ) {
        let registers = self.row / S::Register::LANES;
        let width = outputs.next_multiple_of(S::Register::LANES);
        for first in (0..outputs).step_by(ASKED) {
            let n = ASKED.min(outputs - first);
            self.ahead.ask(first..first + n, outputs);
            let sums = Pixels {
                x: self.weights.as_ptr().wrapping_add(first),
                x_step: 1,
                x_strides: [width as isize, 0, 0],
                w: self.copy.as_ptr(),
                w_strides: [self.row, 0, 0],
                counts: [self.copy.len() / self.row, 1, 1],
                sums: to.wrapping_add(first * stride),
                width: stride,
                adds: false,
            };
            // SAFETY: the caller's promise.
            unsafe { tile::pixels::<S>(&sums, (Rows::ONE, n), registers) };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::op::Conv2d;
    use crate::kernels::conv2d::tests::whole;
    use crate::kernels::conv2d::weights::Weights;
    use crate::kernels::conv2d::{Finish, Sizes, pairs, slow};
    use crate::kernels::simd;

    fn numbers(x: &candle_core::Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// 11 pixels and 5 zeros on each side make (11 + 10 - 1) / 2 + 1 = 11 windows of stride 2.
    #[test]
    fn planes_of_equal_size_are_not_enough() {
        let is_some = |conv: &Conv2d, side: usize| {
            let sizes = Sizes::of(conv, [1, 4, side, side]).unwrap();
            assert_eq!([sizes.unfold.oh, sizes.unfold.ow], [side; 2]);
            Pointwise::of(&Correlation::forward(&sizes)).is_some()
        };
        assert!(!is_some(&Conv2d { padding: 5, ..Conv2d::valid(4, 1, 2) }, 11));
        // Of 11 pixels a plane is one row, of 20 it is not.
        assert!(is_some(&Conv2d::valid(4, 1, 1), 11) && is_some(&Conv2d::valid(4, 1, 1), 20));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Outputs, gradients by inputs and, by pairs, outputs again: whole numbers, so of equal bits.
        #[test]
        fn every_set_of_instructions_gives_the_sums_of_the_plain_way(
            (groups, c, o) in (1usize..3, 1usize..=DEPTH, 1usize..=DEPTH),
            (n, h, w) in (1usize..3, 8usize..25, 8usize..25),
        ) {
            let conv = Conv2d { groups, ..Conv2d::valid(groups * o, 1, 1) };
            let shape = [n, groups * c, h, w];
            let sizes = &Sizes::of(&conv, shape).unwrap();
            let (x, weight) = (whole(&shape, 1), whole(&conv.weight_shape(shape[1]), 2));
            let y = slow::forward(sizes, &x, &weight, Default::default()).unwrap();
            let dx = slow::dx(sizes, &y, &weight).unwrap();
            let [x, y, dx, weight] = [&x, &y, &dx, &weight].map(numbers);
            let pairs = pairs(sizes, &weight).unwrap().unwrap_or_default();
            let cases = [
                (Correlation::forward(sizes), &x, Weights::Plain(&weight), &y),
                (Correlation::backward(sizes), &y, Weights::Plain(&weight), &dx),
                (Correlation::forward(sizes), &x, Weights::Pairs(&pairs), &y),
            ];
            for (how, source, weights, want) in cases {
                let how = &Pointwise::of(&how).unwrap();
                let is_paired = matches!(weights, Weights::Pairs(_));
                if is_paired && (pairs.is_empty() || !simd::has_pairs()) {
                    continue;
                }
                for set in 0..if is_paired { 1 } else { simd::SETS } {
                    let target = &mut vec![f32::NAN; want.len()];
                    let scratch = &mut vec![f32::NAN; how.scratch_len::<f32>(rayon::current_num_threads())];
                    let sums = Sums {
                        how,
                        source,
                        weights,
                        finish: &Finish::NONE,
                        target: share::unwritten(target),
                        scratch,
                    };
                    let ran = if is_paired {
                        sums.dispatch();
                        true
                    } else {
                        // SAFETY: the job demands nothing beside its processor.
                        unsafe { simd::run(set, sums) }
                    };
                    prop_assert!(!ran || target == want, "{conv:?} of {shape:?} by set {set}");
                }
            }
        }
    }
}
