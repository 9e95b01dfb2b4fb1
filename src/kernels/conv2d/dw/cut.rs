//! How the work is cut, by shapes and instructions alone.

use std::ops::Range;

use crate::kernels::conv2d::Sizes;
use crate::kernels::conv2d::axis::Axis;
use crate::kernels::conv2d::winograd::LEAST;
use crate::kernels::conv2d::winograd::dw::{ByTiles, CHANNELS};
use crate::kernels::share;

/// Most elements of a block, where one input channel allows it: 128 KiB of f32, for the
/// second-level cache.
const BLOCK: usize = 1 << 15;

/// Tasks there should be at least. It has many divisors, so that few threads end up idle.
const TASKS: usize = 12;

/// Elements of the blocks that are summed before they are added, at least: for each worker there is one, for
/// small blocks there are more, since workers wait for each other where they are added.
const AT_ONCE: usize = 1 << 16;

/// Output pixels whose gradients are copied together, about.
const PIXELS: usize = 128;

/// How the work is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) sizes: Sizes,
    pub(super) axes: [Axis; 2],
    /// Output channels of a panel, and elements side by side for each.
    pub(super) panel: usize,
    pub(super) width: usize,
    pub(super) lanes: usize,
    pub(super) panels: usize,
    /// Input channels of a block.
    pub(super) channels: usize,
    pub(super) blocks: usize,
    /// Images of a part.
    pub(super) images: usize,
    pub(super) parts: usize,
    /// Output rows whose gradients are copied together.
    pub(super) rows: usize,
    /// Whether sums are taken over tiles.
    pub(super) by_tiles: Option<ByTiles>,
}

/// What one task computes, counted within its group.
pub(super) struct Task {
    pub(super) group: usize,
    pub(super) outputs: Range<usize>,
    pub(super) inputs: Range<usize>,
    pub(super) images: Range<usize>,
}

impl Cut {
    /// The cut for numbers with these [`widths`](crate::kernels::simd::Element::widths).
    pub(super) fn new(sizes: &Sizes, [lanes, widest]: [usize; 2]) -> Self {
        let Sizes { n, conv, unfold, .. } = *sizes;
        let (outputs, c) = (conv.outputs / conv.groups, sizes.c / conv.groups);
        let [oh, ow] = [unfold.oh, unfold.ow];
        let panel = outputs.div_ceil(outputs.div_ceil(widest).max(1)).max(1);
        let (width, panels) = (panel.next_multiple_of(lanes), outputs.div_ceil(panel));
        let axes = [oh, ow].map(|outputs| Axis::forward(conv.window(), outputs));
        let by_tiles = ByTiles::of([unfold.h, unfold.w], axes, [c, outputs], n);
        let most = by_tiles.map_or(BLOCK / (width * unfold.taps()).max(1), |_| CHANNELS).clamp(1, c.max(1));
        let large = c.div_ceil(most).max(1);
        let parts = TASKS.div_ceil(large * panels.max(1) * conv.groups).clamp(1, n.max(1));
        // With few images there are few parts: then more blocks.
        let least = by_tiles.map_or(1, |_| LEAST);
        let blocks = TASKS.div_ceil(parts * panels.max(1) * conv.groups).clamp(large, (c / least).max(large));
        let channels = c.div_ceil(blocks).max(1);
        let images = n.div_ceil(parts).max(1);
        let rows = oh.div_ceil(oh.div_ceil((PIXELS / ow.max(1)).max(1)).max(1)).max(1);
        Self {
            sizes: *sizes,
            axes,
            panel,
            width,
            lanes,
            panels,
            channels,
            blocks: c.div_ceil(channels),
            images,
            parts: n.div_ceil(images),
            rows,
            by_tiles,
        }
    }

    pub(super) fn tasks(&self) -> usize {
        self.sizes.conv.groups * self.panels * self.blocks * self.parts
    }

    pub(super) fn task(&self, index: usize) -> Task {
        let (block, part) = (index / self.parts, index % self.parts);
        let (panel, block) = (block / self.blocks, block % self.blocks);
        let (group, panel) = (panel / self.panels, panel % self.panels);
        let piece = |at: usize, size: usize, end: usize| at * size..end.min((at + 1) * size);
        let Sizes { n, c, conv, .. } = self.sizes;
        Task {
            group,
            outputs: piece(panel, self.panel, conv.outputs / conv.groups),
            inputs: piece(block, self.channels, c / conv.groups),
            images: piece(part, self.images, n),
        }
    }

    /// Terms of a task for each output.
    pub(super) fn terms(&self, task: &Task) -> usize {
        task.inputs.len() * self.sizes.unfold.taps()
    }

    /// Where the first term of a task's first output is in `dw`.
    pub(super) fn place(&self, task: &Task) -> usize {
        let output = task.group * (self.sizes.conv.outputs / self.sizes.conv.groups) + task.outputs.start;
        output * self.sizes.depth() + task.inputs.start * self.sizes.unfold.taps()
    }

    /// Elements of a block.
    pub(super) fn block(&self) -> usize {
        (self.channels * self.sizes.unfold.taps() * self.width).max(1)
    }

    /// Elements of a worker's block by tap, of its gradients and of its copy of `x`.
    pub(super) fn lens(&self) -> [usize; 3] {
        let [down, across] = &self.axes;
        if let Some(by_tiles) = &self.by_tiles {
            return [self.block(), by_tiles.len(self.channels, self.images, [self.lanes, self.width]), 0];
        }
        let taps = self.sizes.unfold.taps();
        // Where gradients were, sums of a channel have their place in the end.
        let gradients = (self.rows * across.outputs).max(taps) * self.width;
        let rows = down.reads(&(0..self.rows)).len().div_ceil(down.row_step());
        [self.block(), gradients, rows * across.reads(&(0..across.outputs)).len() * self.channels]
    }

    /// Elements of scratch for all workers, and of the blocks that they fill.
    pub(super) fn scratch_lens(&self, threads: usize) -> [usize; 2] {
        let len = self.lens().iter().sum();
        // A task that is all there is of its block writes to `dw` at once.
        let blocks =
            if self.parts == 1 { 0 } else { (AT_ONCE / self.block()).max(threads).min(self.tasks()) };
        [share::scratch_len(self.tasks(), len, threads), blocks * self.block()]
    }
}
