//! Gradients of the loss by the weights of each neuron, image by image.
//!
//! `g(n) = mean over failures of |dL/dw_n| / sqrt(len w_n)`, less the same over passes, cut at 0,
//! where `w_n` are the weights that produce neuron `n`. The paper's own formula is not public;
//! this one is ours.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::neurons::Layer;
use super::rows::Rows;
use crate::data::{Images, Normalize};
use crate::device::to_host;
use crate::engine::grad::{Collect, Norms, Wanted, backward_into, forward};
use crate::engine::scaling::LossScale;
use crate::error::{During, Result};
use crate::eval::Deployed;
use crate::graph::{Graph, Params};
use crate::kernels::{cross_entropy, slice};

/// `|dL/dw_n| / sqrt(len w_n)` of every neuron on every image.
///
/// # Errors
///
/// [`crate::Error::File`] when `folder` cannot be written, [`crate::Error::Tensor`] when the
/// device refuses.
pub fn norms(deployed: &Deployed, layers: &[Layer], images: &Images, folder: &Path) -> Result<Rows> {
    let whole = deployed.network.joined(0..deployed.network.parts.len());
    let (normalize, params) = (deployed.normalize()?, deployed.placed()?);
    let pulling = Pulling { deployed, whole, params, normalize, layers, images };
    let all: Vec<usize> = (0..images.len()).collect();
    Rows::collect(folder, layers.iter().map(|layer| layer.n).sum(), |push| {
        // Images are independent, and one image is too little work for several threads.
        for together in all.chunks(deployed.levers.infer_batch) {
            let rows: Result<Vec<_>> = match &deployed.compute.device {
                Device::Cpu => together.par_iter().map(|&i| pulling.norms(i)).collect(),
                // A device has one queue.
                _ => together.iter().map(|&i| pulling.norms(i)).collect(),
            };
            rows?.into_iter().try_for_each(&mut *push)?;
        }
        Ok(())
    })
}

/// A network that is asked image by image.
struct Pulling<'a> {
    deployed: &'a Deployed,
    whole: Graph,
    /// As its passes read them.
    params: Params,
    normalize: Normalize,
    layers: &'a [Layer],
    images: &'a Images,
}

impl Pulling<'_> {
    /// The norms of image `i`, by the greatest factor of the loss under which they are finite.
    fn norms(&self, i: usize) -> Result<Vec<f32>> {
        let mut scale = LossScale::of(self.deployed.compute.precision);
        loop {
            let mut norms = self.scaled(i, scale.factor())?;
            if scale.factor() == 1.0 || norms.iter().all(|norm| norm.is_finite()) {
                norms.iter_mut().for_each(|norm| *norm /= scale.factor() as f32);
                return Ok(norms);
            }
            scale.overflowed()?;
        }
    }

    fn scaled(&self, i: usize, factor: f64) -> Result<Vec<f32>> {
        let Self { deployed, whole, params, normalize, layers, images } = self;
        let trained = |name: &str| layers.iter().any(|layer| layer.weight == name);
        let wanted = Wanted { trained: &trained, input: false, norms: Norms::Fixed };
        let x = deployed.compute.value(&images.batch(&[i], normalize)?)?;
        let trace = forward(whole, params, &x, wanted)?;
        let mut target = vec![0f32; deployed.network.classes];
        target[images.label(i) as usize] = 1.0;
        let target = crate::kernels::tensor(target, &[1, deployed.network.classes])?;
        let (_, dlogits) = cross_entropy::forward_backward(&to_host(&trace.y)?, &target, &[factor])?;
        let dlogits = deployed.compute.value(&dlogits)?;
        let mut pulls = Pulls(BTreeMap::new());
        backward_into(whole, params, wanted, (trace, dlogits), &mut pulls)?;
        Ok(layers.iter().flat_map(|layer| pulls.0.remove(&layer.weight).unwrap_or_default()).collect())
    }
}

/// The norms by name of the weight: a gradient itself lives no longer than it takes to read it.
/// A weight of a deployed network belongs to one node, so no sum is waited for.
struct Pulls(BTreeMap<String, Vec<f32>>);

impl Collect for Pulls {
    fn collect(&mut self, name: &str, gradient: Tensor) -> Result<()> {
        self.0.insert(name.into(), rows_norm(&gradient)?);
        Ok(())
    }
}

fn rows_norm(dw: &Tensor) -> Result<Vec<f32>> {
    if !dw.device().is_cpu() {
        return slow_rows_norm(dw).during("taking the norms of gradients");
    }
    let row_len = dw.elem_count() / dw.dims()[0].max(1);
    let dw = slice::<f32>(dw)?;
    let norm = |row: &[f32]| (row.iter().map(|g| g * g).sum::<f32>() / row.len().max(1) as f32).sqrt();
    Ok(dw.chunks_exact(row_len.max(1)).map(norm).collect())
}

/// On the device, since there are far fewer norms than gradients.
fn slow_rows_norm(dw: &Tensor) -> candle_core::Result<Vec<f32>> {
    dw.flatten_from(1)?.sqr()?.mean(1)?.sqrt()?.to_vec1()
}

/// How much more the failures `failing` pull at each neuron than passes do on the mean, `passes`.
///
/// # Errors
///
/// As [`Rows::each`].
pub fn excess(failures: &Rows, passes: &[f64], failing: &[usize]) -> Result<Vec<f64>> {
    Ok(failures.mean(failing)?.iter().zip(passes).map(|(failing, pass)| (failing - pass).max(0.0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_on_a_device_are_those_on_the_cpu() {
        let numbers = (0..24).map(|i| i as f32 - 7.0).collect();
        let dw = crate::kernels::tensor::<f32>(numbers, &[2, 3, 2, 2]).unwrap();
        let (got, want) = (slow_rows_norm(&dw).unwrap(), rows_norm(&dw).unwrap());
        assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-5), "{got:?} {want:?}");
    }

    #[test]
    fn what_passes_pull_at_too_does_not_count() {
        let fill = |push: &mut dyn FnMut(Vec<f32>) -> Result<()>| {
            [[4.0, 1.0], [2.0, 1.0]].iter().try_for_each(|row| push(row.to_vec()))
        };
        let failures = Rows::collect(&std::env::temp_dir(), 2, fill).unwrap();
        assert_eq!(excess(&failures, &[1.0, 5.0], &[0, 1]).unwrap(), [2.0, 0.0]);
        assert_eq!(excess(&failures, &[1.0, 5.0], &[0]).unwrap(), [3.0, 0.0]);
    }
}
