//! What was measured, as a table.

use archrepair::report::{Table, units};

use crate::measured::Measured;
use crate::ratio::{Ratio, median};

/// A line of the table.
pub(crate) struct Row {
    pub(crate) who: &'static str,
    pub(crate) levers: String,
    /// What the last round measured, or why it did not.
    pub(crate) measured: Result<Measured, String>,
    /// Seconds of a step in each round.
    seconds: Vec<f64>,
}

const HEADINGS: [&str; 13] = [
    "who",
    "levers",
    "said",
    "engine peak",
    "loaded",
    "peak",
    "x",
    "grown",
    "x",
    "anonymous",
    "files",
    "s a step",
    "x",
];

/// The table of `rows`.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&HEADINGS)
        .legend("said", "most bytes allocated at once, as planned before the first step")
        .legend("engine peak", "the same as counted, where the program counts")
        .legend("loaded", "VmHWM of the process with everything loaded, before the first step")
        .legend("peak", "VmHWM of the process at its end")
        .legend("grown", "peak less loaded: the steps alone, without program and libraries")
        .legend("anonymous", "most of RssAnon that was seen: heap and stacks")
        .legend("files", "most of RssFile that was seen: program, libraries, mapped weights and features")
        .legend("s a step", "median of a round's steps, and of the rounds")
        .legend("x", "the figure before it over that of the last archrepair row; of times, round by round");
    let reference = rows.iter().rfind(|row| row.who == "archrepair");
    for row in rows {
        table.row(row.cells(reference));
    }
    table
}

impl Row {
    pub(crate) fn new(who: &'static str, levers: &str) -> Self {
        Self { who, levers: levers.into(), measured: Err("not run".into()), seconds: Vec::new() }
    }

    /// Adds a round.
    pub(crate) fn push(&mut self, measured: Result<Measured, String>) {
        self.seconds.push(measured.as_ref().map_or(f64::NAN, |measured| measured.seconds));
        self.measured = measured;
    }

    fn cells(&self, reference: Option<&Self>) -> Vec<String> {
        let (who, levers) = (self.who.to_owned(), self.levers.clone());
        let Ok(m) = &self.measured else {
            let cells = [who, levers, "failed".into()].into_iter();
            return cells.chain(std::iter::repeat(String::new())).take(HEADINGS.len()).collect();
        };
        let ratio = |of: fn(&Measured) -> f64| {
            let reference = reference.and_then(|row| row.measured.as_ref().ok());
            let over = reference.map(of).filter(|over| *over > 0.0);
            over.map_or("-".into(), |over| format!("{:.2}", of(m) / over))
        };
        let time = reference.and_then(|row| Ratio::new(&self.seconds, &row.seconds));
        let if_any = |bytes: Option<usize>| bytes.map_or("-".into(), units::bytes);
        vec![
            who,
            levers,
            if_any(m.said),
            if_any(m.engine_peak),
            units::bytes(m.loaded),
            units::bytes(m.vm_hwm),
            ratio(|m| m.vm_hwm as f64),
            units::bytes(m.grown()),
            ratio(|m| m.grown() as f64),
            units::bytes(m.seen.anonymous),
            units::bytes(m.seen.files),
            format!("{:.3}", median(&self.seconds)),
            time.map_or("-".into(), |ratio| ratio.to_string()),
        ]
    }
}
