//! The outcome of a search in a few words.

use serde::Serialize;

use super::discretize::Choice;

/// Which alternatives a searched part holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Genotype {
    /// Position and alternative, for each position that changed.
    pub changes: Vec<(String, String)>,
}

impl Genotype {
    /// The changes among `choices`.
    #[must_use]
    pub fn new(choices: &[Choice]) -> Self {
        let changed = |c: &Choice| Some((c.position.clone(), c.chosen.clone()?));
        Self { changes: choices.iter().filter_map(changed).collect() }
    }
}

impl std::fmt::Display for Genotype {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("architecture unchanged");
        }
        let texts: Vec<String> = self.changes.iter().map(|(at, what)| format!("{at} + {what}")).collect();
        f.write_str(&texts.join(", "))
    }
}
