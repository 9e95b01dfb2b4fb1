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

/// What output rows `rows` read of `planes`, of `[h, w]` pixels each, as operands: of pairs neighbouring planes
/// become one. Its first element is what the very first tap reads, or lies before it where taps go backward.
/// Where numbers inside are all that is read, the planes are read as they are, else they are copied to `copy`.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
pub(super) unsafe fn source<'a, S: Isa>(
    planes: &'a [Num<S>],
    [h, w]: [usize; 2],
    [down, across]: [&Axis; 2],
    rows: &Range<usize>,
    copy: &'a mut [Num<S>],
) -> Source<'a, Num<S>>
where
    Num<S>: Real,
{
    let [ys, xs] = [down.reads(rows), across.reads(&(0..across.outputs))];
    let is_inside = |reads: &Range<isize>, n: usize| reads.start >= 0 && reads.end <= n as isize;
    if S::DEPTH == 1 && is_inside(&ys, h) && is_inside(&xs, w) {
        let start = ys.start as usize * w + xs.start as usize;
        return Source { data: &planes[start..], channel: h * w, row: w };
    }
    let row = xs.len();
    let channel = ys.len() * row;
    let copy = &mut copy[..(planes.len() / (h * w)).div_ceil(S::DEPTH) * channel];
    // SAFETY: the caller promises the processor.
    unsafe { S::vectorize(Copied::<S> { planes, size: [h, w], reads: [ys, xs], copy }) };
    Source { data: copy, channel, row }
}

/// Copies what is read of planes, with zeros outside. Rows may be short, and a call for each would take longer.
struct Copied<'a, S: Isa> {
    planes: &'a [Num<S>],
    size: [usize; 2],
    reads: [Range<isize>; 2],
    copy: &'a mut [Num<S>],
}

impl<S: Isa> Kernel<S::Register> for Copied<'_, S> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { planes, size: [h, w], reads: [ys, xs], copy } = self;
        let row = xs.len();
        // Where the image begins and ends in the copy.
        let inside = |reads: &Range<isize>, n: usize| {
            let clamp = |at: isize| (at - reads.start).clamp(0, reads.len() as isize) as usize;
            clamp(0)..clamp(n as isize)
        };
        let (valid_ys, valid) = (inside(&ys, h), inside(&xs, w));
        for (planes, to) in planes.chunks(S::DEPTH * h * w).zip(copy.chunks_exact_mut(ys.len() * row)) {
            let (first, second) = planes.split_at(h * w);
            for (y, to) in to.chunks_exact_mut(row).enumerate() {
                if !valid_ys.contains(&y) || valid.is_empty() {
                    // SAFETY: the caller promises the processor.
                    unsafe { clear::<S>(to) };
                    continue;
                }
                let x = xs.start + valid.start as isize;
                let from = ((ys.start + y as isize) * w as isize + x) as usize;
                let of_row = from..from + valid.len();
                let from = [&first[of_row.clone()], second.get(of_row).unwrap_or_default()];
                let (left, to) = to.split_at_mut(valid.start);
                // SAFETY: the caller promises the processor.
                unsafe { clear::<S>(left) };
                // SAFETY: as above.
                unsafe { Join::<S> { from, to }.run() };
            }
        }
    }
}

/// # Safety
///
/// The processor must know the instructions of `S`.
#[inline(always)]
unsafe fn clear<S: Isa>(to: &mut [Num<S>]) {
    // SAFETY: the caller promises the processor.
    let zero = unsafe { S::Register::zero() };
    for start in (0..to.len()).step_by(S::Register::LANES) {
        let n = S::Register::LANES.min(to.len() - start);
        // SAFETY: there is place for as many.
        unsafe { zero.store_first(to[start..].as_mut_ptr(), n) };
    }
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

/// Makes two rows of numbers one of operands, with zeros behind; the second may be missing.
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
            let load = |row: &[Num<S>]| match row.get(start..) {
                // SAFETY: the caller promises the processor; there are as many numbers.
                Some(from @ [_, ..]) => unsafe { S::Register::load_first(from.as_ptr(), n.min(from.len())) },
                // SAFETY: the caller promises the processor.
                _ => unsafe { S::Register::zero() },
            };
            // SAFETY: the caller promises the processor.
            let operand = unsafe { S::operand([load(first), load(second)]) };
            // SAFETY: there is place for as many.
            unsafe { operand.store_first(self.to[start..].as_mut_ptr(), n) };
        }
    }
}
