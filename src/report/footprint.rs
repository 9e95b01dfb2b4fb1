//! What a model takes on this device: memory and time, phase by phase and limit by limit.

use serde::{Deserialize, Serialize};

use super::{Table, units};
use crate::memory::ProcessMemory;

/// A phase of a run, or how a run ended that has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Where the repair was; empty for a process that repairs nothing.
    pub level: String,
    /// Its limit, if it had one.
    pub limit: Option<usize>,
    /// What was done; `all` for the whole run, `refused` and `failed` for one that has no phases.
    pub phase: String,
    /// Bytes that were said before; of `refused` the least limit that would do.
    pub planned_bytes: Option<usize>,
    /// Most bytes that the engine had allocated at once.
    pub peak_bytes: Option<usize>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// The same over that of the run without a limit.
    pub factor: Option<f64>,
    /// What the kernel says, where it was asked.
    pub process: Option<ProcessMemory>,
    /// Whether it came to an end and took no more than was said.
    pub kept: bool,
    /// Why there are no phases.
    pub reason: Option<String>,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            level: String::new(),
            limit: None,
            phase: String::new(),
            planned_bytes: None,
            peak_bytes: None,
            seconds: None,
            factor: None,
            process: None,
            kept: true,
            reason: None,
        }
    }
}

impl Row {
    /// The row with `kept` set from its bytes: what nobody planned is not kept.
    #[must_use]
    pub fn judged(self) -> Self {
        let kept = self.planned_bytes.is_some_and(|planned| self.peak_bytes <= Some(planned));
        Self { kept, ..self }
    }

    /// The limit as people write it.
    #[must_use]
    pub fn limit_text(&self) -> String {
        self.limit.map_or_else(|| "none".into(), units::bytes)
    }

    fn cells(&self) -> [String; 10] {
        let bytes = |bytes: Option<usize>| bytes.map_or_else(String::new, units::bytes);
        let process = |of: fn(&ProcessMemory) -> usize| bytes(self.process.as_ref().map(of));
        [
            self.level.clone(),
            if self.level.is_empty() { String::new() } else { self.limit_text() },
            self.phase.clone(),
            bytes(self.planned_bytes),
            bytes(self.peak_bytes),
            self.seconds.map_or_else(String::new, units::seconds),
            self.factor.map_or_else(String::new, |factor| format!("{factor:.2}")),
            process(|memory| memory.vm_hwm),
            process(|memory| memory.rss_anon),
            process(|memory| memory.rss_file),
        ]
    }

    /// What is to be said about the row below the table.
    fn remark(&self) -> Option<String> {
        let remark = match &self.reason {
            Some(reason) => reason.clone(),
            None if self.kept => return None,
            None => "took more than planned".into(),
        };
        let run = if self.level.is_empty() {
            String::new()
        } else {
            format!("{}, limit {}, ", self.level, self.limit_text())
        };
        Some(format!("  {run}{}: {remark}\n", self.phase))
    }
}

/// Sets the factors of the rows whose level and phase are there without a limit too.
pub fn set_factors(rows: &mut [Row]) {
    let free: Vec<Row> = rows.iter().filter(|row| row.limit.is_none()).cloned().collect();
    for row in rows.iter_mut().filter(|row| !row.level.is_empty()) {
        let same = free.iter().find(|free| (&free.level, &free.phase) == (&row.level, &row.phase));
        let seconds = row.seconds.zip(same.and_then(|same| same.seconds));
        row.factor = seconds.filter(|(_, free)| *free > 0.0).map(|(own, free)| own / free);
    }
}

/// One row each, and what there is to say about some below.
#[must_use]
pub fn text(rows: &[Row]) -> String {
    let headings =
        ["level", "limit", "phase", "planned", "peak", "time", "factor", "VmHWM", "RssAnon", "RssFile"];
    let mut table = Table::new(&headings)
        .legend("opened", "the model is mapped and checked, its weights stay in the file")
        .legend("inference", "passes with them there, and with all of them widened to f32 on the heap")
        .legend("all", "the whole repair, of noise with random labels: only bytes and times mean something")
        .legend("planned", "bytes that were said before; of `refused`, the least limit that would do")
        .legend("peak", "most bytes that the engine had allocated at once")
        .legend("time", "of the phase; of an inference, of one pass")
        .legend("factor", "time over that of the same phase without a limit")
        .legend("VmHWM", "most that was resident at once since the process began")
        .legend("RssAnon", "resident at the end of the row: heap and stacks")
        .legend("RssFile", "resident at the end of the row: weights and features in files, the program");
    rows.iter().for_each(|row| table.row(row.cells()));
    let remarks: String = rows.iter().filter_map(Row::remark).collect();
    if remarks.is_empty() { table.to_string() } else { format!("{table}\n{remarks}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(limit: Option<usize>, phase: &str, seconds: f64) -> Row {
        let level = "block:layer1.0".into();
        Row { level, limit, phase: phase.into(), seconds: Some(seconds), ..Row::default() }
    }

    #[test]
    fn a_row_is_kept_when_it_took_no_more_than_planned() {
        let kept = |planned_bytes, peak_bytes| {
            Row { planned_bytes, peak_bytes: Some(peak_bytes), ..Row::default() }.judged().kept
        };
        assert_eq!([kept(Some(8), 8), kept(Some(8), 9), kept(None, 0)], [true, false, false]);
    }

    #[test]
    fn factors_refer_to_the_same_phase_without_a_limit() {
        let mut rows = [row(Some(9), "search", 3.0), row(None, "search", 2.0), row(Some(9), "judge", 1.0)];
        set_factors(&mut rows);
        assert_eq!(rows.map(|row| row.factor), [Some(1.5), Some(1.0), None]);
    }

    #[test]
    fn the_table_says_below_what_went_wrong() {
        let refused = Row { reason: Some("it does not fit".into()), ..row(Some(1 << 20), "refused", 0.0) };
        let over = Row { planned_bytes: Some(1), peak_bytes: Some(2), ..row(None, "search", 0.0) }.judged();
        let text = text(&[Row { phase: "start".into(), ..Row::default() }, refused, over]);
        assert!(
            text.ends_with(
                "\n\n  block:layer1.0, limit 1.0 MiB, refused: it does not fit\n  \
                 block:layer1.0, limit none, search: took more than planned\n"
            ),
            "{text}"
        );
    }
}
