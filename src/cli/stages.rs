//! The progress of a repair: a bar for each stage.

use indicatif::ProgressBar;

use super::Console;
use crate::localize;
use crate::repair::pipeline::Stage;

/// Shows how far localization, search and fit are.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    console: &'a Console,
    steps: Steps,
    stage: Option<Stage>,
    searched: bool,
    bar: ProgressBar,
}

/// Steps of each stage; those of `fit` include those of `search`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) localize: usize,
    pub(super) search: usize,
    pub(super) fit: usize,
}

impl Steps {
    /// Steps of a race: all candidates for a third of them, then three for all.
    pub(super) fn of_race(config: &localize::Config) -> usize {
        config.candidates * config.race_steps.div_ceil(3) + config.candidates.min(3) * config.race_steps
    }
}

impl<'a> Stages<'a> {
    pub(super) fn new(console: &'a Console, steps: Steps) -> Self {
        Self { console, steps, stage: None, searched: false, bar: ProgressBar::hidden() }
    }

    /// A step is done; a new stage gets a line and a bar of its own.
    pub(super) fn tell(&mut self, stage: Stage, what: &str, step: usize) {
        if self.stage != Some(stage) {
            self.begin(stage, what);
        }
        match stage {
            Stage::Localize => {
                self.bar.set_message(format!("localize: {what}"));
                self.bar.inc(1);
            }
            _ => self.bar.set_position(step as u64 + 1),
        }
    }

    fn begin(&mut self, stage: Stage, what: &str) {
        self.bar.finish_and_clear();
        self.searched |= stage == Stage::Search;
        let (steps, title) = match stage {
            Stage::Localize => (self.steps.localize, "looking for the block to repair".to_owned()),
            Stage::Search => (self.steps.search, format!("searching {what}")),
            Stage::Fit => (self.fit_steps(), format!("training {what}")),
            Stage::Judge => (1, format!("judging on the {what}")),
        };
        self.console.note(&title);
        self.bar = self.console.bar(steps, &title);
        self.stage = Some(stage);
    }
}

impl Stages<'_> {
    /// What a search found has had some of its steps already.
    fn fit_steps(&self) -> usize {
        self.steps.fit.saturating_sub(if self.searched { self.steps.search } else { 0 })
    }
}

impl Drop for Stages<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
