//! One block cut into what an operation writes and what it may read.

use std::ops::Range;

/// What is left of a block when two ranges are taken out of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest<'a>([(usize, &'a [f32]); 3]);

impl<'a> Rest<'a> {
    /// The numbers of a range of the block; none when a part of it was taken out, which no layout
    /// lets happen.
    pub(super) fn at(&self, range: Range<usize>) -> &'a [f32] {
        let within = |(start, part): &(usize, &'a [f32])| {
            part.get(range.start.checked_sub(*start)?..range.end.checked_sub(*start)?)
        };
        self.0.iter().find_map(within).unwrap_or_default()
    }
}

/// The two ranges, which must not overlap, to write to, and the rest to read.
pub(super) fn carve(memory: &mut [f32], [a, b]: [Range<usize>; 2]) -> ([&mut [f32]; 2], Rest<'_>) {
    let is_in_order = (a.start, a.end) <= (b.start, b.end);
    let (first, second) = if is_in_order { (a, b) } else { (b, a) };
    let (before, rest) = memory.split_at_mut(first.start);
    let (written, rest) = rest.split_at_mut(first.len());
    let (between, rest) = rest.split_at_mut(second.start - first.end);
    let (last, after) = rest.split_at_mut(second.len());
    let parts = [(0, &*before), (first.end, &*between), (second.end, &*after)];
    (if is_in_order { [written, last] } else { [last, written] }, Rest(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_in_the_order_they_were_asked_for_and_the_rest_can_be_read() {
        let mut memory: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let ([a, b], rest) = carve(&mut memory, [6..8, 2..3]);
        assert_eq!((&*a, &*b), (&[6.0, 7.0][..], &[2.0][..]));
        assert_eq!(
            (rest.at(0..2), rest.at(3..6), rest.at(8..10)),
            (&[0.0, 1.0][..], &[3.0, 4.0, 5.0][..], &[8.0, 9.0][..])
        );
        assert!(rest.at(5..7).is_empty() && rest.at(2..3).is_empty());
    }

    #[test]
    fn an_empty_range_may_lie_at_the_start() {
        let mut memory = [1.0, 2.0];
        let ([a, b], rest) = carve(&mut memory, [0..1, 0..0]);
        assert_eq!((&*a, b.len(), rest.at(1..2)), (&[1.0][..], 0, &[2.0][..]));
    }
}
