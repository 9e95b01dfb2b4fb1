//! An old and a new network on the same images: what was fixed, what broke, and whether that
//! can be chance.

use serde::Serialize;

/// Share of right answers, 0 for no images.
#[must_use]
pub fn accuracy(classes: &[usize], labels: &[usize]) -> f64 {
    let right = classes.iter().zip(labels).filter(|(class, label)| class == label).count();
    right as f64 / labels.len().max(1) as f64
}

/// Old against new answers on one set.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Change {
    /// Images.
    pub n: usize,
    /// Right before.
    pub right_before: usize,
    /// Right after.
    pub right_after: usize,
    /// Wrong before, right after.
    pub fixed: usize,
    /// Right before, wrong after: negative flips.
    pub broken: usize,
}

impl Change {
    /// Counts the answers `before` and `after` against `labels`.
    #[must_use]
    pub fn new(before: &[usize], after: &[usize], labels: &[usize]) -> Self {
        let mut change = Self::default();
        for ((b, a), label) in before.iter().zip(after).zip(labels) {
            change.count(b == label, a == label);
        }
        change
    }

    /// Counts an image whose answer was right before, or is right after.
    pub fn count(&mut self, was: bool, is: bool) {
        self.n += 1;
        self.right_before += usize::from(was);
        self.right_after += usize::from(is);
        self.fixed += usize::from(!was && is);
        self.broken += usize::from(was && !is);
    }

    /// Share of right answers before.
    #[must_use]
    pub fn before(&self) -> f64 {
        self.right_before as f64 / self.n.max(1) as f64
    }

    /// Share of right answers after.
    #[must_use]
    pub fn after(&self) -> f64 {
        self.right_after as f64 / self.n.max(1) as f64
    }

    /// Share of the old failures that are fixed.
    #[must_use]
    pub fn repair_rate(&self) -> f64 {
        self.fixed as f64 / (self.n - self.right_before).max(1) as f64
    }

    /// Share of the old passes that are broken.
    #[must_use]
    pub fn break_rate(&self) -> f64 {
        self.broken as f64 / self.right_before.max(1) as f64
    }

    /// Share of all images that were right and are wrong.
    ///
    /// # Source
    ///
    /// Yan et al., "Positive-Congruent Training", CVPR 2021 (arXiv:2011.09161).
    #[must_use]
    pub fn negative_flip_rate(&self) -> f64 {
        self.broken as f64 / self.n.max(1) as f64
    }

    /// The probability of so uneven a split of fixed and broken, or a more uneven one, if the
    /// networks were equally good.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        mcnemar(self.fixed, self.broken)
    }
}

/// The exact two-sided test of McNemar (1947): twice the tail of a fair binomial.
#[must_use]
pub fn mcnemar(fixed: usize, broken: usize) -> f64 {
    let (n, less) = (fixed + broken, fixed.min(broken));
    (2.0 * binomial_tail(n, less, 0.5)).min(1.0)
}

/// The probability of at most `k` successes in `n` draws of probability `p` (inside 0 to 1).
#[must_use]
pub fn binomial_tail(n: usize, k: usize, p: f64) -> f64 {
    // Terms by their logarithms: for large n the first ones are below the smallest f64.
    let (log_p, log_q) = (p.ln(), (1.0 - p).ln());
    let mut log_choose = 0.0;
    let mut sum = 0.0;
    for i in 0..=k.min(n) {
        sum += (log_choose + i as f64 * log_p + (n - i) as f64 * log_q).exp();
        log_choose += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_by_what_they_were() {
        let change = Change::new(&[0, 1, 2, 0], &[0, 0, 1, 1], &[0, 0, 2, 1]);
        assert_eq!(change, Change { n: 4, right_before: 2, right_after: 3, fixed: 2, broken: 1 });
        assert_eq!((change.before(), change.after()), (0.5, 0.75));
        assert_eq!((change.repair_rate(), change.break_rate()), (1.0, 0.5));
        assert_eq!(change.negative_flip_rate(), 0.25);
    }

    /// 2 (1 + 5) / 2^5 = 0.375 for 4 against 1; no pairs say nothing.
    #[test]
    fn mcnemar_is_the_binomial_on_paper() {
        assert!((mcnemar(4, 1) - 0.375).abs() < 1e-12);
        assert!((mcnemar(1, 4) - 0.375).abs() < 1e-12);
        assert_eq!(mcnemar(0, 0), 1.0);
        assert!(mcnemar(3000, 500) < 1e-100);
    }

    #[test]
    fn an_empty_set_has_accuracy_zero() {
        assert_eq!(accuracy(&[], &[]), 0.0);
        assert_eq!(Change::new(&[], &[], &[]).repair_rate(), 0.0);
    }
}
