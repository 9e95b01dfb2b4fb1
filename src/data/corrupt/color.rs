//! Colour and light: every value changed by a rule for the whole picture.

use super::{Effect, Level};

/// Adds `light` to the value (the greatest of the channels) of every pixel in HSV, 1 at most.
///
/// Hue and saturation are ratios of channels, so that each channel grows as the value does; black
/// becomes grey. One channel alone is its own value.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `brightness` of the published scripts.
pub(super) fn brightness(level: Level) -> Effect {
    let light: f64 = level.of(
        [0.05, 0.10, 0.15, 0.20, 0.30],
        [0.10, 0.20, 0.30, 0.40, 0.50],
        [0.10, 0.20, 0.30, 0.40, 0.50],
    );
    Box::new(move |picture, _| {
        picture.pixels(|pixel| {
            let value = greatest(pixel);
            let brighter = (value + light).min(1.0);
            let change = |x: f64| if value > 0.0 { x * (brighter / value) } else { brighter };
            pixel.iter_mut().for_each(|x| *x = change(*x));
        });
    })
}

/// Draws every value towards the mean of its channel: `y = (x - mean) factor + mean`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `contrast`.
pub(super) fn contrast(level: Level) -> Effect {
    let factor: f64 = level.of(
        [0.75, 0.50, 0.40, 0.30, 0.15],
        [0.40, 0.30, 0.20, 0.10, 0.05],
        [0.40, 0.30, 0.20, 0.10, 0.05],
    );
    Box::new(move |picture, _| {
        for plane in picture.planes() {
            let mean = plane.iter().sum::<f64>() / plane.len() as f64;
            plane.iter_mut().for_each(|value| *value = (*value - mean) * factor + mean);
        }
    })
}

/// Changes the saturation of every pixel in HSV: `s' = s factor + shift`, between 0 and 1.
///
/// With `v` the greatest channel, `x = v - (v - x) s' / s`. Grey has no hue, which counts as red,
/// and takes on that colour where `shift` is not 0. Nothing happens to pictures of one channel.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `saturate`.
pub(super) fn saturate(level: Level) -> Effect {
    let (factor, shift): (f64, f64) = level.of(
        [(0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)],
        [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (30.0, 0.2)],
        [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)],
    );
    Box::new(move |picture, _| {
        picture.pixels(|pixel| {
            let (value, least) = (greatest(pixel), pixel.iter().copied().fold(1.0, f64::min));
            let saturation = if value > 0.0 { (value - least) / value } else { 0.0 };
            let wanted = (saturation * factor + shift).clamp(0.0, 1.0);
            if saturation > 0.0 {
                pixel.iter_mut().for_each(|x| *x = value - (value - *x) * (wanted / saturation));
            } else {
                pixel.iter_mut().skip(1).for_each(|x| *x = value * (1.0 - wanted));
            }
        });
    })
}

fn greatest(pixel: &[f64]) -> f64 {
    pixel.iter().copied().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::super::{Constants, Level, Picture};
    use super::*;
    use crate::rng::Rng;

    #[track_caller]
    fn check(effect: &Effect, shape: [usize; 3], values: &[f64], want: &[f64]) {
        let mut picture = Picture { shape, values: values.to_vec() };
        effect(&mut picture, &mut Rng::new(0));
        let near = picture.values.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12);
        assert!(near, "{:?} {want:?}", picture.values);
    }

    fn level(constants: Constants, severity: u8) -> Level {
        Level { constants, severity }
    }

    /// Channel means 0.5 and 0.25; factor 0.4: 0.5 +- 0.5 * 0.4 and 0.25 +- 0.25 * 0.4.
    #[test]
    fn contrast_keeps_each_channels_mean_and_scales_what_is_around_it() {
        for level in [level(Constants::Cifar, 3), level(Constants::ImageNet, 1)] {
            check(&contrast(level), [2, 1, 2], &[0.0, 1.0, 0.5, 0.0], &[0.3, 0.7, 0.35, 0.15]);
        }
    }

    /// Value 0.4 to 0.6 is times 1.5; 0.9 is cut at 1, times 10/9; black becomes 0.2.
    #[test]
    fn brightness_adds_to_the_greatest_channel_and_keeps_the_colour() {
        let values = [0.4, 0.9, 0.0, 0.2, 0.45, 0.0, 0.1, 0.0, 0.0];
        let want = [0.6, 1.0, 0.2, 0.3, 0.5, 0.2, 0.15, 0.0, 0.2];
        check(&brightness(level(Constants::Cifar, 4)), [3, 1, 3], &values, &want);
        check(&brightness(level(Constants::ImageNet, 2)), [1, 1, 2], &[0.3, 0.9], &[0.5, 1.0]);
    }

    /// Saturation (0.8 - 0.2) / 0.8 = 0.75. Times 0.1 the distances from 0.8 are a tenth. Times 2
    /// and 0.1 more it is cut at 1, distances times 4/3. Grey 0.5 becomes red of saturation 0.1.
    #[test]
    fn saturation_moves_channels_from_and_to_the_greatest() {
        let values = [0.8, 0.5, 0.6, 0.5, 0.2, 0.5];
        let weak = [0.8, 0.5, 0.78, 0.5, 0.74, 0.5];
        check(&saturate(level(Constants::Cifar, 2)), [3, 1, 2], &values, &weak);
        let strong = [0.8, 0.5, 0.8 - 0.8 / 3.0, 0.45, 0.0, 0.45];
        check(&saturate(level(Constants::Cifar, 4)), [3, 1, 2], &values, &strong);
        check(&saturate(level(Constants::Cifar, 5)), [1, 1, 2], &[0.3, 0.9], &[0.3, 0.9]);
    }
}
