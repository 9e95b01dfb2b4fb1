//! Smoothing by a Gaussian, rows first and columns after.

use super::edge::Edge;

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
            self.rows(plane, size);
            self.columns(plane, size);
        }
    }

    fn rows(&self, plane: &mut [f64], [_, w]: [usize; 2]) {
        let reach = self.weights.len() - 1;
        let places: Vec<usize> =
            (0..w + 2 * reach).map(|at| self.edge.place(at as isize - reach as isize, w)).collect();
        let mut wide = vec![0.0; places.len()];
        for row in plane.chunks_exact_mut(w) {
            wide.iter_mut().zip(&places).for_each(|(value, place)| *value = row[*place]);
            row.iter_mut().for_each(|value| *value *= self.weights[0]);
            for (i, weight) in self.weights.iter().enumerate().skip(1) {
                add(row, *weight, &wide[reach - i..][..w], &wide[reach + i..][..w]);
            }
        }
    }

    fn columns(&self, plane: &mut [f64], [h, w]: [usize; 2]) {
        let from = plane.to_vec();
        let row = |at: isize| &from[self.edge.place(at, h) * w..][..w];
        for (y, to) in plane.chunks_exact_mut(w).enumerate() {
            let y = y as isize;
            to.iter_mut().for_each(|value| *value *= self.weights[0]);
            for (i, weight) in (0..).zip(&self.weights).skip(1) {
                add(to, *weight, row(y - i), row(y + i));
            }
        }
    }
}

/// `row += weight (a + b)`
fn add(row: &mut [f64], weight: f64, a: &[f64], b: &[f64]) {
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
}
