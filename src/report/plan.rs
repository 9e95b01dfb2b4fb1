//! What a repair will hold, as a table.

use super::table::Table;
use super::units;
use crate::engine::checkpoint::Depth;
use crate::memory::Levers;
use crate::memory::ledger::Use;
use crate::repair::{Phase, Plan};

/// Lines for people: the decision, its phases, the levers.
#[must_use]
pub fn text(plan: &Plan) -> String {
    let limit = plan.limit.map_or("none".into(), units::bytes);
    let head = format!(
        "plan for {}: at most {}, limit {limit}, least limit that would do {}, a step takes about {:.2} times as long\n",
        plan.level,
        units::bytes(plan.peak),
        units::bytes(plan.least),
        plan.time_factor
    );
    format!("{head}{}{}\n", levers(&plan.levers), phases(plan))
}

/// One line a lever that is pulled.
#[must_use]
pub fn levers(levers: &Levers) -> String {
    let mut lines =
        vec!["gradients of frozen parts are never formed; features of the prefix are in a file".into()];
    if levers.mapped {
        lines.push("frozen weights stay in the model file".into());
    }
    match levers.depth {
        Depth::Nothing => {}
        Depth::Mixtures => lines.push("alternatives are alive one at a time and computed again".into()),
        Depth::Segments => lines.push("the block is computed again, segment by segment".into()),
    }
    if levers.micro_batch < usize::MAX {
        lines.push(format!("gradients of {} images at a time", levers.micro_batch));
    }
    if levers.grouped {
        lines.push("alternatives see channels in groups (other results than without)".into());
    }
    if levers.stateless {
        lines.push("the optimizer keeps no state (other results than with)".into());
    }
    lines.into_iter().map(|line| format!("  {line}\n")).collect()
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
