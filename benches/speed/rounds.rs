//! All rounds of one program, and how it compares with others round by round.
//!
//! Programs run one after the other in each round, so what slows the machine for a while slows all of a
//! round.

use crate::measured::Measured;
use crate::program::Program;

/// What a program measured, round by round, until it failed or the last was done.
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) program: Program,
    pub(crate) done: Vec<Measured>,
    /// Why it is not run any more.
    pub(crate) problem: Option<String>,
}

impl Rounds {
    pub(crate) fn new(program: Program, problem: Option<String>) -> Self {
        Self { program, done: Vec::new(), problem }
    }

    /// Adds a round.
    pub(crate) fn push(&mut self, round: Result<Measured, String>) {
        match round {
            Ok(measured) => self.done.push(measured),
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// Seconds of a pass in each round.
    pub(crate) fn seconds(&self) -> Vec<f64> {
        self.done.iter().map(Measured::seconds).collect()
    }

    /// Most bytes that were resident at once, in any round.
    pub(crate) fn vm_hwm(&self) -> Option<usize> {
        self.done.iter().map(|measured| measured.vm_hwm).max()
    }

    /// Most bytes that the engine had allocated at once, in any round.
    pub(crate) fn engine_bytes(&self) -> Option<usize> {
        self.done.iter().filter_map(|measured| measured.engine_bytes).max()
    }
}

/// The least seconds of some programs in each round that one of them did.
pub(crate) fn fastest<'a>(programs: impl Iterator<Item = &'a Rounds>) -> Vec<f64> {
    let mut least: Vec<f64> = Vec::new();
    for seconds in programs.map(Rounds::seconds) {
        least.resize(least.len().max(seconds.len()), f64::INFINITY);
        least.iter_mut().zip(seconds).for_each(|(least, seconds)| *least = least.min(seconds));
    }
    least
}
