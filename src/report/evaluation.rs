//! Accuracy of a network on clean and corrupted images, with and without a patch.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::table::{Table, changes};
use super::units;
use crate::eval::Change;

/// A network on one data set under several conditions.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The data.
    pub data: PathBuf,
    /// The patch that is compared with the base; without one, before and after are the same.
    pub patch: Option<PathBuf>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Clean first, then the corruptions in the order they were asked for.
    pub conditions: Vec<Condition>,
}

/// Answers under one condition.
#[derive(Clone, Debug)]
pub struct Condition {
    /// `clean` or the corruption.
    pub name: String,
    /// On all images.
    pub all: Change,
    /// Class by class.
    pub classes: Vec<Change>,
}

impl Condition {
    /// Counts the answers `before` and `after` of a network of `n_classes` against `labels`.
    #[must_use]
    pub fn new(name: String, [before, after, labels]: [&[usize]; 3], n_classes: usize) -> Self {
        let of_class = |class: usize| {
            let of: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
            let pick = |from: &[usize]| of.iter().map(|&i| from[i]).collect::<Vec<_>>();
            Change::new(&pick(before), &pick(after), &pick(labels))
        };
        let classes = (0..n_classes).map(of_class).collect();
        Self { name, all: Change::new(before, after, labels), classes }
    }
}

/// Most conditions that the table of classes shows.
const MOST_COLUMNS: usize = 3;

impl Evaluation {
    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}\n{}", self.conditions(), self.mean_line(), self.classes())
    }

    /// The same as JSON, with every class under every condition.
    #[must_use]
    pub fn json(&self) -> Value {
        let class = |(name, change): (&String, &Change)| {
            let mut value = self.numbers(change);
            value["name"] = json!(name);
            value
        };
        let condition = |condition: &Condition| {
            let mut value = self.numbers(&condition.all);
            value["name"] = json!(condition.name);
            value["classes"] = self.classes.iter().zip(&condition.classes).map(class).collect();
            value
        };
        let conditions: Vec<Value> = self.conditions.iter().map(condition).collect();
        json!({ "data": self.data, "patch": self.patch, "conditions": conditions })
    }

    fn numbers(&self, change: &Change) -> Value {
        if self.patch.is_none() {
            return json!({ "images": change.n, "right": change.right_after, "accuracy": change.after() });
        }
        json!({
            "images": change.n,
            "right": change.right_after,
            "accuracy": change.after(),
            "right_before": change.right_before,
            "accuracy_before": change.before(),
            "fixed": change.fixed,
            "broken": change.broken,
            "p_value": change.p_value(),
        })
    }

    fn conditions(&self) -> Table {
        if self.patch.is_some() {
            return changes(self.conditions.iter().map(|condition| (&*condition.name, &condition.all)));
        }
        let mut table = Table::new(&["images", "number", "right", "accuracy"]);
        for Condition { name, all, .. } in &self.conditions {
            let [n, right] = [all.n, all.right_after].map(|n| units::count(n as u64));
            table.row([name.clone(), n, right, units::percent(all.after())]);
        }
        table
    }

    fn mean_line(&self) -> String {
        let corrupted: Vec<&Change> =
            self.conditions.iter().skip(1).map(|condition| &condition.all).collect();
        if corrupted.len() < 2 {
            return String::new();
        }
        let mean = |of: fn(&Change) -> f64| {
            units::percent(corrupted.iter().map(|&change| of(change)).sum::<f64>() / corrupted.len() as f64)
        };
        let (before, after) = (mean(Change::before), mean(Change::after));
        match self.patch {
            Some(_) => format!("mean of the corruptions: {before} before, {after} after\n"),
            None => format!("mean of the corruptions: {after}\n"),
        }
    }

    fn classes(&self) -> String {
        let n = if self.conditions.len() > MOST_COLUMNS { 1 } else { self.conditions.len() };
        let shown = &self.conditions[..n];
        let heading = |condition: &Condition| match self.patch {
            Some(_) => vec![format!("{} before", condition.name), "after".into()],
            None => vec![condition.name.clone()],
        };
        let headings: Vec<String> =
            ["class".into(), "images".into()].into_iter().chain(shown.iter().flat_map(heading)).collect();
        let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
        for (class, name) in self.classes.iter().enumerate() {
            let cell = |condition: &Condition| {
                let change = &condition.classes[class];
                let shares = if self.patch.is_some() {
                    vec![change.before(), change.after()]
                } else {
                    vec![change.after()]
                };
                shares
                    .into_iter()
                    .map(|share| if change.n == 0 { "-".into() } else { units::percent(share) })
                    .collect::<Vec<_>>()
            };
            let n = shown.first().map_or(0, |condition| condition.classes[class].n);
            table.row([name.clone(), n.to_string()].into_iter().chain(shown.iter().flat_map(cell)));
        }
        let rest =
            if n < self.conditions.len() { "(each class under each corruption: --json)\n" } else { "" };
        format!("{table}{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(patch: Option<&str>) -> Evaluation {
        let (before, after, labels) = ([0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 1]);
        let condition = |name: &str| Condition::new(name.into(), [&before, &after, &labels], 2);
        Evaluation {
            data: "d".into(),
            patch: patch.map(PathBuf::from),
            classes: vec!["shirt".into(), "boot".into()],
            conditions: vec![condition("clean"), condition("contrast:3"), condition("contrast:5")],
        }
    }

    #[test]
    fn without_a_patch_there_is_one_accuracy() {
        let text = evaluation(None).text();
        assert!(text.contains("mean of the corruptions: 75.00 %\n") && !text.contains("fixed"), "{text}");
        let json = evaluation(None).json();
        assert_eq!(json["conditions"][0]["accuracy"], 0.75);
        assert_eq!(json["conditions"][0]["fixed"], Value::Null);
    }

    #[test]
    fn with_a_patch_base_and_repair_stand_side_by_side() {
        let text = evaluation(Some("p")).text();
        assert!(text.contains("mean of the corruptions: 50.00 % before, 75.00 % after\n"), "{text}");
        let json = evaluation(Some("p")).json();
        assert_eq!(json["conditions"][2]["classes"][0]["name"], "shirt");
        assert_eq!(json["conditions"][2]["classes"][0]["fixed"], 1);
    }
}
