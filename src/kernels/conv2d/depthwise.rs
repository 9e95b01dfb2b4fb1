//! Convolution with one input channel for each output: there is no sum over channels.
//!
//! A register holds neighbouring *pixels* of a row. The windows that most networks have lie around pixels, one or
//! two apart, and planes are read as they are: `around`. For all others, and gradients of an input that has
//! several outputs, a plane is first copied with the zeros around it; where windows are `stride` pixels apart, the pixels of a row that are `stride`
//! apart come to lie side by side, so whatever a tap reads for neighbouring outputs is one run: `tile`. Work is
//! split by planes.

mod around;
mod beside;
mod halved;
mod plane;
mod tile;

use std::mem::MaybeUninit;

pub(in crate::kernels) use self::around::Around;
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

impl Terms {
    /// The first plane of the source, the kernel that it is multiplied with, and how many follow one another.
    fn of(self, index: usize, channel: usize) -> (usize, usize, usize) {
        match self {
            Self::One { multiplier } => (index / multiplier, channel, 1),
            Self::All { multiplier } => (index * multiplier, channel * multiplier, multiplier),
        }
    }

    /// Kernels of so many channels of the target.
    fn kernels(self, channels: usize) -> usize {
        match self {
            Self::One { .. } => channels,
            Self::All { multiplier } => channels * multiplier,
        }
    }
}

/// How a plane of the target comes from those of the source.
#[derive(Clone, Copy, Debug)]
enum How<'a> {
    /// Windows around pixels make sums.
    Around(Around),
    /// The same windows, the other way.
    Spread(Around),
    /// By a copy; of a target whose windows are apart, the positions that are `stride` apart.
    Copied(&'a Plane),
}

impl How<'_> {
    /// Elements that a worker needs: of a copy, and of sums that are not written where they belong.
    fn lens<T: Real>(self) -> [usize; 2] {
        match self {
            Self::Around(_) | Self::Spread(_) => [0; 2],
            Self::Copied(how) => [how.copy_len::<T>(), if how.is_dense() { 0 } else { how.sums_len() }],
        }
    }

    fn scratch_len<T: Real>(self, (planes, pixels): (usize, usize), threads: usize) -> usize {
        share::scratch_len(planes.div_ceil(at_once(pixels)), self.lens::<T>().iter().sum(), threads)
    }
}

/// Planes that a worker takes at once.
fn at_once(pixels: usize) -> usize {
    (AT_ONCE / pixels.max(1)).max(1)
}

/// Planes of a target.
struct Targets<'a, T> {
    how: How<'a>,
    source: &'a [T],
    weight: &'a [T],
    /// Planes of an image of the target, and pixels of a plane of the target and of the source.
    channels: usize,
    pixels: [usize; 2],
    terms: Terms,
    finish: &'a Finish<'a, T>,
    target: &'a mut [MaybeUninit<T>],
    scratch: &'a mut [T],
}

impl<T: Real> Job<T> for Targets<'_, T> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let Self { how, source, weight, channels, pixels: [pixels, from], terms, finish, target, scratch } =
            self;
        let ([copy_len, sums_len], planes) = (how.lens::<T>(), at_once(pixels));
        let count = target.len() / pixels.max(1);
        let (taps, target) = (weight.len() / terms.kernels(channels).max(1), Target::new(target));
        scratch.fill(T::zero());
        let one = |scratch: &mut [T], index: usize, target: &mut [T]| {
            let channel = index % channels;
            let (first, kernel, count) = terms.of(index, channel);
            let term =
                |i: usize| (&source[(first + i) * from..][..from], &weight[(kernel + i) * taps..][..taps]);
            match how {
                // SAFETY: the caller promises the processor.
                How::Around(around) => unsafe { around.sum::<S, T>(term(0), target) },
                // SAFETY: the caller promises the processor.
                How::Spread(around) => unsafe { around.spread::<S, T>(term(0), target) },
                How::Copied(how) => {
                    let (copy, sums) = scratch.split_at_mut(copy_len);
                    let is_dense = how.is_dense();
                    let to = if is_dense { &mut *target } else { &mut *sums };
                    for (i, (plane, kernel)) in (0..count).map(term).enumerate() {
                        // SAFETY: the caller promises the processor.
                        unsafe { how.copy::<S>(plane, copy) };
                        // SAFETY: the caller promises the processor.
                        unsafe { how.sum::<S, T>((copy, kernel), to, i > 0) };
                    }
                    if !is_dense {
                        return how.scatter(sums, target);
                    }
                }
            }
            finish.apply(target, channel, index * pixels);
        };
        share_places((scratch, copy_len + sums_len), [1, count.div_ceil(planes)], |scratch, piece| {
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
    how: How<'a>,
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
        scratch.fill(T::zero());
        share((scratch, how.lens::<T>()[0]), (outputs, work), |copy, (o, dw)| {
            dw.fill(T::zero());
            for i in 0..sizes.n {
                let x = &x[(i * sizes.c + o / sizes.multiplier()) * x_len..][..x_len];
                let dy = &dy[(i * outputs + o) * y_len..][..y_len];
                match how {
                    // SAFETY: the caller promises the processor.
                    How::Around(around) | How::Spread(around) => unsafe {
                        around.add_weights::<S, T>((x, dy), dw);
                    },
                    How::Copied(how) => {
                        // SAFETY: the caller promises the processor.
                        unsafe { how.copy::<S>(x, copy) };
                        // SAFETY: the caller promises the processor.
                        unsafe { how.add_weights::<S, T>((copy, dy), dw) };
                    }
                }
            }
        });
    }
}

impl Sizes {
    /// The windows, if they lie around pixels.
    fn around(&self) -> Option<Around> {
        Around::of(self.conv.window(), [self.unfold.h, self.unfold.w])
    }

    fn planes(&self) -> [usize; 2] {
        [self.unfold.h * self.unfold.w, self.unfold.oh * self.unfold.ow]
    }

    /// Outputs that read one input channel.
    fn multiplier(&self) -> usize {
        self.conv.outputs / self.c
    }
}

/// Does something with how the outputs come about.
fn forward<R>(sizes: &Sizes, f: impl FnOnce(How) -> R) -> R {
    match sizes.around() {
        Some(around) => f(How::Around(around)),
        None => f(How::Copied(&Plane::forward(sizes))),
    }
}

/// Does something with each part of how the gradients by inputs come about.
fn backward(sizes: &Sizes, mut f: impl FnMut(How)) {
    match sizes.around().filter(|_| sizes.multiplier() == 1) {
        Some(around) => f(How::Spread(around)),
        None => phase_pairs(sizes).for_each(|phases| f(How::Copied(&Plane::backward(sizes, phases)))),
    }
}

/// Elements of scratch for the outputs on `threads` threads.
pub(super) fn scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    let planes = (sizes.n * sizes.conv.outputs, sizes.planes()[1]);
    forward(sizes, |how| how.scratch_len::<T>(planes, threads))
}

/// Elements of scratch for the gradient by the input.
pub(super) fn dx_scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    let (planes, mut most) = ((sizes.n * sizes.c, sizes.planes()[0]), 0);
    backward(sizes, |how| most = most.max(how.scratch_len::<T>(planes, threads)));
    most
}

/// Elements of scratch for the gradient by the weight.
pub(super) fn dw_scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    share::scratch_len(sizes.conv.outputs, forward(sizes, |how| how.lens::<T>()[0]), threads)
}

/// Fills `y`, with [`scratch_len`] elements of scratch.
pub(super) fn forward_into<T: Real>(
    sizes: &Sizes,
    of: [&[T]; 2],
    finish: &Finish<T>,
    to: (&mut [MaybeUninit<T>], &mut [T]),
) {
    // SAFETY: the job demands nothing beside its processor.
    forward_by((sizes, finish), of, to, |job| unsafe { T::dispatch(job) });
}

/// The same by `run`.
fn forward_by<T: Real>(
    (sizes, finish): (&Sizes, &Finish<T>),
    [source, weight]: [&[T]; 2],
    (target, scratch): (&mut [MaybeUninit<T>], &mut [T]),
    run: impl FnOnce(Targets<T>),
) {
    let ([from, to], channels) = (sizes.planes(), sizes.conv.outputs);
    let (pixels, terms) = ([to, from], Terms::One { multiplier: sizes.multiplier() });
    forward(sizes, |how| {
        run(Targets { how, source, weight, channels, pixels, terms, finish, target, scratch });
    });
}

/// Fills `dx`, with [`dx_scratch_len`] elements of scratch.
pub(super) fn dx_into<T: Real>(sizes: &Sizes, of: [&[T]; 2], to: (&mut [MaybeUninit<T>], &mut [T])) {
    // SAFETY: the job demands nothing beside its processor.
    dx_by(sizes, of, to, |job| unsafe { T::dispatch(job) });
}

/// The same by `run`.
fn dx_by<T: Real>(
    sizes: &Sizes,
    [source, weight]: [&[T]; 2],
    (target, scratch): (&mut [MaybeUninit<T>], &mut [T]),
    run: impl Fn(Targets<T>),
) {
    let (pixels, channels, finish) = (sizes.planes(), sizes.c, &Finish::NONE);
    let terms = Terms::All { multiplier: sizes.multiplier() };
    backward(sizes, |how| {
        let (target, scratch) = (&mut target[..], &mut scratch[..]);
        run(Targets { how, source, weight, channels, pixels, terms, finish, target, scratch });
    });
}

pub(super) fn dw<T: Real>(sizes: &Sizes, dy: &[T], x: &[T]) -> Result<Vec<T>> {
    // SAFETY: the job demands nothing beside its processor.
    dw_by(sizes, [dy, x], |job| unsafe { T::dispatch(job) })
}

/// The same by `run`.
fn dw_by<T: Real>(sizes: &Sizes, [dy, x]: [&[T]; 2], run: impl FnOnce(Weights<T>)) -> Result<Vec<T>> {
    assert_eq!(x.len(), sizes.n * sizes.x_len(), "x");
    assert_eq!(dy.len(), sizes.n * sizes.y_len(), "dy");
    let mut dw = zeros(CONVOLVING, sizes.weight_len())?;
    let mut scratch = Scratch::new(CONVOLVING, dw_scratch_len::<T>(sizes, rayon::current_num_threads()))?;
    let (to, scratch) = (&mut dw[..], scratch.numbers());
    forward(sizes, |how| run(Weights { sizes, how, dy, x, dw: to, scratch }));
    Ok(dw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::Conv2d;
    use crate::kernels::conv2d::{Epilogue, slow};
    use crate::kernels::{simd, tensor};

    /// Whole numbers from -3 to 3: no sum of them is rounded, so every order of adding gives its bits.
    fn whole(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 2_654_435_761 % 7919 % 7) as f32 - 3.0).collect()
    }

    /// What stands behind the last gradient of a row is no part of a sum, whatever it is.
    #[test]
    fn an_infinite_pixel_stays_where_it_is_read() {
        let infinite = f32::INFINITY;
        for (stride, x, dy, want) in [
            (1, vec![2.0, 3.0, infinite], vec![1.0; 3], [5.0, infinite, infinite]),
            (2, vec![2.0, 3.0, 4.0, infinite], vec![1.0; 2], [3.0, 6.0, infinite]),
        ] {
            let conv = Conv2d { groups: 2, ..Conv2d::same(2, 3, stride) };
            let sizes = &Sizes::of(&conv, [1, 2, 1, x.len()]).unwrap();
            let (x, dy) = ([&x[..], &x].concat(), [&dy[..], &dy].concat());
            for set in (0..simd::SETS).filter(|&set| simd::widths(set).is_some()) {
                let dw = dw_by(sizes, [&dy, &x], |job| {
                    // SAFETY: the job demands nothing beside its processor.
                    unsafe { simd::run(set, job) };
                });
                let row = [&[0.0; 3][..], &want, &[0.0; 3]].concat();
                assert_eq!(dw.unwrap(), [&row[..], &row].concat(), "stride {stride} by set {set}");
            }
        }
    }

    #[test]
    fn every_set_of_instructions_gives_the_sums_of_the_slow_body() {
        let conv = |k, stride, dilation, padding, c, multiplier| Conv2d {
            groups: c,
            dilation,
            padding,
            ..Conv2d::valid(c * multiplier, k, stride)
        };
        for (conv, shape) in [
            (conv(3, 1, 1, 1, 3, 1), [2, 3, 9, 37]),
            (conv(3, 1, 2, 2, 2, 1), [2, 2, 11, 70]),
            (conv(5, 1, 1, 2, 2, 2), [2, 2, 7, 7]),
            (conv(3, 2, 1, 1, 2, 1), [2, 2, 14, 33]),
            (conv(3, 2, 2, 2, 2, 1), [1, 2, 5, 80]),
            (conv(5, 2, 1, 2, 3, 1), [2, 3, 7, 7]),
            (conv(5, 2, 1, 2, 1, 3), [1, 1, 4, 64]),
            (conv(3, 2, 2, 3, 2, 3), [1, 2, 12, 19]),
            (conv(2, 3, 1, 0, 2, 1), [2, 2, 5, 8]),
        ] {
            let sizes = &Sizes::of(&conv, shape).unwrap();
            let (x, w) = (whole(sizes.n * sizes.x_len(), 1), whole(sizes.weight_len(), 2));
            let dy = whole(sizes.n * sizes.y_len(), 3);
            let shaped = |numbers: &[f32], shape: &[usize]| tensor(numbers.to_vec(), shape).unwrap();
            let (xs, ws) = (shaped(&x, &shape), shaped(&w, &conv.weight_shape(shape[1])));
            let dys = shaped(&dy, &sizes.y_shape());
            let want = [
                slow::forward(sizes, &xs, &ws, Epilogue::default()),
                slow::dx(sizes, &dys, &ws),
                slow::dw(sizes, &dys, &xs),
            ];
            let want = want.map(|t| t.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
            for set in (0..simd::SETS).filter(|&set| simd::widths(set).is_some()) {
                let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
                let scratch = &mut vec![f32::NAN; scratch_len::<f32>(sizes, 2)];
                forward_by((sizes, &Finish::NONE), [&x, &w], (share::unwritten(&mut y), scratch), |job| {
                    // SAFETY: the job demands nothing beside its processor.
                    unsafe { simd::run(set, job) };
                });
                let scratch = &mut vec![f32::NAN; dx_scratch_len::<f32>(sizes, 2)];
                dx_by(sizes, [&dy, &w], (share::unwritten(&mut dx), scratch), |job| {
                    // SAFETY: as above.
                    unsafe { simd::run(set, job) };
                });
                let dw = dw_by(sizes, [&dy, &x], |job| {
                    // SAFETY: as above.
                    unsafe { simd::run(set, job) };
                });
                assert_eq!([y, dx, dw.unwrap()], want, "{conv:?} by set {set}");
            }
        }
    }
}
