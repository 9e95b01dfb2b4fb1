//! The common corruptions against statistics of the Python package `imagecorruptions` at 32 x 32.

use archrepair::data::Images;
use archrepair::data::corrupt::{Constants, Corruption, Kind};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex64;

use crate::support::Golden;

const SIDE: usize = 32;

/// Mean, deviation and distance from the clean images, then four bands of the spectrum.
type Statistics = [f64; 7];

/// Draws of each image, as the package's.
const DRAWS: usize = 25;

/// How far mean, deviation and distance may be apart, of 255, and a band in proportion.
///
/// Bytes are the same where there is no chance, but for rounding. Elsewhere both are means of 200 draws.
/// The package does not cut enlarged flakes of snow around the middle, and its frost is of photographs,
/// where this program's is generated. A cloud of fog has few draws that decide about its light.
fn tolerance(corruption: Corruption) -> (f64, f64) {
    match corruption.kind() {
        Kind::Frost => (8.0, 0.5),
        Kind::Fog => (3.0, 0.25),
        Kind::Snow => (5.0, 0.25),
        Kind::ElasticTransform | Kind::MotionBlur => (1.5, 0.15),
        _ => (0.6, 0.06),
    }
}

fn statistics(images: &Images, clean: &Images) -> Statistics {
    let (values, before) = (images.pixels(), clean.pixels());
    let n = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
    let square = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / n;
    let apart = values.iter().zip(&*before).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / n;
    let [a, b, c, d] = bands(images);
    [mean, square.sqrt(), apart, a, b, c, d]
}

/// Mean power of the luma's spectrum in four rings.
fn bands(images: &Images) -> [f64; 4] {
    let fft = FftPlanner::new().plan_fft_forward(SIDE);
    let mut power = vec![0.0; SIDE * SIDE];
    for i in 0..images.len() {
        let image = images.image(i);
        let luma = |at: usize| {
            let channel = |c: usize| f64::from(image[c * SIDE * SIDE + at]);
            Complex64::from(0.299 * channel(0) + 0.587 * channel(1) + 0.114 * channel(2))
        };
        let mut plane: Vec<Complex64> = (0..SIDE * SIDE).map(luma).collect();
        fft.process(&mut plane);
        let mut turned: Vec<Complex64> =
            (0..SIDE * SIDE).map(|at| plane[at % SIDE * SIDE + at / SIDE]).collect();
        fft.process(&mut turned);
        power.iter_mut().zip(turned).for_each(|(sum, wave)| *sum += wave.norm_sqr() / 1024.0);
    }
    let frequency = |at: usize| if at < SIDE / 2 { at as f64 } else { at as f64 - SIDE as f64 };
    let radius = |at: usize| frequency(at / SIDE).hypot(frequency(at % SIDE));
    [(1.0, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 99.0)].map(|(low, high)| {
        let ring: Vec<f64> =
            (0..power.len()).filter(|at| (low..high).contains(&radius(*at))).map(|at| power[at]).collect();
        ring.iter().sum::<f64>() / ring.len() as f64 / images.len() as f64
    })
}

#[test]
fn every_corruption_has_the_statistics_of_the_package() {
    let golden = Golden::open("corruptions.safetensors");
    let names: Vec<&str> = Kind::all().iter().map(|kind| kind.name()).collect();
    assert_eq!(golden.file.metadata()["names"], names.join(","));
    let pixels = golden.file.raw("clean").unwrap().to_vec();
    let n = pixels.len() / (3 * SIDE * SIDE);
    let clean = Images::from_parts([3, SIDE, SIDE], pixels, vec![0; n], "golden").unwrap();
    let clean = clean.subset(&(0..DRAWS * n).map(|i| i % n).collect::<Vec<_>>());
    let want: Vec<f32> = golden.tensor("statistics").flatten_all().unwrap().to_vec1().unwrap();
    let mut far = Vec::new();
    for (at, want) in want.chunks_exact(7).enumerate() {
        let corruption = Corruption::new(Kind::all()[at / 5], at as u8 % 5 + 1, Constants::Cifar).unwrap();
        let got = statistics(&corruption.apply(&clean, 1), &clean);
        let (most, share) = tolerance(corruption);
        let is_far = |(i, got): (usize, &f64)| {
            let want = f64::from(want[i]);
            if i < 3 { (got - want).abs() > most } else { (got / want).ln().abs() > share.ln_1p() }
        };
        if got.iter().enumerate().any(is_far) {
            far.push(format!("{corruption}\n  {got:.3?}\n  {want:.3?}"));
        }
    }
    assert!(far.is_empty(), "{}", far.join("\n"));
}
