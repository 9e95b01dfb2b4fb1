//! Which sums over windows there are, and how their work is cut: by shapes and instructions alone.

use std::ops::Range;

use super::Sizes;
use super::axis::Axis;
use super::source::copy_len;
use crate::kernels::Real;
use crate::kernels::share;

/// Most weights of an output channel that are copied at once: with a panel of AVX-512 32 KiB of f32 for single
/// taps, which are read many times, and 64 for others, since fewer are too short a run of a file for its numbers
/// to come in time.
const DEPTH: [usize; 2] = [128, 256];

/// Output pixels of a task, about: with a panel of AVX-512 64 KiB of f32.
const PIXELS: usize = 256;

/// Output pixels of a task at least, where an image is cut for the sake of more tasks: with fewer, copying
/// weights for each of them takes as long as the sums.
const FEW: usize = 24;

/// Tasks there should be at least, where there are pixels for them.
pub(super) const TASKS: usize = 4;

/// One kind of sums over windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Correlation {
    pub(super) images: usize,
    pub(super) groups: usize,
    /// Channels of a group.
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Pixels of a plane.
    pub(super) source: [usize; 2],
    pub(super) target: [usize; 2],
    pub(super) axes: [Axis; 2],
    /// Side of the kernel.
    pub(super) k: usize,
    /// From an output channel and from an input channel of the weight to the next.
    pub(super) strides: [usize; 2],
}

impl Correlation {
    /// The outputs.
    pub(super) fn forward(sizes: &Sizes) -> Self {
        let (conv, unfold) = (&sizes.conv, &sizes.unfold);
        let inputs = sizes.c / conv.groups;
        let all = Self {
            images: sizes.n,
            groups: conv.groups,
            inputs,
            outputs: conv.outputs / conv.groups,
            source: [unfold.h, unfold.w],
            target: [unfold.oh, unfold.ow],
            axes: [Axis::forward(conv.window(), unfold.oh), Axis::forward(conv.window(), unfold.ow)],
            k: conv.k,
            strides: [inputs * unfold.taps(), unfold.taps()],
        };
        if unfold.is_plain() && all.pixels() <= PIXELS { all.flat() } else { all }
    }

    /// The gradients by the inputs, of windows without a stride. (Of others it has channels and weights.)
    pub(super) fn backward(sizes: &Sizes) -> Self {
        let (conv, unfold) = (&sizes.conv, &sizes.unfold);
        let inputs = sizes.c / conv.groups;
        let all = Self {
            images: sizes.n,
            groups: conv.groups,
            inputs: conv.outputs / conv.groups,
            outputs: inputs,
            source: [unfold.oh, unfold.ow],
            target: [unfold.h, unfold.w],
            axes: [Axis::backward(conv, unfold.h, 0), Axis::backward(conv, unfold.w, 0)],
            k: conv.k,
            strides: [unfold.taps(), inputs * unfold.taps()],
        };
        if unfold.is_plain() && all.pixels() <= PIXELS { all.flat() } else { all }
    }

    /// The same sums, with every plane one row, where there is no window.
    fn flat(self) -> Self {
        let pixels = self.source[0] * self.source[1];
        let [mut down, mut across] = self.axes;
        (down.outputs, across.outputs) = (1, pixels);
        Self { source: [1, pixels], target: [1, pixels], axes: [down, across], ..self }
    }

    /// Pixels that are summed in a plane.
    pub(super) fn pixels(&self) -> usize {
        self.axes[0].outputs * self.axes[1].outputs
    }

    /// Output rows of a task, and images.
    fn chunk(&self, panel: usize) -> [usize; 2] {
        let (rows, work) = (self.axes[0].outputs, self.images * self.panels(panel));
        let pieces = self.pieces().max((TASKS / work.max(1)).min(self.pixels() / FEW));
        if pieces > 1 {
            return [rows.div_ceil(rows.min(pieces)), 1];
        }
        [rows, self.together().min(work / TASKS).max(1)]
    }

    /// Pieces that a plane is cut into because it is large.
    fn pieces(&self) -> usize {
        self.pixels().div_ceil(PIXELS)
    }

    /// Images of a task at most.
    fn together(&self) -> usize {
        (PIXELS / self.pixels().max(1)).clamp(1, self.images.max(1))
    }

    /// Input channels of a part.
    pub(super) fn part(&self) -> usize {
        let depth = DEPTH[usize::from(self.k > 1)];
        let most = (depth / (self.k * self.k)).clamp(1, self.inputs.max(1));
        self.inputs.div_ceil(self.inputs.div_ceil(most).max(1)).max(1)
    }

    /// Elements that a worker needs: of weights, of sums, and of a copy of the source.
    pub(super) fn lens<T: Real>(&self) -> [usize; 3] {
        let (part, width) = (self.part(), T::widths()[1]);
        let [down, across] = &self.axes;
        // Those of the largest task there can be: a worker never needs less for more images.
        let rows = down.outputs.div_ceil(self.pieces().min(down.outputs).max(1));
        let copy = copy_len([down, across], part, rows);
        [part * self.k * self.k * width, self.together() * rows * across.outputs * width, copy]
    }

    /// Elements of scratch on `threads` threads.
    pub(super) fn scratch_len<T: Real>(&self, threads: usize) -> usize {
        let work = self.images * self.panels(self.panel(T::widths()[1]));
        let most = (work * self.pieces()).max(TASKS.min(work * (self.pixels() / FEW)));
        share::scratch_len(most, self.lens::<T>().iter().sum(), threads)
    }

    fn chunks(&self, panel: usize) -> usize {
        let [rows, images] = self.chunk(panel);
        self.axes[0].outputs.div_ceil(rows.max(1)) * self.images.div_ceil(images)
    }

    /// Panels of all groups.
    pub(super) fn panels(&self, panel: usize) -> usize {
        self.groups * self.outputs.div_ceil(panel)
    }

    /// Output channels of a panel when a tile holds `widest`.
    pub(super) fn panel(&self, widest: usize) -> usize {
        self.outputs.div_ceil(self.outputs.div_ceil(widest).max(1)).max(1)
    }

    /// Panels, and chunks of each.
    pub(super) fn tasks(&self, panel: usize) -> [usize; 2] {
        [self.panels(panel), self.chunks(panel)]
    }

    /// The task of this number. Those of a panel follow one another.
    pub(super) fn task(&self, index: usize, panel: usize) -> Task {
        let ([rows, images], chunks) = (self.chunk(panel), self.chunks(panel));
        let (of_panel, chunk) = (index / chunks, index % chunks);
        let panels = self.outputs.div_ceil(panel);
        let (group, first) = (of_panel / panels, of_panel % panels * panel);
        let in_image = self.axes[0].outputs.div_ceil(rows.max(1)).max(1);
        let (image, row) = (chunk / in_image * images, chunk % in_image * rows);
        Task {
            group,
            outputs: first..self.outputs.min(first + panel),
            images: image..self.images.min(image + images),
            rows: row..self.axes[0].outputs.min(row + rows),
        }
    }
}

/// What one task computes, counted within its group.
pub(super) struct Task {
    pub(super) group: usize,
    pub(super) outputs: Range<usize>,
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
}

/// First positions of an input, down and across, of those that are `stride` apart.
pub(super) fn phase_pairs(sizes: &Sizes) -> impl Iterator<Item = [usize; 2]> + use<> {
    let [h, w] = [sizes.unfold.h, sizes.unfold.w].map(|pixels| sizes.conv.stride.min(pixels));
    (0..h).flat_map(move |down| (0..w).map(move |across| [down, across]))
}
