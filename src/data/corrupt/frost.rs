//! Frost: ice on the lens.

use super::edge::Edge;
use super::fog::plasma;
use super::picture::color_in;
use super::{Constants, Effect, Level};
use crate::rng::Rng;

/// Mean colour, and deviation over all places, of the pictures of ice that the published scripts
/// mix in (the sixth of theirs is never drawn). Only these numbers are from there, measured; the
/// third of theirs is the second once more.
const ICES: [([f64; 3], f64); 5] = [
    ([77.7, 149.1, 165.7], 18.0),
    ([200.8, 205.4, 214.5], 22.0),
    ([200.8, 205.4, 214.5], 22.0),
    ([137.6, 152.8, 165.2], 28.9),
    ([112.4, 123.4, 134.8], 43.1),
];

/// Mixes in a piece of ice: `y = picture x + share ice`.
///
/// The published scripts cut the piece from five photographs, which this program does not have. The
/// ice here is generated, see [`texture`], with their mean colours and deviations.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `frost`.
pub(super) fn frost(level: Level) -> Effect {
    let (own, share): (f64, f64) = level.of(
        [(1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        [(1.0, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)],
        [(1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    );
    // The photographs of about 512 pixels are reduced to 0.2 of their size for 32 pixels, to 0.3 for 64.
    let side = match level.constants {
        Constants::Cifar | Constants::TinyImageNet => 128,
        Constants::ImageNet => 512,
    };
    let textures = ICES.map(|(_, deviation)| texture(side, deviation / 255.0));
    Box::new(move |picture, rng| {
        let [c, h, w] = picture.shape;
        let ice = rng.below(ICES.len());
        let color = color_in(c, ICES[ice].0.map(|value| value / 255.0));
        let [top, left] = [h, w].map(|n| rng.below(side.saturating_sub(n).max(1)));
        let place = |at: usize| Edge::Mirror.place(at as isize, side);
        for (plane, color) in picture.planes().zip(color) {
            for (y, row) in plane.chunks_exact_mut(w).enumerate() {
                let ice = &textures[ice][place(top + y) * side..][..side];
                for (x, value) in row.iter_mut().enumerate() {
                    *value = own * *value + share * (color + ice[place(left + x)]).clamp(0.0, 1.0);
                }
            }
        }
    })
}

/// Ice of mean 0 and this deviation: a cloud, and the lines along which another cloud passes whole
/// tenths, as needles and ferns grow. `side` is a power of two.
fn texture(side: usize, deviation: f64) -> Vec<f64> {
    let mut rng = Rng::new((deviation * 1e4) as u64);
    let needle = |height: f64| 1.0 - 2.0 * (10.0 * height).fract().min(1.0 - (10.0 * height).fract());
    let cloud = standard(plasma(side, 1.5, &mut rng));
    let needles = standard(plasma(side, 1.5, &mut rng).into_iter().map(needle).collect());
    let sum = standard(cloud.iter().zip(needles).map(|(cloud, needle)| cloud + 0.6 * needle).collect());
    sum.into_iter().map(|value| value * deviation).collect()
}

/// The values less their mean, over their deviation.
fn standard(values: Vec<f64>) -> Vec<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    values.into_iter().map(|value| (value - mean) / deviation).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Picture;
    use super::*;

    #[test]
    fn ice_has_mean_0_and_its_deviation() {
        let ice = texture(64, 0.1);
        let mean = ice.iter().sum::<f64>() / 4096.0;
        let square = ice.iter().map(|value| value * value).sum::<f64>() / 4096.0;
        assert!(mean.abs() < 1e-12 && (square.sqrt() - 0.1).abs() < 1e-12);
        assert_eq!(ice, texture(64, 0.1));
    }

    /// Severity 1 of CIFAR adds 0.2 of the ice. The mean over all five is (200.8 + 200.8 + 77.7 + 137.6
    /// + 112.4) / 5 = 145.86 in red, and 178.94 in blue; pieces differ by some 30.
    #[test]
    fn frost_adds_its_share_of_bluish_ice() {
        let effect = frost(Level { constants: Constants::Cifar, severity: 1 });
        let mut sums = [0.0; 3];
        for seed in 0..500 {
            let mut picture = Picture { shape: [3, 8, 8], values: vec![0.0; 192] };
            effect(&mut picture, &mut Rng::new(seed));
            sums.iter_mut()
                .zip(picture.planes())
                .for_each(|(sum, plane)| *sum += plane.iter().sum::<f64>() / 64.0);
        }
        let [red, _, blue] = sums.map(|sum| sum / 500.0 / 0.2 * 255.0);
        assert!((red - 145.86).abs() < 8.0 && (blue - 178.94).abs() < 8.0, "{red} {blue}");
    }

    #[test]
    fn a_picture_larger_than_the_ice_is_covered() {
        let mut picture = Picture { shape: [1, 300, 2], values: vec![0.0; 600] };
        frost(Level { constants: Constants::Cifar, severity: 1 })(&mut picture, &mut Rng::new(1));
        assert!(picture.values.iter().all(|value| *value > 0.0));
    }
}
