//! Runs convnets on edge devices and repairs them there.

pub mod device;
pub mod error;
pub mod graph;
pub mod kernels;
pub mod memory;
pub mod rng;
pub mod storage;

pub use error::{Error, Result};
