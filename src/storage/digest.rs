//! BLAKE3 digests, which bind a patch to its base and data to a result.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A BLAKE3 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    ///
    /// ```
    /// use archrepair::storage::Digest;
    ///
    /// let digest = Digest::of(b"");
    /// assert!(digest.to_string().starts_with("af1349b9f5f9a1a6"));
    /// ```
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of `parts` put one after another.
    #[must_use]
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // BLAKE3 itself would take upper case too; one digest has one spelling here.
        let digest = blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()));
        digest.filter(|digest| digest.to_string() == text).ok_or_else(|| Error::Config {
            field: "digest",
            got: format!("`{text}`"),
            want: "64 lower-case hexadecimal digits".into(),
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_as_it_prints_and_in_no_other_spelling() {
        let digest = Digest::of(b"weights");
        let text = digest.to_string();
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
        for bad in [text.to_uppercase(), text[..63].into(), format!("{text}0"), "é".repeat(32)] {
            assert_eq!(bad.parse::<Digest>().unwrap_err().code(), 10);
        }
        let error = "x".parse::<Digest>().unwrap_err().to_string();
        assert_eq!(error, "digest is `x`, expected 64 lower-case hexadecimal digits");
    }

    #[test]
    fn parts_have_the_digest_of_the_whole() {
        assert_eq!(Digest::of_parts([&b"wei"[..], b"", b"ghts"]), Digest::of(b"weights"));
    }
}
