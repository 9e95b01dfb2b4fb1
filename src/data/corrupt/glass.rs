//! Frosted glass: pixels shuffled with their neighbours.

use super::bell::Bell;
use super::picture::{Picture, byte_of};
use super::{Effect, Level};
use crate::rng::Rng;

/// Smooths by a Gaussian of deviation `sigma`, rounds to bytes, moves pixels by up to `reach` places
/// `rounds` times, and smooths again.
///
/// The published scripts mean to swap two pixels. Their arrays alias, so that the pixel becomes a
/// copy of its neighbour, which stays; so it is here, in every number of channels.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `glass_blur`.
pub(super) fn glass(level: Level) -> Effect {
    let (sigma, reach, rounds) = level.of(
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)],
        [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    );
    let bell = Bell::skimage(sigma);
    Box::new(move |picture, rng| {
        let size = picture.size();
        picture.planes().for_each(|plane| bell.smooth(plane, size));
        picture.values.iter_mut().for_each(|value| *value = f64::from(byte_of(*value)) / 255.0);
        (0..rounds).for_each(|_| shuffle(picture, reach, rng));
        picture.planes().for_each(|plane| bell.smooth(plane, size));
    })
}

/// From the last pixel to the first, each becomes one of those at -reach..reach in both directions.
fn shuffle(picture: &mut Picture, reach: usize, rng: &mut Rng) {
    let [h, w] = picture.size();
    let inside = |n: usize| (reach + 1..(n + 1).saturating_sub(reach)).rev();
    for y in inside(h) {
        for x in inside(w) {
            let (right, down) = (rng.below(2 * reach), rng.below(2 * reach));
            let from = (y + down - reach) * w + x + right - reach;
            picture.planes().for_each(|plane| plane[y * w + x] = plane[from]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reach 1 of 4 x 4 moves rows and columns 2 and 3, from 1 to 3; the rest stays.
    #[test]
    fn pixels_become_copies_of_near_ones_and_channels_move_together() {
        let plane: Vec<f64> = (0..16).map(f64::from).collect();
        let both = [&plane[..], &plane].concat();
        let mut picture = Picture { shape: [2, 4, 4], values: both.clone() };
        shuffle(&mut picture, 1, &mut Rng::new(3));
        let (first, second) = picture.values.split_at(16);
        assert_eq!(first, second);
        assert_ne!(picture.values, both);
        for (at, value) in first.iter().enumerate() {
            let (y, x, from) = (at / 4, at % 4, *value as usize);
            let moves = y >= 2 && x >= 2;
            let near = |a: usize, b: usize| b <= a && a <= b + 1;
            assert!(if moves { near(y, from / 4) && near(x, from % 4) } else { from == at }, "{at} {from}");
        }
    }

    #[test]
    fn a_picture_of_few_pixels_has_none_to_move() {
        let mut picture = Picture { shape: [1, 2, 2], values: vec![0.0, 0.25, 0.5, 1.0] };
        shuffle(&mut picture, 4, &mut Rng::new(0));
        assert_eq!(picture.values, [0.0, 0.25, 0.5, 1.0]);
    }
}
