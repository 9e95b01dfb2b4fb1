//! The repair by this library, with the functions that `archrepair repair` calls.

use std::path::Path;
use std::time::Instant;

use archrepair::eval::accuracy;
use archrepair::fit::{self, Level, Part, Site, fit};
use archrepair::memory::meter;
use archrepair::repair::patching::deploy;
use archrepair::rng::Rng;
use archrepair::search::bilevel::Data;
use archrepair::search::candidate::CleanStatistics;
use archrepair::search::discretize::HeldBack;
use archrepair::search::{self, search};
use archrepair::zoo::{Model, Overrides};

use crate::case::{Kind, SEED, Work};
use crate::measured::Measured;
use crate::sets::Seen;

/// Runs the repair in `folder`.
pub(crate) fn run(folder: &Path) -> archrepair::Result<Measured> {
    let begun = Instant::now();
    let work = Work::open(folder);
    let model = Model::open(&folder.join("model.safetensors"), &Overrides::default())?;
    let deployed = deploy(&model, None)?;
    let site = Site::new(&deployed, Level::Block(work.block.clone()))?;
    let seen = Seen::new(&site, &deployed, folder)?;
    let mut losses = Vec::new();
    let part = match work.kind {
        Kind::Search => searched(&site, &seen, (&work, folder), &mut losses)?,
        Kind::Weights => Part::new(site.graph.clone(), site.params.clone(), &site)?,
    };
    let config = fit::Config { steps: work.fit.len(), ..fit::Config::default() };
    let note = &mut |_, loss| losses.push(loss);
    let part = fit(&site, part, seen.training(), (&config, Rng::new(SEED)), note)?;
    let seconds = begun.elapsed().as_secs_f64();
    let vm_hwm = meter::process().map_or(0, |memory| memory.vm_hwm);
    let engine_bytes = Some(meter::peak());
    std::fs::write(folder.join("chosen.json"), serde_json::to_vec(&part.graph).unwrap()).unwrap();
    let right = right(&site, &part, &seen)?;
    Ok(Measured { seconds, vm_hwm, engine_bytes, losses, right, process_seconds: 0.0 })
}

/// The block with the architecture that a search chose.
fn searched(
    site: &Site,
    seen: &Seen,
    (work, folder): (&Work, &Path),
    losses: &mut Vec<f64>,
) -> archrepair::Result<Part> {
    let clean = CleanStatistics::measure(seen.training().replay)?;
    let data = Data { training: seen.training(), validation: seen.validation(), clean: &clean, folder };
    let steps = work.search.len();
    // With so much patience no step is saved.
    let config = search::Config { steps, patience: steps, ..search::Config::default() };
    let (rng, note) = (&mut Rng::new(SEED), &mut |_, loss| losses.push(loss));
    Ok(search(site, data, (&config, &fit::Config::default()), rng, note)?.0)
}

/// Shares of held-back images that `part` gets right.
fn right(site: &Site, part: &Part, seen: &Seen) -> archrepair::Result<[f64; 2]> {
    let answers = HeldBack::measure(site, part, seen.validation())?;
    let [failures, replay] = &seen.held_targets;
    Ok([accuracy(&answers.failures.classes, failures), accuracy(&answers.replay.classes, replay)])
}
