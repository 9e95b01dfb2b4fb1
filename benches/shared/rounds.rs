//! All rounds of one program.
//!
//! Programs run one after the other in each round, so what slows the machine for a while slows all of a
//! round.

/// What a program measured in a round.
pub(crate) trait Timed {
    /// Seconds of the work.
    fn seconds(&self) -> f64;
}

/// What a program measured, round by round, until it failed or the last was done.
#[derive(Debug)]
pub(crate) struct Rounds<P, M> {
    pub(crate) program: P,
    pub(crate) done: Vec<M>,
    /// Why it is not run any more.
    pub(crate) problem: Option<String>,
}

impl<P, M: Timed> Rounds<P, M> {
    pub(crate) fn new(program: P, problem: Option<String>) -> Self {
        Self { program, done: Vec::new(), problem }
    }

    /// Runs a round unless one failed before.
    pub(crate) fn run(&mut self, run: impl FnOnce(&P) -> Result<M, String>) {
        if self.problem.is_none() {
            match run(&self.program) {
                Ok(measured) => self.done.push(measured),
                Err(problem) => self.problem = Some(problem),
            }
        }
    }

    /// Seconds of the work in each round.
    pub(crate) fn seconds(&self) -> Vec<f64> {
        self.done.iter().map(Timed::seconds).collect()
    }

    /// The most of any round.
    pub(crate) fn most(&self, of: impl Fn(&M) -> Option<usize>) -> Option<usize> {
        self.done.iter().filter_map(of).max()
    }
}
