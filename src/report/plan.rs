//! What a repair will hold, as a table.

use serde::Serialize;

use super::table::Table;
use super::units;
use crate::engine::checkpoint::Depth;
use crate::error::{Error, Result};
use crate::memory::Levers;
use crate::memory::Use;
use crate::repair::{Phase, Plan};

/// Lines for people: the decision, its levers, its phases.
#[must_use]
pub fn text(plan: &Plan) -> String {
    let Plan { target, limit, peak, least, time_factor, levers, .. } = plan;
    let limit = limit.map_or("no limit".into(), |limit| format!("of {} allowed", units::bytes(limit)));
    let (peak, least) = (units::bytes(*peak), units::bytes(*least));
    let head = format!(
        "plan ({target}): {peak} {limit}; {least} is the least; steps take about {time_factor:.2} times as long"
    );
    let levers: String = lines(levers).into_iter().map(|line| format!("  {line}\n")).collect();
    format!("{head}\n{levers}\n{}", phases(plan))
}

/// What is done about memory, a line for each lever that is pulled.
fn lines(levers: &Levers) -> Vec<String> {
    let mut lines = vec!["features of the frozen part are in a file, its gradients are never formed".into()];
    if levers.mapped {
        lines.push("frozen weights stay in the model file".into());
    }
    match levers.depth {
        Depth::Nothing => {}
        Depth::Mixtures => lines.push("one alternative at a time, computed again for its gradients".into()),
        Depth::Segments => lines.push("the block is computed again for its gradients, part by part".into()),
    }
    if levers.micro_batch < usize::MAX {
        lines.push(format!("gradients of {} images at a time", levers.micro_batch));
    }
    if levers.infer_batch < Levers::FASTEST.infer_batch {
        lines.push(format!("{} images at a time where nothing is trained", levers.infer_batch));
    }
    if levers.by_path {
        lines.push("alternatives are trained one after the other: another search".into());
    }
    if levers.grouped {
        lines.push("alternatives see channels in groups: another search".into());
    }
    if levers.stateless {
        lines.push("the optimizer keeps no state: another training".into());
    }
    if levers.streamed {
        lines.push("these images change the weights by themselves: another training".into());
    }
    lines
}

fn phases(plan: &Plan) -> Table {
    let mut headings = vec!["phase", "bytes"];
    headings.extend(Use::ALL.map(Use::name));
    let mut table = Table::new(&headings)
        .legend("bytes", "at the phase's worst moment, with what was in use before")
        .legend("weights", "tensors of the network and of the trained part")
        .legend("values", "on their way through the network")
        .legend("kept", "for the backward pass besides values")
        .legend("scratch", "of single operations");
    for Phase { name, bytes, of } in &plan.phases {
        let part = |what: Use| of.iter().find(|(of, _)| *of == what).map_or(0, |(_, bytes)| *bytes);
        let row = [(*name).into(), units::bytes(*bytes)];
        table.row(row.into_iter().chain(Use::ALL.map(|what| units::bytes(part(what)))));
    }
    table
}

/// What a repair at one block needs.
#[derive(Clone, Debug, Serialize)]
pub struct BlockPlan {
    /// The block.
    pub block: String,
    /// The least limit under which it can be repaired.
    pub least: usize,
    /// The plan, where the limit allows one.
    pub plan: Option<Plan>,
}

impl BlockPlan {
    /// Of what [`plan`](fn@crate::repair::plan) came to.
    ///
    /// # Errors
    ///
    /// Every error but that the limit is too small.
    pub fn new(block: &str, planned: Result<Plan>) -> Result<Self> {
        let block = block.to_owned();
        match planned {
            Ok(plan) => Ok(Self { block, least: plan.least, plan: Some(plan) }),
            Err(Error::Limit { least, .. }) => Ok(Self { block, least, plan: None }),
            Err(other) => Err(other),
        }
    }
}

/// One row a block.
#[must_use]
pub fn blocks(limit: Option<usize>, batch: usize, rows: &[BlockPlan]) -> String {
    let mut table = Table::new(&["block", "least", "peak", "time", "recompute", "images", "levers"])
        .legend("least", "smallest limit under which a search and training of this block can run")
        .legend("peak", "most bytes that the engine will allocate under the limit")
        .legend("time", "of a training step, beside one without a limit; an estimate")
        .legend("recompute", "what is computed again for gradients")
        .legend("images", "whose gradients are taken at once");
    for BlockPlan { block, least, plan } in rows {
        let least = units::bytes(*least);
        let Some(plan) = plan else {
            table.row(
                [block.clone(), least].into_iter().chain(["does not fit", "", "", "", ""].map(Into::into)),
            );
            continue;
        };
        let levers = plan.levers;
        let pulled = [
            ("mapped", levers.mapped),
            ("by path", levers.by_path),
            ("grouped", levers.grouped),
            ("stateless", levers.stateless),
            ("streamed", levers.streamed),
        ];
        let pulled: Vec<&str> = pulled.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        table.row([
            block.clone(),
            least,
            units::bytes(plan.peak),
            format!("{:.2}", plan.time_factor),
            format!("{:?}", levers.depth).to_lowercase(),
            levers.micro_batch.min(batch).to_string(),
            if pulled.is_empty() { "none".into() } else { pulled.join(", ") },
        ]);
    }
    let limit = limit.map_or("without a limit".into(), |limit| format!("under {}", units::bytes(limit)));
    format!("search and training of one block, batches of {batch}, {limit}\n\n{table}")
}
