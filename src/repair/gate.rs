//! The acceptance rule: a repair that does not help, or breaks more than allowed, is refused.
//!
//! Weights that are not finite never come here: a patch with such a weight cannot be written.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::eval::Change;

/// What a repair must reach, judged on images it has not seen.
///
/// | field | default | range | unit |
/// |---|---|---|---|
/// | `min_fixed` | 0.25 | 0 to 1 | share of failures |
/// | `max_drop` | 0.01 | 0 to 1 | accuracy on passes |
/// | `max_broken` | 0.03 | 0 to 1 | share of passes that were right |
/// | `max_class_drop` | 0.1 | 0 to 1 | accuracy of one class on passes |
/// | `max_p` | 0.05 | over 0, to 1 | probability of the improvement by chance |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Least share of failures fixed.
    pub min_fixed: f64,
    /// Most accuracy lost on passes.
    pub max_drop: f64,
    /// Most negative flips on passes.
    pub max_broken: f64,
    /// Most accuracy lost in one class, where it has [`CLASS_IMAGES`] or more.
    pub max_class_drop: f64,
    /// Greatest p-value of McNemar's test on failures and passes together.
    pub max_p: f64,
}

/// What differences of shares may be off by.
const ROUNDING: f64 = 1e-9;

/// Classes with fewer images say nothing about themselves.
pub const CLASS_IMAGES: usize = 20;

impl Default for Gate {
    fn default() -> Self {
        Self { min_fixed: 0.25, max_drop: 0.01, max_broken: 0.03, max_class_drop: 0.1, max_p: 0.05 }
    }
}

/// Old and new answers on the guard set.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// On failures.
    pub failures: Change,
    /// On passes.
    pub passes: Change,
    /// On passes, class by class.
    pub classes: Vec<Change>,
}

/// The gate's decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether every rule holds.
    pub accepted: bool,
    /// The rules that do not hold, with both numbers.
    pub reasons: Vec<String>,
    /// Answers on guard failures.
    pub failures: Change,
    /// Answers on guard passes.
    pub passes: Change,
    /// The exact test on both together.
    pub p_value: f64,
}

impl Gate {
    /// Checks every range.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the first field that is outside.
    pub fn check(&self) -> Result<()> {
        let fields = [
            ("min-fixed", self.min_fixed),
            ("max-drop", self.max_drop),
            ("max-broken", self.max_broken),
            ("max-class-drop", self.max_class_drop),
            ("max-p", self.max_p),
        ];
        match fields.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            Some((field, got)) => Err(Error::Config { field, got: got.to_string(), want: "0 to 1".into() }),
            None => Ok(()),
        }
    }

    /// Judges `evidence`.
    #[must_use]
    pub fn judge(&self, evidence: Evidence) -> Verdict {
        let Evidence { failures, passes, classes } = evidence;
        let mut reasons = Vec::new();
        let mut rule = |holds: bool, reason: String| {
            if !holds {
                reasons.push(reason);
            }
        };
        let percent = |share: f64| 100.0 * share;
        let fixed = failures.repair_rate();
        let text = format!(
            "{:.1} % of failures fixed, at least {:.1} % asked for",
            percent(fixed),
            percent(self.min_fixed)
        );
        rule(fixed >= self.min_fixed, text);
        let drop = passes.before() - passes.after();
        let text = format!(
            "accuracy on passes falls by {:.2} points, at most {:.2} allowed",
            percent(drop),
            percent(self.max_drop)
        );
        rule(drop <= self.max_drop + ROUNDING, text);
        let broken = passes.break_rate();
        let text = format!(
            "{:.2} % of passes broken, at most {:.2} % allowed",
            percent(broken),
            percent(self.max_broken)
        );
        rule(broken <= self.max_broken, text);
        for (class, change) in classes.iter().enumerate().filter(|(_, change)| change.n >= CLASS_IMAGES) {
            let drop = change.before() - change.after();
            let text = format!(
                "class {class} falls by {:.1} points, at most {:.1} allowed",
                percent(drop),
                percent(self.max_class_drop)
            );
            rule(drop <= self.max_class_drop + ROUNDING, text);
        }
        let p_value = crate::eval::mcnemar(failures.fixed + passes.fixed, failures.broken + passes.broken);
        let better = failures.fixed + passes.fixed > failures.broken + passes.broken;
        let text = format!("the improvement may be chance: p = {p_value:.3}, at most {} allowed", self.max_p);
        rule(better && p_value <= self.max_p, text);
        Verdict { accepted: reasons.is_empty(), reasons, failures, passes, p_value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: usize, right_before: usize, fixed: usize, broken: usize) -> Change {
        Change { n, right_before, right_after: right_before + fixed - broken, fixed, broken }
    }

    fn evidence(failures: Change, passes: Change) -> Evidence {
        Evidence { failures, classes: vec![passes.clone()], passes }
    }

    #[test]
    fn a_good_repair_is_accepted() {
        let verdict = Gate::default().judge(evidence(change(20, 0, 14, 0), change(400, 375, 2, 5)));
        assert_eq!(verdict.reasons, Vec::<String>::new());
        assert!(verdict.accepted && verdict.p_value < 0.05);
    }

    #[test]
    fn each_rule_refuses_with_both_numbers() {
        let reasons = |evidence| Gate::default().judge(evidence).reasons;
        let few = reasons(evidence(change(20, 0, 4, 0), change(400, 375, 9, 2)));
        assert_eq!(few, ["20.0 % of failures fixed, at least 25.0 % asked for"]);
        let drop = reasons(evidence(change(20, 0, 18, 0), change(400, 380, 0, 5)));
        assert_eq!(drop, ["accuracy on passes falls by 1.25 points, at most 1.00 allowed"]);
        let broken = reasons(evidence(change(50, 0, 40, 0), change(400, 380, 10, 12)));
        assert_eq!(broken, ["3.16 % of passes broken, at most 3.00 % allowed"]);
        let chance = reasons(evidence(change(4, 0, 2, 0), change(400, 380, 0, 0)));
        assert_eq!(chance, ["the improvement may be chance: p = 0.500, at most 0.05 allowed"]);
        let mut class = evidence(change(50, 0, 40, 0), change(400, 380, 4, 8));
        class.classes = vec![change(40, 38, 0, 5), change(10, 8, 0, 8)];
        assert_eq!(reasons(class), ["class 0 falls by 12.5 points, at most 10.0 allowed"]);
    }

    #[test]
    fn limits_outside_of_their_range_are_refused() {
        let error = Gate { max_drop: f64::NAN, ..Gate::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "max-drop is NaN, expected 0 to 1");
    }
}
