//! What a network says about images, and how two networks compare.

mod answers;
pub mod compare;
mod condition;
mod confusion;
pub mod corruption_error;
pub mod deployed;
mod session;

pub use answers::{Answers, BINS};
pub use compare::{Change, accuracy, mcnemar};
pub use condition::{Answered, Condition};
pub use confusion::{Cell, Confusion};
pub use corruption_error::{CorruptionErrors, Normalized, Reference};
pub use deployed::{Deployed, Runner};
pub use session::Session;
