//! Networks for other programs: an ONNX graph, or merged weights with a module of PyTorch.
//!
//! Whatever a network is made of, a family of the zoo or a block that a search has changed, it is
//! written from its graph, so a repaired network goes where its base went.
//!
//! Reading order: [`onnx`], [`merged`].

pub mod merged;
pub mod onnx;
pub mod proto;

use crate::storage::Digest;

pub use onnx::{Batch, Pixels, Settings};

/// The files that a network is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Digest of the model file.
    pub base: Digest,
    /// Digest of the patch, where one is merged.
    pub patch: Option<Digest>,
}
