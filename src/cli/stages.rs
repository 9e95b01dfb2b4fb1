//! The progress of a repair: a bar for each stage, and what each phase took.

use std::time::Instant;

use indicatif::ProgressBar;

use super::Console;
use crate::graph::Network;
use crate::localize::{self, race};
use crate::memory::meter;
use crate::repair::pipeline::Stage;
use crate::report::Spent;

/// Shows how far a repair is, and writes down what its phases take.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    console: &'a Console,
    steps: Steps,
    stage: Option<Stage>,
    searched: bool,
    bar: ProgressBar,
    begun: Instant,
    spent: Vec<Spent>,
}

/// Steps of each stage; those of `fit` include those of `search`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) localize: usize,
    pub(super) search: usize,
    pub(super) fit: usize,
}

impl Steps {
    /// Most steps of a race between blocks of `network`.
    pub(super) fn of_race(config: &localize::Config, network: &Network) -> usize {
        race::most_steps(config.candidates.min(network.blocks().count()), config.race_steps)
    }
}

impl<'a> Stages<'a> {
    pub(super) fn new(console: &'a Console, steps: Steps) -> Self {
        let bar = ProgressBar::hidden();
        Self { console, steps, stage: None, searched: false, bar, begun: Instant::now(), spent: Vec::new() }
    }

    /// This many steps are done; a new stage gets a line and a bar of its own.
    pub(super) fn tell(&mut self, stage: Stage, what: &str, done: usize) {
        if self.stage != Some(stage) {
            self.begin(stage, what);
        }
        match stage {
            Stage::Localize => {
                self.bar.set_message(format!("localize: {what}"));
                self.bar.inc(u64::from(done > 0));
            }
            _ => self.bar.set_position(done as u64),
        }
    }

    /// What each phase took.
    pub(super) fn finish(mut self) -> Vec<Spent> {
        self.end();
        std::mem::take(&mut self.spent)
    }

    fn begin(&mut self, stage: Stage, what: &str) {
        self.end();
        self.searched |= stage == Stage::Search;
        let (steps, title) = match stage {
            Stage::Prepare => (1, "checking the images".to_owned()),
            Stage::Localize => (self.steps.localize, "looking for the block to repair".to_owned()),
            Stage::Features => (1, format!("running what stands before {what}")),
            Stage::Search => (self.steps.search, format!("searching {what}")),
            Stage::Fit => (self.fit_steps(), format!("training {what}")),
            Stage::Judge => (1, format!("judging on the {what}")),
        };
        self.console.note(&title);
        self.bar = self.console.bar(steps, &title);
        self.stage = Some(stage);
    }

    /// What a search found has had some of its steps already.
    fn fit_steps(&self) -> usize {
        self.steps.fit.saturating_sub(if self.searched { self.steps.search } else { 0 })
    }

    /// Ends the stage: its bytes and seconds count for its phase. Training of what a search found
    /// belongs to the search.
    fn end(&mut self) {
        self.bar.finish_and_clear();
        let (bytes, seconds) = (meter::mark(), self.begun.elapsed().as_secs_f64());
        meter::trim_heap();
        self.begun = Instant::now();
        let Some(stage) = self.stage.take() else { return };
        let phase = match stage {
            Stage::Fit if self.searched => Stage::Search.phase(),
            stage => stage.phase(),
        };
        match self.spent.iter_mut().find(|spent| spent.phase == phase) {
            Some(spent) => {
                spent.bytes = spent.bytes.max(bytes);
                spent.seconds += seconds;
            }
            None => self.spent.push(Spent { phase, bytes, seconds }),
        }
    }
}

impl Drop for Stages<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
