//! Model and patch as one safetensors file, and a module of PyTorch that opens it.
//!
//! Tensors have the names they have in the network. A block that kept its shape has those of the base
//! file: where the whole architecture did, `load_state_dict` of the original PyTorch model takes the
//! file as it is. What a search has added to the block `layer1.0` is named after its place:
//!
//! | tensors | what they are |
//! |---|---|
//! | `layer1.0.input.normalize.*` | one of `normalize`, `condition`, `blur`, `branch` before the block |
//! | `layer1.0.conv1.sep_conv_3x3.*` | a candidate beside the convolution `layer1.0.conv1` |
//! | `layer1.0.input.normalize.open.gate` | how much of it counts, one number a channel |
//!
//! The network itself stands as JSON in the metadata entry [`METADATA`]. [`MODULE`] is a file for
//! PyTorch that builds the network from both; it needs `torch` and `safetensors`, and nothing of ours.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::storage::{Bytes, Storage, serialize};
use crate::zoo::{METADATA, Model};

/// A file of Python: `load(path)` gives the network of a merged file as a `torch.nn.Module`.
pub const MODULE: &str = include_str!("module.py");

/// The file, opened again before anyone else can; errors call it `path`.
///
/// # Errors
///
/// As for [`serialize`]; [`Error::Malformed`] when it does not read back.
pub fn merged(deployed: &Deployed, store: Storage, path: &Path) -> Result<Bytes> {
    let metadata = BTreeMap::from([(METADATA.to_owned(), deployed.network.to_json()?)]);
    let bytes = Bytes::from(serialize(&deployed.params.tensors()?, store, &metadata)?);
    let model = Model::from_bytes(bytes.clone(), path)?;
    model.params()?;
    if model.network != *deployed.network {
        let problem = "the network does not read back as it was written".into();
        return Err(Error::Malformed { path: path.into(), problem });
    }
    Ok(bytes)
}
