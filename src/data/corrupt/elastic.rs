//! Stretching: every pixel taken from near its place.

use super::bell::Bell;
use super::edge::{Edge, Spot};
use super::{Effect, Level, between};
use crate::kernels::simd::widened;
use crate::rng::Rng;

/// Three points of the plane as `[x, y]`.
type Points = [[f64; 2]; 3];

/// Moves three points by up to `affine` pixels, the picture with them, and then every pixel by a
/// smooth field: draws of -1 to 1, smoothed by a Gaussian of deviation `sigma` and times `alpha`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `elastic_transform`; Simard, Steinkraus and Platt 2003.
pub(super) fn elastic(level: Level) -> Effect {
    // Shares of the side for which they were chosen; 244, not 224, is theirs.
    let cifar =
        [(0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)];
    let tiny =
        [(0.0, 0.0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)];
    let large =
        [(2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)];
    let scaled = |side: f64| {
        move |(alpha, sigma, affine): (f64, f64, f64)| (alpha * side, sigma * side, affine * side)
    };
    let (alpha, sigma, affine) =
        level.of(cifar.map(scaled(32.0)), tiny.map(scaled(64.0)), large.map(scaled(244.0)));
    let bell = Bell::new(sigma, 3.0, Edge::Reflect);
    Box::new(move |picture, rng| {
        let size = picture.size();
        let from = moved_points(size, affine, rng);
        let [dx, dy] = [(); 2].map(|()| field(size, alpha, &bell, rng));
        picture.values = resampled(&picture.values, size, |_, y, x| {
            let [u, v] = from([x, y]);
            Edge::Mirror.spot(size, v, u)
        });
        picture.values =
            resampled(&picture.values, size, |at, y, x| Edge::Reflect.spot(size, y + dy[at], x + dx[at]));
    })
}

/// Planes whose pixel `at`, in row `y` and column `x`, is what they show at `spot(at, y, x)`.
fn resampled(planes: &[f64], [h, w]: [usize; 2], spot: impl Fn(usize, f64, f64) -> Spot) -> Vec<f64> {
    let mut to = vec![0.0; planes.len()];
    widened(|| {
        for at in 0..h * w {
            let spot = spot(at, (at / w) as f64, (at % w) as f64);
            for (to, plane) in to.chunks_exact_mut(h * w).zip(planes.chunks_exact(h * w)) {
                to[at] = spot.of(plane);
            }
        }
    });
    to
}

/// How far each pixel moves in one direction.
fn field(size: [usize; 2], alpha: f64, bell: &Bell, rng: &mut Rng) -> Vec<f64> {
    let mut field: Vec<f64> = (0..size[0] * size[1]).map(|_| between(rng, -1.0, 1.0)).collect();
    bell.smooth(&mut field, size);
    field.iter_mut().for_each(|value| *value *= alpha);
    field
}

/// Where a pixel comes from when three corners of a square in the middle move by up to `affine`.
fn moved_points([h, w]: [usize; 2], affine: f64, rng: &mut Rng) -> impl Fn([f64; 2]) -> [f64; 2] + use<> {
    let [x, y, reach] = [w / 2, h / 2, h.min(w) / 3].map(|n| n as f64);
    let before = [[x + reach, y + reach], [x + reach, y - reach], [x - reach, y - reach]];
    let after = before.map(|point| point.map(|at| at + between(rng, -affine, affine)));
    // From where it ends to where it began.
    affine_map(after, before)
}

/// The affine map that takes three points to three others; the identity for points on one line.
fn affine_map(from: Points, to: Points) -> impl Fn([f64; 2]) -> [f64; 2] + use<> {
    let side = |points: Points, i: usize| [points[i][0] - points[0][0], points[i][1] - points[0][1]];
    let [a, b, u, v] = [side(from, 1), side(from, 2), side(to, 1), side(to, 2)];
    let area = a[0] * b[1] - a[1] * b[0];
    move |[x, y]| {
        if area == 0.0 {
            return [x, y];
        }
        let (x, y) = (x - from[0][0], y - from[0][1]);
        let (s, t) = ((x * b[1] - y * b[0]) / area, (a[0] * y - a[1] * x) / area);
        [to[0][0] + s * u[0] + t * v[0], to[0][1] + s * u[1] + t * v[1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points that move by (1, 2) move every point so; points that grow by 2 make all grow.
    #[test]
    fn three_points_decide_where_all_go() {
        let corner = [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]];
        let moved = affine_map(corner, corner.map(|[x, y]| [x + 1.0, y + 2.0]));
        assert_eq!(moved([5.0, -3.0]), [6.0, -1.0]);
        let grown = affine_map(corner, corner.map(|[x, y]| [2.0 * x, 2.0 * y]));
        assert_eq!(grown([5.0, -3.0]), [10.0, -6.0]);
        assert_eq!(affine_map([[1.0, 1.0]; 3], corner)([5.0, -3.0]), [5.0, -3.0]);
        let turned = affine_map(corner, corner.map(|[x, y]| [-y, x]));
        assert_eq!(turned([5.0, -3.0]), [3.0, 5.0]);
    }

    #[test]
    fn points_that_do_not_move_leave_every_pixel_where_it_is() {
        let from = moved_points([9, 12], 0.0, &mut Rng::new(1));
        assert_eq!(from([3.0, 7.0]), [3.0, 7.0]);
        assert_eq!(field([2, 3], 0.0, &Bell::new(0.0, 3.0, Edge::Reflect), &mut Rng::new(1)), [0.0; 6]);
    }
}
