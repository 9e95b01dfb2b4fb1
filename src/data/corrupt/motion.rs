//! Motion: every value spread along a line.

use super::edge::Edge;
use super::{Effect, Level, between};
use crate::kernels::simd::widened;

/// A camera that moved by half a Gaussian of deviation `sigma` over `2 radius + 1` pixels, at an angle
/// of -45 to 45 degrees.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `motion_blur`.
pub(super) fn motion(level: Level) -> Effect {
    let (radius, sigma) = level.of(
        [(6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)],
        [(10, 1.0), (10, 1.5), (10, 2.0), (10, 2.5), (12, 3.0)],
        [(10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)],
    );
    Box::new(move |picture, rng| {
        let (size, degrees) = (picture.size(), between(rng, -45.0, 45.0));
        picture.planes().for_each(|plane| spread(plane, size, (radius, sigma), degrees));
    })
}

/// Spreads a plane along a line: `y = sum_i k_i x(p + ceil(i (sin, cos) - 1/2))` with
/// `k_i ~ exp(-i^2 / (2 sigma^2))` for `i` in `0..2 radius + 1`, of sum 1; edges repeat.
///
/// Where the line is longer than the picture its rest is missing, as published.
///
/// # Source
///
/// ImageMagick's motion blur in the form of the Python package `imagecorruptions`.
pub(super) fn spread(plane: &mut [f64], [h, w]: [usize; 2], (radius, sigma): (usize, f64), degrees: f64) {
    let weights: Vec<f64> = (0..=2 * radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (sin, cos) = degrees.to_radians().sin_cos();
    let from = plane.to_vec();
    plane.fill(0.0);
    for (i, weight) in weights.iter().enumerate() {
        let step = |along: f64| (i as f64 * along - 0.5).ceil() as isize;
        let (down, right) = (step(sin), step(cos));
        if down.unsigned_abs() >= h || right.unsigned_abs() >= w {
            break;
        }
        widened(|| {
            for (y, to) in plane.chunks_exact_mut(w).enumerate() {
                let row = &from[Edge::Nearest.place(y as isize + down, h) * w..][..w];
                add_moved(to, weight / sum, row, right);
            }
        });
    }
}

/// `to(x) += weight row(x + right)`, the row's ends repeating.
#[inline(always)]
fn add_moved(to: &mut [f64], weight: f64, row: &[f64], right: isize) {
    let (w, by) = (row.len(), right.unsigned_abs());
    let add = |to: &mut [f64], from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += weight * from);
    };
    if right >= 0 {
        add(&mut to[..w - by], &row[by..]);
        to[w - by..].iter_mut().for_each(|to| *to += weight * row[w - 1]);
    } else {
        add(&mut to[by..], &row[..w - by]);
        to[..by].iter_mut().for_each(|to| *to += weight * row[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Radius 1 and sigma 1: weights 1, e^-1/2, e^-2 over their sum, taken from the right at 0
    /// degrees, from below at 90, from above at -90.
    #[test]
    fn a_point_becomes_half_a_bell_along_the_line() {
        let weights = [0.0, -0.5, -2.0f64].map(f64::exp);
        let want = weights.map(|weight| weight / weights.iter().sum::<f64>());
        for (degrees, step) in [(0.0, -1), (90.0, -7), (-90.0, 7), (180.0, 1)] {
            let mut plane = vec![0.0; 49];
            plane[24] = 1.0;
            spread(&mut plane, [7, 7], (1, 1.0), degrees);
            for (i, want) in (0..).zip(want) {
                assert!((plane[(24 + i * step) as usize] - want).abs() < 1e-15, "{degrees} {i}");
            }
            assert!((plane.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        }
    }

    #[test]
    fn a_plane_without_contrast_keeps_its_light_unless_the_line_is_too_long() {
        let mut plane = vec![0.5; 30 * 20];
        spread(&mut plane, [20, 30], (9, 2.5), 30.0);
        assert!(plane.iter().all(|value| (value - 0.5).abs() < 1e-15));
        // Of three equal weights two fit.
        let mut plane = vec![0.75; 2];
        spread(&mut plane, [1, 2], (1, 1e9), 0.0);
        assert!(plane.iter().all(|value| (value - 0.5).abs() < 1e-9));
    }
}
