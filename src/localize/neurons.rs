//! The neurons of a network: channels of the convolutions inside its blocks, where their status
//! is read, and what they did on each image.

use candle_core::Tensor;

use super::spectrum::Counts;
use crate::data::Images;
use crate::engine::infer::observe;
use crate::error::{During, Result};
use crate::eval::Deployed;
use crate::graph::op::Op;
use crate::graph::{Graph, Value};
use crate::kernels::global_pool;

/// The neurons of one convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Index of the block among the network's blocks.
    pub block: usize,
    /// Full name of the convolution's weight.
    pub weight: String,
    /// The value their status is read from: the activation that follows.
    pub read: Value,
    /// How many there are.
    pub n: usize,
}

/// All convolutions inside blocks of the joined network `whole`.
#[must_use]
pub fn layers(deployed: &Deployed, whole: &Graph) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut at = 0;
    let last = deployed.network.parts.len() - 1;
    for (p, part) in deployed.network.parts.iter().enumerate() {
        let range = at..at + part.graph.nodes.len();
        at = range.end;
        if p == 0 || p == last {
            continue;
        }
        for i in range.clone() {
            if let Op::Conv2d(conv) = &whole.nodes[i].op {
                let read = status(whole, i + 1, range.end);
                let weight = whole.nodes[i].param("weight");
                layers.push(Layer { block: p - 1, weight, read, n: conv.outputs });
            }
        }
    }
    layers
}

/// The first activation behind value `v` and before node `end`, passing norms and sums only.
fn status(whole: &Graph, v: Value, end: usize) -> Value {
    let mut value = v;
    for (i, node) in whole.nodes.iter().enumerate().take(end).skip(v) {
        if !node.inputs.contains(&value) {
            continue;
        }
        match node.op {
            Op::Activation { .. } => return i + 1,
            Op::BatchNorm { .. } | Op::Add => value = i + 1,
            _ => return value,
        }
    }
    value
}

/// Mean activation over the pixels of every neuron on every image, `images x neurons` by rows.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when the device refuses.
pub fn activations(deployed: &Deployed, layers: &[Layer], images: &Images) -> Result<Vec<Vec<f32>>> {
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    let mut rows = Vec::new();
    let all: Vec<usize> = (0..images.len()).collect();
    for batch in all.chunks(deployed.levers.infer_batch) {
        let x = images.batch(batch, &deployed.normalize()?)?;
        let mut means: Vec<Option<Vec<Vec<f32>>>> = vec![None; layers.len()];
        observe(&whole, &deployed.params, &x, |value, y| {
            for (slot, _) in means.iter_mut().zip(layers).filter(|(_, layer)| layer.read == value) {
                *slot = Some(channel_means(y)?);
            }
            Ok(())
        })?;
        let row =
            |i: usize| means.iter().flatten().flat_map(|of_layer| of_layer[i].iter().copied()).collect();
        rows.extend((0..batch.len()).map(row));
    }
    Ok(rows)
}

fn channel_means(y: &Tensor) -> Result<Vec<Vec<f32>>> {
    global_pool::avg(y)?
        .flatten_from(1)
        .and_then(|means| means.to_vec2::<f32>())
        .during("reading activations")
}

/// Counts for each neuron over the rows `failing` of failures and all rows of passes; a neuron
/// is active above its mean over the passes, since after a batch norm and a ReLU nearly every
/// channel has some activation (ours; DeepFault takes 0).
#[must_use]
pub fn counts(failures: &[Vec<f32>], passes: &[Vec<f32>], failing: &[usize]) -> Vec<Counts> {
    let n = failures.first().or(passes.first()).map_or(0, Vec::len);
    let threshold = |j: usize| passes.iter().map(|row| row[j]).sum::<f32>() / passes.len().max(1) as f32;
    let of = |j: usize| {
        let threshold = threshold(j);
        let active_failing = failing.iter().filter(|&&i| failures[i][j] > threshold).count();
        let active_passing = passes.iter().filter(|row| row[j] > threshold).count();
        Counts {
            active_failing,
            inactive_failing: failing.len() - active_failing,
            active_passing,
            inactive_passing: passes.len() - active_passing,
        }
    };
    (0..n).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neuron_is_active_above_its_mean_on_passes() {
        let failures = vec![vec![5.0, 0.0], vec![6.0, 0.0], vec![0.0, 9.0]];
        let passes = vec![vec![1.0, 2.0], vec![3.0, 4.0]];
        let counts = counts(&failures, &passes, &[0, 1]);
        let want = Counts { active_failing: 2, inactive_failing: 0, active_passing: 1, inactive_passing: 1 };
        assert_eq!(counts[0], want);
        assert_eq!(counts[1], Counts { active_failing: 0, inactive_failing: 2, ..want });
    }
}
