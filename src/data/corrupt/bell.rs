//! Smoothing by a Gaussian, rows first and columns after.

use super::edge::Edge;
use crate::kernels::simd::widened;

/// A Gaussian of sum 1, cut off where it is small.
#[derive(Clone, Debug)]
pub(super) struct Bell {
    /// At distance 0, 1, ...; the other side is the same.
    weights: Vec<f64>,
    edge: Edge,
}

impl Bell {
    /// The Gaussian of deviation `sigma` up to `truncate` deviations, rounded to whole pixels:
    /// `w(i) ~ exp(-i^2 / (2 sigma^2))`, as SciPy and scikit-image have it. None at all for 0.
    pub(super) fn new(sigma: f64, truncate: f64, edge: Edge) -> Self {
        let reach = (truncate * sigma + 0.5) as usize;
        let weight = |i: usize| if i == 0 { 1.0 } else { (-0.5 * (i as f64 / sigma).powi(2)).exp() };
        let mut weights: Vec<f64> = (0..=reach).map(weight).collect();
        let sum = 2.0 * weights.iter().sum::<f64>() - 1.0;
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Self { weights, edge }
    }

    /// The Gaussian of `skimage.filters.gaussian`: four deviations, edges repeat.
    pub(super) fn skimage(sigma: f64) -> Self {
        Self::new(sigma, 4.0, Edge::Nearest)
    }

    /// Smooths a plane of `h * w` values.
    pub(super) fn smooth(&self, plane: &mut [f64], size: [usize; 2]) {
        if self.weights.len() > 1 {
            widened(|| self.rows(plane, size));
            widened(|| self.columns(plane, size));
        }
    }

    #[inline(always)]
    fn rows(&self, plane: &mut [f64], [_, w]: [usize; 2]) {
        let reach = self.weights.len() - 1;
        if 2 * reach > w {
            let shares = self.shares(w);
            let mut from = vec![0.0; w];
            for row in plane.chunks_exact_mut(w) {
                from.copy_from_slice(row);
                row.fill(0.0);
                from.iter().zip(shares.chunks_exact(w)).for_each(|(value, shares)| add(row, *value, shares));
            }
            return;
        }
        let places: Vec<usize> =
            (0..w + 2 * reach).map(|at| self.edge.place(at as isize - reach as isize, w)).collect();
        let mut wide = vec![0.0; places.len()];
        for row in plane.chunks_exact_mut(w) {
            wide.iter_mut().zip(&places).for_each(|(value, place)| *value = row[*place]);
            row.iter_mut().for_each(|value| *value *= self.weights[0]);
            for (i, weight) in self.weights.iter().enumerate().skip(1) {
                add_both(row, *weight, &wide[reach - i..][..w], &wide[reach + i..][..w]);
            }
        }
    }

    #[inline(always)]
    fn columns(&self, plane: &mut [f64], [h, w]: [usize; 2]) {
        let from = plane.to_vec();
        if 2 * (self.weights.len() - 1) > h {
            let shares = self.shares(h);
            plane.fill(0.0);
            for (y, to) in plane.chunks_exact_mut(w).enumerate() {
                let rows = from.chunks_exact(w).zip(shares.chunks_exact(h));
                rows.for_each(|(row, shares)| add(to, shares[y], row));
            }
            return;
        }
        let row = |at: isize| &from[self.edge.place(at, h) * w..][..w];
        for (y, to) in plane.chunks_exact_mut(w).enumerate() {
            let y = y as isize;
            to.iter_mut().for_each(|value| *value *= self.weights[0]);
            for (i, weight) in (0..).zip(&self.weights).skip(1) {
                add_both(to, *weight, row(y - i), row(y + i));
            }
        }
    }

    /// For a bell that is wider than a row of `n`: how much of each value, row by row, each place gets. A
    /// value that is seen again and again in mirrors then counts once.
    fn shares(&self, n: usize) -> Vec<f64> {
        let mut shares = vec![0.0; n * n];
        for place in 0..n as isize {
            for (i, weight) in (0..).zip(&self.weights) {
                let mut add = |at| shares[self.edge.place(at, n) * n + place as usize] += weight;
                add(place + i);
                if i > 0 {
                    add(place - i);
                }
            }
        }
        shares
    }
}

/// `row += weight a`
#[inline(always)]
fn add(row: &mut [f64], weight: f64, a: &[f64]) {
    row.iter_mut().zip(a).for_each(|(value, a)| *value += weight * a);
}

/// `row += weight (a + b)`
#[inline(always)]
fn add_both(row: &mut [f64], weight: f64, a: &[f64], b: &[f64]) {
    for ((value, a), b) in row.iter_mut().zip(a).zip(b) {
        *value += weight * (a + b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// e = exp(-1/2) and f = exp(-2): the middle of a point is 1 / (1 + 2 e + 2 f)^2 at truncation 2.
    #[test]
    fn a_point_becomes_the_bell_in_both_directions() {
        let (e, f) = ((-0.5f64).exp(), (-2.0f64).exp());
        let mut plane = vec![0.0; 49];
        plane[24] = 1.0;
        Bell::new(1.0, 2.0, Edge::Reflect).smooth(&mut plane, [7, 7]);
        let sum = 1.0 + 2.0 * e + 2.0 * f;
        for (at, want) in [(24, 1.0), (25, e), (17, e), (16, e * e), (22, f), (10, f), (8, f * f)] {
            assert!((plane[at] - want / sum / sum).abs() < 1e-15, "{at}");
        }
        assert!((plane.iter().sum::<f64>() - 1.0).abs() < 1e-14);
    }

    #[test]
    fn a_plane_without_contrast_stays_and_no_deviation_does_nothing() {
        for (sigma, edge) in [(0.4, Edge::Nearest), (3.0, Edge::Mirror), (20.0, Edge::Reflect)] {
            let mut plane = vec![0.7; 15];
            Bell::new(sigma, 4.0, edge).smooth(&mut plane, [3, 5]);
            assert!(plane.iter().all(|value| (value - 0.7).abs() < 1e-14));
        }
        let mut plane = vec![0.1, 0.2, 0.3, 0.4];
        Bell::new(0.0, 4.0, Edge::Nearest).smooth(&mut plane, [2, 2]);
        assert_eq!(plane, [0.1, 0.2, 0.3, 0.4]);
    }

    /// A row of 3 in mirrors, `0 1 2 | 2 1 0`, and in repetition, under 1, 0.5 and 0.25 beside it.
    #[test]
    fn a_bell_wider_than_the_plane_counts_mirrored_values() {
        let bell = |edge| Bell { weights: vec![1.0, 0.5, 0.25], edge };
        // Of the middle: itself, both sides, and each side once more.
        assert_eq!(
            bell(Edge::Reflect).shares(3)[1..].iter().step_by(3).copied().collect::<Vec<_>>(),
            [0.75, 1.0, 0.75]
        );
        let mut row = [1.0, 10.0, 100.0];
        bell(Edge::Nearest).smooth(&mut row, [1, 3]);
        // 1 + (1 + 10) / 2 + (1 + 100) / 4, times the 2.5 of a single row.
        assert_eq!(row[0], 2.5 * (1.0 + 5.5 + 25.25));
    }
}
