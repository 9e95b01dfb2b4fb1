//! Convolution with one input channel for each output: there is no sum over channels.
//!
//! A register holds neighbouring *pixels* of a row. The windows that most networks have lie around their
//! outputs, a pixel apart, and are read from the plane as it is: `around`. For all others a plane is first copied
//! with the zeros around it; where windows are `stride` pixels apart, the pixels of a row that are `stride`
//! apart come to lie side by side, so whatever a tap reads for neighbouring outputs is one run: `tile`. Work is
//! split by planes.

mod around;
mod plane;
mod tile;

use std::mem::MaybeUninit;

use self::around::Around;
pub(super) use self::plane::MOST_TAPS;
use self::plane::Plane;
use super::sums::Target;
use super::{CONVOLVING, Finish, Sizes, phase_pairs};
use crate::error::Result;
use crate::kernels::Real;
use crate::kernels::share::{self, Scratch, share, share_places, zeros};
use crate::kernels::simd::{Isa, Job, Lanes};

/// Pixels of the planes that a worker takes at once: taking them costs as much as some hundred pixels.
const AT_ONCE: usize = 1 << 12;

/// Which planes of the source a plane of the target is summed from.
#[derive(Clone, Copy, Debug)]
enum Terms {
    /// One, which so many planes of the target share.
    One { multiplier: usize },
    /// So many.
    All { multiplier: usize },
}

/// Planes of a target, or in each the positions that are `stride` apart.
struct Targets<'a, T> {
    how: &'a Plane,
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

impl Terms {
    /// How windows lie around their outputs, where one plane is all there is to sum.
    fn around(self, how: &Plane) -> Option<Around> {
        let (Self::One { .. } | Self::All { multiplier: 1 }) = self else { return None };
        Around::of(how)
    }
}

impl<T: Real> Targets<'_, T> {
    /// Does it by the best instructions there are.
    fn run(self) {
        // SAFETY: the job demands nothing beside its processor.
        unsafe { T::dispatch(self) };
    }

    /// Elements that a worker needs: of a copy, and of sums that are not written where they belong.
    fn lens(how: &Plane, terms: Terms) -> [usize; 2] {
        if terms.around(how).is_some() {
            return [0; 2];
        }
        [how.copy_len::<T>(), if how.is_dense() { 0 } else { how.sums_len() }]
    }

    /// Planes that a worker takes at once.
    fn planes(pixels: usize) -> usize {
        (AT_ONCE / pixels.max(1)).max(1)
    }

    fn scratch_len((planes, pixels): (usize, usize), (how, terms): (&Plane, Terms), threads: usize) -> usize {
        let len = Self::lens(how, terms).iter().sum();
        share::scratch_len(planes.div_ceil(Self::planes(pixels)), len, threads)
    }
}

impl<T: Real> Job<T> for Targets<'_, T> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let Self { how, source, weight, channels, pixels, terms, finish, target, scratch } = self;
        let ([copy_len, sums_len], [h, w], k) = (Self::lens(how, terms), how.source, how.kernel_len);
        let (planes, around) = (Self::planes(pixels), terms.around(how));
        let pieces = target.len().div_ceil(planes * pixels.max(1));
        let (count, target) = (target.len() / pixels.max(1), Target::new(target));
        scratch.fill(T::zero());
        let one = |scratch: &mut [T], index: usize, target: &mut [T]| {
            let (copy, sums) = scratch.split_at_mut(copy_len);
            let channel = index % channels;
            let (first, kernel, count) = match terms {
                Terms::One { multiplier } => (index / multiplier, channel, 1),
                Terms::All { multiplier } => (index * multiplier, channel * multiplier, multiplier),
            };
            let term = |term: usize| {
                (&source[(first + term) * h * w..][..h * w], &weight[(kernel + term) * k..][..k])
            };
            if let Some(around) = around {
                // SAFETY: the caller promises the processor.
                unsafe { how.sum_around::<S, T>(around, term(0), target) };
                return finish.apply(target, channel, index * pixels);
            }
            let is_dense = how.is_dense();
            let to = if is_dense { &mut *target } else { &mut *sums };
            for (i, (plane, kernel)) in (0..count).map(term).enumerate() {
                // SAFETY: the caller promises the processor.
                unsafe { how.copy::<S>(plane, copy) };
                // SAFETY: the caller promises the processor.
                unsafe { how.sum::<S, T>((copy, kernel), to, i > 0) };
            }
            if is_dense {
                finish.apply(target, channel, index * pixels);
            } else {
                how.scatter(sums, target);
            }
        };
        share_places((scratch, copy_len + sums_len), [1, pieces], |scratch, piece| {
            for index in piece * planes..count.min((piece + 1) * planes) {
                // SAFETY: all bits are numbers, the first term writes all sums, and each task has planes of its own.
                one(scratch, index, unsafe { target.run(index * pixels..(index + 1) * pixels) });
            }
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
        let ([x_len, y_len], outputs, around) = (sizes.planes(), sizes.conv.outputs, Around::of(how));
        let work = dw.chunks_exact_mut(sizes.unfold.taps()).enumerate();
        scratch.fill(T::zero());
        share((scratch, weights_len::<T>(how)), (outputs, work), |copy, (o, dw)| {
            dw.fill(T::zero());
            for i in 0..sizes.n {
                let x = &x[(i * sizes.c + o / sizes.multiplier()) * x_len..][..x_len];
                let dy = &dy[(i * outputs + o) * y_len..][..y_len];
                if let Some(around) = around {
                    // SAFETY: the caller promises the processor.
                    unsafe { how.add_weights_around::<S, T>(around, (x, dy), dw) };
                } else {
                    // SAFETY: the caller promises the processor.
                    unsafe { how.copy::<S>(x, copy) };
                    // SAFETY: the caller promises the processor.
                    unsafe { how.add_weights::<S, T>((copy, dy), dw) };
                }
            }
        });
    }
}

/// Elements that a worker needs for the weights.
fn weights_len<T: Real>(how: &Plane) -> usize {
    if Around::of(how).is_some() { 0 } else { how.copy_len::<T>() }
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
    let planes = (sizes.n * sizes.conv.outputs, sizes.planes()[1]);
    let terms = Terms::One { multiplier: sizes.multiplier() };
    Targets::<T>::scratch_len(planes, (&Plane::forward(sizes), terms), threads)
}

/// Elements of scratch for the gradient by the input.
pub(super) fn dx_scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    let phases = phase_pairs(sizes).map(|phases| Plane::backward(sizes, phases));
    let planes = (sizes.n * sizes.c, sizes.planes()[0]);
    let terms = Terms::All { multiplier: sizes.multiplier() };
    phases.map(|how| Targets::<T>::scratch_len(planes, (&how, terms), threads)).max().unwrap_or(0)
}

/// Elements of scratch for the gradient by the weight.
pub(super) fn dw_scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    share::scratch_len(sizes.conv.outputs, weights_len::<T>(&Plane::forward(sizes)), threads)
}

/// Fills `y`, with [`scratch_len`] elements of scratch.
pub(super) fn forward_into<T: Real>(
    sizes: &Sizes,
    [x, w]: [&[T]; 2],
    finish: &Finish<T>,
    (target, scratch): (&mut [MaybeUninit<T>], &mut [T]),
) {
    let (how, [_, pixels], multiplier) = (&Plane::forward(sizes), sizes.planes(), sizes.multiplier());
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
    let ([pixels, _], channels, finish) = (sizes.planes(), sizes.c, &Finish::NONE);
    let terms = Terms::All { multiplier: sizes.multiplier() };
    for phases in phase_pairs(sizes) {
        let (how, target, scratch) = (&Plane::backward(sizes, phases), &mut target[..], &mut scratch[..]);
        Targets { how, source: dy, weight: w, channels, pixels, terms, finish, target, scratch }.run();
    }
}

pub(super) fn dw<T: Real>(sizes: &Sizes, dy: &[T], x: &[T]) -> Result<Vec<T>> {
    assert_eq!(x.len(), sizes.n * sizes.x_len(), "x");
    assert_eq!(dy.len(), sizes.n * sizes.y_len(), "dy");
    let how = &Plane::forward(sizes);
    let mut dw = zeros(CONVOLVING, sizes.weight_len())?;
    let mut scratch = Scratch::new(CONVOLVING, dw_scratch_len::<T>(sizes, rayon::current_num_threads()))?;
    let scratch = scratch.numbers();
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
            (conv(3, 1, 2, 2, 2, 1), [2, 2, 11, 70]),
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
                let (how, terms) = (&Plane::forward(sizes), Terms::One { multiplier: sizes.multiplier() });
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
                let (target, scratch) =
                    (&mut vec![f32::NAN; x.len()], &mut vec![f32::NAN; dx_scratch_len::<f32>(sizes, 2)]);
                for phases in phase_pairs(sizes) {
                    let (how, terms) =
                        (&Plane::backward(sizes, phases), Terms::All { multiplier: sizes.multiplier() });
                    let (source, weight, channels) = (&dy[..], &w[..], sizes.c);
                    let (target, scratch) = (share::unwritten(target), &mut scratch[..]);
                    let job = Targets {
                        how,
                        source,
                        weight,
                        channels,
                        pixels: x_len,
                        terms,
                        finish,
                        target,
                        scratch,
                    };
                    // SAFETY: as above.
                    unsafe { simd::run(set, job) };
                }
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
