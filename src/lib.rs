//! Runs convnets on edge devices and repairs them there.

pub mod data;
pub mod device;
pub mod error;
pub mod graph;
pub mod kernels;
pub mod rng;

pub use error::{Error, Result};
