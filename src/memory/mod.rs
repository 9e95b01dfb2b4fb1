//! Bytes: how many there are now, and how many there were at the worst moment.

pub mod cache;
pub mod levers;
#[allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait
pub mod meter;

pub use levers::Levers;
pub use meter::{Meter, ProcessMemory};
