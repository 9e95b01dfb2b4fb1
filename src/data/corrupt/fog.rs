//! Fog: a bright cloud over the picture.

use super::{Effect, Level, between};
use crate::rng::Rng;

/// Lays a cloud over the picture and keeps the greatest value: with `m` the greatest value,
/// `y = (x + thickness cloud) m / (m + thickness)`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `fog`.
pub(super) fn fog(level: Level) -> Effect {
    let (thickness, decay) = level.of(
        [(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)],
        [(0.4, 3.0), (0.7, 3.0), (1.0, 2.5), (1.5, 2.0), (2.0, 1.75)],
        [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)],
    );
    Box::new(move |picture, rng| {
        let [h, w] = picture.size();
        let side = h.max(w).next_power_of_two();
        let cloud = plasma(side, decay, rng);
        let most = picture.values.iter().copied().fold(0.0, f64::max);
        for plane in picture.planes() {
            for (row, cloud) in plane.chunks_exact_mut(w).zip(cloud.chunks_exact(side)) {
                for (value, cloud) in row.iter_mut().zip(cloud) {
                    *value = (*value + thickness * cloud) * most / (most + thickness);
                }
            }
        }
    })
}

/// A cloud of `side` times `side` values from 0 to 1 whose edges meet, by the diamond-square
/// method: between four points their mean and a draw, whose range falls by `decay` squared with
/// each halving of the distance. `side` is a power of two.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `plasma_fractal`; Fournier, Fussell and Carpenter 1982.
pub(super) fn plasma(side: usize, decay: f64, rng: &mut Rng) -> Vec<f64> {
    let mut map = vec![0.0; side * side];
    let (mut step, mut range) = (side, 1.0);
    while step >= 2 {
        let half = step / 2;
        // The middles of squares, then of their sides, rows and columns.
        let mut fill = |top: usize, left: usize, offsets: [[usize; 2]; 4]| {
            for y in (top..side).step_by(step) {
                for x in (left..side).step_by(step) {
                    map[y * side + x] = mean(&map, side, [y, x], offsets) + between(rng, -range, range);
                }
            }
        };
        let back = side - half;
        fill(half, half, [[back, back], [back, half], [half, back], [half, half]]);
        let beside = [[back, 0], [half, 0], [0, back], [0, half]];
        fill(0, half, beside);
        fill(half, 0, beside);
        step = half;
        range /= decay * decay;
    }
    let (least, most) =
        map.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
    let span = if most > least { most - least } else { 1.0 };
    map.iter_mut().for_each(|value| *value = (*value - least) / span);
    map
}

/// The mean of the four points at these offsets from one, around the edges.
fn mean(map: &[f64], side: usize, [y, x]: [usize; 2], offsets: [[usize; 2]; 4]) -> f64 {
    // The remainder of a power of two.
    let mask = side - 1;
    let value = |[down, right]: [usize; 2]| map[((y + down) & mask) * side + ((x + right) & mask)];
    offsets.map(value).iter().sum::<f64>() / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_reaches_from_0_to_1_and_is_smoother_the_faster_its_draws_fall() {
        let roughness = |decay| {
            let cloud = plasma(64, decay, &mut Rng::new(1));
            assert!(cloud.contains(&0.0) && cloud.contains(&1.0));
            cloud.chunks(64).flat_map(|row| row.windows(2)).map(|pair| (pair[0] - pair[1]).abs()).sum::<f64>()
        };
        assert!(roughness(3.0) < roughness(2.0) && roughness(2.0) < roughness(1.4));
        assert_eq!(plasma(1, 2.0, &mut Rng::new(1)), [0.0]);
    }

    /// Of 0 to 15 in rows of 4, around row 1 and column 1: 0, 2, 8, 10; a row up from the first is the last.
    #[test]
    fn a_point_starts_at_the_mean_of_the_four_around_it() {
        let map: Vec<f64> = (0..16).map(f64::from).collect();
        assert_eq!(mean(&map, 4, [1, 1], [[3, 3], [3, 1], [1, 3], [1, 1]]), 5.0);
        assert_eq!(mean(&map, 4, [0, 1], [[3, 0], [1, 0], [0, 3], [0, 1]]), (13.0 + 5.0 + 0.0 + 2.0) / 4.0);
    }
}
