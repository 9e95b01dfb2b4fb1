//! Which block is to blame, and which block is best repaired.
//!
//! These are two questions. Damaged weights leave traces in the block that holds them:
//! [`spectrum`] (which neurons are active when the network fails), [`gradient`] (which weights
//! the loss of failures pulls at) and [`consistency`] (whether clean images still have the
//! statistics that were stored) find it. A shifted input leaves its traces in late blocks, yet
//! is best answered early: there [`race`], short trial repairs judged on held-back failures,
//! decides. [`rank`] puts the parts together.

pub mod consistency;
pub mod gradient;
pub mod neurons;
pub mod race;
pub mod rank;
pub mod rows;
pub mod spectrum;

pub use rank::{Config, Ranking, localize};
pub use spectrum::Formula;
