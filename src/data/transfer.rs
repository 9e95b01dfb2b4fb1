//! What the field did to the images, estimated from a few failures and done to other images.
//!
//! A shifted input (noise, blur, contrast, light) changes how much power images have at each
//! spatial frequency. Comparing the mean power spectrum of failures with that of clean images of
//! the same classes says how: where there is less power the field has smoothed, where there is
//! more it has added noise. Doing the same to replay images gives labelled images that resemble
//! the failures, as many as there is replay. (Ours; a cheap stand-in for the style transfer of
//! DeepRepair, Yu et al. 2021.)
//!
//! For each channel and frequency, with `P` the mean power of failures, `Q` that of clean images:
//!
//! ```text
//! gain  = min(1, sqrt(P / Q))
//! noise = max(0, P - Q), with random phase
//! ```
//!
//! The mean of an image is moved so that means are distributed as those of failures are. Bytes
//! clip, which takes power away from noise, so the noise is raised until the clipped result has
//! the power that was measured.

use std::path::Path;

use rayon::prelude::*;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex32;

use super::Images;
use crate::error::Result;
use crate::rng::Rng;

/// An estimated change of images.
#[derive(Clone, Debug)]
pub struct Transfer {
    shape: [usize; 3],
    /// Factor of each channel and frequency.
    gain: Vec<f32>,
    /// Deviation of the noise at each channel and frequency.
    noise: Vec<f32>,
    /// Factor and summand of each channel's mean.
    mean: Vec<[f32; 2]>,
}

/// Bytes of the spectra that are in memory together, and most images of them.
const TOGETHER_BYTES: usize = 1 << 20;
const TOGETHER: usize = 32;

/// Bytes that plans of transforms and lists take.
const PLANS: usize = 16 << 10;

/// Rounds in which the noise is raised for what clipping takes away.
const ROUNDS: usize = 3;

impl Transfer {
    /// Estimates what makes `clean` images look like `failing` ones; both of one size, none
    /// empty. Images on the way are in unnamed files in `folder`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] when the folder cannot be written.
    pub fn estimate(clean: &Images, failing: &Images, (folder, seed): (&Path, u64)) -> Result<Self> {
        let weights = class_weights(clean, failing);
        let uniform = vec![1.0 / failing.len().max(1) as f64; failing.len()];
        let (q, p) = (Summary::new(clean, &weights), Summary::new(failing, &uniform));
        let pairs = || p.power.iter().zip(&q.power);
        let gain = pairs().map(|(p, q)| (p / q.max(1e-12)).sqrt().min(1.0) as f32).collect();
        let noise: Vec<f32> = pairs().map(|(p, q)| (p - q).max(0.0).sqrt() as f32).collect();
        let mean = p.mean.iter().zip(&q.mean).map(|(&[m, s], &[m0, s0])| {
            let factor = s / s0.max(1e-6);
            [factor as f32, (m - factor * m0) as f32]
        });
        let mut transfer = Self { shape: clean.shape(), gain, noise, mean: mean.collect() };
        for _ in 0..ROUNDS {
            let reached = Summary::new(&transfer.apply(clean, (folder, seed))?, &weights);
            for ((noise, reached), (p, q)) in transfer.noise.iter_mut().zip(&reached.power).zip(pairs()) {
                if p > q {
                    *noise *= ((p - q) / (reached - q).max((p - q) * 0.25)).sqrt().clamp(0.5, 2.0) as f32;
                }
            }
            for (mean, (reached, p)) in transfer.mean.iter_mut().zip(reached.mean.iter().zip(&p.mean)) {
                mean[1] += (p[0] - reached[0]) as f32;
            }
        }
        Ok(transfer)
    }

    /// Most bytes that [`Transfer::estimate`] and [`Transfer::apply`] allocate for images of this
    /// shape on `threads` threads, beside 16 for each image.
    #[must_use]
    pub fn bytes([c, h, w]: [usize; 3], threads: usize) -> usize {
        let (pixels, all) = (h * w, c * h * w);
        let (real, complex) = (size_of::<f64>(), size_of::<Complex32>());
        // Gain and noise; power of failures and of clean images.
        let found = all * (2 * size_of::<f32>() + 2 * real);
        // On the way: a batch of pixels, and on each thread a plane, its noise, one of them turned,
        // and the result.
        let applied = super::map::together(all) * all + threads * pixels * (3 * complex + 1);
        // What was reached: its power, a batch of spectra, and on each thread a plane and it turned.
        let batch = together([c, h, w]);
        let spectra = batch * all * size_of::<f32>();
        let measured = all * real + spectra + threads.min(batch) * pixels * 2 * complex;
        found + applied.max(measured) + PLANS
    }

    /// The images as the field would show them, in an unnamed file in `folder`; each draws its
    /// noise from `seed` and its index.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] when the folder cannot be written.
    pub fn apply(&self, images: &Images, (folder, seed): (&Path, u64)) -> Result<Images> {
        let [_, h, w] = self.shape;
        let fourier = Fourier::new(h, w);
        images.map_spooled(folder, |i, from, to| {
            let mut rng = Rng::stream(seed, i as u64);
            for (c, (from, to)) in from.chunks_exact(h * w).zip(to.chunks_exact_mut(h * w)).enumerate() {
                let bytes = self.plane(c, from, &fourier, &mut rng);
                to.copy_from_slice(&bytes);
            }
        })
    }

    fn plane(&self, c: usize, from: &[u8], fourier: &Fourier, rng: &mut Rng) -> Vec<u8> {
        let pixels = from.len();
        let (gain, noise) = (&self.gain[c * pixels..][..pixels], &self.noise[c * pixels..][..pixels]);
        let (mut x, mean) = centred(from);
        let mut white: Vec<Complex32> = (0..pixels).map(|_| Complex32::new(rng.normal(), 0.0)).collect();
        fourier.forward(&mut x);
        fourier.forward(&mut white);
        for ((x, e), (g, s)) in x.iter_mut().zip(&white).zip(gain.iter().zip(noise)) {
            *x = *x * *g + *e * *s;
        }
        fourier.inverse(&mut x);
        let mean = self.mean[c][0] * mean + self.mean[c][1];
        x.iter().map(|x| (255.0 * (x.re + mean)).round().clamp(0.0, 255.0) as u8).collect()
    }
}

/// A weight for each clean image, so that classes weigh what they weigh among the failures; the
/// weights sum to 1.
fn class_weights(clean: &Images, failing: &Images) -> Vec<f64> {
    let count = |images: &Images, class: u32| images.labels().iter().filter(|&&l| l == class).count() as f64;
    let of = |i: usize| count(failing, clean.label(i)) / count(clean, clean.label(i));
    let weights: Vec<f64> = (0..clean.len()).map(of).collect();
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        return weights.into_iter().map(|w| w / sum).collect();
    }
    vec![1.0 / clean.len().max(1) as f64; clean.len()]
}

/// What is measured of a set.
struct Summary {
    /// Mean power of each channel and frequency but the mean's, a pixel.
    power: Vec<f64>,
    /// Mean and deviation over images of each channel's mean.
    mean: Vec<[f64; 2]>,
}

impl Summary {
    fn new(images: &Images, weights: &[f64]) -> Self {
        let [c, h, w] = images.shape();
        let fourier = Fourier::new(h, w);
        let mut power = vec![0.0; c * h * w];
        let mut moments = vec![[0.0; 2]; c];
        // A few at a time: all spectra together would take more memory than all pixels.
        let all: Vec<usize> = (0..images.len()).collect();
        for few in all.chunks(together(images.shape())) {
            let spectra: Vec<(Vec<f32>, Vec<f32>)> =
                few.par_iter().map(|&i| spectrum(images.image(i), &fourier)).collect();
            for ((spectrum, means), weight) in spectra.iter().zip(&weights[few[0]..]) {
                power.iter_mut().zip(spectrum).for_each(|(sum, p)| *sum += weight * f64::from(*p));
                for (sum, &m) in moments.iter_mut().zip(means) {
                    sum[0] += weight * f64::from(m);
                    sum[1] += weight * f64::from(m) * f64::from(m);
                }
            }
        }
        let mean = moments.into_iter().map(|[m, square]| [m, (square - m * m).max(0.0).sqrt()]).collect();
        Self { power, mean }
    }
}

fn together([c, h, w]: [usize; 3]) -> usize {
    (TOGETHER_BYTES / (4 * c * h * w).max(1)).clamp(1, TOGETHER)
}

/// Power of each channel and frequency, a pixel, and the channels' means.
fn spectrum(image: &[u8], fourier: &Fourier) -> (Vec<f32>, Vec<f32>) {
    let pixels = fourier.h * fourier.w;
    let (mut power, mut means) = (Vec::with_capacity(image.len()), Vec::new());
    for plane in image.chunks_exact(pixels) {
        let (mut x, mean) = centred(plane);
        fourier.forward(&mut x);
        power.extend(x.iter().map(|x| x.norm_sqr() / pixels as f32));
        means.push(mean);
    }
    (power, means)
}

/// Pixels in 0 to 1 less their mean, and the mean.
fn centred(plane: &[u8]) -> (Vec<Complex32>, f32) {
    let mean = plane.iter().map(|&b| f32::from(b)).sum::<f32>() / (255.0 * plane.len() as f32);
    (plane.iter().map(|&b| Complex32::new(f32::from(b) / 255.0 - mean, 0.0)).collect(), mean)
}

/// Fourier transforms of planes.
struct Fourier {
    h: usize,
    w: usize,
    /// Along rows and along columns, forward and back.
    plans: [[std::sync::Arc<dyn rustfft::Fft<f32>>; 2]; 2],
}

impl Fourier {
    fn new(h: usize, w: usize) -> Self {
        let mut planner = FftPlanner::new();
        let forward = [planner.plan_fft_forward(w), planner.plan_fft_forward(h)];
        Self { h, w, plans: [forward, [planner.plan_fft_inverse(w), planner.plan_fft_inverse(h)]] }
    }

    fn forward(&self, x: &mut [Complex32]) {
        self.both_ways(x, &self.plans[0]);
    }

    fn inverse(&self, x: &mut [Complex32]) {
        self.both_ways(x, &self.plans[1]);
        let scale = 1.0 / (self.h * self.w) as f32;
        x.iter_mut().for_each(|x| *x *= scale);
    }

    fn both_ways(&self, x: &mut [Complex32], [rows, columns]: &[std::sync::Arc<dyn rustfft::Fft<f32>>; 2]) {
        let (h, w) = (self.h, self.w);
        rows.process(x);
        let mut turned: Vec<Complex32> = (0..w * h).map(|i| x[i % h * w + i / h]).collect();
        columns.process(&mut turned);
        x.iter_mut().enumerate().for_each(|(i, x)| *x = turned[i % w * h + i / w]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smooth random images: sums of a few waves.
    fn images(n: usize, contrast: f32, noise: f32, seed: u64) -> Images {
        let mut pixels = Vec::new();
        for i in 0..n {
            let mut rng = Rng::stream(seed, i as u64);
            let [a, b, phase] = [(); 3].map(|()| rng.uniform() * 3.0);
            for p in 0..12 * 16 {
                let (y, x) = ((p / 16) as f32, (p % 16) as f32);
                let wave =
                    (a * y / 2.0 + b * x / 2.0 + phase).sin() * 0.3 * contrast + 0.5 + noise * rng.normal();
                pixels.push((255.0 * wave).clamp(0.0, 255.0) as u8);
            }
        }
        Images::from_parts([1, 12, 16], pixels, vec![0; n], "made").unwrap()
    }

    fn transferred(clean: &Images, failing: &Images) -> Images {
        let folder = std::env::temp_dir();
        let transfer = Transfer::estimate(clean, failing, (&folder, 7)).unwrap();
        transfer.apply(clean, (&folder, 8)).unwrap()
    }

    fn deviation(images: &Images) -> f64 {
        let all: Vec<f64> = images.pixels().iter().map(|&b| f64::from(b) / 255.0).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt()
    }

    #[test]
    fn transferred_images_have_the_power_of_the_failures() {
        let clean = images(200, 1.0, 0.0, 1);
        for failing in [images(80, 0.3, 0.0, 2), images(80, 1.0, 0.2, 3)] {
            let made = transferred(&clean, &failing);
            let (want, got) = (deviation(&failing), deviation(&made));
            assert!((got / want - 1.0).abs() < 0.1, "{got} instead of {want}");
        }
    }

    #[test]
    fn without_a_change_nothing_changes() {
        let clean = images(50, 1.0, 0.0, 1);
        let made = transferred(&clean, &clean);
        let off = made.pixels().iter().zip(clean.pixels().iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(1));
    }
}
