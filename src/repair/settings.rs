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

/// How much longer a training step takes than without levers, near enough to order settings.
///
/// Measured on two cores with AVX-512 for searches at layer1.0 and layer3.0 of the shipped network in
/// batches of 64, and at layer2.0 and layer4.0 of one of four times the width in batches of 32: `cargo bench
/// --bench footprint -- --levers mixtures,segments,nothing-mapped,nothing:16,nothing:8,nothing:4,nothing:1,nothing
/// --rounds 3 --case narrow28:layer1.0:64 ...`. A mixture computed again took 1.10 to 1.18 times as long,
/// segments 1.18 to 1.22, mapped weights 1.02 to 1.06; micro-batches of 16 images 1.01 to 1.18, of 8
/// 1.03 to 1.40, of 4 1.11 to 1.79, of one 1.87 to 3.69: one more costs about as much as two images.
///
/// Levers that change what is searched or learned are tried last whatever they cost. Whole repairs at
/// layer1.0 of the shipped network took so many times as long (`cargo bench --bench levers -- --steps 90`):
/// by path 0.72, grouped 1.06, stateless 0.98, streamed in batches of 8 images 1.03, all levers together
/// 1.41.
pub(super) fn time_factor(levers: &Levers, batch: usize) -> f64 {
    let depth = match levers.depth {
        Depth::Nothing => 1.0,
        Depth::Mixtures => 1.16,
        Depth::Segments => 1.20,
    };
    let mapped = if levers.mapped { 1.03 } else { 1.0 };
    let parts = batch.div_ceil(levers.micro_batch.clamp(1, batch)) as f64;
    depth * mapped * (1.0 + 2.0 * (parts - 1.0) / batch as f64)
}
