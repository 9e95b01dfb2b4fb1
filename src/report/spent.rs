//! What the phases of a repair took, beside what was said before.

use serde_json::{Value, json};

use super::table::Table;
use super::units;
use crate::repair::Plan;

/// A phase that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// Its name in the plan.
    pub phase: &'static str,
    /// Most bytes that were allocated at once while it ran.
    pub bytes: usize,
    /// How long it took.
    pub seconds: f64,
}

impl Spent {
    /// What `plan` said; `None` for a phase that it does not know.
    fn planned(&self, plan: &Plan) -> Option<usize> {
        plan.phases.iter().find(|phase| phase.name == self.phase).map(|phase| phase.bytes)
    }
}

/// One row a phase.
pub(super) fn table(plan: &Plan, spent: &[Spent]) -> Table {
    let mut table = Table::new(&["phase", "planned", "peak", "seconds"])
        .legend("planned", "bytes that the plan allows for")
        .legend("peak", "most bytes that the engine had allocated at once");
    for phase in spent {
        table.row([
            phase.phase.into(),
            phase.planned(plan).map_or_else(String::new, units::bytes),
            units::bytes(phase.bytes),
            format!("{:.1}", phase.seconds),
        ]);
    }
    table
}

/// The same as JSON.
pub(super) fn json(plan: &Plan, spent: &[Spent]) -> Value {
    let row = |phase: &Spent| {
        json!({
            "phase": phase.phase,
            "planned_bytes": phase.planned(plan),
            "peak_bytes": phase.bytes,
            "seconds": phase.seconds,
        })
    };
    spent.iter().map(row).collect()
}
