//! Whether clean images still have the statistics that batch norms stored in training.
//!
//! For each batch norm of a block, the divergence of the actual distribution of each channel
//! from the stored one, both taken as normal (Kullback and Leibler):
//!
//! ```text
//! (v / v0 + (m - m0)^2 / v0 - 1 - ln(v / v0)) / 2
//! ```
//!
//! A healthy network has values near 0; a block whose weights rotted does not. (Ours.)

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::data::Images;
use crate::engine::infer::observe;
use crate::error::{During, Result};
use crate::eval::Deployed;
use crate::graph::Part;
use crate::graph::op::Op;
use crate::kernels::batch_norm::{self, Statistics};

/// Images that are looked at: enough for 16 x 16 pixels of statistics even after pooling.
const IMAGES: usize = 256;

/// Divergence of the worst batch norm of each block, in nats a channel; `clean` are images that
/// the network was trained on or gets right.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when the device refuses.
pub fn mismatch(deployed: &Deployed, clean: &Images) -> Result<Vec<f64>> {
    let network = &deployed.network;
    let whole = network.joined(0..network.parts.len());
    let normalize = deployed.normalize()?;
    let norms: Vec<_> = whole.nodes.iter().filter(|n| matches!(n.op, Op::BatchNorm { .. })).collect();
    let params = deployed.placed()?;
    let mut found: BTreeMap<&str, Vec<Moments>> = BTreeMap::new();
    let all: Vec<usize> = (0..clean.len().min(IMAGES)).collect();
    for batch in all.chunks(deployed.levers.infer_batch) {
        let x = deployed.compute.value(&clean.batch(batch, &normalize)?)?;
        observe(&whole, &params, &x, |value, y| {
            for norm in norms.iter().filter(|norm| norm.inputs[0] == value) {
                let of = channels(&batch_norm::statistics(y)?)?;
                let sums = found.entry(&norm.name).or_insert_with(|| vec![Moments::default(); of.len()]);
                sums.iter_mut().zip(of).for_each(|(sum, of)| sum.add(of, batch.len()));
            }
            Ok(())
        })?;
    }
    let divergence = |norm: &str| -> Result<f64> {
        let stored = |suffix| deployed.params.get(&format!("{norm}.{suffix}"));
        let stored = Statistics { mean: stored("running_mean")?, var: stored("running_var")? };
        let now = found.get(norm).into_iter().flatten().map(Moments::normal);
        let of: Vec<f64> = now.zip(channels(&stored)?).map(|(now, stored)| of_channel(now, stored)).collect();
        Ok(of.iter().sum::<f64>() / of.len().max(1) as f64)
    };
    let worst = |part: &Part| {
        let norms = part.graph.nodes.iter().filter(|n| matches!(n.op, Op::BatchNorm { .. }));
        norms.map(|norm| divergence(&norm.name)).try_fold(0.0, |worst: f64, now| Ok(worst.max(now?)))
    };
    network.blocks().map(worst).collect()
}

/// Mean and variance of each channel.
fn channels(of: &Statistics) -> Result<Vec<[f64; 2]>> {
    let read = |t: &Tensor| t.to_vec1::<f32>().during("reading statistics");
    Ok(read(&of.mean)?.into_iter().zip(read(&of.var)?).map(|(m, v)| [m, v].map(f64::from)).collect())
}

/// Sums over images of a channel's mean and mean square.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    n: f64,
    mean: f64,
    square: f64,
}

impl Moments {
    fn add(&mut self, [mean, var]: [f64; 2], images: usize) {
        let n = images as f64;
        self.n += n;
        self.mean += n * mean;
        self.square += n * (var + mean * mean);
    }

    /// Mean and variance.
    fn normal(&self) -> [f64; 2] {
        let [mean, square] = [self.mean, self.square].map(|sum| sum / self.n);
        [mean, (square - mean * mean).max(0.0)]
    }
}

fn of_channel([m, v]: [f64; 2], [m0, v0]: [f64; 2]) -> f64 {
    // A channel that is off has variance 0: compare what a batch norm would see.
    let (v, v0) = (v + 1e-5, v0 + 1e-5);
    0.5 * (v / v0 + (m - m0).powi(2) / v0 - 1.0 - (v / v0).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twice the variance: (2 - 1 - ln 2) / 2; a shift by one deviation: 1 / 2.
    #[test]
    fn divergence_is_that_of_two_normal_distributions() {
        assert_eq!(of_channel([1.0, 4.0], [1.0, 4.0]), 0.0);
        assert!((of_channel([0.0, 2.0], [0.0, 1.0]) - (1.0 - 2f64.ln()) / 2.0).abs() < 1e-4);
        assert!((of_channel([3.0, 4.0], [1.0, 4.0]) - 0.5).abs() < 1e-4);
    }
}
