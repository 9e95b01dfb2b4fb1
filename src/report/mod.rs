//! What the subcommands print: the same facts as text for people and as JSON for programs.
//!
//! A struct of facts has `text`, plain tables with a legend, and is turned into JSON by serde.
//! Nothing here computes or prints.

pub mod evaluation;
pub mod footprint;
pub mod inspection;
pub mod outcome;
pub mod plan;
pub mod ranking;
pub mod speed;
pub mod spent;
pub mod table;
pub mod units;

pub use evaluation::Evaluation;
pub use inspection::Inspection;
pub use outcome::Report;
pub use spent::Spent;
pub use table::{Table, changes};
