//! Features at several blocks from one pass over the images.
//!
//! Whoever compares blocks runs the same frozen network for each of them. Here the network is cut before
//! each block; an image goes through the pieces once, and what enters a block is added to that block's
//! samples as it comes by. The deployed network's opinion, the output of the last piece, is the same for
//! all blocks and kept once.

use std::iter::once;
use std::sync::Arc;

use candle_core::Tensor;

use super::Samples;
use super::samples::Store;
use crate::data::{Images, Normalize};
use crate::device::to_host;
use crate::engine::infer::Forward;
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::graph::lower::{Lowered, lower};
use crate::graph::op::Shape;
use crate::kernels::cross_entropy;
use crate::memory::cache::{Cache, Precision};

/// A network cut before several of its blocks.
#[derive(Debug)]
pub struct Cuts<'a> {
    deployed: &'a Deployed,
    normalize: Normalize,
    /// One that ends at each block, and the rest.
    pieces: Vec<Lowered>,
    /// Shape of what enters each block.
    inputs: Vec<Shape>,
}

impl<'a> Cuts<'a> {
    /// Cuts `deployed` before each of `blocks`, which stand in the network's order.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] for a block that is not there, [`Error::Graph`] for another order.
    pub fn new(deployed: &'a Deployed, blocks: &[String]) -> Result<Self> {
        let Deployed { network, params, compute, .. } = deployed;
        let starts = blocks.iter().map(|block| network.block_index(block)).collect::<Result<Vec<_>>>()?;
        if !starts.is_sorted_by(|a, b| a < b) {
            let problem = format!("blocks {} are not in the network's order", blocks.join(", "));
            return Err(Error::Graph { node: "cuts".into(), problem });
        }
        let shapes = network.shapes()?;
        let ends: Vec<usize> =
            once(0).chain(starts.iter().copied()).chain(once(network.parts.len())).collect();
        let piece = |ends: &[usize]| lower(&network.joined(ends[0]..ends[1]), params)?.placed(compute);
        Ok(Self {
            deployed,
            normalize: deployed.normalize()?,
            pieces: ends.windows(2).map(piece).collect::<Result<_>>()?,
            inputs: starts.into_iter().map(|start| shapes[start].clone()).collect(),
        })
    }

    /// Samples of `images` at each block, as [`Samples::new`] makes them.
    ///
    /// # Errors
    ///
    /// As [`Samples::new`].
    pub fn samples(&self, images: &Images, store: Store) -> Result<Vec<Samples>> {
        self.pass(images, store, None)
    }

    /// As [`Cuts::samples`], and asks the deployed network for its opinion.
    ///
    /// # Errors
    ///
    /// As [`Samples::new`].
    pub fn taught(&self, images: &Images, store: Store) -> Result<Vec<Samples>> {
        let mut teacher = Cache::create(store.folder, &[self.deployed.network.classes], Precision::F32)?;
        let samples = self.pass(images, store, Some(&mut teacher))?;
        teacher.finish()?;
        let teacher = Arc::new(teacher);
        samples.into_iter().map(|samples| samples.taught_by(teacher.clone())).collect()
    }

    fn pass(&self, images: &Images, store: Store, mut teacher: Option<&mut Cache>) -> Result<Vec<Samples>> {
        let create = |input: &Shape| Cache::create(store.folder, input, store.precision);
        let mut features = self.inputs.iter().map(create).collect::<Result<Vec<_>>>()?;
        let all: Vec<usize> = (0..images.len()).collect();
        let (before, rest) = self.pieces.split_at(features.len());
        for batch in all.chunks(self.deployed.levers.infer_batch) {
            let mut x = self.deployed.compute.value(&images.batch(batch, &self.normalize)?)?;
            for (piece, features) in before.iter().zip(&mut features) {
                x = run(piece, x)?;
                features.push(&to_host(&x)?)?;
            }
            if let (Some(teacher), [rest]) = (&mut teacher, rest) {
                teacher.push(&cross_entropy::softmax(&to_host(&run(rest, x)?)?)?)?;
            }
        }
        let labels: Arc<[u32]> = images.labels().into();
        let samples = |mut features: Cache| {
            features.finish()?;
            Samples::of(features, labels.clone(), self.deployed.network.classes)
        };
        features.into_iter().map(samples).collect()
    }
}

/// The output of `piece` for `x`, which is let go at its last use.
fn run(piece: &Lowered, x: Tensor) -> Result<Tensor> {
    let pass = Forward::new(&piece.graph, &piece.params, &x);
    drop(x);
    pass.finish()
}
