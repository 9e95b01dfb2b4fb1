//! The program as a user meets it: its output, its exit status, and what it leaves behind.

// Helpers of tests stand outside of the functions that clippy takes for tests.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod bench;
mod export;
mod instructions;
mod kill;
mod memory;
mod output;
mod repeat;
mod support;
