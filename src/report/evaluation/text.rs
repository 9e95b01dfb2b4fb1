//! An evaluation as people read it.

use super::{Evaluation, ce};
use crate::eval::{Change, Condition, Confusion, CorruptionErrors, Normalized};
use crate::report::table::Table;
use crate::report::units;

/// Most conditions that the table of classes shows.
const MOST_COLUMNS: usize = 3;

/// Most classes whose confusions are shown as a matrix.
const MOST_MATRIX: usize = 12;

/// Most confusions that are shown of more classes.
const MOST_CONFUSED: usize = 10;

impl Evaluation {
    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let errors = CorruptionErrors::after(&self.conditions).map(|errors| self.errors(&errors));
        let errors = errors.unwrap_or_default();
        format!("{}{errors}\n{}\n{}", self.table(), self.class_table(), self.confusions())
    }

    fn table(&self) -> Table {
        let table = match self.is_compared() {
            false => Table::new(&["images", "number", "right", "accuracy", "ECE"]),
            true => self.comparing(),
        };
        let legend = "expected calibration error: distance of confidence and accuracy, in 15 bins";
        let mut table = table.legend("ECE", legend);
        self.conditions.iter().for_each(|condition| table.row(self.row(condition)));
        table
    }

    fn comparing(&self) -> Table {
        let headings =
            ["images", "number", "before", "after", "fixed", "broken", "NFR", "p", "ECE before", "ECE after"];
        let other = self
            .against
            .as_ref()
            .map_or_else(|| "the network without the patch".into(), |path| path.display().to_string());
        let shares = format!("share of right answers of {other} and of this one");
        Table::new(&headings)
            .legend("before, after", &shares)
            .legend("fixed, broken", "images that were wrong and are right, that were right and are wrong")
            .legend("NFR", "negative flip rate: broken, as a share of all images")
            .legend("p", "probability of such a difference if both were equally good (McNemar's exact test)")
    }

    fn row(&self, condition: &Condition) -> Vec<String> {
        let Condition { all, calibration_error: [before, after], .. } = condition;
        let mut cells = vec![condition.name(), units::count(all.n as u64)];
        let error = |error: f64| format!("{:.2} %", 100.0 * error);
        if !self.is_compared() {
            cells.extend([units::count(all.right_after as u64), units::percent(all.after()), error(*after)]);
            return cells;
        }
        cells.extend([all.before(), all.after()].map(units::percent));
        cells.extend([all.fixed, all.broken].map(|n| n.to_string()));
        cells.extend([units::percent(all.negative_flip_rate()), units::probability(all.p_value())]);
        cells.extend([error(*before), error(*after)]);
        cells
    }

    /// Errors by kind where there is more to say than the table of conditions does, and the means.
    fn errors(&self, after: &CorruptionErrors) -> String {
        let before = self.errors_before();
        let normalized = self.reference.as_ref().map(|reference| after.normalized(reference));
        let mut text = String::new();
        if after.kinds.len() + 1 < self.conditions.len() {
            text = format!("\n{}", kinds(after, before.as_ref(), normalized.as_ref()));
        }
        let what = match after.is_complete {
            true => "the 15 common corruptions at 5 severities, as for CIFAR-10-C",
            false => "the kinds of corruption above",
        };
        text += &format!("mean corruption error: {}", units::percent(after.mean()));
        if let Some(before) = before {
            text += &format!(", before {}", units::percent(before.mean()));
        }
        text += &format!(" (mean of {what})\n");
        if let (Some(reference), Some(normalized)) = (&self.reference, normalized) {
            let share = |share: Option<f64>| share.map_or_else(|| "-".into(), units::percent);
            let [mce, relative] = [normalized.mce, normalized.relative_mce].map(share);
            text += &format!("mCE: {mce}, relative {relative} (errors of {} are 100 %)\n", reference.name);
        }
        text
    }

    fn class_table(&self) -> String {
        let n = if self.conditions.len() > MOST_COLUMNS { 1 } else { self.conditions.len() };
        let shown = &self.conditions[..n];
        let heading = |condition: &Condition| match self.is_compared() {
            true => vec![format!("{} before", condition.name()), "after".into()],
            false => vec![condition.name()],
        };
        let headings: Vec<String> =
            ["class".into(), "images".into()].into_iter().chain(shown.iter().flat_map(heading)).collect();
        let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
        let cell = |change: &Change| {
            let first = usize::from(!self.is_compared());
            let shares = [change.before(), change.after()].map(units::percent);
            shares[first..]
                .iter()
                .map(|share| if change.n == 0 { "-".into() } else { share.clone() })
                .collect::<Vec<_>>()
        };
        for (class, name) in self.classes.iter().enumerate() {
            let n = shown.first().map_or(0, |condition| condition.classes[class].n);
            let cells = shown.iter().flat_map(|condition| cell(&condition.classes[class]));
            table.row([name.clone(), n.to_string()].into_iter().chain(cells));
        }
        let rest = if n < self.conditions.len() {
            "(each class under each corruption: --csv or --json)\n"
        } else {
            ""
        };
        format!("{table}{rest}")
    }

    fn confusions(&self) -> String {
        let show = |images: &str, confusion: &Confusion| {
            if confusion.cells().next().is_none() {
                return String::new();
            }
            format!("Answers to {images}\n\n{}\n", self.confusion(confusion))
        };
        show("clean images", &self.clean) + &show("corrupted images", &self.corrupted)
    }

    fn confusion(&self, confusion: &Confusion) -> Table {
        let n = self.classes.len();
        if n > MOST_MATRIX {
            let mut table = Table::new(&["class", "taken for", "images"]);
            for cell in confusion.most_confused(MOST_CONFUSED) {
                let [label, answer] = [cell.label, cell.answer].map(|class| self.classes[class].clone());
                table.row([label, answer, cell.images.to_string()]);
            }
            return table;
        }
        let numbers: Vec<String> = (0..n).map(|class| class.to_string()).collect();
        let headings: Vec<&str> = ["class"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
        let mut table = Table::new(&headings)
            .legend("0, 1, ...", "images that got this answer, in the order of the classes");
        for (i, (name, row)) in self.classes.iter().zip(confusion.rows()).enumerate() {
            let name = if *name == numbers[i] { name.clone() } else { format!("{i} {name}") };
            table.row([name].into_iter().chain(row.iter().map(ToString::to_string)));
        }
        table
    }
}

/// A row a kind of corruption.
fn kinds(
    after: &CorruptionErrors,
    before: Option<&CorruptionErrors>,
    normalized: Option<&Normalized>,
) -> Table {
    let before_heading = before.map(|_| "error before");
    let ce_heading = normalized.map(|_| "CE");
    let headings: Vec<&str> =
        ["corruption"].into_iter().chain(before_heading).chain(["error"]).chain(ce_heading).collect();
    let mut table =
        Table::new(&headings).legend("error", "mean over severities of the share of wrong answers");
    if normalized.is_some() {
        table = table.legend("CE", "error as a share of the reference's");
    }
    for (i, one) in after.kinds.iter().enumerate() {
        let before = before.map(|before| units::percent(before.kinds[i].error));
        let ce = normalized.map(|all| ce(all, one.kind).map_or_else(|| "-".into(), units::percent));
        let cells = [one.kind.name().to_owned()].into_iter().chain(before);
        table.row(cells.chain([units::percent(one.error)]).chain(ce));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::tests::evaluation;
    use super::*;
    use crate::eval::Reference;

    /// The words of the last line that starts so.
    fn row<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
        text.lines().rfind(|line| line.starts_with(start)).unwrap().split_whitespace().collect()
    }

    #[test]
    fn alone_a_network_has_one_accuracy() {
        let text = evaluation(None).text();
        let mean = "mean corruption error: 25.00 % (mean of the kinds of corruption above)\n";
        assert!(text.contains(mean) && !text.contains("fixed") && !text.contains("mCE"), "{text}");
        assert!(text.contains("Answers to clean images\n\n"), "{text}");
        assert_eq!(row(&text, "clean"), ["clean", "4", "3", "75.00", "%", "0.00", "%"]);
        // Of the two corruptions together.
        assert_eq!(row(&text, "1 boot, left"), ["1", "boot,", "left", "2", "2"]);
    }

    #[test]
    fn compared_networks_stand_side_by_side() {
        let mut evaluation = evaluation(Some("p"));
        let before = CorruptionErrors::before(&evaluation.conditions).unwrap();
        evaluation.reference = Some(Reference::network("the base", &before));
        let text = evaluation.text();
        assert!(text.contains("mean corruption error: 25.00 %, before 50.00 %"), "{text}");
        assert!(text.contains("mCE: 50.00 %, relative - (errors of the base are 100 %)\n"), "{text}");
        // Two severities of one kind: 0.5 before, 0.25 after, and half of the reference.
        let shares = ["contrast", "50.00", "%", "25.00", "%", "50.00", "%"];
        assert_eq!(row(&text, "contrast "), shares);
        assert!(
            text.contains("share of right answers of the network without the patch and of this one"),
            "{text}"
        );
    }

    #[test]
    fn of_many_classes_the_worst_confusions_are_shown() {
        let mut evaluation = evaluation(None);
        evaluation.classes = (0..20).map(|class| format!("c{class}")).collect();
        evaluation.clean = Confusion::new(20);
        (0..3).for_each(|_| evaluation.clean.count(7, 19));
        evaluation.clean.count(7, 7);
        let table = evaluation.confusion(&evaluation.clean).to_string();
        assert_eq!(table.lines().nth(2).unwrap().split_whitespace().collect::<Vec<_>>(), ["c7", "c19", "3"]);
    }
}
