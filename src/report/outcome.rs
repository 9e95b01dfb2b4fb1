//! What a repair came to.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::table::changes;
use super::{Spent, ranking, spent, units};
use crate::meter;
use crate::repair::{Method, Outcome, Plan};
use crate::search::Genotype;
use crate::storage::Digest;

/// A repair and its costs.
#[derive(Debug)]
pub struct Report<'a> {
    /// The repair.
    pub outcome: &'a Outcome,
    /// How it was done.
    pub method: Method,
    /// Where the patch is, or would have been.
    pub patch: PathBuf,
    /// Digest of the base file.
    pub base: Digest,
    /// Length of the base file.
    pub base_bytes: usize,
    /// Most bytes the engine had allocated at once.
    pub peak_bytes: usize,
    /// What was said before it began.
    pub plan: &'a Plan,
    /// What each phase took.
    pub spent: Vec<Spent>,
}

impl Report<'_> {
    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let ranked = self.outcome.ranking.as_ref();
        let ranking = ranked.map_or_else(String::new, |ranked| {
            format!("Which block to repair\n\n{}\n", ranking::text(ranked))
        });
        let [work, memory, gate, end] = [self.work(), self.memory(), self.gate(), self.end()];
        format!("{ranking}What was done\n\n{work}\n{memory}\n{gate}\n{end}")
    }

    /// The same as JSON; `patch` is null when the gate refused.
    #[must_use]
    pub fn json(&self) -> Value {
        let Outcome { level, ranking, choices, verdict, share, patch, .. } = self.outcome;
        json!({
            "verdict": verdict,
            "patch": verdict.accepted.then_some(&self.patch),
            "method": self.method.to_string(),
            "level": level.as_ref().map(ToString::to_string),
            "ranking": ranking,
            "genotype": Genotype::new(choices),
            "choices": choices,
            "share": share,
            "patch_bytes": patch.len(),
            "base": self.base,
            "base_bytes": self.base_bytes,
            "peak_bytes": self.peak_bytes,
            "plan": self.plan,
            "phases": spent::json(self.plan, &self.spent),
            "process": meter::process(),
        })
    }

    fn work(&self) -> String {
        let Outcome { level, choices, share, .. } = self.outcome;
        let place =
            level.as_ref().map_or_else(|| "batch-norm statistics of all layers".into(), ToString::to_string);
        let mut lines = vec![("repaired", place), ("method", self.method.to_string())];
        if self.method == Method::Search {
            lines.push(("architecture", Genotype::new(choices).to_string()));
        }
        let kept = match share {
            share if *share < 1.0 => {
                format!("{:.0} % of the change, drawn back because all of it broke too much", 100.0 * share)
            }
            _ => "all of the change".into(),
        };
        lines.push(("kept", kept));
        let share = self.outcome.patch.len() as f64 / self.base_bytes.max(1) as f64;
        let patch_bytes = units::bytes(self.outcome.patch.len());
        lines.push((
            "patch size",
            format!("{patch_bytes}, {:.1} % of the base's {}", 100.0 * share, units::bytes(self.base_bytes)),
        ));
        lines.push(("peak memory", format!("{} allocated by the engine", units::bytes(self.peak_bytes))));
        lines.into_iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
    }

    fn memory(&self) -> String {
        format!("What it took\n\n{}", spent::table(self.plan, &self.spent))
    }

    fn gate(&self) -> String {
        let verdict = &self.outcome.verdict;
        let sets = [("failures", &verdict.failures), ("to be kept", &verdict.passes)];
        format!("The gate, on images that no training saw\n\n{}", changes(sets))
    }

    fn end(&self) -> String {
        let verdict = &self.outcome.verdict;
        if verdict.accepted {
            return format!("Accepted: the patch is {}\n", self.patch.display());
        }
        let reasons: String = verdict.reasons.iter().map(|reason| format!("  {reason}\n")).collect();
        format!("Refused, nothing was written:\n{reasons}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Change, Deployed};
    use crate::fit::Level;
    use crate::graph::network::{Input, VERSION};
    use crate::graph::{Network, Params};
    use crate::memory::Levers;
    use crate::repair::{Phase, Verdict};

    fn outcome(reasons: &[&str]) -> Outcome {
        let input = Input { shape: vec![1, 1, 1], mean: vec![0.0], std: vec![1.0] };
        let network = Network {
            version: VERSION,
            architecture: "a".into(),
            input,
            classes: 1,
            class_names: Vec::new(),
            parts: Vec::new(),
        };
        let deployed = Deployed::new(network, Params::default());
        let verdict = Verdict {
            accepted: reasons.is_empty(),
            reasons: reasons.iter().map(|&reason| reason.into()).collect(),
            failures: Change { n: 10, right_before: 0, right_after: 8, fixed: 8, broken: 0 },
            passes: Change::default(),
            p_value: 0.01,
        };
        Outcome {
            level: Some(Level::Block("layer1.0".into())),
            ranking: None,
            choices: Vec::new(),
            verdict,
            share: 0.9,
            trained: deployed.clone(),
            repaired: deployed,
            patch: vec![0; 512].into(),
        }
    }

    fn plan() -> Plan {
        Plan {
            target: "block layer1.0".into(),
            limit: None,
            before: 0,
            peak: 2 << 20,
            least: 1 << 20,
            time_factor: 1.0,
            levers: Levers::FASTEST,
            phases: vec![Phase { name: "search", bytes: 2 << 20, of: Vec::new() }],
        }
    }

    fn report<'a>(outcome: &'a Outcome, plan: &'a Plan) -> Report<'a> {
        Report {
            outcome,
            method: Method::Search,
            patch: "out.patch".into(),
            base: Digest::of(b""),
            base_bytes: 2048,
            peak_bytes: 1 << 20,
            plan,
            spent: vec![Spent { phase: "search", bytes: 1 << 20, seconds: 2.0 }],
        }
    }

    #[test]
    fn an_accepted_repair_names_its_patch_and_its_costs() {
        let outcome = outcome(&[]);
        let plan = plan();
        let text = report(&outcome, &plan).text();
        for part in [
            "repaired      block layer1.0\n",
            "architecture  architecture unchanged\n",
            "kept          90 % of the change",
            "patch size    512 bytes, 25.0 % of the base's 2.0 KiB\n",
            "peak memory   1.0 MiB allocated by the engine\n",
            "2.0 MiB  1.0 MiB      2.0",
            "Accepted: the patch is out.patch\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let json = report(&outcome, &plan).json();
        assert_eq!(json["patch"], "out.patch");
        assert_eq!(json["phases"][0]["planned_bytes"], 2 << 20);
    }

    #[test]
    fn a_refused_repair_gives_the_reasons_and_no_patch() {
        let outcome = outcome(&["too little", "too much"]);
        let plan = plan();
        let text = report(&outcome, &plan).text();
        assert!(text.ends_with("Refused, nothing was written:\n  too little\n  too much\n"), "{text}");
        assert_eq!(report(&outcome, &plan).json()["patch"], Value::Null);
    }
}
