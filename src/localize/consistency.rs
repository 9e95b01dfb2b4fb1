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

use candle_core::Tensor;

use crate::data::Images;
use crate::engine::infer::observe;
use crate::error::{During, Result};
use crate::eval::Deployed;
use crate::graph::op::Op;
use crate::kernels::batch_norm;

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
    let indices: Vec<usize> = (0..clean.len().min(IMAGES)).collect();
    let mut x = clean.batch(&indices, &deployed.normalize()?)?;
    let mut of_blocks = Vec::new();
    for (p, part) in network.parts.iter().enumerate() {
        let mut worst = 0f64;
        let norms: Vec<_> =
            part.graph.nodes.iter().filter(|n| matches!(n.op, Op::BatchNorm { .. })).collect();
        let entry = x.clone();
        x = observe(&part.graph, &deployed.params, &entry, |value, y| {
            for norm in norms.iter().filter(|norm| norm.inputs[0] == value) {
                let stored = ["running_mean", "running_var"].map(|s| deployed.params.get(&norm.param(s)));
                let [mean, var] = stored;
                worst = worst.max(divergence(y, &mean?, &var?)?);
            }
            Ok(())
        })?;
        if p > 0 && p + 1 < network.parts.len() {
            of_blocks.push(worst);
        }
    }
    Ok(of_blocks)
}

fn divergence(y: &Tensor, mean: &Tensor, var: &Tensor) -> Result<f64> {
    let actual = batch_norm::statistics(y)?;
    let read = |t: &Tensor| t.to_vec1::<f32>().during("reading statistics");
    let (m, v, m0, v0) = (read(&actual.mean)?, read(&actual.var)?, read(mean)?, read(var)?);
    let of = |c: usize| of_channel([m[c], v[c]].map(f64::from), [m0[c], v0[c]].map(f64::from));
    Ok((0..m.len()).map(of).sum::<f64>() / m.len().max(1) as f64)
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
