//! Spectrum analysis: how much more often a neuron is active when the network fails.
//!
//! A neuron is a channel of a convolution inside a block; it is active on an image when the mean
//! of its activation over the pixels is above its threshold.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How often one neuron was active and inactive on failures and on passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Active on a failure.
    pub active_failing: usize,
    /// Inactive on a failure.
    pub inactive_failing: usize,
    /// Active on a pass.
    pub active_passing: usize,
    /// Inactive on a pass.
    pub inactive_passing: usize,
}

/// Formulas of suspiciousness.
///
/// With `cf`, `uf` active and inactive on failures, `cs`, `us` on passes; 0 where undefined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Formula {
    /// `cf^3 / (cs + uf)` (Wong et al. 2014)
    DStar,
    /// `cf / sqrt((cf + uf) (cf + cs))` (Abreu et al. 2007)
    #[default]
    Ochiai,
    /// `(cf / (cf + uf)) / (cf / (cf + uf) + cs / (cs + us))` (Jones and Harrold 2005)
    Tarantula,
}

impl Formula {
    /// Suspiciousness of a neuron with these counts; D* is the largest `f64` where it would be
    /// infinite.
    #[must_use]
    pub fn score(self, counts: Counts) -> f64 {
        let [cf, uf] = [counts.active_failing, counts.inactive_failing].map(|n| n as f64);
        let [cs, us] = [counts.active_passing, counts.inactive_passing].map(|n| n as f64);
        let score = match self {
            Self::DStar if cf > 0.0 && cs + uf == 0.0 => f64::MAX,
            Self::DStar => cf.powi(3) / (cs + uf),
            Self::Ochiai => cf / ((cf + uf) * (cf + cs)).sqrt(),
            Self::Tarantula => {
                let (failing, passing) = (cf / (cf + uf), if cs + us > 0.0 { cs / (cs + us) } else { 0.0 });
                failing / (failing + passing)
            }
        };
        if score.is_nan() { 0.0 } else { score }
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::DStar => "dstar",
            Self::Ochiai => "ochiai",
            Self::Tarantula => "tarantula",
        })
    }
}

impl FromStr for Formula {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::DStar, Self::Ochiai, Self::Tarantula];
        all.into_iter().find(|formula| formula.to_string() == text).ok_or_else(|| Error::UnknownName {
            kind: "formula",
            got: text.into(),
            known: "dstar, ochiai, tarantula".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Counts =
        Counts { active_failing: 4, inactive_failing: 1, active_passing: 2, inactive_passing: 8 };

    /// Ochiai 4 / sqrt(5 * 6), Tarantula .8 / (.8 + .2), D* 64 / 3.
    #[test]
    fn scores_are_those_on_paper() {
        assert!((Formula::Ochiai.score(COUNTS) - 4.0 / 30f64.sqrt()).abs() < 1e-12);
        assert!((Formula::Tarantula.score(COUNTS) - 0.8).abs() < 1e-12);
        assert!((Formula::DStar.score(COUNTS) - 64.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_seen_scores_zero_and_a_perfect_neuron_most() {
        for formula in [Formula::DStar, Formula::Ochiai, Formula::Tarantula] {
            assert_eq!(formula.score(Counts::default()), 0.0);
            assert_eq!(formula.to_string().parse::<Formula>().unwrap(), formula);
            let perfect = Counts { active_failing: 5, inactive_passing: 5, ..Counts::default() };
            assert!(formula.score(perfect) > formula.score(COUNTS));
            assert!(formula.score(perfect).is_finite());
        }
    }
}
