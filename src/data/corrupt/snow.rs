//! Snow: flakes that fall, and the pale light that comes with them.

use super::motion::spread;
use super::picture::byte_of;
use super::zoom::zoomed;
use super::{Effect, Level, between};
use crate::rng::Rng;

/// How a layer of flakes is drawn.
#[derive(Clone, Copy)]
struct Flakes {
    mean: f64,
    deviation: f64,
    zoom: f64,
    least: f64,
    motion: (usize, f64),
}

/// Adds a layer of flakes and the same layer turned by 180 degrees, and makes the picture pale:
/// `y = color x + (1 - color) max(x, 1.5 luma + 0.5) + flakes + turned`.
///
/// A layer is normal noise, enlarged by `zoom`, 0 where it is below `least`, and spread by motion
/// at an angle of -135 to -45 degrees.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `snow`.
pub(super) fn snow(level: Level) -> Effect {
    // Mean, deviation, zoom, least, radius and sigma of the motion.
    let small = [
        (0.1, 0.2, 1.0, 0.6, 8, 3.0),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0),
    ];
    let large = [
        (0.1, 0.3, 3.0, 0.5, 10, 4.0),
        (0.2, 0.3, 2.0, 0.5, 12, 4.0),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0),
        (0.55, 0.3, 4.5, 0.85, 12, 8.0),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0),
    ];
    let (mean, deviation, zoom, least, radius, sigma) = level.of(small, small, large);
    let color =
        level.of([0.95, 0.9, 0.9, 0.85, 0.8], [0.8, 0.8, 0.7, 0.65, 0.6], [0.8, 0.7, 0.7, 0.65, 0.55]);
    let flakes = Flakes { mean, deviation, zoom, least, motion: (radius, sigma) };
    Box::new(move |picture, rng| {
        let (layer, luma) = (flakes.layer(picture.size(), rng), picture.luma());
        for plane in picture.planes() {
            for ((value, luma), flake) in plane.iter_mut().zip(&luma).zip(both(&layer)) {
                *value = color * *value + (1.0 - color) * value.max(1.5 * luma + 0.5) + flake;
            }
        }
    })
}

impl Flakes {
    fn layer(&self, size: [usize; 2], rng: &mut Rng) -> Vec<f64> {
        let noise = |_| self.mean + self.deviation * f64::from(rng.normal());
        let noise: Vec<f64> = (0..size[0] * size[1]).map(noise).collect();
        let mut layer = zoomed(&noise, size, self.zoom);
        // Flakes are pictures of 8 bits, as the published scripts hand them to the motion and back.
        let flake = |value: f64| if value < self.least { 0.0 } else { f64::from(byte_of(value)) / 255.0 };
        layer.iter_mut().for_each(|value| *value = flake(*value));
        spread(&mut layer, size, self.motion, between(rng, -135.0, -45.0));
        layer.iter_mut().for_each(|value| *value = (*value * 255.0).round() / 255.0);
        layer
    }
}

/// A layer and the same turned by 180 degrees, one added to the other.
fn both(layer: &[f64]) -> impl Iterator<Item = f64> {
    layer.iter().zip(layer.iter().rev()).map(|(a, b)| a + b)
}

#[cfg(test)]
mod tests {
    use super::super::{Constants, Picture};
    use super::*;

    #[test]
    fn a_layer_turned_by_180_degrees_is_added() {
        assert_eq!(both(&[0.0, 1.0, 2.0, 3.0]).collect::<Vec<_>>(), [3.0, 3.0, 3.0, 3.0]);
        assert_eq!(both(&[0.0, 1.0, 4.0]).collect::<Vec<_>>(), [4.0, 2.0, 4.0]);
    }

    /// Where no flake falls, black becomes (1 - color) / 2: 0.05 * 0.5 at severity 1 of CIFAR.
    #[test]
    fn snow_makes_pale_and_only_brighter() {
        let mut picture = Picture { shape: [1, 32, 32], values: vec![0.0; 1024] };
        snow(Level { constants: Constants::Cifar, severity: 1 })(&mut picture, &mut Rng::new(2));
        let least = picture.values.iter().copied().fold(1.0, f64::min);
        assert!((least - 0.025).abs() < 1e-12, "{least}");
        assert!(picture.values.iter().any(|value| *value > 0.1));
    }
}
