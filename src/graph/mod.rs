//! Networks as data: graphs of primitive operations.

pub mod op;
