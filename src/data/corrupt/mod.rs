//! The common corruptions of the robustness benchmarks, made on the user's own images.
//!
//! One file a family. A family turns a `Level` into an `Effect`, what is done to one
//! `Picture`; [`Kind`] names the effects, and this file runs them over a set. To add a corruption:
//! its effect in its family's file, its variant in [`Kind`], its lines in `all`, `name` and `effect`.
//!
//! The published data sets were made without a seed, so no one can make the same bytes again;
//! what is equal is the distribution. Here each image has its own generator, made of the seed and
//! its index: the same seed gives the same bytes on any number of threads.
//!
//! # Source
//!
//! Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
//! Perturbations", ICLR 2019 (arXiv:1903.12261), and the constants of its published scripts.

mod bell;
mod blur;
mod color;
mod edge;
mod elastic;
mod fog;
mod frost;
mod glass;
mod jpeg;
mod kind;
mod motion;
mod noise;
mod outline;
mod picture;
mod pixelate;
mod snow;
mod spatter;
mod zoom;

use std::fmt;
use std::str::FromStr;

use super::{Images, Set};
use crate::error::{Error, Result};
use crate::rng::Rng;
pub use kind::Kind;
use picture::Picture;

/// What a corruption does to one picture.
type Effect = Box<dyn Fn(&mut Picture, &mut Rng) + Send + Sync>;

/// For which size of images the strengths were chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Constants {
    /// CIFAR-10-C, images of about 32 x 32.
    #[default]
    Cifar,
    /// Tiny-ImageNet-C, images of about 64 x 64.
    TinyImageNet,
    /// ImageNet-C, images of about 224 x 224.
    ImageNet,
}

impl Constants {
    /// All of them, from small images to large ones.
    pub const ALL: [Self; 3] = [Self::Cifar, Self::TinyImageNet, Self::ImageNet];

    /// The word for them behind a severity.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cifar => "cifar",
            Self::ImageNet => "imagenet",
            Self::TinyImageNet => "tinyimagenet",
        }
    }
}

/// One kind of damage at one of five severities.
///
/// Written `kind:severity` for the constants of small images, `kind:severity:tinyimagenet` and
/// `kind:severity:imagenet` for those of larger ones.
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
        let change = self.change(images.shape());
        images.map(|i, from, to| change(Rng::stream(seed, i as u64), from, to))
    }

    /// As [`Self::apply`], of a set whose images are damaged when they are read.
    #[must_use]
    pub fn over(&self, set: &Set, seed: u64) -> Set {
        set.changed(seed, self.change(set.shape()))
    }

    /// What is done to the bytes of one image of `shape`.
    fn change(&self, shape: [usize; 3]) -> impl Fn(Rng, &[u8], &mut [u8]) + Send + Sync + use<> {
        let effect = self.kind.effect(Level { constants: self.constants, severity: self.severity });
        move |mut rng, from, to| {
            let mut picture = Picture::new(shape, from);
            effect(&mut picture, &mut rng);
            picture.write(to);
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.severity)?;
        match self.constants {
            Constants::Cifar => Ok(()),
            constants => write!(f, ":{}", constants.name()),
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
        let constants =
            Constants::ALL.into_iter().find(|known| known.name() == constants).ok_or_else(|| {
                let known = Constants::ALL.map(Constants::name).join(", ");
                Error::UnknownName { kind: "corruption constants", got: constants.into(), known }
            })?;
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
    fn of<T: Copy>(self, cifar: [T; 5], tiny: [T; 5], imagenet: [T; 5]) -> T {
        let index = usize::from(self.severity) - 1;
        match self.constants {
            Constants::Cifar => cifar[index],
            Constants::ImageNet => imagenet[index],
            Constants::TinyImageNet => tiny[index],
        }
    }
}

/// A draw between two numbers, all equally likely.
fn between(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * f64::from(rng.uniform())
}

#[cfg(test)]
mod tests;
