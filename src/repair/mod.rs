//! From failures to a patch: re-estimate, localize, search or fit, judge, write.
//!
//! 1. Failures that the network gets right are left out; the rest and the replay are split, so
//!    that nothing is judged on what it was trained on ([`sets`]).
//! 2. Batch-norm statistics are re-estimated; where that alone helps on failures and on passes,
//!    the repair starts from there ([`batch_norm`]).
//! 3. The block is chosen ([`crate::localize`]), unless the user has.
//! 4. Its architecture and weights are searched, or its weights alone are trained.
//! 5. The result is rounded as the patch stores it, read back, and judged by the [`gate`]. A
//!    result that breaks too much is drawn back towards the deployed network until it passes,
//!    or refused.
//!
//! What each phase will hold is known before any of it runs ([`plan`](mod@plan)).
//!
//! Reading order: [`pipeline`], [`gate`], [`sets`], [`plan`](mod@plan).

pub mod batch_norm;
mod bytes;
pub mod config;
pub mod counts;
mod finish;
pub mod gate;
pub mod patching;
pub mod phases;
pub mod pipeline;
pub mod plan;
pub mod sets;
mod settings;

pub use config::{Config, Method, Target};
pub use counts::Counts;
pub use gate::{Gate, Verdict};
pub use phases::Phase;
pub use pipeline::{Outcome, repair, repair_as_planned};
pub use plan::{Plan, plan};
pub use sets::Inputs;
