//! Some rows of some channels of an image, with zeros around it.

use std::ops::Range;

use super::axis::Axis;
use crate::kernels::Real;
use crate::kernels::simd::{Isa, Kernel, Lanes, Num};

/// Planes to read windows from: `data[c * channel + y * row + x]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, T> {
    pub(super) data: &'a [T],
    pub(super) channel: usize,
    pub(super) row: usize,
}

/// Elements of a copy for `channels` channels and `rows` output rows.
pub(super) fn copy_len([down, across]: [&Axis; 2], channels: usize, rows: usize) -> usize {
    channels * down.reads(&(0..rows)).len() * across.reads(&(0..across.outputs)).len()
}

/// What output rows `rows` read of `planes`, of `[h, w]` pixels each. Its first element is what the
/// very first tap reads, or lies before it where taps go backward. Where nothing outside is read, the
/// planes are read as they are, else they are copied to `copy`.
pub(super) fn source<'a, T: Real>(
    planes: &'a [T],
    [h, w]: [usize; 2],
    axes: [&Axis; 2],
    rows: &Range<usize>,
    copy: &'a mut [T],
) -> Source<'a, T> {
    let [ys, xs] = reads(axes, rows);
    let is_inside = |reads: &Range<isize>, n: usize| reads.start >= 0 && reads.end <= n as isize;
    if is_inside(&ys, h) && is_inside(&xs, w) {
        let start = ys.start as usize * w + xs.start as usize;
        return Source { data: &planes[start..], channel: h * w, row: w };
    }
    copied((planes, 1), [h, w], [ys, xs], copy, |[from, _], to| to.copy_from_slice(from))
}

/// The same as operands: neighbouring planes become one.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
pub(super) unsafe fn operands<'a, S: Isa>(
    planes: &[Num<S>],
    size: [usize; 2],
    axes: [&Axis; 2],
    rows: &Range<usize>,
    copy: &'a mut [Num<S>],
) -> Source<'a, Num<S>>
where
    Num<S>: Real,
{
    let join = |from: [&[Num<S>]; 2], to: &mut [Num<S>]| {
        // SAFETY: the caller promises the processor.
        unsafe { S::vectorize(Join::<S> { from, to }) };
    };
    copied((planes, S::DEPTH), size, reads(axes, rows), copy, join)
}

/// What output rows `rows` read along each axis, some of it outside.
fn reads([down, across]: [&Axis; 2], rows: &Range<usize>) -> [Range<isize>; 2] {
    [down.reads(rows), across.reads(&(0..across.outputs))]
}

/// Copies what is read of `planes`, with zeros outside: `fill` makes a row of `depth` planes, of which the
/// last may be missing, one.
fn copied<'a, T: Real>(
    (planes, depth): (&[T], usize),
    [h, w]: [usize; 2],
    [ys, xs]: [Range<isize>; 2],
    copy: &'a mut [T],
    fill: impl Fn([&[T]; 2], &mut [T]),
) -> Source<'a, T> {
    let row = xs.len();
    let channel = ys.len() * row;
    let copy = &mut copy[..(planes.len() / (h * w)).div_ceil(depth) * channel];
    // Where the image begins and ends in a row of the copy.
    let inside = |reads: &Range<isize>, n: usize| {
        let clamp = |at: isize| (at - reads.start).clamp(0, reads.len() as isize) as usize;
        clamp(0)..clamp(n as isize)
    };
    let (valid_ys, valid) = (inside(&ys, h), inside(&xs, w));
    let x = (xs.start + valid.start as isize) as usize;
    for (planes, to) in planes.chunks(depth * h * w).zip(copy.chunks_exact_mut(channel)) {
        let (first, second) = planes.split_at(h * w);
        for (y, to) in to.chunks_exact_mut(row).enumerate() {
            if !valid_ys.contains(&y) {
                to.fill(T::zero());
                continue;
            }
            let from = (ys.start + y as isize) as usize * w + x;
            let of_row = |plane: &'_ [T]| from..plane.len().min(from + valid.len());
            to[..valid.start].fill(T::zero());
            let second = if second.is_empty() { second } else { &second[of_row(second)] };
            fill([&first[of_row(first)], second], &mut to[valid.clone()]);
            to[valid.end..].fill(T::zero());
        }
    }
    Source { data: copy, channel, row }
}

/// Copies these pixels of planes of `plane` pixels each to rows of `row` operands, neighbouring planes to one.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
pub(super) unsafe fn joined<S: Isa>(
    (planes, plane): (&[Num<S>], usize),
    pixels: &Range<usize>,
    (to, row): (&mut [Num<S>], usize),
) {
    for (planes, to) in planes.chunks(S::DEPTH * plane).zip(to.chunks_exact_mut(row)) {
        let (first, second) = planes.split_at(plane);
        let from = [&first[pixels.clone()], second.get(pixels.clone()).unwrap_or_default()];
        // SAFETY: the caller promises the processor.
        unsafe { S::vectorize(Join::<S> { from, to: &mut to[..pixels.len()] }) };
    }
}

/// Makes two rows of numbers one of operands; the second may be missing.
struct Join<'a, S: Isa> {
    from: [&'a [Num<S>]; 2],
    to: &'a mut [Num<S>],
}

impl<S: Isa> Kernel<S::Register> for Join<'_, S> {
    #[inline(always)]
    unsafe fn run(self) {
        let ([first, second], lanes) = (self.from, S::Register::LANES);
        for start in (0..self.to.len()).step_by(lanes) {
            let n = lanes.min(self.to.len() - start);
            let load = |row: &[Num<S>]| match row.get(start..start + n) {
                // SAFETY: the caller promises the processor; there are as many numbers.
                Some(from) => unsafe { S::Register::load_first(from.as_ptr(), n) },
                // SAFETY: the caller promises the processor.
                None => unsafe { S::Register::zero() },
            };
            // SAFETY: the caller promises the processor.
            let operand = unsafe { S::operand([load(first), load(second)]) };
            // SAFETY: there is place for as many.
            unsafe { operand.store_first(self.to[start..].as_mut_ptr(), n) };
        }
    }
}
