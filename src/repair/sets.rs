//! The images of a repair and what each is used for.

use std::path::Path;

use super::Config;
use crate::data::augment::Augment;
use crate::data::split::split;
use crate::data::transfer::Transfer;
use crate::data::{Images, Normalize};
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::fit::samples::Store;
use crate::fit::{Samples, Sets, Site};
use crate::localize::race::Field;
use crate::rng::Rng;

/// What the user brings.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Labelled images that the network gets wrong.
    pub failures: &'a Images,
    /// Labelled images that it should keep getting right.
    pub replay: &'a Images,
    /// Failures and passes that only the gate sees; without them it sees what is held back.
    pub guard: Option<[&'a Images; 2]>,
    /// Folder for unnamed working files.
    pub folder: &'a Path,
}

/// Images by use; no image has two uses.
#[derive(Clone, Debug)]
pub struct Split {
    /// Failures that weights are trained on.
    pub failures: Images,
    /// Replay that weights are trained on.
    pub replay: Images,
    /// The replay of training as the field would show it.
    pub surrogates: Images,
    /// Failures that choices are made on.
    pub held_failures: Images,
    /// Replay that choices are made on.
    pub held_replay: Images,
    /// The held-back replay as the field would show it.
    pub held_surrogates: Images,
    /// Images of the failure set that the network gets right: left out.
    pub not_failing: usize,
}

impl Split {
    /// The sets as localization takes them.
    #[must_use]
    pub fn field(&self) -> Field<'_> {
        Field {
            failures: &self.failures,
            surrogates: &self.surrogates,
            replay: &self.replay,
            held_failures: &self.held_failures,
            held_surrogates: &self.held_surrogates,
            held_replay: &self.held_replay,
        }
    }
}

/// Share of failures and of replay that is held back, and most images of replay.
const HELD: f64 = 0.2;
pub(super) const MOST_HELD_REPLAY: usize = 400;

/// A view is shifted by at most one pixel for so many of the smaller side.
const SHIFT: usize = 14;

/// Checks the sets against the network and splits them.
///
/// # Errors
///
/// [`Error::Empty`], [`Error::ImageSize`] and [`Error::Label`] for sets that do not fit,
/// [`Error::NothingToRepair`] when the network gets every failure right, [`Error::Config`] when
/// too few are left to hold one back.
pub fn prepare(deployed: &Deployed, inputs: Inputs, seed: u64) -> Result<Split> {
    let guard = inputs.guard.iter().flatten().map(|images| ("guard", *images));
    for (set, images) in [("failure", inputs.failures), ("replay", inputs.replay)].into_iter().chain(guard) {
        if images.is_empty() {
            return Err(Error::Empty { set, path: images.path().into() });
        }
        deployed.check(images)?;
    }
    let classes = deployed.runner()?.classes(inputs.failures)?;
    let wrong = |i: &usize| classes[*i] != inputs.failures.label(*i) as usize;
    let failing: Vec<usize> = (0..inputs.failures.len()).filter(wrong).collect();
    if failing.is_empty() {
        return Err(Error::NothingToRepair { n: inputs.failures.len() });
    }
    let mut rng = Rng::new(seed);
    let failures = inputs.failures.subset(&failing);
    let [train_failures, held_failures] = halves("failures", &failures, usize::MAX, &mut rng)?;
    let [replay, held_replay] = halves("replay images", inputs.replay, MOST_HELD_REPLAY, &mut rng)?;
    let not_failing = inputs.failures.len() - failing.len();
    let mut place = || (inputs.folder, rng.seed());
    let transfer = Transfer::estimate(&replay, &train_failures, place())?;
    let surrogates = transfer.apply(&replay, place())?;
    let held_surrogates = transfer.apply(&held_replay, place())?;
    let failures = train_failures;
    Ok(Split { failures, replay, surrogates, held_failures, held_replay, held_surrogates, not_failing })
}

/// How many of `n` images are held back, `most` at most.
pub(super) fn n_held(n: usize, most: usize) -> usize {
    ((n as f64 * HELD).round() as usize).clamp(1, most)
}

/// What is trained on and what is held back.
fn halves(field: &'static str, images: &Images, most: usize, rng: &mut Rng) -> Result<[Images; 2]> {
    let n = images.len();
    if n < 5 {
        return Err(Error::Config { field, got: n.to_string(), want: "at least 5, to hold one back".into() });
    }
    let held = n_held(n, most);
    let parts = split(n, &[n - held, held], rng)?;
    Ok([images.subset(&parts[0]), images.subset(&parts[1])])
}

/// The sets of a repair as the trained part sees them.
pub(super) struct Cached {
    pub(super) failures: Samples,
    surrogates: Samples,
    pub(super) replay: Samples,
    held_failures: Samples,
    held_surrogates: Samples,
    held_replay: Samples,
}

impl Cached {
    /// Runs what stands before `site`; what is trained on comes in several views if `config` says so.
    pub(super) fn new(
        site: &Site,
        split: &Split,
        config: &Config,
        (normalize, store): (&Normalize, Store),
    ) -> Result<Self> {
        let [_, h, w] = split.replay.shape();
        let augment = Augment { shift: h.min(w) / SHIFT, ..Augment::default() };
        let views = |images| augment.views(images, config.views, (store.folder, config.seed));
        let samples = |images: &Images| Samples::new(site, images, normalize, store);
        Ok(Self {
            failures: samples(&views(&split.failures)?)?,
            surrogates: samples(&views(&split.surrogates)?)?,
            replay: Samples::taught(site, &views(&split.replay)?, normalize, store)?,
            held_failures: samples(&split.held_failures)?,
            held_surrogates: samples(&split.held_surrogates)?,
            held_replay: Samples::taught(site, &split.held_replay, normalize, store)?,
        })
    }

    pub(super) fn training(&self) -> Sets<'_> {
        Sets { failures: &self.failures, surrogates: Some(&self.surrogates), replay: &self.replay }
    }

    pub(super) fn validation(&self) -> Sets<'_> {
        Sets {
            failures: &self.held_failures,
            surrogates: Some(&self.held_surrogates),
            replay: &self.held_replay,
        }
    }
}
