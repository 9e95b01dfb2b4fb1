//! Some rows of some channels of an image, with zeros around it.

use std::ops::Range;

use super::axis::Axis;
use crate::kernels::Real;

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
    [down, across]: [&Axis; 2],
    rows: &Range<usize>,
    copy: &'a mut [T],
) -> Source<'a, T> {
    let (ys, xs) = (down.reads(rows), across.reads(&(0..across.outputs)));
    let is_inside = |reads: &Range<isize>, n: usize| reads.start >= 0 && reads.end <= n as isize;
    if is_inside(&ys, h) && is_inside(&xs, w) {
        let start = ys.start as usize * w + xs.start as usize;
        return Source { data: &planes[start..], channel: h * w, row: w };
    }
    let row = xs.len();
    let channel = ys.len() * row;
    let copy = &mut copy[..planes.len() / (h * w) * channel];
    // Where the image begins and ends in a row of the copy.
    let inside = |reads: &Range<isize>, n: usize| {
        let clamp = |at: isize| (at - reads.start).clamp(0, reads.len() as isize) as usize;
        clamp(0)..clamp(n as isize)
    };
    let (valid_ys, valid) = (inside(&ys, h), inside(&xs, w));
    let x = (xs.start + valid.start as isize) as usize;
    for (plane, to) in planes.chunks_exact(h * w).zip(copy.chunks_exact_mut(channel)) {
        for (y, to) in to.chunks_exact_mut(row).enumerate() {
            if !valid_ys.contains(&y) {
                to.fill(T::zero());
                continue;
            }
            let from = (ys.start + y as isize) as usize * w + x;
            to[..valid.start].fill(T::zero());
            to[valid.clone()].copy_from_slice(&plane[from..from + valid.len()]);
            to[valid.end..].fill(T::zero());
        }
    }
    Source { data: copy, channel, row }
}
