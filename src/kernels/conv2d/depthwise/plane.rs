//! Where the windows of one plane lie, and its copy.

use std::mem::MaybeUninit;

use crate::kernels::Real;
use crate::kernels::conv2d::Sizes;
use crate::kernels::conv2d::axis::Axis;

/// Most taps of a kernel: seven by seven.
pub(in crate::kernels::conv2d) const MOST_TAPS: usize = 49;

/// Sums over windows of a plane, as [`Axis`] has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) axes: [Axis; 2],
    /// Pixels of the source.
    pub(super) source: [usize; 2],
    /// Pixels of a row of the target.
    target: usize,
    /// Weights of an output.
    pub(super) kernel_len: usize,
    /// Pixels of a row of the copy that are side by side for neighbouring outputs.
    run: usize,
    taps: [(usize, usize); MOST_TAPS],
    count: usize,
}

impl Plane {
    fn new([down, across]: [Axis; 2], source: [usize; 2], (k, target): (usize, usize)) -> Self {
        let run = across.reads(&(0..across.outputs)).len().div_ceil(across.stride);
        let (axes, taps, count) = ([down, across], [(0, 0); MOST_TAPS], down.taps * across.taps);
        let mut plane = Self { axes, source, target, kernel_len: k * k, run, taps, count };
        let at = |axis: &Axis, t: usize| (axis.first_read() as isize + axis.advance * t as isize) as usize;
        let taps = (0..down.taps).flat_map(|s| (0..across.taps).map(move |t| (s, t)));
        for (i, (s, t)) in taps.enumerate() {
            let column = at(&across, t);
            let offset = at(&down, s) * plane.row() + column % across.stride * run + column / across.stride;
            let place = (down.first + down.step * s) * k + across.first + across.step * t;
            plane.taps[i] = (offset, place);
        }
        plane
    }

    pub(super) fn forward(sizes: &Sizes) -> Self {
        let (window, unfold) = (sizes.conv.window(), &sizes.unfold);
        let axes = [Axis::forward(window, unfold.oh), Axis::forward(window, unfold.ow)];
        Self::new(axes, [unfold.h, unfold.w], (window.k, unfold.ow))
    }

    /// The gradients by the inputs at these positions, of `stride` along each axis.
    pub(super) fn backward(sizes: &Sizes, [down, across]: [usize; 2]) -> Self {
        let (conv, unfold) = (&sizes.conv, &sizes.unfold);
        let axes = [Axis::backward(conv, unfold.h, down), Axis::backward(conv, unfold.w, across)];
        Self::new(axes, [unfold.oh, unfold.ow], (conv.k, unfold.w))
    }

    /// For each tap, what it reads for the first output, and its place in the kernel.
    pub(super) fn taps(&self) -> &[(usize, usize)] {
        &self.taps[..self.count]
    }

    /// Elements of a row of the copy.
    pub(super) fn row(&self) -> usize {
        self.run * self.axes[1].stride
    }

    /// Elements of the copy. A register may read beyond the last row.
    pub(super) fn copy_len<T: Real>(&self) -> usize {
        let [down, _] = &self.axes;
        down.reads(&(0..down.outputs)).len() * self.row() + T::widths()[0]
    }

    /// Whether the sums are a whole plane of the target.
    pub(super) fn is_dense(&self) -> bool {
        self.axes.iter().all(|axis| axis.to_step == 1)
    }

    /// Takes the sums to their places in a plane of the target.
    pub(super) fn scatter<T: Real>(&self, sums: &[T], target: &mut [MaybeUninit<T>]) {
        let [down, across] = &self.axes;
        let rows = target.chunks_exact_mut(self.target).skip(down.to_start).step_by(down.to_step);
        for (row, sums) in rows.zip(sums.chunks_exact(across.outputs.max(1))) {
            let places = row.iter_mut().skip(across.to_start).step_by(across.to_step);
            places.zip(sums).for_each(|(to, &sum)| {
                to.write(sum);
            });
        }
    }

    /// Elements of the sums.
    pub(super) fn sums_len(&self) -> usize {
        self.axes[0].outputs * self.axes[1].outputs
    }

    /// Copies a plane of the source.
    pub(super) fn copy<T: Real>(&self, plane: &[T], to: &mut [T]) {
        let [h, w] = self.source;
        let [down, across] = &self.axes;
        let (ys, xs) = (down.reads(&(0..down.outputs)), across.reads(&(0..across.outputs)));
        to.fill(T::zero());
        for (y, to) in ys.zip(to.chunks_exact_mut(self.row().max(1))) {
            let Some(y) = usize::try_from(y).ok().filter(|&y| y < h) else { continue };
            let row = &plane[y * w..][..w];
            let first = xs.start.max(0) as usize;
            let row = row.get(first..w.min(xs.end.max(0) as usize)).unwrap_or_default();
            if row.is_empty() {
                continue;
            }
            let at = (first as isize - xs.start) as usize;
            if across.stride == 1 {
                to[at..at + row.len()].copy_from_slice(row);
            } else {
                for (q, &x) in (at..).zip(row) {
                    to[q % across.stride * self.run + q / across.stride] = x;
                }
            }
        }
    }
}
