//! Errors under corruptions in single numbers, as the benchmarks define them.
//!
//! With `E(c, s)` the share of wrong answers under the corruption `c` at severity `s`:
//!
//! ```text
//! mean corruption error   mean over c of mean over s of E(c, s)                      CIFAR-10-C
//! mCE                     mean over c of  sum_s E(c, s) / sum_s R(c, s)              ImageNet-C
//! relative mCE            mean over c of  sum_s (E(c, s) - E) / sum_s (R(c, s) - R)
//! ```
//!
//! with `R` of a reference network, and `E`, `R` without arguments on clean images. Corruptions are the 15
//! common ones where these are there at all five severities, else those that are there.
//!
//! # Source
//!
//! Hendrycks and Dietterich, ICLR 2019 (arXiv:1903.12261), section 4.2; for CIFAR-10-C, Hendrycks et al.,
//! "AugMix", ICLR 2020 (arXiv:1912.02781), section 4.1.

use super::{Change, Condition};
use crate::data::corrupt::{Corruption, Kind};

/// Error under one kind of corruption.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KindError {
    /// The kind.
    pub kind: Kind,
    /// Mean over its severities.
    pub error: f64,
}

/// Mean errors by kind, of the network before or after.
#[derive(Clone, Debug, PartialEq)]
pub struct CorruptionErrors {
    /// On clean images.
    pub clean: f64,
    /// In the order of the published tables.
    pub kinds: Vec<KindError>,
    /// Whether the 15 common corruptions are there at severities 1 to 5; then only these count below.
    pub is_complete: bool,
}

/// Errors that others are divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Of which network.
    pub name: String,
    /// On clean images.
    pub clean: f64,
    /// By kind, over the same severities.
    pub kinds: Vec<KindError>,
}

/// Errors as a share of a reference's; `None` where that made no error to divide by.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalized {
    /// Of each kind that counts.
    pub kinds: Vec<(Kind, Option<f64>)>,
    /// Mean over kinds.
    pub mce: Option<f64>,
    /// Mean over kinds of what was lost against clean images.
    pub relative_mce: Option<f64>,
}

/// Errors of AlexNet on ImageNet-C: the published normalizers, and its error on clean images as
/// torchvision states it (56.522 % right).
const ALEXNET_CLEAN: f64 = 0.43478;
const ALEXNET: [f64; 15] = [
    0.886_428, 0.894_468, 0.922_640, 0.819_880, 0.826_268, 0.785_948, 0.798_360, 0.866_816, 0.826_572,
    0.819_324, 0.564_592, 0.853_204, 0.646_056, 0.717_840, 0.606_500,
];

impl Reference {
    /// AlexNet, by whose errors those on ImageNet-C are divided.
    #[must_use]
    pub fn alexnet() -> Self {
        let kinds = Kind::common().iter().zip(ALEXNET).map(|(&kind, error)| KindError { kind, error });
        Self { name: "alexnet".into(), clean: ALEXNET_CLEAN, kinds: kinds.collect() }
    }

    /// A network by its errors here.
    #[must_use]
    pub fn network(name: impl Into<String>, errors: &CorruptionErrors) -> Self {
        Self { name: name.into(), clean: errors.clean, kinds: errors.kinds.clone() }
    }
}

impl CorruptionErrors {
    /// The errors that `of` finds in each condition, clean images first; `None` without corruptions.
    pub fn new(conditions: &[Condition], of: impl Fn(&Condition) -> f64) -> Option<Self> {
        let (clean, corrupted) = conditions.split_first()?;
        let errors = |kind: &Kind| {
            let own =
                corrupted.iter().filter(|condition| condition.corruption.is_some_and(|c| c.kind() == *kind));
            let errors: Vec<f64> = own.map(&of).collect();
            let error = errors.iter().sum::<f64>() / errors.len() as f64;
            (!errors.is_empty()).then_some(KindError { kind: *kind, error })
        };
        let kinds: Vec<KindError> = Kind::all().iter().filter_map(errors).collect();
        let corruptions: Vec<Corruption> = corrupted.iter().filter_map(|one| one.corruption).collect();
        let is_complete = is_complete(&corruptions);
        (!kinds.is_empty()).then(|| Self { clean: of(clean), kinds, is_complete })
    }

    /// Those of the network before.
    #[must_use]
    pub fn before(conditions: &[Condition]) -> Option<Self> {
        Self::new(conditions, |condition| error(condition.all.before(), &condition.all))
    }

    /// Those of the network after.
    #[must_use]
    pub fn after(conditions: &[Condition]) -> Option<Self> {
        Self::new(conditions, |condition| error(condition.all.after(), &condition.all))
    }

    /// The kinds that count.
    fn counted(&self) -> impl Iterator<Item = &KindError> {
        self.kinds.iter().filter(|one| !self.is_complete || Kind::common().contains(&one.kind))
    }

    /// The mean corruption error.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.counted().map(|one| one.error).sum::<f64>() / self.counted().count().max(1) as f64
    }

    /// These errors as shares of those of `reference`; kinds that it does not have are left out.
    #[must_use]
    pub fn normalized(&self, reference: &Reference) -> Normalized {
        let pairs: Vec<(&KindError, f64)> = self
            .counted()
            .filter_map(|own| {
                let other = reference.kinds.iter().find(|other| other.kind == own.kind)?;
                Some((own, other.error))
            })
            .collect();
        let share = |own: f64, other: f64| (other > 0.0).then(|| own / other);
        let kinds = pairs.iter().map(|(own, other)| (own.kind, share(own.error, *other))).collect();
        let lost = |(own, other): &(&KindError, f64)| share(own.error - self.clean, other - reference.clean);
        let mean = |shares: Vec<Option<f64>>| {
            let n = shares.len();
            let sum: Option<f64> = shares.into_iter().sum();
            sum.filter(|_| n > 0).map(|sum| sum / n as f64)
        };
        let mce = mean(pairs.iter().map(|(own, other)| share(own.error, *other)).collect());
        Normalized { kinds, mce, relative_mce: mean(pairs.iter().map(lost).collect()) }
    }
}

fn error(accuracy: f64, change: &Change) -> f64 {
    if change.n == 0 { 0.0 } else { 1.0 - accuracy }
}

/// Whether each common kind is there once at each severity.
#[must_use]
pub fn is_complete(corruptions: &[Corruption]) -> bool {
    let n = |kind: Kind, severity: u8| {
        corruptions.iter().filter(|one| one.kind() == kind && one.severity() == severity).count()
    };
    Kind::common().iter().all(|&kind| (1..=5).all(|severity| n(kind, severity) == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 10 images, so many wrong before and after.
    fn condition(name: &str, before: usize, after: usize) -> Condition {
        let all = Change { n: 10, right_before: 10 - before, right_after: 10 - after, fixed: 0, broken: 0 };
        Condition {
            corruption: (name != "clean").then(|| name.parse().unwrap()),
            all,
            classes: Vec::new(),
            calibration_error: [0.0; 2],
            reference_error: None,
        }
    }

    fn fog_and_snow() -> [Condition; 4] {
        [
            condition("clean", 0, 1),
            condition("fog:1", 2, 2),
            condition("snow:3", 5, 4),
            condition("fog:5", 4, 3),
        ]
    }

    /// Fog (0.2 + 0.4) / 2 = 0.3, snow 0.5: mean 0.4, not the 0.367 of the three conditions.
    #[test]
    fn the_mean_is_over_kinds_of_means_over_severities() {
        let conditions = fog_and_snow();
        let errors = CorruptionErrors::before(&conditions).unwrap();
        assert_eq!(errors.kinds.iter().map(|one| one.kind).collect::<Vec<_>>(), [Kind::Snow, Kind::Fog]);
        assert!((errors.mean() - 0.4).abs() < 1e-12 && !errors.is_complete);
        assert_eq!(CorruptionErrors::after(&conditions[..1]), None);
    }

    /// Fog 0.25 / 0.3, snow 0.4 / 0.5: mean 0.816667. Less clean errors of 0.1 and 0: 0.15 / 0.3 and
    /// 0.3 / 0.5, mean 0.55.
    #[test]
    fn errors_are_divided_kind_by_kind() {
        let conditions = fog_and_snow();
        let [before, after] =
            [CorruptionErrors::before, CorruptionErrors::after].map(|of| of(&conditions).unwrap());
        let normalized = after.normalized(&Reference::network("base", &before));
        assert!((normalized.mce.unwrap() - (0.25 / 0.3 + 0.8) / 2.0).abs() < 1e-12);
        assert!((normalized.relative_mce.unwrap() - 0.55).abs() < 1e-12);
        let itself = before.normalized(&Reference::network("base", &before));
        assert_eq!((itself.mce, itself.relative_mce), (Some(1.0), Some(1.0)));
    }

    #[test]
    fn a_reference_without_errors_divides_nothing() {
        let conditions = [condition("clean", 0, 0), condition("fog:1", 0, 2)];
        let before = CorruptionErrors::before(&conditions).unwrap();
        let after = CorruptionErrors::after(&conditions).unwrap();
        let normalized = after.normalized(&Reference::network("base", &before));
        assert_eq!((normalized.kinds[0], normalized.mce), ((Kind::Fog, None), None));
    }

    /// All 19 kinds are there, the 15 count: 15 errors of 0.4 and 4 of 0.9.
    #[test]
    fn of_all_corruptions_the_common_ones_count() {
        let all = Kind::all().iter().flat_map(|kind| (1..=5).map(move |s| (*kind, s)));
        let own = |(kind, s): (Kind, u8)| {
            let wrong = if Kind::common().contains(&kind) { 4 } else { 9 };
            condition(&format!("{}:{s}:imagenet", kind.name()), wrong, wrong)
        };
        let conditions: Vec<Condition> = [condition("clean", 1, 1)].into_iter().chain(all.map(own)).collect();
        let errors = CorruptionErrors::after(&conditions).unwrap();
        assert!(errors.is_complete && (errors.mean() - 0.4).abs() < 1e-12);
        let all: Vec<Corruption> = conditions.iter().filter_map(|one| one.corruption).collect();
        assert!(is_complete(&all[..75]) && !is_complete(&all[1..]));
        assert!(!is_complete(&[&all[..], &all[..1]].concat()), "one of them twice");
        // AlexNet's own errors are its mCE of 1.
        let alexnet = Reference::alexnet();
        let itself =
            CorruptionErrors { clean: alexnet.clean, kinds: alexnet.kinds.clone(), is_complete: true };
        let Normalized { mce, relative_mce, .. } = itself.normalized(&alexnet);
        assert!((mce.unwrap() - 1.0).abs() < 1e-12 && (relative_mce.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(errors.normalized(&alexnet).kinds.len(), 15);
    }
}
