//! Plain tables that any terminal, log and serial console shows.

use std::fmt;

use comfy_table::{CellAlignment, LineStyle, TableStyle};

use super::units;
use crate::eval::Change;

/// Rows of text under headings, and below them what the headings mean.
#[derive(Debug)]
pub struct Table {
    rows: comfy_table::Table,
    legend: Vec<[String; 2]>,
}

impl Table {
    /// A table without rows. The first column stands left, the others, which hold numbers, right.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let mut rows = comfy_table::Table::new();
        rows.load_style(TableStyle::new().header_separator(LineStyle::none().fill('-').junction('-')));
        rows.set_header(headings.to_vec());
        for (i, column) in rows.column_iter_mut().enumerate() {
            column.set_padding((0, if i + 1 < headings.len() { 1 } else { 0 }));
            column.set_cell_alignment(if i == 0 { CellAlignment::Left } else { CellAlignment::Right });
        }
        Self { rows, legend: Vec::new() }
    }

    /// Adds a row, one cell a heading.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    /// Adds a line that says what a heading means.
    #[must_use]
    pub fn legend(mut self, heading: &str, meaning: &str) -> Self {
        self.legend.push([heading.into(), meaning.into()]);
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for line in self.rows.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        let width = self.legend.iter().map(|[heading, _]| heading.chars().count()).max().unwrap_or(0);
        for [heading, meaning] in &self.legend {
            writeln!(f, "  {heading:<width$}  {meaning}")?;
        }
        Ok(())
    }
}

/// Old against new answers, a row a set.
#[must_use]
pub fn changes<'a>(sets: impl IntoIterator<Item = (&'a str, &'a Change)>) -> Table {
    let mut table = Table::new(&["images", "number", "before", "after", "fixed", "broken", "p"])
        .legend("before, after", "share of right answers of the base and of the repaired network")
        .legend("fixed, broken", "images that were wrong and are right, that were right and are wrong")
        .legend(
            "p",
            "probability of a difference like this if both were equally good (McNemar's exact test)",
        );
    for (name, change) in sets {
        table.row([
            name.to_owned(),
            units::count(change.n as u64),
            units::percent(change.before()),
            units::percent(change.after()),
            change.fixed.to_string(),
            change.broken.to_string(),
            units::probability(change.p_value()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_text_with_its_legend_below() {
        let mut table = Table::new(&["part", "bytes"]).legend("bytes", "in the file");
        table.row(["stem".into(), "144".into()]);
        table.row(["layer1.0".into(), "9".into()]);
        let want =
            "part      bytes\n---------------\nstem        144\nlayer1.0      9\n  bytes  in the file\n";
        assert_eq!(table.to_string(), want);
    }

    #[test]
    fn changes_stand_in_one_row_a_set() {
        let change = Change { n: 20, right_before: 0, right_after: 5, fixed: 5, broken: 0 };
        let text = changes([("failures", &change)]).to_string();
        let row = text.lines().nth(2).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row, ["failures", "20", "0.00", "%", "25.00", "%", "5", "0", "0.0625"]);
    }
}
