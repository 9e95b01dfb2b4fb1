//! Runs convnets on edge devices and repairs them there.

pub mod cli;
pub mod data;
pub mod device;
pub mod engine;
pub mod error;
pub mod eval;
pub mod export;
pub mod fit;
pub mod graph;
pub mod kernels;
pub mod localize;
pub mod memory;
#[allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait
pub mod meter;
pub mod repair;
pub mod report;
pub mod rng;
pub mod search;
pub mod storage;
pub mod zoo;

pub use error::{Error, Result};
