//! Gradients by the inputs of windows with a stride.
//!
//! Plain version, for one group and one image:
//!
//! ```text
//! dx[c][stride y + dilation i - padding][stride x + dilation j - padding]
//!     += sum over o of  weight[o, c][i, j] * dy[o][y][x]
//! ```
//!
//! As sums over windows these are one kind for every phase of the stride, each of which copies `dy` and weights
//! again and writes pixels that lie apart. Here every tap is a matrix product, whose sums are added to those of
//! the inputs that it met: `dy` is read as it is, weights are copied once, and planes are written whole.
//!
//! A task is a panel of input channels for some rows of some images. How work is cut follows from shapes and
//! instructions, so results do not depend on threads.

use std::ops::Range;

use super::Sizes;
use super::correlation::{Correlation, Task};
use super::sums::{Sums, Work};
use super::tile::{self, Pixels, Rows};
use crate::graph::op::Window;
use crate::kernels::Real;
use crate::kernels::matmul::pack::{self, Columns, Run};
use crate::kernels::share::{self, share_places};
use crate::kernels::simd::{Isa, Job, Lanes};

/// Most output channels of a part: with a panel of AVX-512 weights of a tap are then 16 KiB of f32, and stay in the
/// cache next to the core while all pixels are summed.
const DEPTH: usize = 64;
/// Most weights that are copied at once: 288 KiB of f32.
const WEIGHTS: usize = 72 << 10;

/// Input pixels of an image in a task, about, and of all images whose sums stand side by side.
const PIXELS: usize = 256;
const TOGETHER: usize = 512;

/// Tasks there should be, where there are images for them: with more, weights are copied more often.
const TASKS: usize = 16;

/// Gradients by inputs, cut into tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    /// Images, channels and weights as the sums of a phase have them.
    of: Correlation,
    window: Window,
}

/// What one tap meets along an axis: outputs, and the input of the first of them.
struct Met {
    outputs: Range<usize>,
    input: usize,
}

impl Spread {
    /// For windows with a stride.
    pub(super) fn of(sizes: &Sizes) -> Option<Self> {
        let window = sizes.conv.window();
        (window.stride > 1).then(|| Self { of: Correlation::backward(sizes), window })
    }

    /// Elements of scratch on `threads` threads.
    pub(super) fn scratch_len<T: Real>(&self, threads: usize) -> usize {
        let [lists, places] = self.tasks(self.of.panel(T::widths()[1]));
        share::scratch_len(lists * places, self.lens::<T>().iter().sum(), threads)
    }

    /// Elements that a worker needs: of weights and of sums.
    fn lens<T: Real>(&self) -> [usize; 2] {
        let width = self.of.panel(T::widths()[1]).next_multiple_of(T::widths()[0]);
        // Fewer registers need no more.
        let weights = (DEPTH * width).min(WEIGHTS / self.taps()).max(width) * self.taps();
        [weights, self.together() * self.pixels() * width]
    }

    fn taps(&self) -> usize {
        self.of.k * self.of.k
    }

    /// Output channels of a part, in which they are summed, where so many input channels stand side by side.
    fn part(&self, width: usize) -> usize {
        let most = (WEIGHTS / (self.taps() * width)).clamp(1, DEPTH);
        self.of.inputs.div_ceil(self.of.inputs.div_ceil(most).max(1)).max(1)
    }

    /// Input rows of a task.
    fn rows(&self) -> usize {
        let [h, w] = self.of.target;
        h.div_ceil((h * w).div_ceil(PIXELS).clamp(1, h.max(1))).max(1)
    }

    /// Input pixels of an image in a task.
    fn pixels(&self) -> usize {
        self.rows() * self.of.target[1]
    }

    /// Images whose sums stand side by side.
    fn together(&self) -> usize {
        (TOGETHER / self.pixels().max(1)).clamp(1, self.of.images.max(1))
    }

    fn pieces(&self) -> usize {
        self.of.target[0].div_ceil(self.rows())
    }

    /// Images of a task.
    fn images(&self, panel: usize) -> usize {
        let others = self.of.panels(panel) * self.pieces();
        (self.of.images * others / TASKS).clamp(1, self.of.images.max(1))
    }

    /// Panels, and tasks of each.
    fn tasks(&self, panel: usize) -> [usize; 2] {
        [self.of.panels(panel), self.of.images.div_ceil(self.images(panel)) * self.pieces()]
    }

    /// The task of this number. Those of a panel follow one another.
    fn task(&self, index: usize, panel: usize) -> Task {
        let ([_, places], pieces) = (self.tasks(panel), self.pieces());
        let (of_panel, place) = (index / places, index % places);
        let panels = self.of.outputs.div_ceil(panel);
        let (group, first) = (of_panel / panels, of_panel % panels * panel);
        let (image, row) = (place / pieces * self.images(panel), place % pieces * self.rows());
        Task {
            group,
            outputs: first..self.of.outputs.min(first + panel),
            images: image..self.of.images.min(image + self.images(panel)),
            rows: row..self.of.target[0].min(row + self.rows()),
        }
    }

    /// What tap `t` meets among these inputs along an axis with so many outputs.
    fn met(&self, t: usize, inputs: &Range<usize>, outputs: usize) -> Met {
        let Window { stride, padding, dilation, .. } = self.window;
        // The first output at or behind an input.
        let from =
            |input: usize| (input + padding).saturating_sub(dilation * t).div_ceil(stride).min(outputs);
        let outputs = from(inputs.start)..from(inputs.end);
        let input = (outputs.start * stride + dilation * t).saturating_sub(padding);
        Met { outputs, input }
    }
}

impl<T: Real> Job<T> for Sums<'_, T, Spread> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let how = self.how;
        let (work, scratch) = self.work();
        let panel = how.of.panel(S::BUDGET.panel * S::Register::LANES);
        share_places((scratch, how.lens::<T>().iter().sum()), how.tasks(panel), |scratch, index| {
            // SAFETY: the caller promises the processor, and every task has inputs of its own.
            unsafe { work.task::<S>(&how.task(index, panel), scratch) };
        });
    }
}

impl<T: Real> Work<'_, T, Spread> {
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and no other task may have these inputs.
    unsafe fn task<S: Isa<Register: Lanes<Element = T>>>(&self, task: &Task, scratch: &mut [T]) {
        let how = self.how;
        let (weights, all_sums) = scratch.split_at_mut(how.lens::<T>()[0]);
        let width = task.outputs.len().next_multiple_of(S::Register::LANES);
        let len = task.rows.len() * how.of.target[1] * width;
        let mut copied = None;
        for first in task.images.clone().step_by(how.together()) {
            let images = first..task.images.end.min(first + how.together());
            for first in (0..how.of.inputs).step_by(how.part(width)) {
                let part = first..how.of.inputs.min(first + how.part(width));
                if copied != Some(first) {
                    // SAFETY: the caller promises the processor.
                    unsafe {
                        how.of.copy_taps::<T, S>(self.weights, ((task.group, &task.outputs), &part), weights)
                    };
                    copied = Some(first);
                }
                for (image, sums) in images.clone().zip(all_sums.chunks_exact_mut(len)) {
                    if first == 0 {
                        sums.fill(T::zero());
                    }
                    // SAFETY: the caller promises the processor.
                    unsafe { self.add::<S>(task, (image, &part), weights, (sums, width)) };
                }
            }
            for (image, sums) in images.zip(all_sums.chunks_exact(len)) {
                // SAFETY: the caller promises the processor and the inputs.
                unsafe { self.write::<S>(task, image, (sums, width)) };
            }
        }
    }

    /// Adds a part, tap by tap, to the sums of an image of a task.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn add<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        task: &Task,
        (image, part): (usize, &Range<usize>),
        weights: &[T],
        (sums, width): (&mut [T], usize),
    ) {
        let Spread { of, window } = self.how;
        let ([_, w], [oh, ow], k) = (of.target, of.source, of.k);
        let channel = (image * of.groups + task.group) * of.inputs + part.start;
        let dy = &self.source[channel * oh * ow..][..part.len() * oh * ow];
        for (i, j) in (0..k).flat_map(|i| (0..k).map(move |j| (i, j))) {
            let down = self.how.met(i, &task.rows, oh);
            let across = self.how.met(j, &(0..w), ow);
            let input = down.input.saturating_sub(task.rows.start) * w + across.input;
            let pixels = Pixels {
                x: dy.as_ptr().wrapping_add(down.outputs.start * ow + across.outputs.start),
                x_step: 1,
                x_strides: [(oh * ow) as isize, 0, 0],
                w: weights.as_ptr().wrapping_add((i * k + j) * width),
                w_strides: [k * k * width, 0, 0],
                counts: [part.len(), 1, 1],
                sums: sums.as_mut_ptr().wrapping_add(input * width),
                width: window.stride * width,
                adds: true,
            };
            let rows = Rows { count: down.outputs.len(), x: ow, sums: window.stride * w * width };
            // SAFETY: the caller promises the processor. `copy_taps` wrote all weights of the part, and
            // `met` keeps gradients within their rows and sums within those of the task.
            unsafe { tile::pixels::<S>(&pixels, (rows, across.outputs.len()), width / S::Register::LANES) };
        }
    }

    /// Writes the sums of an image of a task.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and no other task may have these inputs.
    unsafe fn write<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        task: &Task,
        image: usize,
        (sums, width): (&[T], usize),
    ) {
        let of = &self.how.of;
        let [h, w] = of.target;
        let first = (image * of.groups + task.group) * of.outputs + task.outputs.start;
        for at in (0..task.outputs.len()).step_by(S::Register::LANES) {
            let channels = S::Register::LANES.min(task.outputs.len() - at);
            let from = Run { from: &sums[at..], stride: width, n: task.rows.len() * w };
            let to = self.target.at((first + at) * h * w + task.rows.start * w);
            // SAFETY: the caller promises the processor. The pixels of the task in each of these channels lie
            // within the target, and no other task has them.
            unsafe { pack::transposed::<S>(from, channels, Columns { to, stride: h * w, whole: false }) };
        }
    }
}
