//! Noise: every value changed on its own.

use super::{Effect, Level};

/// Half of the distance between two draws of 24 bits: with it none is 0, which would be a count of 0
/// for the brightest light.
const HALF_STEP: f64 = 1.0 / (1u64 << 25) as f64;

/// Adds normal noise to every value: `y = x + N(0, sigma)`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `gaussian_noise` of the published scripts.
pub(super) fn gaussian(level: Level) -> Effect {
    let sigma: f64 = level.of(
        [0.04, 0.06, 0.08, 0.09, 0.10],
        [0.04, 0.08, 0.12, 0.15, 0.18],
        [0.08, 0.12, 0.18, 0.26, 0.38],
    );
    Box::new(move |picture, rng| {
        for value in &mut picture.values {
            *value += sigma * f64::from(rng.normal());
        }
    })
}

/// Salt and pepper: every value becomes 1 or 0, with probability `amount / 2` each.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `impulse_noise`; `skimage.util.random_noise`.
pub(super) fn impulse(level: Level) -> Effect {
    let amount: f32 = level.of(
        [0.01, 0.02, 0.03, 0.05, 0.07],
        [0.01, 0.02, 0.05, 0.08, 0.14],
        [0.03, 0.06, 0.09, 0.17, 0.27],
    );
    Box::new(move |picture, rng| {
        for value in &mut picture.values {
            let draw = rng.uniform();
            if draw < amount {
                *value = f64::from(u8::from(draw < amount / 2.0));
            }
        }
    })
}

/// Counts light in packets, `photons` for a value of 1: `y = Poisson(x photons) / photons`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `shot_noise`.
pub(super) fn shot(level: Level) -> Effect {
    let photons: f64 = level.of(
        [500.0, 250.0, 100.0, 75.0, 50.0],
        [250.0, 100.0, 50.0, 30.0, 15.0],
        [60.0, 25.0, 12.0, 5.0, 3.0],
    );
    let counts: Vec<Counts> = (0..=255).map(|byte| Counts::new(f64::from(byte) / 255.0 * photons)).collect();
    Box::new(move |picture, rng| {
        for value in &mut picture.values {
            let byte = (*value * 255.0).round() as u8;
            *value = counts[usize::from(byte)].draw(f64::from(rng.uniform()) + HALF_STEP) / photons;
        }
    })
}

/// Adds normal noise in proportion to every value: `y = x + x N(0, sigma)`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `speckle_noise`.
pub(super) fn speckle(level: Level) -> Effect {
    let sigma: f64 = level.of(
        [0.06, 0.10, 0.12, 0.16, 0.20],
        [0.15, 0.20, 0.25, 0.30, 0.35],
        [0.15, 0.20, 0.35, 0.45, 0.60],
    );
    Box::new(move |picture, rng| {
        for value in &mut picture.values {
            *value += *value * sigma * f64::from(rng.normal());
        }
    })
}

/// Equal parts of 0..1 whose first counts are known.
const PARTS: usize = 256;

/// A Poisson distribution. A byte has 256 values, so that few distributions serve all pixels.
struct Counts {
    /// `P(0), P(0) + P(1), ...`
    sums: Vec<f64>,
    /// The count that the start of each part has: where to look from.
    starts: Vec<u16>,
}

impl Counts {
    /// The distribution of this mean, at most 600 or `P(0)` would be too small for a number.
    fn new(mean: f64) -> Self {
        // Beyond ten deviations there is less than a draw of 24 bits can tell.
        let most = (mean + 10.0 * mean.sqrt()) as usize + 10;
        let (mut chance, mut sum) = ((-mean).exp(), 0.0);
        let mut add = |k: usize| {
            sum += chance;
            chance *= mean / (k + 1) as f64;
            sum
        };
        let sums: Vec<f64> = (0..most).map(&mut add).collect();
        let start = |part: usize| sums.partition_point(|sum| *sum <= part as f64 / PARTS as f64) as u16;
        Self { starts: (0..PARTS).map(start).collect(), sums }
    }

    /// The count whose share of 0..1 holds `draw`.
    fn draw(&self, draw: f64) -> f64 {
        let start = usize::from(self.starts[((draw * PARTS as f64) as usize).min(PARTS - 1)]);
        let more = self.sums[start.min(self.sums.len())..].iter().take_while(|sum| **sum <= draw).count();
        (start + more) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Constants, Level, Picture};
    use super::*;
    use crate::rng::Rng;

    /// An effect at a level, a value, and the deviation that comes of it.
    type Case = (fn(Level) -> Effect, (Constants, u8), f64, f64);

    /// What an effect makes of 30,000 values of `x`.
    fn noisy(effect: fn(Level) -> Effect, level: (Constants, u8), x: f64) -> Vec<f64> {
        let mut picture = Picture { shape: [3, 100, 100], values: vec![x; 30_000] };
        effect(Level { constants: level.0, severity: level.1 })(&mut picture, &mut Rng::new(1));
        picture.values
    }

    fn moments(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt())
    }

    /// On 30,000 values the standard error of the mean is sigma / 173, of the deviation
    /// sigma / 245 for normal noise; both are given four. Speckles of 0.5 have half the deviation.
    /// Counts of mean 50 over 100, and of 1.5 over 3, have the deviations sqrt(50) / 100 and
    /// sqrt(1.5) / 3.
    #[test]
    fn noise_on_grey_has_mean_0_and_the_deviation_of_its_level() {
        use Constants::{Cifar, ImageNet, TinyImageNet};
        let byte = 128.0 / 255.0;
        let cases: [Case; 8] = [
            (gaussian, (Cifar, 1), 0.5, 0.04),
            (gaussian, (TinyImageNet, 4), 0.5, 0.15),
            (gaussian, (ImageNet, 5), 0.5, 0.38),
            (speckle, (Cifar, 2), 0.5, 0.05),
            (speckle, (ImageNet, 5), 0.5, 0.3),
            (shot, (Cifar, 1), byte, (byte / 500.0).sqrt()),
            (shot, (Cifar, 3), byte, (byte / 100.0).sqrt()),
            (shot, (ImageNet, 5), byte, (byte / 3.0).sqrt()),
        ];
        for (effect, level, x, sigma) in cases {
            let (mean, deviation) = moments(&noisy(effect, level, x));
            assert!((mean - x).abs() < 4.0 * sigma / 173.0, "{level:?} {mean}");
            assert!((deviation - sigma).abs() < 4.0 * sigma / 245.0, "{level:?} {deviation}");
        }
    }

    #[test]
    fn black_has_no_photons_and_no_speckles() {
        for effect in [shot, speckle] {
            assert_eq!(noisy(effect, (Constants::ImageNet, 5), 0.0), vec![0.0; 30_000]);
        }
    }

    /// Of 30,000 values 0.27 / 2 are 4050, with a deviation of 59.
    #[test]
    fn impulses_are_white_and_black_alike_and_the_rest_stays() {
        let values = noisy(impulse, (Constants::ImageNet, 5), 0.5);
        let count = |x: f64| values.iter().filter(|value| **value == x).count();
        assert_eq!(count(0.0) + count(0.5) + count(1.0), 30_000);
        assert!(count(0.0).abs_diff(4050) < 240 && count(1.0).abs_diff(4050) < 240);
    }

    /// P(0) = e^-2, P(1) = 2 e^-2, P(2) = 2 e^-2; e^-2 is 0.1353.
    #[test]
    fn counts_share_the_unit_as_poisson_says() {
        let counts = Counts::new(2.0);
        let at = [0.0, 0.135, 0.136, 0.405, 0.407, 0.676, 0.677];
        assert_eq!(at.map(|draw| counts.draw(draw)), [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
        assert_eq!(Counts::new(0.0).draw(0.99), 0.0);
        assert!(
            Counts::new(500.0).draw(HALF_STEP) > 300.0 && Counts::new(500.0).draw(1.0 - HALF_STEP) < 650.0
        );
    }
}
