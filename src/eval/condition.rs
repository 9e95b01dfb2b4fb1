//! What networks answered under one condition, in numbers.

use super::{Answers, Change};
use crate::data::corrupt::Corruption;

/// The answers of all networks that are looked at.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// Of the network that is compared with, if there is one.
    pub before: Option<Answers>,
    /// Of the network that is evaluated.
    pub after: Answers,
    /// Of the network that errors are divided by, if there is one.
    pub reference: Option<Answers>,
}

/// Clean images, or those of one corruption.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The corruption; none for clean images.
    pub corruption: Option<Corruption>,
    /// On all images. Without a network to compare with, before and after are the same.
    pub all: Change,
    /// Class by class.
    pub classes: Vec<Change>,
    /// Expected calibration error before and after.
    pub calibration_error: [f64; 2],
    /// Share of wrong answers of the reference.
    pub reference_error: Option<f64>,
}

impl Condition {
    /// Counts answers against `labels`, all below `n_classes`.
    #[must_use]
    pub fn new(
        corruption: Option<Corruption>,
        answered: &Answered,
        labels: &[usize],
        n_classes: usize,
    ) -> Self {
        let Answered { before, after, reference } = answered;
        let before = before.as_ref().unwrap_or(after);
        let (mut all, mut classes) = (Change::default(), vec![Change::default(); n_classes]);
        for ((&b, &a), &label) in before.classes.iter().zip(&after.classes).zip(labels) {
            all.count(b == label, a == label);
            if let Some(class) = classes.get_mut(label) {
                class.count(b == label, a == label);
            }
        }
        let reference_error =
            reference.as_ref().map(|reference| 1.0 - super::accuracy(&reference.classes, labels));
        let calibration_error = [before, after].map(|answers| answers.calibration_error(labels));
        Self { corruption, all, classes, calibration_error, reference_error }
    }

    /// `clean` or the corruption.
    #[must_use]
    pub fn name(&self) -> String {
        self.corruption.map_or_else(|| "clean".into(), |corruption| corruption.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(classes: &[usize]) -> Answers {
        Answers { classes: classes.to_vec(), confidences: vec![0.5; classes.len()] }
    }

    #[test]
    fn classes_are_counted_by_their_label() {
        let answered = Answered {
            before: Some(answers(&[0, 1, 1, 0])),
            after: answers(&[0, 1, 0, 0]),
            reference: Some(answers(&[0, 0, 1, 0])),
        };
        let condition = Condition::new(None, &answered, &[0, 1, 0, 1], 3);
        assert_eq!(condition.all, Change { n: 4, right_before: 2, right_after: 3, fixed: 1, broken: 0 });
        assert_eq!(
            condition.classes[1],
            Change { n: 2, right_before: 1, right_after: 1, fixed: 0, broken: 0 }
        );
        assert_eq!((condition.classes[2].n, condition.reference_error), (0, Some(0.75)));
        // Half sure, half of the answers right before and three quarters after.
        assert_eq!(condition.calibration_error, [0.0, 0.25]);
    }

    #[test]
    fn alone_a_network_is_its_own_before() {
        let condition =
            Condition::new(None, &Answered { after: answers(&[1, 0]), ..Answered::default() }, &[1, 1], 2);
        assert_eq!((condition.all.before(), condition.all.after()), (0.5, 0.5));
        assert_eq!((condition.all.fixed, condition.all.broken, condition.reference_error), (0, 0, None));
    }
}
