//! Settings of the levers in the order in which a plan tries them.

use crate::engine::checkpoint::Depth;
use crate::memory::Levers;

/// Most batches of images that run together where nothing is trained.
pub(super) const INFER_BATCHES: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

/// Settings of what trains, from the one that costs least time and quality to the dearest.
pub(super) fn settings(batch: usize) -> Vec<Levers> {
    let micro_batches = micro_batches(batch);
    let mut all = Vec::new();
    // Those that change what is searched or learned come last, one after the other, when all that
    // changes nothing has been tried.
    for dear in 0..5 {
        let [by_path, grouped, stateless, streamed] = [1, 2, 3, 4].map(|level| dear >= level);
        let mut same = Vec::new();
        for mapped in [false, true].into_iter().filter(|mapped| *mapped || dear == 0) {
            for (micro_batch, depth) in micro_batches.iter().copied().flat_map(depths) {
                let infer_batch = Levers::FASTEST.infer_batch;
                let levers = Levers { micro_batch, depth, infer_batch, mapped, ..Levers::FASTEST };
                same.push(Levers { by_path, grouped, stateless, streamed, ..levers });
            }
        }
        same.sort_by(|a, b| time_factor(a, batch).total_cmp(&time_factor(b, batch)));
        all.extend(same);
    }
    all
}

/// Sizes of micro-batches, each half of the one before.
pub(super) fn micro_batches(batch: usize) -> Vec<usize> {
    std::iter::successors(Some(batch), |n| (*n > 1).then(|| n.div_ceil(2))).collect()
}

/// A micro-batch with every depth.
pub(super) fn depths(micro_batch: usize) -> [(usize, Depth); 3] {
    [Depth::Nothing, Depth::Mixtures, Depth::Segments].map(|depth| (micro_batch, depth))
}

/// How much longer a step takes than without levers: an estimate from single runs on one machine,
/// good enough to order settings.
pub(super) fn time_factor(levers: &Levers, batch: usize) -> f64 {
    let depth = match levers.depth {
        Depth::Nothing => 1.0,
        Depth::Mixtures => 1.25,
        Depth::Segments => 1.35,
    };
    let mapped = if levers.mapped { 1.05 } else { 1.0 };
    // Each micro-batch has its own overhead, worth about a third of an image.
    let parts = batch.div_ceil(levers.micro_batch.clamp(1, batch)) as f64;
    depth * mapped * (1.0 + 0.3 * (parts - 1.0) / batch as f64)
}
