//! Re-estimation of batch-norm statistics: the cheapest repair, tried first.
//!
//! Statistics are measured on failures and replay together, with the weights as they are. Where
//! weights have rotted before a healthy batch norm this alone is often the repair; under a
//! shifted input it helps on failures and hurts on clean images (Schneider et al. 2020).

use candle_core::Tensor;

use crate::data::Images;
use crate::engine::grad::{Collect, Norms, Wanted, forward};
use crate::error::{During, Result};
use crate::eval::Deployed;
use crate::graph::Params;
use crate::rng::Rng;

/// Images that statistics are measured on together, and least images of replay.
const BATCH: usize = 64;

/// The same network with statistics measured on equal numbers of `failures` and `replay`.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when the device refuses.
pub fn re_estimate(deployed: &Deployed, failures: &Images, replay: &Images, seed: u64) -> Result<Deployed> {
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    let wanted = Wanted { trained: &|_| false, input: false, norms: Norms::Batch };
    let normalize = deployed.normalize()?;
    let mut order = Rng::new(seed).permutation(replay.len());
    order.truncate(failures.len().max(BATCH));
    let all: Vec<usize> = (0..failures.len()).collect();
    let mut sums = Params::default();
    let batch = BATCH.min(deployed.levers.infer_batch);
    // Each batch holds both kinds: its statistics are those of the mixture. No batch may be empty.
    let most = all.len().max(order.len());
    let n_batches = (all.len() + order.len()).div_ceil(batch).min(most).max(1);
    for b in 0..n_batches {
        let part = |of: &[usize]| of.iter().copied().skip(b).step_by(n_batches).collect::<Vec<_>>();
        let xs = [failures.batch(&part(&all), &normalize)?, replay.batch(&part(&order), &normalize)?];
        let x = Tensor::cat(&xs, 0).during("joining a batch")?;
        for (norm, found) in forward(&whole, &deployed.params, &x, wanted)?.statistics {
            sums.collect(&format!("{norm}.running_mean"), found.mean)?;
            sums.collect(&format!("{norm}.running_var"), found.var)?;
        }
    }
    let mut params = deployed.params.clone();
    for (name, sum) in sums.iter() {
        params.insert(name.clone(), (sum.tensor()? / n_batches as f64).during("averaging statistics")?);
    }
    Ok(Deployed { params, ..deployed.clone() })
}
