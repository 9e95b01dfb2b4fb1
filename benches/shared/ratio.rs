//! How the times of a program compare with another's, round by round: what slows the machine for a while
//! slows all programs of a round, so a ratio is taken within one, and the median over all is what counts.

use std::fmt;

/// Times over those of another program in the same rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

impl Ratio {
    /// `seconds` over `others`, round by round; none without a round that both did.
    pub(crate) fn new(seconds: &[f64], others: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = seconds.iter().zip(others).map(|(own, other)| own / other).collect();
        let least = ratios.iter().copied().reduce(f64::min)?;
        let most = ratios.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(&ratios), least, most })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:.2} ({:.2}..{:.2})", self.median, self.least, self.most)
    }
}

/// The number in the middle, of two the greater; NaN of none.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
