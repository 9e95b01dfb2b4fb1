//! Blur: every value mixed with its neighbours.

use super::bell::Bell;
use super::edge::Edge;
use super::{Effect, Level};
use crate::kernels::simd::widened;

/// What a pixel `(down, right)` away adds to this one.
type Tap = (isize, isize, f64);

/// Spreads every point over a disk with a soft edge.
///
/// The kernel is 1 where `x^2 + y^2 <= radius^2`, divided by its sum, then smoothed by a small
/// Gaussian of deviation `alias` against jagged edges. Up to radius 8 its grid is -8..=8 and the
/// Gaussian is 3 x 3, beyond it -radius..=radius and 5 x 5. The picture continues beyond its
/// edges as its own mirror image, the edge itself not repeated.
///
/// The smoothing mirrors the kernel in the same way. Disks of radius 8 and 10 touch the edge of
/// their grid, so they come out with a sum of 1.013 and 1.011 instead of 1: severities 4 and 5 of
/// ImageNet-C brighten by about 1 %, as published.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `defocus_blur` of the published scripts.
pub(super) fn defocus(level: Level) -> Effect {
    let (radius, alias) = level.of(
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)],
        [(0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)],
        [(3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)],
    );
    let taps = disk(radius, alias);
    Box::new(move |picture, _| {
        let [h, w] = picture.size();
        picture.planes().for_each(|plane| filter(plane, h, w, &taps));
    })
}

/// Smooths by a Gaussian of deviation `sigma`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `gaussian_blur`; `skimage.filters.gaussian`.
pub(super) fn gauss(level: Level) -> Effect {
    let sigma = level.of([0.4, 0.6, 0.7, 0.8, 1.0], [0.5, 0.75, 1.0, 1.25, 1.5], [1.0, 2.0, 3.0, 4.0, 6.0]);
    let bell = Bell::skimage(sigma);
    Box::new(move |picture, _| {
        let size = picture.size();
        picture.planes().for_each(|plane| bell.smooth(plane, size));
    })
}

/// The taps of a smoothed disk that are not 0, row by row.
fn disk(radius: f64, alias: f64) -> Vec<Tap> {
    // The published scripts draw disks up to radius 8 on one grid.
    let (reach, gauss) =
        if radius <= 8.0 { (8, gaussian(1, alias)) } else { (radius as isize, gaussian(2, alias)) };
    let side = 2 * reach as usize + 1;
    let cells = || (-reach..=reach).flat_map(|y| (-reach..=reach).map(move |x| (y, x)));
    let inside = |(y, x): (isize, isize)| f64::from(u8::from((x * x + y * y) as f64 <= radius * radius));
    let mut kernel: Vec<f64> = cells().map(inside).collect();
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|value| *value = single(*value / sum));
    filter(&mut kernel, side, side, &gauss);
    kernel.iter_mut().for_each(|value| *value = single(*value));
    cells().zip(kernel).filter(|(_, weight)| *weight != 0.0).map(|((y, x), weight)| (y, x, weight)).collect()
}

/// The value in single precision, in which the published scripts hold the kernel. It shows: the
/// mean of nine is often a whole number, and whether it is rounded down to itself hangs on that.
fn single(value: f64) -> f64 {
    f64::from(value as f32)
}

/// A Gaussian of deviation `sigma` on the grid -reach..=reach, of sum 1.
fn gaussian(reach: isize, sigma: f64) -> Vec<Tap> {
    let bell = |at: isize| (-((at * at) as f64) / (2.0 * sigma * sigma)).exp();
    let sum: f64 = (-reach..=reach).map(bell).sum();
    let row = move |y| (-reach..=reach).map(move |x| (y, x, single(bell(y) / sum) * single(bell(x) / sum)));
    (-reach..=reach).flat_map(row).collect()
}

/// Taps of equal weight beside each other in a row.
#[derive(Debug)]
struct Run {
    down: isize,
    /// The first of them.
    right: isize,
    taps: usize,
    weight: f64,
}

/// Taps, row by row, as runs.
fn runs(taps: &[Tap]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &(down, right, weight) in taps {
        match runs.last_mut() {
            Some(run) if (run.down, run.right + run.taps as isize, run.weight) == (down, right, weight) => {
                run.taps += 1;
            }
            _ => runs.push(Run { down, right, taps: 1, weight }),
        }
    }
    runs
}

/// Replaces each value of a plane by the sum of its neighbours' values times the taps' weights.
///
/// A run of taps takes two values of the sums of each row from its start: most of a disk is one run a row.
fn filter(plane: &mut [f64], h: usize, w: usize, taps: &[Tap]) {
    let (runs, reach) = (runs(taps), taps.iter().map(|tap| tap.0.abs().max(tap.1.abs())).max().unwrap_or(0));
    let places = |n: usize| (-reach..n as isize + reach).map(move |at| Edge::Mirror.place(at, n));
    // With a frame around it, every tap reads whole rows.
    let wide = w + 2 * reach as usize;
    let columns: Vec<usize> = places(w).collect();
    let framed: Vec<f64> =
        places(h).flat_map(|y| columns.iter().map(move |x| (y, x))).map(|(y, x)| plane[y * w + x]).collect();
    let sums: Vec<f64> = framed.chunks_exact(wide).flat_map(sums).collect();
    widened(|| {
        for (y, to) in plane.chunks_exact_mut(w).enumerate() {
            to.fill(0.0);
            for run in &runs {
                let (row, start) = (y + (reach + run.down) as usize, (reach + run.right) as usize);
                if run.taps == 1 {
                    let from = &framed[row * wide + start..][..w];
                    to.iter_mut().zip(from).for_each(|(to, from)| *to += run.weight * from);
                    continue;
                }
                let from = &sums[row * (wide + 1) + start..][..w + run.taps];
                for ((to, before), upto) in to.iter_mut().zip(from).zip(&from[run.taps..]) {
                    *to += run.weight * (upto - before);
                }
            }
        }
    });
}

/// Sums of a row's first values: of none, of one, ... of all.
fn sums(row: &[f64]) -> impl Iterator<Item = f64> {
    let next = |sum: &mut f64, value: &f64| {
        *sum += value;
        Some(*sum)
    };
    std::iter::once(0.0).chain(row.iter().scan(0.0, next))
}

#[cfg(test)]
mod tests {
    use super::super::{Constants, Level, Picture};
    use super::*;
    use crate::rng::Rng;

    /// Kernels are held in single precision: 2^-24 of values up to 1, in some 400 cells whose
    /// errors have both signs.
    const SINGLE: f64 = 1e-6;

    fn levels() -> impl Iterator<Item = Level> {
        let sets = [Constants::Cifar, Constants::TinyImageNet, Constants::ImageNet];
        sets.into_iter().flat_map(|constants| (1..=5).map(move |severity| Level { constants, severity }))
    }

    fn blurred(level: Level, side: usize, values: Vec<f64>) -> Vec<f64> {
        let mut picture = Picture { shape: [1, side, side], values };
        defocus(level)(&mut picture, &mut Rng::new(0));
        picture.values
    }

    /// Sum of the kernel. Mirrored smoothing takes `g1` (and `g2`, two cells away) times the
    /// mass of the outer row or column from it and adds as much of the next rows. Radius 8 has
    /// rows of 1, 7 cells at its edge, of 197; radius 10 has rows of 1, 9, 13 of 317. One cell
    /// in, of the 5 x 5 Gaussian, `g2` reaches over the edge as well, and comes back as its own row.
    fn kernel_sum(level: Level) -> f64 {
        let g = |reach: i32| {
            let sum: f64 = (-reach..=reach).map(|at| f64::exp(-2.0 * f64::from(at * at))).sum();
            move |at: i32| f64::exp(-2.0 * f64::from(at * at)) / sum
        };
        match (level.constants, level.severity) {
            (Constants::ImageNet, 4) => 1.0 + 4.0 * g(1)(1) * (7.0 - 1.0) / 197.0,
            (Constants::ImageNet, 5) => 1.0 + 4.0 * (g(2)(1) * (9.0 - 1.0) + g(2)(2) * (13.0 - 1.0)) / 317.0,
            _ => 1.0,
        }
    }

    #[test]
    fn a_constant_image_stays_constant() {
        for level in levels() {
            let (values, want) = (blurred(level, 5, vec![0.6; 25]), 0.6 * kernel_sum(level));
            assert!(values.iter().all(|value| (value - want).abs() < SINGLE), "{level:?} {}", values[0]);
        }
    }

    #[test]
    fn a_point_becomes_the_kernel() {
        for level in levels() {
            let mut values = vec![0.0; 41 * 41];
            values[20 * 41 + 20] = 1.0;
            let values = blurred(level, 41, values);
            assert!((values.iter().sum::<f64>() - kernel_sum(level)).abs() < SINGLE, "{level:?}");
            // Symmetric in both axes and under their exchange.
            for (i, value) in values.iter().enumerate() {
                let (y, x) = (i / 41, i % 41);
                let alike = [(40 - y) * 41 + x, y * 41 + 40 - x, x * 41 + y];
                assert!(alike.iter().all(|j| (values[*j] - value).abs() < 1e-15), "{level:?}");
            }
        }
    }

    /// Radius 1.5 holds the 9 cells of 3 x 3, each 1/9; sigma 0.1 leaves e^-50 beside itself.
    #[test]
    fn severity_5_on_small_images_is_the_mean_of_nine() {
        let taps = disk(1.5, 0.1);
        let near = |tap: &&Tap| tap.0.abs() <= 1 && tap.1.abs() <= 1;
        assert_eq!(taps.iter().filter(near).count(), 9);
        assert!(taps.iter().filter(near).all(|tap| (tap.2 - 1.0 / 9.0).abs() < SINGLE));
        assert!(taps.iter().filter(|tap| !near(tap)).all(|tap| tap.2 < 1e-20));
    }

    /// Radius 0.3 holds one cell, so the kernel is the Gaussian: with e = exp(-1 / 0.32), the
    /// middle is 1 / (1 + 2 e)^2.
    #[test]
    fn severity_1_on_small_images_is_the_gaussian_alone() {
        let e = (-1.0f64 / 0.32).exp();
        let taps = disk(0.3, 0.4);
        let middle = taps.iter().find(|tap| (tap.0, tap.1) == (0, 0)).unwrap();
        assert!((middle.2 - 1.0 / (1.0 + 2.0 * e).powi(2)).abs() < SINGLE);
        assert_eq!(taps.len(), 9);
    }

    /// Cells of radius 10: the Gauss circle problem's 317, and the soft edge around them.
    #[test]
    fn radius_10_covers_317_cells_and_an_edge() {
        let solid = disk(10.0, 0.01);
        assert_eq!(solid.len(), 317);
        assert!(disk(10.0, 0.5).len() > 317);
    }
}
