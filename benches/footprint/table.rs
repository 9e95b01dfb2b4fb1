//! What was measured, as a table.

use archrepair::report::{Table, units};

use crate::measured::Measured;

/// A line of the table.
pub(crate) struct Row {
    pub(crate) who: &'static str,
    pub(crate) levers: String,
    pub(crate) measured: Result<Measured, String>,
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
        .legend("x", "the figure before it over that of the last archrepair row");
    let reference = rows.iter().rfind(|row| row.who == "archrepair");
    let reference = reference.and_then(|row| row.measured.as_ref().ok());
    for row in rows {
        table.row(row.cells(reference));
    }
    table
}

impl Row {
    fn cells(&self, reference: Option<&Measured>) -> Vec<String> {
        let (who, levers) = (self.who.to_owned(), self.levers.clone());
        let Ok(m) = &self.measured else {
            let cells = [who, levers, "failed".into()].into_iter();
            return cells.chain(std::iter::repeat(String::new())).take(HEADINGS.len()).collect();
        };
        let ratio = |of: fn(&Measured) -> f64| {
            let over = reference.map(of).filter(|over| *over > 0.0);
            over.map_or("-".into(), |over| format!("{:.2}", of(m) / over))
        };
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
            format!("{:.3}", m.seconds),
            ratio(|m| m.seconds),
        ]
    }
}
