//! Bytes: how many there are now, and how many there were at the worst moment.

pub mod cache;

pub use crate::meter::{self, Meter, ProcessMemory};
