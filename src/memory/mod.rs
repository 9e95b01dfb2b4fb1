//! Bytes: how many there are now, and how many there were at the worst moment.

pub mod cache;
pub mod ledger;
pub mod levers;
pub mod plan;
mod uses;

pub use crate::meter::{self, Meter, ProcessMemory};
pub use levers::Levers;
pub use uses::Use;
