//! What a model file holds: its input and its parts.

use std::path::PathBuf;

use serde::Serialize;

use super::table::Table;
use super::units;
use crate::graph::network::Input;
use crate::storage::Digest;
use crate::zoo::InputFrom;

/// A model file, with or without a patch.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The model file.
    pub model: PathBuf,
    /// The patch, if one is applied.
    pub patch: Option<PathBuf>,
    /// Digest of the model file.
    pub digest: Digest,
    /// Length of the model file.
    pub file_bytes: usize,
    /// Name of the architecture.
    pub architecture: String,
    /// What the network takes.
    pub input: Input,
    /// Where `input` is from.
    pub input_from: InputFrom,
    /// Names of the classes, or their numbers.
    pub classes: Vec<String>,
    /// Stem, blocks, head.
    pub parts: Vec<PartSize>,
}

/// One part in numbers, for one image at inference.
#[derive(Clone, Debug, Serialize)]
pub struct PartSize {
    /// Name of the part.
    pub name: String,
    /// Shape of its input.
    pub input: Vec<usize>,
    /// Shape of its output.
    pub output: Vec<usize>,
    /// Elements of its tensors, statistics included.
    pub params: u64,
    /// Multiply-adds.
    pub macs: u64,
    /// Bytes of its tensors in the model file and the patch.
    pub bytes: usize,
    /// Elements of the largest set of values alive at once.
    pub live: u64,
    /// Whether the patch changes it.
    pub patched: bool,
}

impl Inspection {
    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}", self.head(), self.table())
    }

    fn head(&self) -> String {
        let mut lines = vec![
            ("model", format!("{}, {}", self.model.display(), units::bytes(self.file_bytes))),
            ("digest", self.digest.to_string()),
            ("architecture", self.architecture.clone()),
            ("input", self.input_line()),
            ("classes", format!("{}: {}", self.classes.len(), self.class_line())),
        ];
        if let Some(patch) = &self.patch {
            lines.insert(2, ("patch", patch.display().to_string()));
        }
        lines.into_iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
    }

    fn input_line(&self) -> String {
        let numbers = |values: &[f32]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let Input { shape, mean, std } = &self.input;
        let from = match self.input_from {
            InputFrom::File => "as the file says",
            InputFrom::SideFile => "as the file beside it says, unless flags do",
            InputFrom::Preset => "as is usual, unless flags say; the file does not",
        };
        format!("{}, mean {}, std {} ({from})", units::shape(shape), numbers(mean), numbers(std))
    }

    /// The first classes: a thousand would fill the screen.
    fn class_line(&self) -> String {
        const MOST: usize = 12;
        let mut line = self.classes.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
        if self.classes.len() > MOST {
            line.push_str(", ...");
        }
        line
    }

    fn table(&self) -> Table {
        let headings = ["part", "input", "output", "parameters", "multiply-adds", "bytes", "live values"];
        let mut table = Table::new(&headings)
            .legend("input, output", "channels x height x width, for one image")
            .legend("parameters", "numbers in its tensors, batch-norm statistics included")
            .legend("bytes", "of these tensors as they are stored")
            .legend("live values", "most numbers that are in memory at once while it runs");
        for part in &self.parts {
            let mark = if part.patched { " (patched)" } else { "" };
            table.row([
                format!("{}{mark}", part.name),
                units::shape(&part.input),
                units::shape(&part.output),
                units::count(part.params),
                units::count(part.macs),
                units::count(part.bytes as u64),
                units::count(part.live),
            ]);
        }
        let sum = |of: fn(&PartSize) -> u64| units::count(self.parts.iter().map(of).sum());
        table.row([
            "all".into(),
            String::new(),
            String::new(),
            sum(|part| part.params),
            sum(|part| part.macs),
            sum(|part| part.bytes as u64),
            units::count(self.parts.iter().map(|part| part.live).max().unwrap_or(0)),
        ]);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_sums_what_adds_up_and_takes_the_most_of_what_does_not() {
        let part = |name: &str, live| PartSize {
            name: name.into(),
            input: vec![1, 28, 28],
            output: vec![10],
            params: 1000,
            macs: 7,
            bytes: 2000,
            live,
            patched: live == 9,
        };
        let inspection = Inspection {
            model: "m".into(),
            patch: None,
            digest: Digest::of(b""),
            file_bytes: 5000,
            architecture: "resnet18".into(),
            input: Input { shape: vec![1, 28, 28], mean: vec![0.5], std: vec![0.25] },
            input_from: InputFrom::File,
            classes: (0..20).map(|i| i.to_string()).collect(),
            parts: vec![part("stem", 5), part("head", 9)],
        };
        let text = inspection.text();
        assert!(text.contains("1x28x28, mean 0.5, std 0.25 (as the file says)"));
        assert!(
            text.contains("20: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...") && text.contains("head (patched)")
        );
        let all = text.lines().find(|line| line.starts_with("all")).unwrap();
        assert_eq!(all.split_whitespace().collect::<Vec<_>>(), ["all", "2,000", "14", "4,000", "9"]);
    }
}
