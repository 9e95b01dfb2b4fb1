//! Noise: every value changed on its own.

use super::{Effect, Level};

/// Adds normal noise to every value: `y = x + N(0, sigma)`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019: sigma of `make_cifar_c.py` and `make_imagenet_c.py`.
pub(super) fn gaussian(level: Level) -> Effect {
    let sigma: f64 = level.of([0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]);
    Box::new(move |picture, rng| {
        for value in &mut picture.values {
            *value += sigma * f64::from(rng.normal());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Constants, Level, Picture};
    use super::gaussian;
    use crate::rng::Rng;

    /// On 30,000 values the standard error of the mean is sigma / 173, of the deviation
    /// sigma / 245; both are given four.
    #[test]
    fn noise_on_grey_has_mean_0_and_the_deviation_of_its_level() {
        for (constants, severity, sigma) in
            [(Constants::Cifar, 1, 0.04), (Constants::Cifar, 5, 0.10), (Constants::ImageNet, 5, 0.38)]
        {
            let mut picture = Picture { shape: [3, 100, 100], values: vec![0.5; 30_000] };
            gaussian(Level { constants, severity })(&mut picture, &mut Rng::new(1));
            let n = picture.values.len() as f64;
            let mean = picture.values.iter().sum::<f64>() / n;
            let square = picture.values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
            assert!((mean - 0.5).abs() < 4.0 * sigma / 173.0, "{mean}");
            assert!((square.sqrt() - sigma).abs() < 4.0 * sigma / 245.0, "{}", square.sqrt());
        }
    }
}
