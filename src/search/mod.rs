//! Search for a better architecture and weights of one part, together.
//!
//! [`space`] relaxes the part: at every position a mixture of the deployed operation and
//! alternatives that all start as it, so the relaxed part starts as the deployed one, exactly.
//! [`bilevel`] trains weights on training batches and choice weights on validation batches.
//! [`worth`] takes each alternative out in turn and asks what that does.
//! [`discretize`] keeps at each position the alternative whose removal hurts most, or none.
//! [`paths`] does so with a part of the alternatives at a time, where memory is short.
//! [`genotype`] says in a few words what was chosen.

pub mod bilevel;
mod builder;
pub mod candidate;
pub mod discretize;
pub mod genotype;
pub mod paths;
pub mod space;
pub mod worth;

pub use bilevel::{Config, search};
pub use genotype::Genotype;
pub use space::{Position, Space};
