//! Re-estimation of batch-norm statistics: the cheapest repair, tried first.
//!
//! Statistics are measured on failures and replay together, with the weights as they are. Where
//! weights have rotted before a healthy batch norm this alone is often the repair; under a
//! shifted input it helps on failures and hurts on clean images (Schneider et al. 2020).

use candle_core::Tensor;

use crate::data::Images;
use crate::device::to_host;
use crate::engine::grad::{Collect, Norms, Wanted, forward};
use crate::error::{During, Result};
use crate::eval::Deployed;
use crate::graph::Params;
use crate::rng::Rng;

/// Images that statistics are measured on together, and least images of replay.
const BATCH: usize = 64;

/// Batches that hold both kinds of images: their statistics are those of the mixture.
pub(super) struct Batches {
    failures: usize,
    replay: usize,
    n: usize,
}

impl Batches {
    /// As few batches as `infer_batch` allows; none is empty.
    pub(super) fn new(failures: usize, replay: usize, infer_batch: usize) -> Self {
        let replay = replay.min(failures.max(BATCH));
        let n = (failures + replay).div_ceil(BATCH.min(infer_batch)).min(failures.max(replay)).max(1);
        Self { failures, replay, n }
    }

    /// Failures and replay images of the largest.
    pub(super) fn largest(&self) -> [usize; 2] {
        [self.failures.div_ceil(self.n), self.replay.div_ceil(self.n)]
    }
}

/// The same network with statistics measured on equal numbers of `failures` and `replay`.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when the device refuses.
pub fn re_estimate(deployed: &Deployed, failures: &Images, replay: &Images, seed: u64) -> Result<Deployed> {
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    let wanted = Wanted { trained: &|_| false, input: false, norms: Norms::Batch };
    let (normalize, params) = (deployed.normalize()?, deployed.placed()?);
    let batches = Batches::new(failures.len(), replay.len(), deployed.levers.infer_batch);
    let mut order = Rng::new(seed).permutation(replay.len());
    order.truncate(batches.replay);
    let all: Vec<usize> = (0..failures.len()).collect();
    let mut sums = Params::default();
    for b in 0..batches.n {
        let part = |of: &[usize]| of.iter().copied().skip(b).step_by(batches.n).collect::<Vec<_>>();
        let xs = [failures.batch(&part(&all), &normalize)?, replay.batch(&part(&order), &normalize)?];
        let x = deployed.compute.value(&Tensor::cat(&xs, 0).during("joining a batch")?)?;
        for (norm, found) in forward(&whole, &params, &x, wanted)?.statistics {
            sums.collect(&format!("{norm}.running_mean"), to_host(&found.mean)?)?;
            sums.collect(&format!("{norm}.running_var"), to_host(&found.var)?)?;
        }
    }
    let mut params = deployed.params.clone();
    for (name, sum) in sums.iter() {
        params.insert(name.clone(), (sum.tensor()? / batches.n as f64).during("averaging statistics")?);
    }
    Ok(Deployed { params, ..deployed.clone() })
}
