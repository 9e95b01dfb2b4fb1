//! The end of a repair: rounding, judging, and drawing back until the gate is content.

use std::path::Path;

use serde_json::{Value, json};

use super::gate::{Evidence, Verdict};
use super::patching::{Origin, deploy_on, difference};
use super::pipeline::{Outcome, Repair};
use crate::data::Images;
use crate::device;
use crate::error::Result;
use crate::eval::{Change, Deployed};
use crate::fit::Level;
use crate::graph::{Params, Weight};
use crate::kernels::tensor;
use crate::localize::Ranking;
use crate::search::Genotype;
use crate::search::discretize::Choice;
use crate::storage::{Bytes, Patch, Storage};

/// Shares of the way back towards the deployed weights that the gate is asked about.
const SHARES: [f64; 6] = [1.0, 0.9, 0.8, 0.65, 0.5, 0.35];

/// Classes that a network gives the failures and the passes of the gate.
struct Answers([Vec<usize>; 2]);

impl Repair<'_> {
    /// Rounds, judges, and draws back until the gate is content; where it never is, all of the
    /// change stands with its refusal.
    pub(super) fn finish(
        &self,
        trained: Deployed,
        (level, ranking, choices): (Option<Level>, Option<Ranking>, Vec<Choice>),
    ) -> Result<Outcome> {
        let before = self.answers(&self.base)?;
        let mut refused = Vec::new();
        for share in SHARES {
            let (patch, repaired) = self.patch(&trained, share, (level.as_ref(), &choices))?;
            let verdict = self.judge(&before, &repaired)?;
            if verdict.accepted {
                return Ok(Outcome { level, ranking, choices, verdict, share, trained, repaired, patch });
            }
            refused.push(verdict);
        }
        let (share, verdict) = (SHARES[0], refused.swap_remove(0));
        let (patch, repaired) = self.patch(&trained, share, (level.as_ref(), &choices))?;
        Ok(Outcome { level, ranking, choices, verdict, share, trained, repaired, patch })
    }

    /// `share` of the change as a patch, and the network that it gives.
    fn patch(
        &self,
        trained: &Deployed,
        share: f64,
        (level, choices): (Option<&Level>, &[Choice]),
    ) -> Result<(Bytes, Deployed)> {
        let digest = self.model.file.digest();
        let bytes = {
            let drawn = drawn_back(&self.base, trained, share)?;
            let (genotype, provenance) = (json!(Genotype::new(choices)), self.provenance(level, share));
            let patch = difference(digest, &self.base, &drawn, Origin { genotype, provenance })?;
            Bytes::from(patch.to_bytes(Storage::F16)?)
        };
        let name = Path::new("new patch");
        let patch = Patch::read(bytes.clone(), name)?;
        let repaired = deploy_on(&self.base, digest, (&patch, name))?;
        if !self.base.levers.mapped {
            return Ok((bytes, repaired));
        }
        Ok((bytes, Deployed { params: repaired.params.spooled(self.inputs.folder)?, ..repaired }))
    }

    /// What the patch tells of itself; nothing that changes from run to run.
    fn provenance(&self, level: Option<&Level>, share: f64) -> Value {
        let set = |images: &Images| json!({ "images": images.len(), "digest": images.digest() });
        json!({
            "program": concat!("archrepair ", env!("CARGO_PKG_VERSION")),
            "seed": self.config.seed,
            "method": self.config.method.to_string(),
            "level": level.map(ToString::to_string),
            "device": device::kind(&self.config.compute.device),
            "precision": self.config.compute.precision,
            "steps": self.config.fit.steps,
            "share": share,
            "failures": set(self.inputs.failures),
            "replay": set(self.inputs.replay),
        })
    }

    /// The sets that the gate judges on: failures, passes.
    fn guard(&self) -> [&Images; 2] {
        self.inputs.guard.unwrap_or([&self.split.held_failures, &self.split.held_replay])
    }

    fn answers(&self, network: &Deployed) -> Result<Answers> {
        let (runner, [failures, passes]) = (network.runner()?, self.guard());
        Ok(Answers([runner.classes(failures)?, runner.classes(passes)?]))
    }

    fn judge(&self, before: &Answers, repaired: &Deployed) -> Result<Verdict> {
        let (Answers([failed, passed]), Answers([failing, passing])) = (before, self.answers(repaired)?);
        let [failures, labels] = self.guard().map(Images::targets);
        let of_class = |class: usize| {
            let of: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
            let pick = |from: &[usize]| of.iter().map(|&i| from[i]).collect::<Vec<_>>();
            Change::new(&pick(passed), &pick(&passing), &pick(&labels))
        };
        Ok(self.config.gate.judge(Evidence {
            failures: Change::new(failed, &failing, &failures),
            classes: (0..self.base.network.classes).map(of_class).collect(),
            passes: Change::new(passed, &passing, &labels),
        }))
    }
}

/// The network `share` of the way from `old` to `new`: weights between both, and where the
/// architecture grew, gates that are open that far.
fn drawn_back(old: &Deployed, new: &Deployed, share: f64) -> Result<Deployed> {
    if share >= 1.0 {
        return Ok(new.clone());
    }
    let (kept, share) = ((1.0 - share) as f32, share as f32);
    let between = |name: &str, to: &Weight| -> Result<Weight> {
        let drawn: Vec<f32> = match old.params.find(name) {
            Some(from) if from.is_same(to) => return Ok(to.clone()),
            Some(from) => {
                let (mut drawn, to) = (from.floats()?, to.floats()?);
                drawn.iter_mut().zip(to).for_each(|(from, to)| *from = *from * kept + to * share);
                drawn
            }
            None if name.ends_with(".open.gate") => to.floats()?.into_iter().map(|to| to * share).collect(),
            None => return Ok(to.clone()),
        };
        Ok(tensor(drawn, to.shape())?.into())
    };
    let drawn = |(name, to): (&String, &Weight)| Ok((name.clone(), between(name, to)?));
    let params = new.params.iter().map(drawn).collect::<Result<Params>>()?;
    Ok(Deployed { params, ..new.clone() })
}
