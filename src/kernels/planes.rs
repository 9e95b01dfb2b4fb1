//! Loops over planes that the CPU bodies share: filling a result, summing in a fixed order.
//!
//! A *plane* is the pixels of one channel of one image; plane `i * c + j` belongs to image `i`
//! and channel `j`. No thread count changes the order of a sum.

mod sums;

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::{DType, Tensor};
use rayon::prelude::*;

pub(crate) use self::sums::{channel_sums, sum, sums};
use super::share::{filled, pieces, zeros};
use super::simd::widened;
use super::{Real, tensor};
use crate::error::{During, Result};

/// Elements below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 14;

/// Elements that are copied and then changed together: few enough for the first-level cache.
const BLOCK: usize = 1 << 11;

/// `planes * pixels` elements, where `f(plane, pixels, out)` writes those of a range of pixels.
/// What it leaves is 0. The memory is asked for in the name of `what`. The ranges of a single plane start
/// at multiples of 8.
pub(crate) fn build<T: Real>(
    what: &str,
    [planes, pixels]: [usize; 2],
    f: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
) -> Result<Vec<T>> {
    let fill = |y: &mut [MaybeUninit<T>]| {
        pieces(y, SERIAL, &|i, out| {
            let out = cleared(out);
            widened(|| write_from(i * SERIAL, out, pixels, &f));
        });
    };
    // SAFETY: all pieces together, each of which is cleared.
    #[allow(unsafe_code)]
    unsafe {
        filled(what, planes * pixels, fill)
    }
}

/// Memory as zeros: where a piece is cleared just before it is written, it is in the cache then.
fn cleared<T: Real>(piece: &mut [MaybeUninit<T>]) -> &mut [T] {
    piece.iter_mut().for_each(|x| {
        x.write(T::zero());
    });
    // SAFETY: every element was written above.
    #[allow(unsafe_code)]
    unsafe {
        &mut *(std::ptr::from_mut(piece) as *mut [T])
    }
}

/// As [`build`], to memory that is there: `f` finds what `y` held before.
pub(crate) fn write<T: Real>(y: &mut [T], pixels: usize, f: impl Fn(usize, Range<usize>, &mut [T]) + Sync) {
    pieces(y, SERIAL, &|i, out| widened(|| write_from(i * SERIAL, out, pixels, &f)));
}

/// The elements from `start` on.
#[inline(always)]
fn write_from<T>(start: usize, out: &mut [T], pixels: usize, f: &impl Fn(usize, Range<usize>, &mut [T])) {
    let mut done = 0;
    while done < out.len() {
        let (plane, first) = ((start + done) / pixels, (start + done) % pixels);
        let len = (pixels - first).min(out.len() - done);
        f(plane, first..first + len, &mut out[done..done + len]);
        done += len;
    }
}

/// As [`build`], where `f` finds the elements of `x`. A copy that stays in the first-level cache costs
/// next to nothing, and one body serves this and [`change`].
pub(crate) fn changed<T: Real>(
    what: &str,
    x: &[T],
    pixels: usize,
    f: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
) -> Result<Vec<T>> {
    let fill = |y: &mut [MaybeUninit<T>]| {
        pieces(y, SERIAL, &|i, out| {
            let x = &x[i * SERIAL..][..out.len()];
            widened(|| {
                for (j, (out, x)) in out.chunks_mut(BLOCK).zip(x.chunks(BLOCK)).enumerate() {
                    write_from(i * SERIAL + j * BLOCK, out.write_copy_of_slice(x), pixels, &f);
                }
            });
        });
    };
    // SAFETY: all pieces together, each of which is a copy of as much of `x`.
    #[allow(unsafe_code)]
    unsafe {
        filled(what, x.len(), fill)
    }
}

/// As [`build`], where `f` gives the elements one after the other.
///
/// # Panics
///
/// When there are less than there should be.
pub(crate) fn collect<T: Real, I: Iterator<Item = T>>(
    what: &str,
    [planes, pixels]: [usize; 2],
    f: impl Fn(usize, Range<usize>) -> I + Sync,
) -> Result<Vec<T>> {
    let write = |plane: usize, at: Range<usize>, out: &mut [MaybeUninit<T>]| {
        let n = at.len();
        let written = out.iter_mut().zip(f(plane, at)).map(|(out, x)| out.write(x)).count();
        assert_eq!(written, n, "elements of {what}");
    };
    let fill = |y: &mut [MaybeUninit<T>]| {
        pieces(y, SERIAL, &|i, out| widened(|| write_from(i * SERIAL, out, pixels, &write)));
    };
    // SAFETY: `write_from` gives every element to `write` once, which asserts that it writes them.
    #[allow(unsafe_code)]
    unsafe {
        filled(what, planes * pixels, fill)
    }
}

/// As [`write()`], where `f` finds the elements of `x`; without an `x`, those that `y` holds.
pub(crate) fn change<T: Real>(
    y: &mut [T],
    x: Option<&[T]>,
    pixels: usize,
    f: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
) {
    match x {
        None => write(y, pixels, f),
        Some(x) => write(y, pixels, |plane, at, out| {
            for (out, start) in out.chunks_mut(BLOCK).zip(at.step_by(BLOCK)) {
                let at = start..start + out.len();
                out.copy_from_slice(&x[plane * pixels..][at.clone()]);
                f(plane, at, out);
            }
        }),
    }
}

/// As [`build`], a whole plane at a time: `f(plane, out)`.
pub(crate) fn build_whole<T: Real>(
    what: &str,
    [planes, pixels]: [usize; 2],
    f: impl Fn(usize, &mut [T]) + Sync,
) -> Result<Vec<T>> {
    let mut y = zeros(what, planes * pixels)?;
    write_whole(&mut y, pixels, f);
    Ok(y)
}

/// As [`build_whole`], to memory that is there: `f` finds what `y` held before.
pub(crate) fn write_whole<T: Real>(y: &mut [T], pixels: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let (pixels, together) = (pixels.max(1), SERIAL.div_ceil(pixels.max(1)));
    pieces(y, together * pixels, &|i, planes| {
        for (j, out) in planes.chunks_exact_mut(pixels).enumerate() {
            widened(|| f(i * together + j, out));
        }
    });
}

/// `y[plane] = f(plane)` for planes of `pixels` elements, in parallel.
pub(crate) fn reduce<T: Real>(y: &mut [T], pixels: usize, f: impl Fn(usize) -> T + Sync) {
    let least = SERIAL.div_ceil(pixels.max(1));
    pieces(y, least, &|i, planes| {
        widened(|| planes.iter_mut().enumerate().for_each(|(j, y)| *y = f(i * least + j)));
    });
}

/// `f` of every element of `x`.
pub(crate) fn map<T: Real>(what: &str, x: &[T], f: impl Fn(T) -> T + Sync) -> Result<Vec<T>> {
    collect(what, [1, x.len()], |_, at| x[at].iter().map(|&x| f(x)))
}

/// `f` of every two elements of `a` and `b`, which are equally long.
pub(crate) fn zip<T: Real>(what: &str, [a, b]: [&[T]; 2], f: impl Fn(T, T) -> T + Sync) -> Result<Vec<T>> {
    collect(what, [1, a.len()], |_, at| a[at.clone()].iter().zip(&b[at]).map(|(&a, &b)| f(a, b)))
}

/// `f(plane)` for every plane, in parallel.
pub(crate) fn each<R: Send>(planes: usize, pixels: usize, f: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let least = SERIAL.div_ceil(pixels.max(1));
    let f: &(dyn Fn(usize) -> R + Sync) = &|i| widened(|| f(i));
    (0..planes).into_par_iter().with_min_len(least).map(f).collect()
}

/// The elements of plane `index`.
pub(crate) fn plane<T>(x: &[T], index: usize, pixels: usize) -> &[T] {
    &x[index * pixels..(index + 1) * pixels]
}

/// The planes of channel `channel` of `c`, image by image.
pub(crate) fn of_channel<T>(x: &[T], channel: usize, c: usize, pixels: usize) -> impl Iterator<Item = &[T]> {
    x.chunks_exact(pixels.max(1)).skip(channel).step_by(c)
}

/// Bytes of the partial sums of [`dot`].
pub(crate) fn dot_scratch_bytes(elements: usize) -> usize {
    elements.div_ceil(SERIAL) * size_of::<f64>()
}

/// The sum of `a * b` over all elements, in parallel.
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    let mut parts = vec![0.0; a.len().div_ceil(SERIAL)];
    pieces(&mut parts, 1, &|i, part| {
        let [a, b] = [a, b].map(|all| &all[i * SERIAL..all.len().min((i + 1) * SERIAL)]);
        part[0] = widened(|| sum([a, b], |[a, b]| a * b));
    });
    parts.iter().sum()
}

/// Mean and biased variance of a plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub(crate) mean: f64,
    pub(crate) var: f64,
}

/// Mean and biased variance of a plane.
#[inline(always)]
pub(crate) fn moments<T: Real>(plane: &[T]) -> Moments {
    let pixels = plane.len() as f64;
    let mean = sum([plane], |[x]| x) / pixels;
    let center = T::from_f64(mean);
    let squares = sum([plane], |[x]| (x - center) * (x - center));
    Moments { mean, var: squares / pixels }
}

/// A CPU tensor of these numbers, rounded to `T`.
pub(crate) fn rounded<T: Real>(numbers: impl Iterator<Item = f64>, shape: &[usize]) -> Result<Tensor> {
    tensor(numbers.map(T::from_f64).collect(), shape)
}

/// The shape `[n, c, h, w]` of images.
pub(crate) fn image_dims(x: &Tensor) -> Result<[usize; 4]> {
    x.dims4().map(|(n, c, h, w)| [n, c, h, w]).during("reading the shape of images")
}

/// Fails unless two tensors have one shape.
pub(crate) fn same_shape(a: &Tensor, b: &Tensor, op: &'static str) -> Result<()> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(mismatch(a, b, op)).during(op)
}

/// Fails unless `param` holds one number for each of `c` channels.
pub(crate) fn one_a_channel(param: &Tensor, c: usize, op: &'static str) -> Result<()> {
    if param.dims() == [c] {
        return Ok(());
    }
    let problem = format!("{:?} numbers for {c} channels", param.dims());
    Err(candle_core::Error::Msg(problem)).during(op)
}

/// candle's error for shapes that do not meet.
pub(crate) fn mismatch(a: &Tensor, b: &Tensor, op: &'static str) -> candle_core::Error {
    candle_core::Error::ShapeMismatchBinaryOp { lhs: a.shape().clone(), rhs: b.shape().clone(), op }
}

/// `x` in a type that sums may be taken in: half precision becomes `f32`.
pub(crate) fn wide(x: &Tensor) -> candle_core::Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}

/// [`wide`], shaped to broadcast from channels over images.
pub(crate) fn wide_channels(param: &Tensor) -> candle_core::Result<Tensor> {
    wide(param)?.reshape((1, (), 1, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::check::normal;
    use crate::rng::Rng;

    #[test]
    fn every_element_is_built_once_in_blocks_that_stay_in_their_plane() {
        for (planes, pixels) in [(0, 5), (5, 0), (3, 1), (7, 300), (40, 1000), (1, SERIAL + 3)] {
            let y = build::<f64>("a test", [planes, pixels], |plane, at, out| {
                assert_eq!(at.len(), out.len());
                for (out, pixel) in out.iter_mut().zip(at) {
                    *out += (plane * pixels + pixel) as f64;
                }
            });
            assert_eq!(y.unwrap(), (0..planes * pixels).map(|i| i as f64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn sums_do_not_depend_on_the_number_of_threads() {
        let x = normal(&[100_000], &mut Rng::new(1)).to_vec1::<f64>().unwrap();
        let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (dot(&single, &single), map("a test", &single, |x| x * x).unwrap()))
        };
        assert_eq!(on(1), on(3));
        let plain: f64 = x.iter().map(|x| x * x).sum();
        assert!((on(1).0 / plain - 1.0).abs() < 1e-6);
    }

    #[test]
    fn moments_are_those_on_paper() {
        // Plane 0: mean 2, deviations -1 0 1; plane 1: a large mean must not hide the variance.
        let moments = [[1.0f32, 2.0, 3.0], [10_001.0, 10_002.0, 10_003.0]].map(|plane| moments(&plane));
        assert_eq!(moments[0].mean, 2.0);
        assert!((moments[0].var - 2.0 / 3.0).abs() < 1e-6);
        assert!((moments[1].var - 2.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn planes_of_a_channel_come_image_by_image() {
        let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let planes: Vec<&[f32]> = of_channel(&x, 1, 3, 2).collect();
        assert_eq!(planes, [[2.0, 3.0], [8.0, 9.0]]);
    }
}
