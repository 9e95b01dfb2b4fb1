//! Where the windows of one plane lie, and its copy.

use crate::kernels::Real;
use crate::kernels::conv2d::Sizes;
use crate::kernels::conv2d::axis::Axis;
use crate::kernels::simd::{Isa, Kernel, Lanes, Num};

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
    /// Pixels of a row of the copy that are side by side for neighbouring outputs.
    run: usize,
    /// Which rows and columns are copied.
    copied: [Copied; 2],
    taps: [(usize, usize); MOST_TAPS],
    count: usize,
}

/// Positions of an axis that lie within the source and are read.
#[derive(Clone, Copy, Debug)]
struct Copied {
    /// The first of them, in the source and in the copy.
    from: usize,
    to: usize,
    n: usize,
}

impl Copied {
    fn new(axis: &Axis, pixels: usize) -> Self {
        let reads = axis.reads(&(0..axis.outputs));
        let clamp = |at: isize| at.clamp(0, pixels as isize) as usize;
        let (from, end) = (clamp(reads.start), clamp(reads.end));
        Self { from, to: (from as isize - reads.start) as usize, n: end - from }
    }
}

impl Plane {
    fn new([down, across]: [Axis; 2], source: [usize; 2], (k, target): (usize, usize)) -> Self {
        let run = across.reads(&(0..across.outputs)).len().div_ceil(across.stride);
        let (axes, taps, count) = ([down, across], [(0, 0); MOST_TAPS], down.taps * across.taps);
        let copied = [0, 1].map(|i| Copied::new(&axes[i], source[i]));
        let mut plane = Self { axes, source, target, run, copied, taps, count };
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
    pub(super) fn scatter<T: Real>(&self, sums: &[T], target: &mut [T]) {
        let [down, across] = &self.axes;
        let rows = target.chunks_exact_mut(self.target).skip(down.to_start).step_by(down.to_step);
        for (row, sums) in rows.zip(sums.chunks_exact(across.outputs.max(1))) {
            let places = row.iter_mut().skip(across.to_start).step_by(across.to_step);
            places.zip(sums).for_each(|(to, &sum)| *to = sum);
        }
    }

    /// Elements of the sums.
    pub(super) fn sums_len(&self) -> usize {
        self.axes[0].outputs * self.axes[1].outputs
    }

    /// Copies the pixels of a plane of the source. What is around them was cleared before, once for all planes.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn copy<S: Isa>(&self, plane: &[Num<S>], to: &mut [Num<S>]) {
        let ([rows, cols], [_, w], stride) = (self.copied, self.source, self.axes[1].stride);
        if rows.n == 0 || cols.n == 0 {
            return;
        }
        let from = &plane[rows.from * w + cols.from..(rows.from + rows.n - 1) * w + cols.from + cols.n];
        let to = &mut to[rows.to * self.row()..(rows.to + rows.n) * self.row()];
        if stride == 1 {
            let strides = [w, self.row()];
            let to = to[cols.to..].as_mut_ptr();
            // SAFETY: the caller promises the processor; both have all rows.
            return unsafe {
                S::vectorize(Rows { from: from.as_ptr(), to, strides, size: [rows.n, cols.n] })
            };
        }
        for (from, to) in from.chunks(w).zip(to.chunks_exact_mut(self.row())) {
            for first in 0..stride.min(cols.n) {
                let q = cols.to + first;
                let to = to[q % stride * self.run + q / stride..].iter_mut();
                to.zip(from[first..cols.n].iter().step_by(stride)).for_each(|(to, &pixel)| *to = pixel);
            }
        }
    }
}

/// Copies short rows, for which a call each takes longer than the copy.
struct Rows<T> {
    from: *const T,
    to: *mut T,
    /// From a row to the next.
    strides: [usize; 2],
    /// Rows, and pixels of a row.
    size: [usize; 2],
}

impl<V: Lanes> Kernel<V> for Rows<V::Element> {
    /// All rows must be readable and writable.
    #[inline(always)]
    unsafe fn run(self) {
        let Self { from, to, strides, size: [rows, n] } = self;
        for row in 0..rows {
            let (from, to) = (from.wrapping_add(row * strides[0]), to.wrapping_add(row * strides[1]));
            for x in (0..n).step_by(V::LANES) {
                let n = V::LANES.min(n - x);
                // SAFETY: the caller promises the rows.
                let pixels = unsafe { V::load_first(from.wrapping_add(x), n) };
                // SAFETY: as above.
                unsafe { pixels.store_first(to.wrapping_add(x), n) };
            }
        }
    }
}
