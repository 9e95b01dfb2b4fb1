//! How sums over windows are cut into tasks, by shapes and instructions alone.

use std::ops::Range;

use super::strip::Strips;
use super::{COPIED, FEW, GAP, PART, POINTS, TILES, is_worth_it};
use crate::kernels::Real;
use crate::kernels::conv2d::correlation::{Correlation, TASKS};
use crate::kernels::share;

/// How the work is cut.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Winograd {
    pub(super) how: Correlation,
    pub(super) strips: Strips,
    /// Input channels of a part.
    pub(super) part: usize,
}

/// What one task computes, counted within its group.
pub(super) struct Task {
    pub(super) group: usize,
    pub(super) outputs: Range<usize>,
    /// Of all images.
    pub(super) strips: Range<usize>,
}

/// Elements of a worker's scratch.
#[derive(Clone, Copy)]
pub(super) struct Lens {
    /// Taps as they are copied.
    pub(super) taps: usize,
    /// From a point to the next: of windows, of inputs and of products.
    pub(super) points: [usize; 3],
    /// For a strip on its way to the points, or back.
    pub(super) strip: usize,
}

impl Lens {
    pub(super) fn sum(&self) -> usize {
        self.taps + POINTS * self.points.iter().sum::<usize>() + self.strip
    }
}

impl Winograd {
    /// The cut of these sums, if they are of this kind and worth it.
    pub(in super::super) fn of(how: &Correlation) -> Option<Self> {
        let cut = Self::cut(how)?;
        is_worth_it([how.inputs, how.outputs], &cut.strips, how.images).then_some(cut)
    }

    /// The cut of these sums, if they are of this kind.
    pub(super) fn cut(how: &Correlation) -> Option<Self> {
        let part = how.inputs.div_ceil(how.inputs.div_ceil(PART).max(1)).max(1);
        Some(Self { how: *how, strips: Strips::of(how.source, how.axes)?, part })
    }

    /// Strips of all images.
    fn strips(&self) -> usize {
        self.how.images * self.strips.tiles[0]
    }

    /// Pieces that the strips are cut into, for panels of `widest` channels at most.
    fn chunks(&self, widest: usize) -> usize {
        let others = self.how.groups * self.how.outputs.div_ceil(self.how.panel(widest));
        let tiles = self.strips() * self.strips.tiles[1];
        let least = TASKS.div_ceil(others.max(1)).min(tiles / FEW);
        self.strips().div_ceil(self.most()).max(least).clamp(1, self.strips().max(1))
    }

    /// Output channels of a task: a panel, or half of the only one, two registers, where there are few tasks.
    fn panel(&self, [lanes, widest]: [usize; 2]) -> usize {
        let (panel, tasks) = (self.how.panel(widest), self.how.groups * self.chunks(widest));
        let is_cut = panel == self.how.outputs && panel == 4 * lanes && tasks < TASKS;
        if is_cut { panel / 2 } else { panel }
    }

    /// Most strips of a piece.
    fn most(&self) -> usize {
        (TILES / self.strips.tiles[1].max(1)).max(1)
    }

    /// Panels, and chunks of each.
    pub(super) fn tasks(&self, widths: [usize; 2]) -> [usize; 2] {
        let panels = self.how.groups * self.how.outputs.div_ceil(self.panel(widths));
        [panels, if self.strips() == 0 { 0 } else { self.chunks(widths[1]) }]
    }

    /// The task of this number. Those of a panel follow one another.
    pub(super) fn task(&self, index: usize, widths: [usize; 2]) -> Task {
        let (panel, chunks) = (self.panel(widths), self.chunks(widths[1]));
        let panels = self.how.outputs.div_ceil(panel);
        let (of_panel, chunk) = (index / chunks, index % chunks);
        let (group, first) = (of_panel / panels, of_panel % panels * panel);
        let strips = self.strips();
        Task {
            group,
            outputs: first..self.how.outputs.min(first + panel),
            strips: chunk * strips / chunks..(chunk + 1) * strips / chunks,
        }
    }

    /// For these [`widths`](crate::kernels::simd::Element::widths).
    pub(super) fn lens(&self, [lanes, widest]: [usize; 2]) -> Lens {
        // Not those of the largest piece: a worker never needs less for more images.
        let tiles = self.strips().min(self.most()) * self.strips.tiles[1];
        let width = self.panel([lanes, widest]).next_multiple_of(lanes);
        Lens {
            taps: 9 * COPIED.min(self.part.next_multiple_of(2)) * width,
            points: [self.part * width, tiles * self.part.next_multiple_of(lanes), tiles * width]
                .map(|n| n + GAP),
            strip: self.strips.lens(lanes).iter().sum(),
        }
    }

    /// Elements of scratch on `threads` threads.
    pub(in super::super) fn scratch_len<T: Real>(&self, threads: usize) -> usize {
        let widths = T::widths();
        share::scratch_len(self.tasks(widths).iter().product(), self.lens(widths).sum(), threads)
    }
}
