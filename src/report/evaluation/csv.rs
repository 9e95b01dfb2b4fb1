//! An evaluation as a table for other programs: a row for each condition and class.

use super::Evaluation;
use crate::eval::{Change, Condition};

/// The columns. Those of the network before, and what follows from both, are empty without one.
const COLUMNS: [&str; 16] = [
    "condition",
    "corruption",
    "severity",
    "class",
    "images",
    "right",
    "accuracy",
    "calibration_error",
    "right_before",
    "accuracy_before",
    "calibration_error_before",
    "fixed",
    "broken",
    "negative_flip_rate",
    "p_value",
    "reference_error",
];

impl Evaluation {
    /// Rows of text under one of headings, as RFC 4180 has them. The class of all images together is
    /// empty.
    ///
    /// # Errors
    ///
    /// The reason as text, when a row cannot be written.
    pub fn csv(&self) -> Result<Vec<u8>, String> {
        let mut rows = csv::Writer::from_writer(Vec::new());
        let mut write = |row: &[String]| rows.write_record(row).map_err(|error| error.to_string());
        write(&COLUMNS.map(String::from))?;
        for condition in &self.conditions {
            write(&self.record(condition, "", &condition.all))?;
            for (name, change) in self.classes.iter().zip(&condition.classes) {
                write(&self.record(condition, name, change))?;
            }
        }
        rows.into_inner().map_err(|error| error.to_string())
    }

    fn record(&self, condition: &Condition, class: &str, change: &Change) -> [String; COLUMNS.len()] {
        let Condition { corruption, calibration_error: [before, after], reference_error, .. } = condition;
        // Of all classes together only.
        let whole =
            |number: Option<f64>| number.filter(|_| class.is_empty()).map(|number| number.to_string());
        let text = |text: Option<String>| text.unwrap_or_default();
        let compared = |value: String| if self.is_compared() { value } else { String::new() };
        [
            condition.name(),
            text(corruption.map(|corruption| corruption.kind().name().to_owned())),
            text(corruption.map(|corruption| corruption.severity().to_string())),
            class.to_owned(),
            change.n.to_string(),
            change.right_after.to_string(),
            change.after().to_string(),
            text(whole(Some(*after))),
            compared(change.right_before.to_string()),
            compared(change.before().to_string()),
            compared(text(whole(Some(*before)))),
            compared(change.fixed.to_string()),
            compared(change.broken.to_string()),
            compared(change.negative_flip_rate().to_string()),
            compared(change.p_value().to_string()),
            text(whole(*reference_error)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::evaluation;
    use super::COLUMNS;

    #[test]
    fn there_is_a_row_for_each_condition_and_class() {
        let bytes = evaluation(Some("p")).csv().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 3 * (1 + 2));
        assert_eq!(lines[0], COLUMNS.join(","));
        // One of four fixed and none broken: p = 2 * 0.5 = 1.
        assert_eq!(lines[4], "contrast:3,contrast,3,,4,3,0.75,0,2,0.5,0.25,1,0,0,1,");
        assert_eq!(lines[6], "contrast:3,contrast,3,\"boot, left\",2,1,0.5,,1,0.5,,0,0,0,1,");
    }

    #[test]
    fn alone_a_network_leaves_columns_empty() {
        let text = String::from_utf8(evaluation(None).csv().unwrap()).unwrap();
        assert_eq!(text.lines().nth(1), Some("clean,,,,4,3,0.75,0,,,,,,,,"));
    }
}
