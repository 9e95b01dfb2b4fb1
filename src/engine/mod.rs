//! Runs graphs: forward alone, and forward and backward.
//!
//! There is no recorded tape. [`infer`] keeps a value until its last use and nothing after it.
//! [`grad`] decides for each node what its backward pass needs, keeps that alone, and skips
//! every gradient that leads to nothing that is trained. [`executor`] does what [`infer`] does in
//! memory that [`layout`] has planned. Reading order: [`infer`], [`layout`], [`executor`],
//! [`packing`], [`grad`], [`checkpoint`], [`optim`], [`scaling`].

pub mod checkpoint;
pub mod executor;
pub mod grad;
pub mod infer;
pub mod layout;
pub mod optim;
pub mod packing;
pub mod scaling;
