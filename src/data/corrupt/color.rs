//! Colour and light: every value changed by a rule for the whole picture.

use super::{Effect, Level};

/// Draws every value towards the mean of its channel: `y = (x - mean) factor + mean`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019: factors of `make_cifar_c.py` and `make_imagenet_c.py`.
pub(super) fn contrast(level: Level) -> Effect {
    let factor: f64 = level.of([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]);
    Box::new(move |picture, _| {
        for plane in picture.planes() {
            let mean = plane.iter().sum::<f64>() / plane.len() as f64;
            plane.iter_mut().for_each(|value| *value = (*value - mean) * factor + mean);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Constants, Level, Picture};
    use super::contrast;
    use crate::rng::Rng;

    /// Channel means 0.5 and 0.25; factor 0.4: 0.5 +- 0.5 * 0.4 and 0.25 +- 0.25 * 0.4.
    #[test]
    fn contrast_keeps_each_channels_mean_and_scales_what_is_around_it() {
        for (constants, severity) in [(Constants::Cifar, 3), (Constants::ImageNet, 1)] {
            let mut picture = Picture { shape: [2, 1, 2], values: vec![0.0, 1.0, 0.5, 0.0] };
            contrast(Level { constants, severity })(&mut picture, &mut Rng::new(0));
            let want = [0.3, 0.7, 0.35, 0.15];
            assert!(
                picture.values.iter().zip(want).all(|(got, want): (&f64, f64)| (got - want).abs() < 1e-12)
            );
        }
    }
}
