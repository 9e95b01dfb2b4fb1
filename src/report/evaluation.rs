//! A network on clean and corrupted images, alone or compared with another: as text, JSON and CSV.

mod csv;
mod text;

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::eval::{BINS, Change, Condition, Confusion, CorruptionErrors, Normalized, Reference};

/// A network on one data set under several conditions.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The data.
    pub data: PathBuf,
    /// The patch that is applied. It is compared with the network without it, if with no other model.
    pub patch: Option<PathBuf>,
    /// The model that is compared with. Without it and a patch, before and after are the same.
    pub against: Option<PathBuf>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Clean first, then the corruptions in the order they were asked for.
    pub conditions: Vec<Condition>,
    /// Answers to the clean images.
    pub clean: Confusion,
    /// Answers to the images of all corruptions together.
    pub corrupted: Confusion,
    /// By whose errors those under corruptions are divided.
    pub reference: Option<Reference>,
}

impl Evaluation {
    /// All numbers; those of the network before only where there is one.
    #[must_use]
    pub fn json(&self) -> Value {
        let conditions: Vec<Value> = self.conditions.iter().map(|one| self.condition(one)).collect();
        json!({
            "data": self.data,
            "patch": self.patch,
            "against": self.against,
            "conditions": conditions,
            "calibration_bins": BINS,
            "corruption_error": self.corruption_error(),
            "confusion": { "clean": cells(&self.clean), "corrupted": cells(&self.corrupted) },
        })
    }

    fn condition(&self, condition: &Condition) -> Value {
        let class = |(name, change): (&String, &Change)| {
            let mut value = self.numbers(change);
            value.insert("name".into(), json!(name));
            value
        };
        let classes: Vec<_> = self.classes.iter().zip(&condition.classes).map(class).collect();
        let mut value = self.numbers(&condition.all);
        let [before, after] = condition.calibration_error;
        value.extend(object(json!({
            "name": condition.name(), "calibration_error": after, "classes": classes,
        })));
        if self.is_compared() {
            value.insert("calibration_error_before".into(), json!(before));
        }
        if let Some(error) = condition.reference_error {
            value.insert("reference_error".into(), json!(error));
        }
        Value::Object(value)
    }

    fn numbers(&self, change: &Change) -> Map<String, Value> {
        let mut value = object(json!({
            "images": change.n, "right": change.right_after, "accuracy": change.after(),
        }));
        if self.is_compared() {
            value.extend(object(json!({
                "right_before": change.right_before,
                "accuracy_before": change.before(),
                "fixed": change.fixed,
                "broken": change.broken,
                "negative_flip_rate": change.negative_flip_rate(),
                "p_value": change.p_value(),
            })));
        }
        value
    }

    /// Errors by kind of corruption and in single numbers; null without corruptions.
    fn corruption_error(&self) -> Value {
        let Some(after) = CorruptionErrors::after(&self.conditions) else { return Value::Null };
        let before = self.errors_before();
        let normalized = self.reference.as_ref().map(|reference| after.normalized(reference));
        let kind = |(i, one): (usize, &crate::eval::corruption_error::KindError)| {
            json!({
                "name": one.kind.name(),
                "error": one.error,
                "error_before": before.as_ref().map(|before| before.kinds[i].error),
                "ce": normalized.as_ref().and_then(|normalized| ce(normalized, one.kind)),
            })
        };
        let kinds: Vec<Value> = after.kinds.iter().enumerate().map(kind).collect();
        json!({
            "mean": after.mean(),
            "mean_before": before.as_ref().map(CorruptionErrors::mean),
            "is_15_at_5_severities": after.is_complete,
            "kinds": kinds,
            "reference": self.reference.as_ref().map(|reference| &reference.name),
            "mce": normalized.as_ref().and_then(|normalized| normalized.mce),
            "relative_mce": normalized.as_ref().and_then(|normalized| normalized.relative_mce),
        })
    }

    fn errors_before(&self) -> Option<CorruptionErrors> {
        CorruptionErrors::before(&self.conditions).filter(|_| self.is_compared())
    }

    fn is_compared(&self) -> bool {
        self.patch.is_some() || self.against.is_some()
    }
}

/// The error under a kind as a share of the reference's.
fn ce(normalized: &Normalized, kind: crate::data::corrupt::Kind) -> Option<f64> {
    normalized.kinds.iter().find(|(other, _)| *other == kind).and_then(|(_, ce)| *ce)
}

/// `[label, answer, images]` of all that is not 0.
fn cells(confusion: &Confusion) -> Vec<[usize; 3]> {
    confusion.cells().map(|cell| [cell.label, cell.answer, cell.images as usize]).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Answered, Answers};

    /// Two classes; right are 2 of 4 before and 3 after, under every condition.
    pub(super) fn evaluation(patch: Option<&str>) -> Evaluation {
        let answers = |classes: [usize; 4]| Answers { classes: classes.to_vec(), confidences: vec![0.75; 4] };
        let (after, labels) = (answers([0, 1, 0, 0]), [0, 1, 0, 1]);
        let before = patch.map(|_| answers([0, 1, 1, 0]));
        let answered = Answered { before, after, reference: None };
        let condition = |name: &str| Condition::new(name.parse().ok(), &answered, &labels, 2);
        let clean = answered.after.confusion(&labels, 2);
        let mut corrupted = clean.clone();
        corrupted.add(&clean);
        Evaluation {
            data: "d".into(),
            patch: patch.map(PathBuf::from),
            against: None,
            classes: vec!["shirt".into(), "boot, left".into()],
            conditions: vec![condition("clean"), condition("contrast:3"), condition("contrast:5")],
            clean,
            corrupted,
            reference: None,
        }
    }

    #[test]
    fn alone_a_network_has_one_accuracy() {
        let json = evaluation(None).json();
        let first = &json["conditions"][0];
        assert_eq!((&first["name"], &first["accuracy"]), (&json!("clean"), &json!(0.75)));
        assert_eq!((&first["fixed"], &first["calibration_error"]), (&Value::Null, &json!(0.0)));
        assert_eq!(json["corruption_error"]["mean"], 0.25);
        assert_eq!(json["confusion"]["clean"], json!([[0, 0, 2], [1, 0, 1], [1, 1, 1]]));
        assert_eq!(json["confusion"]["corrupted"][0], json!([0, 0, 4]));
    }

    #[test]
    fn compared_networks_stand_side_by_side() {
        let mut evaluation = evaluation(Some("p"));
        let before = CorruptionErrors::before(&evaluation.conditions).unwrap();
        evaluation.reference = Some(Reference::network("before", &before));
        let json = evaluation.json();
        assert_eq!(json["conditions"][2]["classes"][0]["name"], "shirt");
        assert_eq!(json["conditions"][2]["classes"][0]["fixed"], 1);
        assert_eq!(json["conditions"][2]["calibration_error_before"], 0.25);
        assert_eq!((&json["patch"], &json["against"]), (&json!("p"), &Value::Null));
        // 0.25 of 0.5; less the clean errors, of which there are as many, nothing is lost.
        let errors = &json["corruption_error"];
        assert_eq!((&errors["mce"], &errors["relative_mce"]), (&json!(0.5), &Value::Null));
        assert_eq!(errors["kinds"][0]["error_before"], 0.5);
    }
}
