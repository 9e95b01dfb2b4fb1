//! What a network says about images, and how two networks compare.

pub mod compare;
pub mod deployed;

pub use compare::{Change, accuracy, mcnemar};
pub use deployed::{Deployed, Runner};
