//! Bytes: how many there are now, and how many there were at the worst moment.

pub mod cache;
pub mod levers;

pub use crate::meter::{self, Meter, ProcessMemory};
pub use levers::Levers;
