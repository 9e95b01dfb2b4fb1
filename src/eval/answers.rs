//! What a network says about a set: classes, and how sure it is.

use super::Confusion;
use super::deployed::first_greatest;

/// The answers to the images of a set, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// The most likely class of each image; the first of equals.
    pub classes: Vec<usize>,
    /// Its probability, by the softmax of the logits.
    pub confidences: Vec<f64>,
}

/// Bins of confidence, of equal width.
pub const BINS: usize = 15;

impl Answers {
    /// Adds the answers to `n` images by their logits, as many for each.
    pub fn add(&mut self, n: usize, logits: &[f32]) {
        for row in logits.chunks((logits.len() / n.max(1)).max(1)) {
            let class = first_greatest(row);
            let sum: f64 = row.iter().map(|&logit| f64::from(logit - row[class]).exp()).sum();
            self.classes.push(class);
            self.confidences.push(sum.recip());
        }
    }

    /// The expected calibration error: with images put into [`BINS`] bins by their confidence, the
    /// mean over images of the distance between the accuracy and the mean confidence of their bin. 0
    /// for no images.
    ///
    /// # Source
    ///
    /// Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3. Bin `m` of 15
    /// holds confidences over `(m - 1) / 15`, up to `m / 15`.
    #[must_use]
    pub fn calibration_error(&self, labels: &[usize]) -> f64 {
        // Of each bin, the right answers less the sum of confidences.
        let mut excess = [0.0; BINS];
        for ((class, label), confidence) in self.classes.iter().zip(labels).zip(&self.confidences) {
            let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1; // NaN counts as 0
            excess[bin] += f64::from(u8::from(class == label)) - confidence;
        }
        excess.iter().map(|excess| excess.abs()).sum::<f64>() / labels.len().max(1) as f64
    }

    /// How often each class was answered where each was right.
    #[must_use]
    pub fn confusion(&self, labels: &[usize], n_classes: usize) -> Confusion {
        let mut confusion = Confusion::new(n_classes);
        labels.iter().zip(&self.classes).for_each(|(&label, &class)| confusion.count(label, class));
        confusion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// e^0 / (e^0 + e^-ln 3) = 3 / 4; three equals are a third each.
    #[test]
    fn confidence_is_the_softmax_of_the_greatest() {
        let mut answers = Answers::default();
        answers.add(2, &[0.0, -(3f32.ln()), 5.0, 5.0]);
        answers.add(1, &[1e30, 1e30]);
        assert_eq!(answers.classes, [0, 0, 0]);
        assert!((answers.confidences[0] - 0.75).abs() < 1e-7);
        assert_eq!(answers.confidences[1..], [0.5, 0.5]);
    }

    /// Bin 12 (11/15, 12/15] holds 0.75 and 0.8: one of two right, |1 - 1.55| = 0.55. Bin 15 holds 0.95
    /// and 1: both right, |2 - 1.95| = 0.05. Together 0.6 / 4.
    #[test]
    fn the_calibration_error_is_that_on_paper() {
        let answers = Answers { classes: vec![1, 0, 2, 2], confidences: vec![0.75, 0.8, 0.95, 1.0] };
        assert!((answers.calibration_error(&[1, 1, 2, 2]) - 0.15).abs() < 1e-12);
        assert_eq!(Answers::default().calibration_error(&[]), 0.0);
    }

    #[test]
    fn logits_that_are_not_finite_give_no_error() {
        let mut answers = Answers::default();
        answers.add(1, &[f32::INFINITY, 0.0]);
        assert!(answers.calibration_error(&[0]).is_nan());
    }

    /// 0.4 = 6/15 is the upper end of bin 6; 0.41 is in bin 7. Were they in one bin, their errors of
    /// +0.6 and -0.41 would cancel to 0.19 / 2; apart they are 1.01 / 2.
    #[test]
    fn the_end_of_a_bin_belongs_to_it() {
        let answers = Answers { classes: vec![0, 1], confidences: vec![0.4, 0.41] };
        assert!((answers.calibration_error(&[0, 0]) - 0.505).abs() < 1e-12);
    }
}
