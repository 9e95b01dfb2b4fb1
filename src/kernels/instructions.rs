//! Which vector instructions the kernels of the CPU use: the best there are, or those that are asked for.

use std::fmt;
use std::str::FromStr;

use super::simd;
use crate::error::{Error, Result};

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// AVX2 with fused multiply-add and half precision, of x86-64.
    Avx2,
    /// AVX-512, of x86-64.
    Avx512,
    /// NEON, which every 64-bit Arm processor has.
    Neon,
    /// Those that every processor has.
    Portable,
}

impl Instructions {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// Those that this processor has, the fastest first.
    pub fn known() -> impl Iterator<Item = Self> {
        (0..simd::SETS).filter(|&set| simd::widths(set).is_some()).filter_map(Self::of)
    }

    /// Those that kernels use in this process.
    #[must_use]
    pub fn in_use() -> Self {
        Self::of(simd::best()).unwrap_or(Self::Portable)
    }

    /// Has all kernels of this process use these instructions. Results differ in their last bits from set to set.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the processor lacks them, or when kernels have used others already: weights are packed
    /// for one set.
    pub fn choose(self) -> Result<()> {
        let refused =
            |want: String| Err(Error::Config { field: "instruction set", got: self.to_string(), want });
        let Some(set) =
            (0..simd::SETS).find(|&set| Self::of(set) == Some(self) && simd::widths(set).is_some())
        else {
            return refused(format!("one that this processor has: {}", list(Self::known())));
        };
        if simd::choose(set) == set {
            return Ok(());
        }
        refused(format!("{}, which this process computes by already", Self::in_use()))
    }

    /// The set of this number among those of this architecture.
    fn of(set: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|of| simd::NAMES.get(set) == Some(&of.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }
}

fn list(sets: impl Iterator<Item = Instructions>) -> String {
    sets.map(Instructions::name).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Instructions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|set| set.name() == text).ok_or_else(|| Error::UnknownName {
            kind: "instruction set",
            got: text.into(),
            known: list(Self::ALL.into_iter()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_a_name_and_the_last_is_of_every_processor() {
        let known: Vec<Instructions> = Instructions::known().collect();
        assert_eq!(known.last(), Some(&Instructions::Portable));
        assert_eq!(known[0], Instructions::in_use());
        for set in Instructions::ALL {
            assert_eq!(set.to_string().parse::<Instructions>().unwrap(), set);
        }
    }

    #[test]
    fn sets_that_there_are_not_are_refused() {
        let error = "sse9".parse::<Instructions>().unwrap_err().to_string();
        assert_eq!(error, "unknown instruction set `sse9`, expected one of avx512, avx2, neon, portable");
        let missing = if cfg!(target_arch = "x86_64") { Instructions::Neon } else { Instructions::Avx2 };
        let error = missing.choose().unwrap_err().to_string();
        let want = format!("instruction set is {missing}, expected one that this processor has: ");
        assert!(error.starts_with(&want) && error.ends_with("portable"), "{error}");
    }

    #[test]
    fn a_process_keeps_its_set() {
        let own = Instructions::in_use();
        own.choose().unwrap();
        if own != Instructions::Portable {
            let error = Instructions::Portable.choose().unwrap_err().to_string();
            let want = format!(
                "instruction set is portable, expected {own}, which this process computes by already"
            );
            assert_eq!(error, want);
        }
    }
}
