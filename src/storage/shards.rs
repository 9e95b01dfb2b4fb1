//! Models in several safetensors files: an index names the file of each tensor.
//!
//! The index is JSON, as Hugging Face's tools write it:
//! `{"metadata": {...}, "weight_map": {"conv1.weight": "model-00001-of-00002.safetensors", ...}}`.
//! The files lie beside it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::header::{self, Entry};
use crate::error::{Error, Result};
use crate::storage::Bytes;

/// Tensors in several files.
#[derive(Debug)]
pub(super) struct Shards {
    /// The files.
    pub(super) files: Vec<Bytes>,
    /// For each tensor its file, and its place there.
    pub(super) entries: BTreeMap<String, (Bytes, Entry)>,
    /// The texts of all files.
    pub(super) metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Whether a file of this name is an index.
pub(super) fn is_index(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// Opens the files that the index `text` at `path` names.
pub(super) fn open(text: &[u8], path: &Path) -> Result<Shards> {
    let malformed = |problem| Error::Malformed { path: path.into(), problem };
    let no_index = |error| malformed(format!("it is no index of tensors: {error}"));
    let utf8 = std::str::from_utf8(text).map_err(|error| malformed(format!("it is no UTF-8: {error}")))?;
    header::refuse_duplicates(utf8).map_err(no_index)?;
    let index: Index = serde_json::from_str(utf8).map_err(no_index)?;
    let mut of_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, file) in &index.weight_map {
        of_file.entry(file).or_default().push(tensor);
    }
    let mut shards = Shards { files: Vec::new(), entries: BTreeMap::new(), metadata: BTreeMap::new() };
    for (file, tensors) in of_file {
        if Path::new(file).file_name().is_none_or(|name| name != file) {
            return Err(malformed(format!("it names the file `{file}`, expected one beside it")));
        }
        let shard = path.with_file_name(file);
        let bytes = Bytes::open(&shard)?;
        let mut header =
            header::parse(&bytes).map_err(|problem| Error::Malformed { path: shard.clone(), problem })?;
        for tensor in tensors {
            let entry = header.entries.remove(tensor);
            let entry = entry.ok_or_else(|| malformed(format!("`{file}` has no tensor `{tensor}`")))?;
            shards.entries.insert(tensor.into(), (bytes.clone(), entry));
        }
        shards.metadata.extend(header.metadata);
        shards.files.push(bytes);
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::storage::{Storage, WeightFile, serialize};

    fn write(folder: &Path, name: &str, tensor: &str, value: f32) {
        let tensors = BTreeMap::from([(tensor.to_owned(), Tensor::new(&[value], &Device::Cpu).unwrap())]);
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        std::fs::write(folder.join(name), serialize(&tensors, Storage::F32, &metadata).unwrap()).unwrap();
    }

    fn opened(folder: &Path, index: &str) -> Result<WeightFile> {
        let path = folder.join("model.safetensors.index.json");
        std::fs::write(&path, index).unwrap();
        WeightFile::open(&path)
    }

    #[test]
    fn tensors_of_several_files_are_one_model() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1.safetensors", "a", 1.0);
        write(folder.path(), "2.safetensors", "b", 2.0);
        let index = r#"{"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;
        let file = opened(folder.path(), index).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(file.metadata()["format"], "pt");
        for (name, value) in [("a", 1.0), ("b", 2.0)] {
            let tensor = file.tensor(name, &[1], &Device::Cpu).unwrap();
            assert_eq!(tensor.to_vec1::<f32>().unwrap(), [value]);
        }
        let (digest, len) = (file.digest(), file.len_bytes());
        assert!(len > index.len());
        write(folder.path(), "2.safetensors", "b", 3.0);
        assert_ne!(opened(folder.path(), index).unwrap().digest(), digest);
    }

    #[test]
    fn an_index_that_does_not_fit_its_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1.safetensors", "a", 1.0);
        for (index, want) in [
            (r#"{"weight_map":{"b":"1.safetensors"}}"#, "`1.safetensors` has no tensor `b`"),
            (
                r#"{"weight_map":{"a":"../1.safetensors"}}"#,
                "it names the file `../1.safetensors`, expected one beside it",
            ),
            (r#"{"weight_map":{"a":""}}"#, "it names the file ``, expected one beside it"),
            (r#"{"weight_map":{"a":"1.safetensors","a":"1.safetensors"}}"#, "`a` stands twice"),
            ("[]", "it is no index of tensors"),
        ] {
            let error = opened(folder.path(), index).unwrap_err();
            assert!(error.code() == 13 && error.to_string().contains(want), "{error}");
        }
        let error = opened(folder.path(), r#"{"weight_map":{"a":"3.safetensors"}}"#).unwrap_err();
        assert_eq!(error.code(), 11);
    }
}
