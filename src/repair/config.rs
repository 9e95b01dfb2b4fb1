//! Everything that can be set about a repair.

use std::fmt;
use std::str::FromStr;

use super::gate::Gate;
use crate::device::{Compute, Precision};
use crate::error::{Error, Result};
use crate::fit::{self, Level};
use crate::{localize, search};

/// How a part is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Batch-norm statistics alone.
    BatchNorm,
    /// Architecture and weights.
    #[default]
    Search,
    /// Weights alone.
    Weights,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::BatchNorm => "batch-norm",
            Self::Search => "search",
            Self::Weights => "weights",
        })
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::BatchNorm, Self::Search, Self::Weights];
        all.into_iter().find(|method| method.to_string() == text).ok_or_else(|| Error::UnknownName {
            kind: "method",
            got: text.into(),
            known: "batch-norm, search, weights".into(),
        })
    }
}

/// Where a repair happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// At the block that localization puts first.
    #[default]
    Auto,
    /// Here.
    Fixed(Level),
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Fixed) }
    }
}

/// Everything that can be set about a repair.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where.
    pub target: Target,
    /// How.
    pub method: Method,
    /// Localization, for [`Target::Auto`].
    pub localize: localize::Config,
    /// Search, for [`Method::Search`].
    pub search: search::Config,
    /// Training; its steps include those of a search.
    pub fit: fit::Config,
    /// Acceptance.
    pub gate: Gate,
    /// How the features of the frozen part are kept in their file.
    pub features: Precision,
    /// Views of each image that is trained on, 1 at least: as it is, and shifted by up to a fourteenth
    /// of its side.
    pub views: usize,
    /// Where passes compute, and in which numbers.
    pub compute: Compute,
    /// Most bytes that the engine may allocate; `None` for no limit. Only passes in `f32` on the CPU are
    /// planned.
    pub memory: Option<usize>,
    /// Starts every random draw.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            target: Target::default(),
            method: Method::default(),
            localize: localize::Config::default(),
            search: search::Config::default(),
            fit: fit::Config::default(),
            gate: Gate::default(),
            features: Precision::F16,
            views: 1,
            compute: Compute::HOST,
            memory: None,
            seed: 0,
        }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the first field that is outside.
    pub fn check(&self) -> Result<()> {
        self.fit.check()?;
        self.search.check()?;
        self.gate.check()?;
        if self.views == 0 {
            return Err(Error::Config { field: "views", got: "0".into(), want: "at least 1".into() });
        }
        if let Some(limit) = self.memory.filter(|_| !self.compute.is_host()) {
            let want = "none: bytes are planned for passes in f32 on the CPU alone".into();
            return Err(Error::Config { field: "memory", got: limit.to_string(), want });
        }
        if self.method == Method::Search && self.search.steps >= self.fit.steps {
            let want = format!("more than the {} steps of the search", self.search.steps);
            return Err(Error::Config { field: "steps", got: self.fit.steps.to_string(), want });
        }
        Ok(())
    }
}
