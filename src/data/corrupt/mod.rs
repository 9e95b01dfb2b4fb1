//! The common corruptions of the robustness benchmarks, made on the user's own images.
//!
//! One file a family. A family turns a `Level` into an `Effect`, what is done to one
//! `Picture`; this file names the effects and runs them over a set. To add a corruption: its
//! effect in its family's file, its variant in [`Kind`], its lines in `name` and `effect`.
//!
//! The published data sets were made without a seed, so no one can make the same bytes again;
//! what is equal is the distribution. Here each image has its own generator, made of the seed and
//! its index: the same seed gives the same bytes on any number of threads.
//!
//! # Source
//!
//! Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
//! Perturbations", ICLR 2019 (arXiv:1903.12261), and the constants of its published scripts.

mod blur;
mod color;
mod noise;
mod picture;

use std::fmt;
use std::str::FromStr;

use super::Images;
use crate::error::{Error, Result};
use crate::rng::Rng;
use picture::Picture;

/// What a corruption does to one picture.
type Effect = Box<dyn Fn(&mut Picture, &mut Rng) + Send + Sync>;

/// What is done to an image, in the order of the published tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Independent normal noise on every value: a bright or small sensor's electronics.
    GaussianNoise,
    /// A lens out of focus: every point becomes a disk.
    DefocusBlur,
    /// Values drawn towards the channel's mean: fog on the lens, flat light.
    Contrast,
}

impl Kind {
    /// Every kind, in the order of the published tables.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &[Self::GaussianNoise, Self::DefocusBlur, Self::Contrast]
    }

    /// The name in the published files, such as `gaussian_noise`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Contrast => "contrast",
            Self::DefocusBlur => "defocus_blur",
            Self::GaussianNoise => "gaussian_noise",
        }
    }

    fn effect(self, level: Level) -> Effect {
        match self {
            Self::Contrast => color::contrast(level),
            Self::DefocusBlur => blur::defocus(level),
            Self::GaussianNoise => noise::gaussian(level),
        }
    }
}

/// For which size of images the strengths were chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Constants {
    /// CIFAR-10-C, images of about 32 x 32.
    #[default]
    Cifar,
    /// ImageNet-C, images of about 224 x 224.
    ImageNet,
}

/// One kind of damage at one of five severities.
///
/// Written `kind:severity` for the constants of small images, `kind:severity:imagenet` for those
/// of large ones.
///
/// # Examples
///
/// ```
/// use archrepair::data::corrupt::{Constants, Corruption, Kind};
///
/// let blur: Corruption = "defocus_blur:3".parse()?;
/// assert_eq!(blur, Corruption::new(Kind::DefocusBlur, 3, Constants::Cifar)?);
/// # Ok::<(), archrepair::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Corruption {
    kind: Kind,
    severity: u8,
    constants: Constants,
}

impl Corruption {
    /// The corruption of this kind and severity.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the severity is not 1 to 5.
    pub fn new(kind: Kind, severity: u8, constants: Constants) -> Result<Self> {
        if !(1..=5).contains(&severity) {
            return Err(bad_severity(&severity.to_string()));
        }
        Ok(Self { kind, severity, constants })
    }

    /// What is done.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How much, from 1 to 5.
    #[must_use]
    pub fn severity(&self) -> u8 {
        self.severity
    }

    /// For which size of images.
    #[must_use]
    pub fn constants(&self) -> Constants {
        self.constants
    }

    /// The damaged images, with the labels, path and class names of the whole ones.
    ///
    /// Values are cut to 0..1, scaled by 255 and rounded down, as the published scripts do.
    #[must_use]
    pub fn apply(&self, images: &Images, seed: u64) -> Images {
        let effect = self.kind.effect(Level { constants: self.constants, severity: self.severity });
        images.map(|i, from, to| {
            let mut picture = Picture::new(images.shape(), from);
            effect(&mut picture, &mut Rng::stream(seed, i as u64));
            picture.write(to);
        })
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.severity)?;
        match self.constants {
            Constants::Cifar => Ok(()),
            Constants::ImageNet => f.write_str(":imagenet"),
        }
    }
}

impl FromStr for Corruption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once(':').unwrap_or((text, "missing"));
        let (severity, constants) = rest.split_once(':').unwrap_or((rest, "cifar"));
        let kind = Kind::all().iter().find(|kind| kind.name() == name);
        let kind = *kind.ok_or_else(|| Error::UnknownName {
            kind: "corruption",
            got: name.into(),
            known: Kind::all().iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "),
        })?;
        let constants = match constants {
            "cifar" => Constants::Cifar,
            "imagenet" => Constants::ImageNet,
            other => {
                let known = "cifar, imagenet".into();
                return Err(Error::UnknownName { kind: "corruption constants", got: other.into(), known });
            }
        };
        Self::new(kind, severity.parse().map_err(|_| bad_severity(severity))?, constants)
    }
}

fn bad_severity(got: &str) -> Error {
    let want = "1 to 5, as in gaussian_noise:3".into();
    Error::Config { field: "severity", got: got.into(), want }
}

/// How strong an effect is.
#[derive(Clone, Copy, Debug)]
struct Level {
    constants: Constants,
    /// 1 to 5; [`Corruption::new`] checks.
    severity: u8,
}

impl Level {
    /// The constant of this level, out of those for severities 1 to 5.
    fn of<T: Copy>(self, cifar: [T; 5], imagenet: [T; 5]) -> T {
        let index = usize::from(self.severity) - 1;
        match self.constants {
            Constants::Cifar => cifar[index],
            Constants::ImageNet => imagenet[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy_set() -> Images {
        let mut rng = Rng::new(5);
        let pixels = (0..9 * 3 * 12 * 10).map(|_| rng.below(256) as u8).collect();
        Images::from_parts([3, 12, 10], pixels, vec![0; 9], "t").unwrap()
    }

    /// Every corruption there is.
    fn every() -> impl Iterator<Item = Corruption> {
        let sets = [Constants::Cifar, Constants::ImageNet];
        Kind::all().iter().copied().flat_map(move |kind| {
            sets.into_iter().flat_map(move |set| (1..=5).map(move |s| Corruption::new(kind, s, set).unwrap()))
        })
    }

    #[test]
    fn corruptions_print_as_they_are_read() {
        assert_eq!(every().count(), 30);
        for corruption in every() {
            assert_eq!(corruption.to_string().parse::<Corruption>().unwrap(), corruption);
        }
        assert_eq!("contrast:2:cifar".parse::<Corruption>().unwrap().to_string(), "contrast:2");
    }

    #[test]
    fn every_wrong_word_is_named() {
        let text = |text: &str| text.parse::<Corruption>().unwrap_err().to_string();
        assert_eq!(
            text("gaussian:3"),
            "unknown corruption `gaussian`, expected one of gaussian_noise, defocus_blur, contrast"
        );
        assert_eq!(text("contrast:6"), "severity is 6, expected 1 to 5, as in gaussian_noise:3");
        assert_eq!(text("contrast"), "severity is missing, expected 1 to 5, as in gaussian_noise:3");
        assert!(text("contrast:0").starts_with("severity is 0"));
        assert!(text("contrast:300").starts_with("severity is 300"));
        assert_eq!(
            text("contrast:3:mnist"),
            "unknown corruption constants `mnist`, expected one of cifar, imagenet"
        );
    }

    #[test]
    fn one_thread_and_four_give_the_same_bytes() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| every().map(|corruption| corruption.apply(&noisy_set(), 7)).collect::<Vec<_>>())
        };
        assert_eq!(on(1), on(4));
    }

    #[test]
    fn a_seed_decides_the_noise_and_each_image_has_its_own() {
        let noise: Corruption = "gaussian_noise:5".parse().unwrap();
        let grey = Images::from_parts([1, 8, 8], vec![128; 128], vec![0; 2], "t").unwrap();
        let damaged = noise.apply(&grey, 1);
        assert_ne!(damaged.image(0), damaged.image(1));
        assert_ne!(damaged, noise.apply(&grey, 2));
    }

    /// The published pattern: error grows with severity, so the images must move away.
    #[test]
    fn a_higher_severity_is_further_from_the_image() {
        for kind in Kind::all() {
            for set in [Constants::Cifar, Constants::ImageNet] {
                let distance = |severity| {
                    let damaged = Corruption::new(*kind, severity, set).unwrap().apply(&noisy_set(), 3);
                    let pairs =
                        damaged.pixels().into_owned().into_iter().zip(noisy_set().pixels().into_owned());
                    pairs.map(|(a, b)| u64::from(a.abs_diff(b)).pow(2)).sum::<u64>()
                };
                let distances: Vec<_> = (1..=5).map(distance).collect();
                assert!(distances.is_sorted(), "{kind:?} {set:?} {distances:?}");
            }
        }
    }
}
