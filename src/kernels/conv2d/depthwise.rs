//! Convolution with one input channel for each output: there is no sum over channels.
//!
//! A register holds neighbouring *pixels* of a row. A plane is first copied with the zeros around it;
//! where windows are `stride` pixels apart, the pixels of a row that are `stride` apart come to lie
//! side by side, so whatever a tap reads for neighbouring outputs is one run. Work is split by plane.

use std::mem::MaybeUninit;

use super::axis::Axis;
use super::{CONVOLVING, Finish, Sizes, phase_pairs};
use crate::error::Result;
use crate::kernels::Real;
use crate::kernels::planes::cleared;
use crate::kernels::share::{self, share, zeros};
use crate::kernels::simd::{Isa, Job, Kernel, Lanes};

/// Rows whose sums a kernel keeps at most: enough to hide how long an addition takes.
const ROWS: usize = 8;

/// Sums over windows of a plane, as [`Axis`] has them.
#[derive(Clone, Debug)]
struct Plane {
    axes: [Axis; 2],
    /// Pixels of the source.
    source: [usize; 2],
    /// Pixels of a row of the target.
    target: usize,
    /// Weights of an output.
    kernel_len: usize,
    /// Pixels of a row of the copy that are side by side for neighbouring outputs.
    run: usize,
    /// For each tap, where it reads the first output, and its place in the kernel.
    taps: Vec<(usize, usize)>,
}

impl Plane {
    fn new([down, across]: [Axis; 2], source: [usize; 2], (k, target): (usize, usize)) -> Self {
        let run = across.reads(&(0..across.outputs)).len().div_ceil(across.stride);
        let (axes, taps) = ([down, across], Vec::with_capacity(down.taps * across.taps));
        let mut plane = Self { axes, source, target, kernel_len: k * k, run, taps };
        let at = |axis: &Axis, t: usize| (axis.first_read() as isize + axis.advance * t as isize) as usize;
        for (s, t) in (0..down.taps).flat_map(|s| (0..across.taps).map(move |t| (s, t))) {
            let column = at(&across, t);
            let offset = at(&down, s) * plane.row() + column % across.stride * run + column / across.stride;
            let place = (down.first + down.step * s) * k + across.first + across.step * t;
            plane.taps.push((offset, place));
        }
        plane
    }

    fn forward(sizes: &Sizes) -> Self {
        let (window, unfold) = (sizes.conv.window(), &sizes.unfold);
        let axes = [Axis::forward(window, unfold.oh), Axis::forward(window, unfold.ow)];
        Self::new(axes, [unfold.h, unfold.w], (window.k, unfold.ow))
    }

    /// The gradients by the inputs at these positions, of `stride` along each axis.
    fn backward(sizes: &Sizes, [down, across]: [usize; 2]) -> Self {
        let (conv, unfold) = (&sizes.conv, &sizes.unfold);
        let axes = [Axis::backward(conv, unfold.h, down), Axis::backward(conv, unfold.w, across)];
        Self::new(axes, [unfold.oh, unfold.ow], (conv.k, unfold.w))
    }

    /// Elements of a row of the copy.
    fn row(&self) -> usize {
        self.run * self.axes[1].stride
    }

    /// Elements of the copy. A register may read beyond the last row.
    fn copy_len<T: Real>(&self) -> usize {
        let [down, _] = &self.axes;
        down.reads(&(0..down.outputs)).len() * self.row() + T::widths()[0]
    }

    /// Whether the sums are a whole plane of the target.
    fn is_dense(&self) -> bool {
        self.axes.iter().all(|axis| axis.to_step == 1)
    }

    /// Takes the sums to their places in a plane of the target.
    fn scatter<T: Real>(&self, sums: &[T], target: &mut [T]) {
        let [down, across] = &self.axes;
        let rows = target.chunks_exact_mut(self.target).skip(down.to_start).step_by(down.to_step);
        for (row, sums) in rows.zip(sums.chunks_exact(across.outputs.max(1))) {
            let places = row.iter_mut().skip(across.to_start).step_by(across.to_step);
            places.zip(sums).for_each(|(to, &sum)| *to = sum);
        }
    }

    /// Elements of the sums.
    fn sums_len(&self) -> usize {
        self.axes[0].outputs * self.axes[1].outputs
    }

    /// Copies a plane of the source.
    fn copy<T: Real>(&self, plane: &[T], to: &mut [T]) {
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

    /// Fills `sums` with the sums over a copy, or adds them to it.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn sum<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        (copy, kernel): (&[T], &[T]),
        sums: &mut [T],
        adds: bool,
    ) {
        let [rows, columns] = [0, 1].map(|i| self.axes[i].outputs);
        assert!(copy.len() >= self.copy_len::<T>() && sums.len() >= self.sums_len(), "a plane is too short");
        assert!(self.taps.iter().all(|(_, place)| *place < kernel.len()), "a kernel is too short");
        let x_row = self.axes[0].stride * self.row();
        for column in (0..columns).step_by(S::Register::LANES) {
            let mut row = 0;
            while row < rows {
                let tile = Outputs {
                    x: copy.as_ptr().wrapping_add(row * x_row + column),
                    x_row,
                    taps: &self.taps,
                    kernel: kernel.as_ptr(),
                    sums: sums.as_mut_ptr().wrapping_add(row * columns + column),
                    columns,
                    n: S::Register::LANES.min(columns - column),
                    adds,
                };
                // SAFETY: the caller promises the processor. Rows and columns lie within the sums, what
                // taps read within the copy or less than a register beyond its last row, and the
                // kernel has all places, as asserted above.
                unsafe {
                    match rows - row {
                        ROWS.. => S::vectorize(Rows::<_, ROWS>(tile)),
                        4.. => S::vectorize(Rows::<_, 4>(tile)),
                        2.. => S::vectorize(Rows::<_, 2>(tile)),
                        _ => S::vectorize(Rows::<_, 1>(tile)),
                    }
                }
                row += [ROWS, 4, 2, 1].into_iter().find(|n| row + n <= rows).unwrap_or(1);
            }
        }
    }
}

/// Sums of a register of pixels in some neighbouring rows:
///
/// ```text
/// for taps (offset, place), r, v:  sums[r][v] += x[offset][r][v] * kernel[place]
/// ```
#[derive(Clone, Copy)]
struct Outputs<'a, T> {
    x: *const T,
    /// From what a row of sums reads to what the next one does.
    x_row: usize,
    taps: &'a [(usize, usize)],
    kernel: *const T,
    sums: *mut T,
    /// From a row of sums to the next.
    columns: usize,
    /// Pixels, at most those of a register.
    n: usize,
    adds: bool,
}

struct Rows<'a, T, const R: usize>(Outputs<'a, T>);

impl<V: Lanes, const R: usize> Kernel<V> for Rows<'_, V::Element, R> {
    #[inline(always)]
    unsafe fn run(self) {
        let tile = self.0;
        // SAFETY: the caller promises the processor.
        let mut sums = [unsafe { V::zero() }; R];
        if tile.adds {
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller promises `n` sums in each row.
                *sum = unsafe { V::load_part(tile.sums.wrapping_add(r * tile.columns), tile.n) };
            }
        }
        for &(offset, place) in tile.taps {
            // SAFETY: the caller promises the kernel.
            let weight = unsafe { V::splat(tile.kernel.wrapping_add(place)) };
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller promises whole registers of what is read.
                let x = unsafe { V::load(tile.x.wrapping_add(offset + r * tile.x_row)) };
                *sum = sum.add_product(x, weight);
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            let to = tile.sums.wrapping_add(r * tile.columns);
            // SAFETY: the caller promises `n` sums in each row.
            unsafe { if tile.n == V::LANES { sum.store(to) } else { sum.store_part(to, tile.n) } };
        }
    }
}

/// Which planes of the source a plane of the target is summed from.
#[derive(Clone, Copy, Debug)]
enum Terms {
    /// One, which so many planes of the target share.
    One { multiplier: usize },
    /// So many.
    All { multiplier: usize },
}

/// Planes of a target, each the sum of one correlation, or for positions `stride` apart of several.
struct Targets<'a, T> {
    how: &'a [Plane],
    source: &'a [T],
    weight: &'a [T],
    /// Planes of an image of the target, and pixels of a plane.
    channels: usize,
    pixels: usize,
    terms: Terms,
    finish: &'a Finish<'a, T>,
    target: &'a mut [MaybeUninit<T>],
    scratch: &'a mut [T],
}

impl<T: Real> Targets<'_, T> {
    /// Does it by the best instructions there are.
    fn run(self) {
        // SAFETY: the job demands nothing beside its processor.
        unsafe { T::dispatch(self) };
    }

    /// Elements that a worker needs: of a copy, and of sums that are not written where they belong.
    fn lens(how: &[Plane]) -> [usize; 2] {
        let copy = how.iter().map(Plane::copy_len::<T>).max();
        let sums = how.iter().filter(|how| !how.is_dense()).map(Plane::sums_len).max();
        [copy, sums].map(Option::unwrap_or_default)
    }

    fn scratch_len(planes: usize, how: &[Plane], threads: usize) -> usize {
        share::scratch_len(planes, Self::lens(how).iter().sum(), threads)
    }
}

impl<T: Real> Job<T> for Targets<'_, T> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let Self { how, source, weight, channels, pixels, terms, finish, target, scratch } = self;
        let [copy_len, sums_len] = Self::lens(how);
        let (planes, k) = (target.len() / pixels.max(1), how[0].kernel_len);
        let work = target.chunks_exact_mut(pixels.max(1)).enumerate();
        share((scratch, copy_len + sums_len), (planes, work), |scratch, (index, target)| {
            let target = cleared(target);
            let (copy, sums) = scratch.split_at_mut(copy_len);
            let channel = index % channels;
            let (first, kernel, count) = match terms {
                Terms::One { multiplier } => (index / multiplier, channel, 1),
                Terms::All { multiplier } => (index * multiplier, channel * multiplier, multiplier),
            };
            for how in how {
                let [h, w] = how.source;
                let to = if how.is_dense() { &mut *target } else { &mut sums[..how.sums_len()] };
                for term in 0..count {
                    how.copy(&source[(first + term) * h * w..][..h * w], copy);
                    let kernel = &weight[(kernel + term) * k..][..k];
                    // SAFETY: the caller promises the processor.
                    unsafe { how.sum::<S, T>((copy, kernel), to, term > 0) };
                }
                if !how.is_dense() {
                    how.scatter(sums, target);
                }
            }
            finish.apply(target, channel, index * pixels);
        });
    }
}

/// Sums over pixels of all images, for each weight of an output.
struct Weights<'a, T> {
    sizes: &'a Sizes,
    how: &'a Plane,
    dy: &'a [T],
    x: &'a [T],
    dw: &'a mut [T],
    scratch: &'a mut [T],
}

impl<T: Real> Job<T> for Weights<'_, T> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let Self { sizes, how, dy, x, dw, scratch } = self;
        let ([x_len, y_len], outputs) = (sizes.planes(), sizes.conv.outputs);
        let work = dw.chunks_exact_mut(sizes.unfold.taps()).enumerate();
        share((scratch, how.copy_len::<T>()), (outputs, work), |copy, (o, dw)| {
            dw.fill(T::zero());
            for i in 0..sizes.n {
                how.copy(&x[(i * sizes.c + o / sizes.multiplier()) * x_len..][..x_len], copy);
                // SAFETY: the caller promises the processor.
                unsafe { how.add_weights::<S, T>((copy, &dy[(i * outputs + o) * y_len..][..y_len]), dw) };
            }
        });
    }
}

impl Plane {
    /// Adds to each weight the products of the gradients `dy` with what it is multiplied with.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn add_weights<S: Isa<Register: Lanes<Element = T>>, T: Real>(
        &self,
        (copy, dy): (&[T], &[T]),
        dw: &mut [T],
    ) {
        let counts = [0, 1].map(|i| self.axes[i].outputs);
        assert!(copy.len() >= self.copy_len::<T>() && dy.len() >= self.sums_len(), "a plane is too short");
        let x_row = self.axes[0].stride * self.row();
        let mut taps = &self.taps[..];
        macro_rules! of {
            ($q:literal) => {
                while let Some((some, rest)) = taps.split_first_chunk::<$q>() {
                    let x = some.map(|(offset, _)| copy.as_ptr().wrapping_add(offset));
                    let mut sums = [T::zero(); $q];
                    // SAFETY: the caller promises the processor; what taps read lies within the copy, and
                    // there is a gradient for each output, as asserted above.
                    unsafe { S::vectorize(Taps { x, x_row, dy: dy.as_ptr(), counts, sums: &mut sums }) };
                    some.iter().zip(sums).for_each(|((_, place), sum)| dw[*place] += sum);
                    taps = rest;
                }
            };
        }
        // Whole kernels of three, and rows of those of five.
        if taps.len().is_multiple_of(9) {
            of!(9);
        }
        of!(5);
        of!(2);
        of!(1);
    }
}

/// Sums over the pixels of a plane for `Q` taps:
///
/// ```text
/// for rows, columns, q:  sums[q] += x[q][row][column] * dy[row][column]
/// ```
struct Taps<'a, T, const Q: usize> {
    x: [*const T; Q],
    x_row: usize,
    dy: *const T,
    /// Rows and columns.
    counts: [usize; 2],
    sums: &'a mut [T; Q],
}

impl<V: Lanes, const Q: usize> Kernel<V> for Taps<'_, V::Element, Q> {
    #[inline(always)]
    unsafe fn run(self) {
        let [rows, columns] = self.counts;
        // SAFETY: the caller promises the processor.
        let zero = unsafe { V::zero() };
        let mut sums = [zero; Q];
        for row in 0..rows {
            let dy = self.dy.wrapping_add(row * columns);
            let mut column = 0;
            while column + V::LANES <= columns {
                // SAFETY: the caller promises the gradients.
                let dy = unsafe { V::load(dy.wrapping_add(column)) };
                for (sum, x) in sums.iter_mut().zip(self.x) {
                    // SAFETY: the caller promises what taps read.
                    let x = unsafe { V::load(x.wrapping_add(row * self.x_row + column)) };
                    *sum = sum.add_product(x, dy);
                }
                column += V::LANES;
            }
            let n = columns - column;
            if n > 0 {
                // SAFETY: as above; these are left.
                let dy = unsafe { V::load_part(dy.wrapping_add(column), n) };
                for (sum, x) in sums.iter_mut().zip(self.x) {
                    // SAFETY: as above. What lies behind may be infinite, so it is not read.
                    let x = unsafe { V::load_part(x.wrapping_add(row * self.x_row + column), n) };
                    *sum = sum.add_product(x, dy);
                }
            }
        }
        for (four, to) in sums.chunks(4).zip(self.sums.chunks_mut(4)) {
            let four = std::array::from_fn(|i| four.get(i).copied().unwrap_or(zero));
            to.iter_mut().zip(V::sums(&four)).for_each(|(to, sum)| *to = sum);
        }
    }
}

impl Sizes {
    fn planes(&self) -> [usize; 2] {
        [self.unfold.h * self.unfold.w, self.unfold.oh * self.unfold.ow]
    }

    /// Outputs that read one input channel.
    fn multiplier(&self) -> usize {
        self.conv.outputs / self.c
    }
}

/// Elements of scratch for the outputs on `threads` threads.
pub(super) fn scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    Targets::<T>::scratch_len(sizes.n * sizes.conv.outputs, &[Plane::forward(sizes)], threads)
}

/// Elements of scratch for the gradient by the input.
pub(super) fn dx_scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    Targets::<T>::scratch_len(sizes.n * sizes.c, &backward(sizes), threads)
}

/// Elements of scratch for the gradient by the weight.
pub(super) fn dw_scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    share::scratch_len(sizes.conv.outputs, Plane::forward(sizes).copy_len::<T>(), threads)
}

fn backward(sizes: &Sizes) -> Vec<Plane> {
    phase_pairs(sizes).map(|phases| Plane::backward(sizes, phases)).collect()
}

/// Fills `y`, with [`scratch_len`] elements of scratch.
pub(super) fn forward_into<T: Real>(
    sizes: &Sizes,
    [x, w]: [&[T]; 2],
    finish: &Finish<T>,
    (target, scratch): (&mut [MaybeUninit<T>], &mut [T]),
) {
    let (how, [_, pixels], multiplier) = (&[Plane::forward(sizes)], sizes.planes(), sizes.multiplier());
    let terms = Terms::One { multiplier };
    Targets {
        how,
        source: x,
        weight: w,
        channels: sizes.conv.outputs,
        pixels,
        terms,
        finish,
        target,
        scratch,
    }
    .run();
}

/// Fills `dx`, with [`dx_scratch_len`] elements of scratch.
pub(super) fn dx_into<T: Real>(
    sizes: &Sizes,
    [dy, w]: [&[T]; 2],
    (target, scratch): (&mut [MaybeUninit<T>], &mut [T]),
) {
    let (how, [pixels, _], multiplier) = (&backward(sizes), sizes.planes(), sizes.multiplier());
    let (terms, finish) = (Terms::All { multiplier }, &Finish::NONE);
    Targets { how, source: dy, weight: w, channels: sizes.c, pixels, terms, finish, target, scratch }.run();
}

pub(super) fn dw<T: Real>(sizes: &Sizes, dy: &[T], x: &[T]) -> Result<Vec<T>> {
    assert_eq!(x.len(), sizes.n * sizes.x_len(), "x");
    assert_eq!(dy.len(), sizes.n * sizes.y_len(), "dy");
    let how = &Plane::forward(sizes);
    let mut dw = zeros(CONVOLVING, sizes.weight_len())?;
    let scratch = &mut zeros(CONVOLVING, dw_scratch_len::<T>(sizes, rayon::current_num_threads()))?;
    // SAFETY: the job demands nothing beside its processor.
    unsafe { T::dispatch(Weights { sizes, how, dy, x, dw: &mut dw, scratch }) };
    Ok(dw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::Conv2d;
    use crate::kernels::simd;

    /// Whole numbers from -3 to 3: no sum of them is rounded, so every order of adding gives its bits.
    fn whole(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 2_654_435_761 % 7919 % 7) as f32 - 3.0).collect()
    }

    #[test]
    fn every_set_of_instructions_gives_the_same_sums() {
        let conv = |k, stride, dilation, padding, c, multiplier| Conv2d {
            groups: c,
            dilation,
            padding,
            ..Conv2d::valid(c * multiplier, k, stride)
        };
        for (conv, shape) in [
            (conv(3, 1, 1, 1, 3, 1), [2, 3, 9, 37]),
            (conv(5, 1, 1, 2, 2, 2), [2, 2, 7, 7]),
            (conv(3, 2, 2, 3, 2, 3), [1, 2, 12, 19]),
            (conv(2, 3, 1, 0, 2, 1), [2, 2, 5, 8]),
        ] {
            let sizes = &Sizes::of(&conv, shape).unwrap();
            let (x, w) = (whole(sizes.n * sizes.x_len(), 1), whole(sizes.weight_len(), 2));
            let dy = whole(sizes.n * sizes.y_len(), 3);
            let of = |job: &mut dyn FnMut(usize, &mut Vec<Vec<f32>>)| {
                let mut all = Vec::new();
                (0..simd::SETS).filter(|&set| simd::widths(set).is_some()).for_each(|set| job(set, &mut all));
                assert!(all.iter().all(|one| *one == all[0]), "{conv:?}");
            };
            let [x_len, y_len] = sizes.planes();
            let finish = &Finish::NONE;
            of(&mut |set, all| {
                let (how, terms) = (&[Plane::forward(sizes)], Terms::One { multiplier: sizes.multiplier() });
                let (target, scratch) =
                    (&mut vec![f32::NAN; dy.len()], &mut vec![f32::NAN; scratch_len::<f32>(sizes, 2)]);
                let (source, weight, channels) = (&x[..], &w[..], conv.outputs);
                let job = Targets {
                    how,
                    source,
                    weight,
                    channels,
                    pixels: y_len,
                    terms,
                    finish,
                    target: share::unwritten(target),
                    scratch,
                };
                // SAFETY: the job demands nothing beside its processor.
                unsafe { simd::run(set, job) };
                all.push(std::mem::take(target));
            });
            of(&mut |set, all| {
                let (how, terms) = (&backward(sizes), Terms::All { multiplier: sizes.multiplier() });
                let (target, scratch) =
                    (&mut vec![f32::NAN; x.len()], &mut vec![f32::NAN; dx_scratch_len::<f32>(sizes, 2)]);
                let (source, weight, channels) = (&dy[..], &w[..], sizes.c);
                let job = Targets {
                    how,
                    source,
                    weight,
                    channels,
                    pixels: x_len,
                    terms,
                    finish,
                    target: share::unwritten(target),
                    scratch,
                };
                // SAFETY: as above.
                unsafe { simd::run(set, job) };
                all.push(std::mem::take(target));
            });
            of(&mut |set, all| {
                let (how, scratch) =
                    (&Plane::forward(sizes), &mut vec![f32::NAN; dw_scratch_len::<f32>(sizes, 2)]);
                let mut dw = vec![f32::NAN; w.len()];
                let job = Weights { sizes, how, dy: &dy, x: &x, dw: &mut dw, scratch };
                // SAFETY: as above.
                unsafe { simd::run(set, job) };
                all.push(dw);
            });
        }
    }
}
