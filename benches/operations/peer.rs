//! A convolution as files for `benches/peers/convolution.py`.
//!
//! | file | what |
//! |---|---|
//! | `convolution.json` | the convolution as a graph has it |
//! | `tensors.safetensors` | `x`, `w` and `dy` |

use std::collections::BTreeMap;
use std::path::Path;

use archrepair::storage::{Storage, serialize};

use crate::kernels::{Convolution, convolutions};

/// Writes the convolution `name` to `folder`; whether there is one.
pub(crate) fn write(name: &str, folder: &Path) -> bool {
    let Some((_, conv, shape)) = convolutions().into_iter().find(|(of, ..)| *of == name) else {
        return false;
    };
    let Convolution { x, w, dy, .. } = Convolution::new(conv, shape);
    let tensors = BTreeMap::from([("x".to_owned(), x), ("w".to_owned(), w), ("dy".to_owned(), dy)]);
    let bytes = serialize(&tensors, Storage::F32, &BTreeMap::new()).unwrap();
    std::fs::write(folder.join("tensors.safetensors"), bytes).unwrap();
    std::fs::write(folder.join("convolution.json"), serde_json::to_vec(&conv).unwrap()).unwrap();
    true
}
