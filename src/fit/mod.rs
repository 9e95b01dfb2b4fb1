//! Training of one part of a network while the rest stands still.
//!
//! [`Site`] cuts the network into a frozen prefix, the part that is trained and a frozen
//! suffix. [`Samples`] run the prefix once for each image and keep its output in a file.
//! [`train`] then trains the [`Part`] on batches of failures and replay. Localization (its trial
//! repairs), search and every level of repair use these three. [`bytes`] says beforehand what a step
//! takes.

pub mod bytes;
pub mod cuts;
pub mod part;
pub mod samples;
pub mod scratch;
pub mod site;
pub mod train;

pub use cuts::Cuts;
pub use part::Part;
pub use samples::Samples;
pub use site::{Level, Site};
pub use train::{Config, Sets, Training, fit};
