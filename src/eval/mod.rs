//! What a network says about images, and how two networks compare.

pub mod compare;
pub mod deployed;
mod session;

pub use compare::{Change, accuracy, mcnemar};
pub use deployed::{Deployed, Runner};
pub use session::Session;
