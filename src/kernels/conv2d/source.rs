//! Some rows of some channels of an image, with zeros around it.

use std::ops::Range;

use super::axis::Axis;
use crate::kernels::Real;
use crate::kernels::simd::{Isa, Kernel, Lanes, MOST, Num};

/// Planes to read windows from: `data[c * channel + y * row + x]`, with the pixels of a row in the order of
/// [`Axis::runs`].
#[derive(Clone, Copy)]
pub(super) struct Source<'a, T> {
    pub(super) data: &'a [T],
    pub(super) channel: usize,
    pub(super) row: usize,
    /// From what a row of outputs reads to what the next does.
    pub(super) down: usize,
}

/// Elements of a copy for `channels` channels and `rows` output rows.
pub(super) fn copy_len([down, across]: [&Axis; 2], channels: usize, rows: usize) -> usize {
    channels * down.reads(&(0..rows)).len().div_ceil(down.row_step()) * across.row_len()
}

/// What output rows `rows` read of `planes`, of `[h, w]` pixels each, as operands: of pairs neighbouring planes
/// become one. Where numbers inside are all that is read, side by side, the planes are read as they are, else they
/// are copied to `copy`.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
pub(super) unsafe fn source<'a, S: Isa>(
    planes: &'a [Num<S>],
    [h, w]: [usize; 2],
    [down, across]: [&'a Axis; 2],
    rows: &Range<usize>,
    copy: &'a mut [Num<S>],
) -> Source<'a, Num<S>>
where
    Num<S>: Real,
{
    let [ys, xs] = [down.reads(rows), across.reads(&(0..across.outputs))];
    let is_inside = |reads: &Range<isize>, n: usize| reads.start >= 0 && reads.end <= n as isize;
    if S::DEPTH == 1 && across.stride == 1 && is_inside(&ys, h) && is_inside(&xs, w) {
        let start = ys.start as usize * w + xs.start as usize;
        return Source { data: &planes[start..], channel: h * w, row: w, down: down.stride * w };
    }
    let (row, step) = (across.row_len(), down.row_step());
    let channel = ys.len().div_ceil(step) * row;
    let copy = &mut copy[..(planes.len() / (h * w)).div_ceil(S::DEPTH) * channel];
    let of = Copied::<S> { planes, size: [h, w], reads: [ys, xs], step, across, copy };
    // SAFETY: the caller promises the processor.
    unsafe { S::vectorize(of) };
    Source { data: copy, channel, row, down: down.stride / step * row }
}

/// Copies what is read of planes, with zeros outside. Rows may be short, and a call for each would take longer.
struct Copied<'a, S: Isa> {
    planes: &'a [Num<S>],
    size: [usize; 2],
    reads: [Range<isize>; 2],
    /// From a row that is read to the next.
    step: usize,
    across: &'a Axis,
    copy: &'a mut [Num<S>],
}

impl<S: Isa> Kernel<S::Register> for Copied<'_, S> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { planes, size: [h, w], reads: [ys, xs], step, across, copy } = self;
        let (row, stride, len) = (across.row_len(), across.stride, across.run_len());
        let of_plane = ys.len().div_ceil(step) * row;
        for (i, run) in across.runs().enumerate() {
            let x = xs.start + run.remainder as isize;
            // Positions outside, before the image.
            let before = ((-x).max(0) as usize).div_ceil(stride).min(len);
            let x = w.min((x + (before * stride) as isize) as usize);
            for (planes, to) in planes.chunks(S::DEPTH * h * w).zip(copy.chunks_exact_mut(of_plane)) {
                let (first, second) = planes.split_at(h * w);
                for (y, to) in to.chunks_exact_mut(row).enumerate() {
                    let (y, to) = (ys.start + (y * step) as isize, &mut to[i * len..(i + 1) * len]);
                    let inside = if y < 0 || y >= h as isize {
                        0..0
                    } else {
                        y as usize * w + x..(y as usize + 1) * w
                    };
                    let (left, to) = to.split_at_mut(if inside.is_empty() { len } else { before });
                    // SAFETY: the caller promises the processor.
                    unsafe { clear::<S>(left) };
                    let from = [&first[inside.clone()], second.get(inside).unwrap_or_default()];
                    // SAFETY: as above.
                    unsafe { Join::<S> { from, stride, to }.run() };
                }
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
        unsafe { S::vectorize(Join::<S> { from, stride: 1, to: &mut to[..pixels.len()] }) };
    }
}

/// Makes two rows of numbers, of which those `stride` apart are taken, one of operands, with zeros behind; the second
/// may be missing.
struct Join<'a, S: Isa> {
    from: [&'a [Num<S>]; 2],
    stride: usize,
    to: &'a mut [Num<S>],
}

impl<S: Isa> Kernel<S::Register> for Join<'_, S> {
    #[inline(always)]
    unsafe fn run(self) {
        let (Self { from: [first, second], stride, to }, lanes) = (self, S::Register::LANES);
        // Registers that are there as a whole, in both rows where there are two.
        let rest = if S::DEPTH == 2 { second.len().min(first.len()) } else { first.len() } / stride;
        let whole = if stride > 2 { 0 } else { rest.min(to.len()) / lanes * lanes };
        for start in (0..whole).step_by(lanes) {
            // SAFETY: the caller promises the processor; there are as many numbers.
            let numbers = unsafe { load_whole::<S>(first.as_ptr().wrapping_add(start * stride), stride) };
            let mut next = numbers;
            if S::DEPTH == 2 {
                // SAFETY: as above.
                next = unsafe { load_whole::<S>(second.as_ptr().wrapping_add(start * stride), stride) };
            }
            // SAFETY: the caller promises the processor.
            let operand = unsafe { S::operand([numbers, next]) };
            // SAFETY: there is place for as many.
            unsafe { operand.store(to[start..].as_mut_ptr()) };
        }
        for start in (whole..to.len()).step_by(lanes) {
            let n = lanes.min(to.len() - start);
            // SAFETY: the caller promises the processor.
            let numbers = unsafe { load_apart::<S>(first, start, stride, n) };
            let mut next = numbers;
            if S::DEPTH == 2 {
                // SAFETY: as above.
                next = unsafe { load_apart::<S>(second, start, stride, n) };
            }
            // SAFETY: as above.
            let operand = unsafe { S::operand([numbers, next]) };
            // SAFETY: there is place for as many.
            unsafe { operand.store_first(to[start..].as_mut_ptr(), n) };
        }
    }
}

/// A register of numbers that are 1 or 2 apart.
///
/// # Safety
///
/// The processor must know the instructions of `S`, and as many registers be readable.
#[inline(always)]
unsafe fn load_whole<S: Isa>(from: *const Num<S>, stride: usize) -> S::Register {
    // SAFETY: the caller's promise.
    let low = unsafe { S::Register::load(from) };
    if stride == 1 {
        return low;
    }
    // SAFETY: the caller's promise.
    low.parted(unsafe { S::Register::load(from.wrapping_add(S::Register::LANES)) })[0]
}

/// `n` of the numbers of a row that are `stride` apart, from the `start`th of them on, as far as there are some, then
/// zeros. (No closure: it would not be compiled for the instructions of its caller.)
///
/// # Safety
///
/// The processor must know the instructions of `S`.
#[inline(always)]
unsafe fn load_apart<S: Isa>(row: &[Num<S>], start: usize, stride: usize, n: usize) -> S::Register {
    let from = row.get(start * stride..).unwrap_or_default();
    let (lanes, reach) = (S::Register::LANES, from.len().min((n - 1) * stride + 1));
    if reach == 0 {
        // SAFETY: the caller promises the processor.
        return unsafe { S::Register::zero() };
    }
    match stride {
        // SAFETY: the caller promises the processor; there are as many numbers.
        1 => unsafe { S::Register::load_first(from.as_ptr(), reach) },
        2 => {
            // SAFETY: as above.
            let low = unsafe { S::Register::load_first(from.as_ptr(), reach.min(lanes)) };
            let high = if reach > lanes {
                // SAFETY: as above.
                unsafe { S::Register::load_first(from[lanes..].as_ptr(), reach - lanes) }
            } else {
                // SAFETY: the caller promises the processor.
                unsafe { S::Register::zero() }
            };
            low.parted(high)[0]
        }
        _ => {
            let mut numbers = [Num::<S>::default(); MOST];
            numbers.iter_mut().zip(from[..reach].iter().step_by(stride)).for_each(|(to, &from)| *to = from);
            // SAFETY: the caller promises the processor; no register has more lanes.
            unsafe { S::Register::load(numbers.as_ptr()) }
        }
    }
}
