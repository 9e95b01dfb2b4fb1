//! Everything that is tested from outside of the crate, one file a topic.
//!
//! - [`golden_operations`], [`golden_networks`]: the numbers of PyTorch.
//! - [`gradients`]: every gradient against finite differences.
//! - [`halves`]: half precision, and the code of devices on the CPU.
//! - [`lowering`]: the same function in fewer nodes.
//! - [`levers`]: the same patch with less memory.
//! - [`mapped`]: weights that stay in the file give the same bits.
//! - [`determinism`], [`threads`]: the same bytes on any number of threads; of kernels, for random shapes.
//! - [`onnx`]: exported graphs, run by a second reading of the operators.
//! - [`executor`]: inference in planned memory, bit by bit.
//! - [`recompute`]: gradients with less memory, bit by bit.
//! - [`search`]: what a search starts from.
//! - [`sets`], [`resizing`], [`corruptions`]: data sets as files, pictures as torchvision cuts them, and damage
//!   as the Python package `imagecorruptions` does it.
//! - [`errors`]: what failures say.
//! - [`zoo`]: every family, from the names of others to their logits and to a repair.
//! - [`tree`]: what holds of the source itself.

// Helpers of tests stand outside of the functions that clippy takes for tests.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod corruptions;
mod determinism;
mod devices;
mod errors;
mod executor;
mod golden_networks;
mod golden_operations;
mod gradients;
mod levers;
mod lowering;
mod mapped;
mod onnx;
mod race;
mod random_graphs;
mod re_estimation;
mod recompute;
mod resizing;
mod search;
mod sets;
mod support;
mod threads;
mod tree;
mod zoo;
