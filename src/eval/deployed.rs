//! A network with its weights, ready to run.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Answers, Session};
use crate::data::{Images, Normalize, Set};
use crate::device::{Compute, to_host};
use crate::engine::infer::infer;
use crate::engine::packing::packed;
use crate::error::{During, Result};
use crate::graph::lower::{Lowered, lower};
use crate::graph::{Network, Params};
use crate::memory::Levers;

/// A network and all its tensors: a model file with or without a patch.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// The graph of stem, blocks and head. A clone shares it.
    pub network: Arc<Network>,
    /// Its tensors.
    pub params: Params,
    /// How much it holds at once.
    pub levers: Levers,
    /// Where its passes compute, and in which numbers; the tensors rest on the CPU.
    pub compute: Compute,
}

impl Deployed {
    /// A network that runs on the CPU, as fast as it goes.
    #[must_use]
    pub fn new(network: impl Into<Arc<Network>>, params: Params) -> Self {
        Self { network: network.into(), params, levers: Levers::FASTEST, compute: Compute::HOST }
    }

    /// The whole network, folded and fused for inference.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when a tensor is missing.
    pub fn runner(&self) -> Result<Runner> {
        let whole = self.network.joined(0..self.network.parts.len());
        let (batch, compute) = (self.levers.infer_batch, self.compute.clone());
        let lowered = lower(&whole, &self.params)?.placed(&compute)?;
        Ok(Runner { lowered, normalize: self.normalize()?, batch, compute })
    }

    /// The same network with all its tensors on the heap.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when candle refuses.
    pub fn resident(&self) -> Result<Self> {
        Ok(Self { params: self.params.resident()?, ..self.clone() })
    }

    /// The same network as `levers` want it: its tensors left where they are, or all on the heap.
    ///
    /// # Errors
    ///
    /// As [`Deployed::resident`].
    pub fn under(self, levers: Levers) -> Result<Self> {
        let deployed = if levers.mapped { self } else { self.resident()? };
        Ok(Self { levers, ..deployed })
    }

    /// The same network, computing where `compute` says: what runs, localizes or repairs it does so there.
    #[must_use]
    pub fn on(self, compute: &Compute) -> Self {
        Self { compute: compute.clone(), ..self }
    }

    /// All tensors as passes read them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when the device refuses.
    pub fn placed(&self) -> Result<Params> {
        self.params.placed(&self.compute)
    }

    /// How pixels become the network's input.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Config`] when mean or deviation are not usable.
    pub fn normalize(&self) -> Result<Normalize> {
        Normalize::new(self.network.input.mean.clone(), self.network.input.std.clone())
    }

    /// Checks that `images` are of the size the network takes and have its classes.
    ///
    /// # Errors
    ///
    /// [`crate::Error::ImageSize`] or [`crate::Error::Label`].
    pub fn check(&self, images: &Images) -> Result<()> {
        images.check(self.image_shape(), self.network.classes)
    }

    /// As [`Deployed::check`], of a set that is read when it is needed.
    ///
    /// # Errors
    ///
    /// As [`Deployed::check`].
    pub fn check_set(&self, set: &Set) -> Result<()> {
        set.check(self.image_shape(), self.network.classes)
    }

    /// `[c, h, w]` of the images that the network takes.
    fn image_shape(&self) -> [usize; 3] {
        [0, 1, 2].map(|i| self.network.input.shape[i])
    }
}

/// A network that only runs.
#[derive(Clone, Debug)]
pub struct Runner {
    pub(super) lowered: Lowered,
    pub(super) normalize: Normalize,
    /// Images that run together.
    batch: usize,
    pub(super) compute: Compute,
}

impl Runner {
    /// The same network with all its weights on the heap, on the CPU in the order in which kernels read
    /// them: for many passes.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when a weight cannot be read, [`crate::Error::Memory`] when the limit does
    /// not allow it.
    pub fn packed(self) -> Result<Self> {
        if !self.compute.is_host() {
            return Ok(self);
        }
        Ok(Self { lowered: packed(self.lowered, self.compute.precision)?, ..self })
    }

    /// Logits `[n, classes]` of `x` `[n, c, h, w]`, already normalized, in `f32` on the CPU: each operation
    /// makes a tensor where the network computes.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when the device refuses.
    pub fn run(&self, x: &Tensor) -> Result<Tensor> {
        to_host(&infer(&self.lowered.graph, &self.lowered.params, &self.compute.value(x)?)?)
    }

    /// What runs at most `batch` images of `shape` `[c, h, w]` at a time, as often as needed.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when the network does not take this shape, [`crate::Error::Memory`]
    /// when the limit does not allow its memory.
    pub fn session(&self, shape: [usize; 3], batch: usize) -> Result<Session<'_>> {
        Session::new(self, shape, batch)
    }

    /// Bytes that such a session holds on the CPU, known before there is one. What matrix products
    /// keep for each thread is not counted.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when the network does not take this shape.
    pub fn session_bytes(&self, shape: [usize; 3], batch: usize) -> Result<usize> {
        Ok(Session::layout(self, shape, batch)?.bytes())
    }

    /// Logits `[n, classes]` of a set on the CPU, a batch at a time.
    ///
    /// # Errors
    ///
    /// As [`Runner::session`] and [`Session::logits`].
    pub fn logits(&self, images: &Images) -> Result<Tensor> {
        let mut all = Vec::new();
        self.each_batch(images, |n, logits| {
            // As many for each image: the first batch tells.
            all.reserve_exact(if all.is_empty() { logits.len() / n * images.len() } else { 0 });
            all.extend_from_slice(logits);
        })?;
        let shape = (images.len(), all.len() / images.len().max(1));
        Tensor::from_vec(all, shape, &Device::Cpu).during("joining logits")
    }

    /// The most likely class of each image; the first of equals.
    ///
    /// # Errors
    ///
    /// As [`Runner::logits`].
    pub fn classes(&self, images: &Images) -> Result<Vec<usize>> {
        let mut classes = Vec::with_capacity(images.len());
        self.each_batch(images, |n, logits| {
            classes.extend(logits.chunks(logits.len() / n).map(first_greatest));
        })?;
        Ok(classes)
    }

    /// Shows how many images a batch has, and their logits, of a set that is read meanwhile: two batches
    /// are in memory, however many there are.
    ///
    /// # Errors
    ///
    /// As [`Runner::session`], [`Session::logits`] and [`Set::read`], and those of `show`.
    pub fn stream(&self, set: &Set, mut show: impl FnMut(usize, &[f32]) -> Result<()> + Send) -> Result<()> {
        let mut session = self.session(set.shape(), self.batch.min(set.len()))?;
        set.each_batch(self.batch, |_, images| {
            let all: Vec<usize> = (0..images.len()).collect();
            show(images.len(), session.logits(images, &all)?)
        })
    }

    /// The most likely class of each image, and how likely it is, of a set that is read meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Runner::stream`].
    pub fn answers(&self, set: &Set) -> Result<Answers> {
        let mut answers = Answers::default();
        self.stream(set, |n, logits| {
            answers.add(n, logits);
            Ok(())
        })?;
        Ok(answers)
    }

    /// Shows how many images a batch has, and their logits.
    fn each_batch(&self, images: &Images, mut show: impl FnMut(usize, &[f32])) -> Result<()> {
        let all: Vec<usize> = (0..images.len()).collect();
        let mut session = self.session(images.shape(), self.batch.min(all.len()))?;
        all.chunks(self.batch).try_for_each(|batch| {
            show(batch.len(), session.logits(images, batch)?);
            Ok(())
        })
    }
}

/// The class of the greatest logit of each row of `[n, classes]`; the first of equals.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when `logits` has another form.
pub fn greatest(logits: &Tensor) -> Result<Vec<usize>> {
    let rows = logits.to_vec2::<f32>().during("reading logits")?;
    Ok(rows.iter().map(|row| first_greatest(row)).collect())
}

pub(super) fn first_greatest(row: &[f32]) -> usize {
    (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_logits_wins() {
        let logits = Tensor::new(&[[0.0f32, 2.0, 2.0], [5.0, 1.0, 5.0]], &Device::Cpu).unwrap();
        assert_eq!(greatest(&logits).unwrap(), [1, 0]);
    }
}
