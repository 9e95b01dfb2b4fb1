//! Sums over planes and channels, whose order does not depend on threads.

use super::{SERIAL, plane};
use crate::kernels::Real;
use crate::kernels::share::pieces;
use crate::kernels::simd::widened;

/// Elements summed in their own precision before the sum goes on in `f64`.
const PARTIAL: usize = 1024;

/// Channels whose planes are summed together, since they are neighbours in memory.
const CHANNELS: usize = 8;

/// Independent sums in the inner loop, so that it can run in vector registers.
const LANES: usize = 16;

/// The sum of `f` over the elements of equally long slices taken together, on the calling thread. (Inlined,
/// so that it is compiled for the registers of its caller.)
#[inline(always)]
pub(crate) fn sum<T: Real, const N: usize>(xs: [&[T]; N], f: impl Fn([T; N]) -> T) -> f64 {
    let [sum] = sums(xs, |xs| [f(xs)]);
    sum
}

/// The sums of what `f` gives, as [`sum`].
#[inline(always)]
pub(crate) fn sums<T: Real, const N: usize, const M: usize>(
    xs: [&[T]; N],
    f: impl Fn([T; N]) -> [T; M],
) -> [f64; M] {
    let mut sums = Sums::new();
    sums.add(xs, f);
    sums.end()
}

/// What `end` makes of the sums of what `f` gives over all planes of each of `c` channels, of equally long
/// tensors taken together.
pub(crate) fn channel_sums<T: Real, R: Copy + Default + Send, const N: usize, const M: usize>(
    xs: [&[T]; N],
    [c, pixels]: [usize; 2],
    f: impl Fn(usize, [T; N]) -> [T; M] + Sync,
    end: impl Fn(usize, [f64; M]) -> R + Sync,
) -> Vec<R> {
    let mut all = vec![R::default(); c];
    let images = xs[0].len() / (c * pixels).max(1);
    let together = CHANNELS * SERIAL.div_ceil((CHANNELS * images * pixels).max(1));
    pieces(&mut all, together, &|first, to| {
        let of_piece = to.chunks_mut(CHANNELS).enumerate();
        let of_piece = of_piece.map(|(i, to)| (first * together / CHANNELS + i, to));
        widened(|| {
            for (i, to) in of_piece {
                let mut sums = [Sums::<T, M>::new(); CHANNELS];
                for image in 0..images {
                    for (j, sums) in (i * CHANNELS..c).zip(&mut sums) {
                        sums.add(xs.map(|x| plane(x, image * c + j, pixels)), |xs| f(j, xs));
                    }
                }
                let channels = (i * CHANNELS..c).zip(sums);
                to.iter_mut().zip(channels).for_each(|(to, (j, sums))| *to = end(j, sums.end()));
            }
        });
    });
    all
}

/// Sums in `f64`, of sums of a few elements in their own precision.
#[derive(Clone, Copy)]
struct Sums<T, const M: usize> {
    totals: [[f64; LANES]; M],
    /// What is not in the totals yet, and of how many elements.
    lanes: [[T; LANES]; M],
    pending: usize,
}

impl<T: Real, const M: usize> Sums<T, M> {
    #[inline(always)]
    fn new() -> Self {
        Self { totals: [[0.0; LANES]; M], lanes: [[T::zero(); LANES]; M], pending: 0 }
    }

    #[inline(always)]
    fn add<const N: usize>(&mut self, xs: [&[T]; N], f: impl Fn([T; N]) -> [T; M]) {
        let n = xs.iter().map(|x| x.len()).min().unwrap_or(0);
        for start in (0..n).step_by(PARTIAL) {
            let end = n.min(start + PARTIAL);
            if self.pending + (end - start) > PARTIAL {
                self.flush();
            }
            self.pending += end - start;
            let parts = xs.map(|x| x[start..end].as_chunks::<LANES>());
            // A copy, so that it can stay in registers.
            let mut lanes = self.lanes;
            for i in 0..parts[0].0.len() {
                let rows = parts.map(|(rows, _)| &rows[i]);
                for l in 0..LANES {
                    let terms = f(rows.map(|row| row[l]));
                    for (lanes, term) in lanes.iter_mut().zip(terms) {
                        lanes[l] += term;
                    }
                }
            }
            // Apart, since what is found by a number that nobody knows before cannot be a register.
            let mut rest = [[T::zero(); LANES]; M];
            for l in 0..parts[0].1.len() {
                let terms = f(parts.map(|(_, rest)| rest[l]));
                rest.iter_mut().zip(terms).for_each(|(rest, term)| rest[l] = term);
            }
            for (to, (lanes, rest)) in self.lanes.iter_mut().zip(lanes.iter().zip(&rest)) {
                *to = std::array::from_fn(|l| lanes[l] + rest[l]);
            }
        }
    }

    #[inline(always)]
    fn flush(&mut self) {
        for (totals, lanes) in self.totals.iter_mut().zip(&mut self.lanes) {
            for (total, lane) in totals.iter_mut().zip(lanes) {
                *total += std::mem::replace(lane, T::zero()).to_f64();
            }
        }
        self.pending = 0;
    }

    #[inline(always)]
    fn end(mut self) -> [f64; M] {
        self.flush();
        self.totals.map(|totals| totals.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::super::of_channel;
    use super::*;

    /// Planes shorter and longer than a register, a partial sum and both; channels fewer and more than a block.
    #[test]
    fn sums_over_channels_are_those_over_their_planes() {
        for [n, c, pixels] in [[3, 1, 5], [2, 9, 49], [5, 20, 16], [2, 3, 3000], [0, 4, 9]] {
            // Whole numbers, so that no sum is rounded.
            let numbers = |seed: usize| -> Vec<f32> {
                (0..n * c * pixels).map(|i| ((i * 7919 + seed) % 13) as f32 - 6.0).collect()
            };
            let (x, y) = (numbers(1), numbers(2));
            let f = |j: usize, [x, y]: [f32; 2]| [x * y, x + j as f32];
            let got = channel_sums([&x[..], &y], [c, pixels], f, |j, sums| (j, sums));
            let want = (0..c).map(|j| {
                let pairs = of_channel(&x, j, c, pixels).zip(of_channel(&y, j, c, pixels));
                let pairs = pairs.flat_map(|(x, y)| x.iter().zip(y));
                let terms = pairs.map(|(&x, &y)| [f64::from(x * y), f64::from(x) + j as f64]);
                (j, terms.fold([0.0; 2], |sums, terms| [sums[0] + terms[0], sums[1] + terms[1]]))
            });
            assert_eq!(got, want.collect::<Vec<_>>(), "{n} {c} {pixels}");
        }
    }
}
