//! Files: how bytes of others are read without trust, and how our own are written so that
//! nothing is ever lost.
//!
//! 1. A file that is read is mapped, so weights cost no memory of their own ([`Bytes`]).
//! 2. Bytes of others give a value or an error, never a panic, and no number in them decides
//!    about an allocation before it has been checked against the length of the file.
//! 3. What was hashed is what is used: digest and tensors come from the same mapping.
//! 4. A file that is written appears whole or not at all, and an output is never overwritten
//!    ([`publish()`]).
//! 5. The same tensors and metadata give the same bytes.
//!
//! Reading order: [`Bytes`], [`WeightFile`], [`Patch`], [`publish()`].

pub mod digest;
pub mod elements;
mod header;
#[allow(unsafe_code)] // the one file of this folder that maps memory
pub mod mmap;
pub mod patch;
mod pickle;
pub mod publish;
pub mod publish_folder;
mod shards;
mod torch;
pub mod view;
pub mod weights;

pub use digest::Digest;
pub use elements::Storage;
pub use mmap::Bytes;
pub use patch::{Patch, PatchHeader};
pub use publish::{check_free, publish, replace};
pub use publish_folder::publish_folder;
pub use safetensors::Dtype;
pub use view::View;
pub use weights::{WeightFile, serialize};

#[cfg(target_endian = "big")]
compile_error!("weights are read in place as little-endian numbers; big-endian machines are not supported");
