//! The neurons of a network: channels of the convolutions inside its blocks, where their status
//! is read, and what they did on each image.

use std::path::Path;

use candle_core::Tensor;

use super::rows::Rows;
use super::spectrum::Counts;
use crate::data::Images;
use crate::device::to_host;
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

/// Mean activation over the pixels of every neuron on every image.
///
/// # Errors
///
/// [`crate::Error::File`] when `folder` cannot be written, [`crate::Error::Tensor`] when the
/// device refuses.
pub fn activations(deployed: &Deployed, layers: &[Layer], images: &Images, folder: &Path) -> Result<Rows> {
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    let (normalize, params) = (deployed.normalize()?, deployed.placed()?);
    let all: Vec<usize> = (0..images.len()).collect();
    Rows::collect(folder, layers.iter().map(|layer| layer.n).sum(), |push| {
        for batch in all.chunks(deployed.levers.infer_batch) {
            let mut means: Vec<Vec<Vec<f32>>> = vec![Vec::new(); layers.len()];
            let x = deployed.compute.value(&images.batch(batch, &normalize)?)?;
            observe(&whole, &params, &x, |value, y| {
                for (slot, _) in means.iter_mut().zip(layers).filter(|(_, layer)| layer.read == value) {
                    *slot = channel_means(y)?;
                }
                Ok(())
            })?;
            for i in 0..batch.len() {
                push(means.iter().flat_map(|of_layer| of_layer[i].iter().copied()).collect())?;
            }
        }
        Ok(())
    })
}

fn channel_means(y: &Tensor) -> Result<Vec<Vec<f32>>> {
    to_host(&global_pool::avg(y)?)?
        .flatten_from(1)
        .and_then(|means| means.to_vec2::<f32>())
        .during("reading activations")
}

/// Which neurons are active on which images: above their mean over the passes, since after a
/// batch norm and a ReLU nearly every channel has some activation (ours; DeepFault takes 0).
#[derive(Debug)]
pub struct Activity {
    /// For each failure and each neuron.
    failures: Vec<Vec<bool>>,
    /// For each neuron on how many passes.
    passes: Vec<usize>,
    n_passes: usize,
}

impl Activity {
    /// Reads both tables, that of passes twice.
    ///
    /// # Errors
    ///
    /// As [`Rows::each`].
    pub fn new(failures: &Rows, passes: &Rows) -> Result<Self> {
        let mut thresholds = vec![0f32; passes.row_len()];
        passes.each(0..passes.len(), |row| {
            thresholds.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        })?;
        thresholds.iter_mut().for_each(|sum| *sum /= passes.len().max(1) as f32);
        let above = |row: &[f32]| -> Vec<bool> { row.iter().zip(&thresholds).map(|(x, t)| x > t).collect() };
        let mut of_passes = vec![0; passes.row_len()];
        passes.each(0..passes.len(), |row| {
            of_passes.iter_mut().zip(above(row)).for_each(|(n, active)| *n += usize::from(active));
        })?;
        let mut of_failures = Vec::with_capacity(failures.len());
        failures.each(0..failures.len(), |row| of_failures.push(above(row)))?;
        Ok(Self { failures: of_failures, passes: of_passes, n_passes: passes.len() })
    }

    /// How many failures there are.
    #[must_use]
    pub fn n_failures(&self) -> usize {
        self.failures.len()
    }

    /// Counts of each neuron over the failures `failing` and all passes.
    #[must_use]
    pub fn counts(&self, failing: &[usize]) -> Vec<Counts> {
        let of = |(j, &active_passing): (usize, &usize)| {
            let active_failing = failing.iter().filter(|&&i| self.failures[i][j]).count();
            Counts {
                active_failing,
                inactive_failing: failing.len() - active_failing,
                active_passing,
                inactive_passing: self.n_passes - active_passing,
            }
        };
        self.passes.iter().enumerate().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &[[f32; 2]]) -> Rows {
        let fill =
            |push: &mut dyn FnMut(Vec<f32>) -> Result<()>| of.iter().try_for_each(|row| push(row.to_vec()));
        Rows::collect(&std::env::temp_dir(), 2, fill).unwrap()
    }

    #[test]
    fn a_neuron_is_active_above_its_mean_on_passes() {
        let (failures, passes) =
            (rows(&[[5.0, 0.0], [6.0, 0.0], [0.0, 9.0]]), rows(&[[1.0, 2.0], [3.0, 4.0]]));
        let counts = Activity::new(&failures, &passes).unwrap().counts(&[0, 1]);
        let want = Counts { active_failing: 2, inactive_failing: 0, active_passing: 1, inactive_passing: 1 };
        assert_eq!(counts, [want, Counts { active_failing: 0, inactive_failing: 2, ..want }]);
    }
}
