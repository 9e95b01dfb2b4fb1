//! Gradients of the loss by the weights of each neuron, image by image.
//!
//! `g(n) = mean over failures of |dL/dw_n| / sqrt(len w_n)`, less the same over passes, cut at 0,
//! where `w_n` are the weights that produce neuron `n`. The paper's own formula is not public;
//! this one is ours.

use candle_core::Tensor;
use rayon::prelude::*;

use super::neurons::Layer;
use crate::data::Images;
use crate::engine::grad::{Norms, Wanted, backward, forward};
use crate::error::{During, Result};
use crate::eval::Deployed;
use crate::graph::Graph;
use crate::kernels::cross_entropy;

/// `|dL/dw_n| / sqrt(len w_n)` of every neuron on every image, `images x neurons` by rows.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when the device refuses.
pub fn norms(deployed: &Deployed, layers: &[Layer], images: &Images) -> Result<Vec<Vec<f32>>> {
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    // Images are independent, and one image is too little work for several threads.
    (0..images.len()).into_par_iter().map(|i| of_image(deployed, (&whole, layers), images, i)).collect()
}

fn of_image(
    deployed: &Deployed,
    (whole, layers): (&Graph, &[Layer]),
    images: &Images,
    i: usize,
) -> Result<Vec<f32>> {
    let trained = |name: &str| layers.iter().any(|layer| layer.weight == name);
    let wanted = Wanted { trained: &trained, input: false, norms: Norms::Fixed };
    let x = images.batch(&[i], &deployed.normalize()?)?;
    let trace = forward(whole, &deployed.params, &x, wanted)?;
    let mut target = vec![0f32; deployed.network.classes];
    target[images.label(i) as usize] = 1.0;
    let target = crate::kernels::tensor(target, &[1, deployed.network.classes])?;
    let (_, dlogits) = cross_entropy::forward_backward(&trace.y, &target, &[1.0])?;
    let grads = backward(whole, &deployed.params, wanted, (trace, dlogits))?;
    let mut row = Vec::new();
    for layer in layers {
        row.extend(rows_norm(&grads.params.get(&layer.weight)?)?);
    }
    Ok(row)
}

fn rows_norm(dw: &Tensor) -> Result<Vec<f32>> {
    let rows = dw.flatten_from(1).and_then(|dw| dw.to_vec2::<f32>()).during("reading a gradient")?;
    let norm = |row: &Vec<f32>| (row.iter().map(|g| g * g).sum::<f32>() / row.len().max(1) as f32).sqrt();
    Ok(rows.iter().map(norm).collect())
}

/// `g(n)` for the rows `failing` of failures and all rows of passes.
#[must_use]
pub fn excess(failures: &[Vec<f32>], passes: &[Vec<f32>], failing: &[usize]) -> Vec<f64> {
    let n = failures.first().map_or(0, Vec::len);
    let mean = |rows: &mut dyn Iterator<Item = &Vec<f32>>, j: usize, len: usize| {
        rows.map(|row| f64::from(row[j])).sum::<f64>() / len.max(1) as f64
    };
    let of = |j: usize| {
        let failing_mean = mean(&mut failing.iter().map(|&i| &failures[i]), j, failing.len());
        (failing_mean - mean(&mut passes.iter(), j, passes.len())).max(0.0)
    };
    (0..n).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_pull_at_too_does_not_count() {
        let failures = vec![vec![4.0, 1.0], vec![2.0, 1.0]];
        let passes = vec![vec![1.0, 5.0]];
        assert_eq!(excess(&failures, &passes, &[0, 1]), [2.0, 0.0]);
        assert_eq!(excess(&failures, &passes, &[0]), [3.0, 0.0]);
    }
}
