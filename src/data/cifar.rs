//! CIFAR-10 and CIFAR-100 in their binary form: records of labels and 3 x 32 x 32 bytes.
//!
//! ```text
//! CIFAR-10     class                3072 bytes, plane by plane    data_batch_1.bin ... test_batch.bin
//! CIFAR-100    superclass, class    3072 bytes, plane by plane    train.bin, test.bin
//! ```
//!
//! Names of classes stand in `batches.meta.txt` or `fine_label_names.txt` beside them, where they are.
//!
//! # Source
//!
//! Krizhevsky, "The CIFAR-10 dataset", section "Binary version".

use std::fs;
use std::path::{Path, PathBuf};

use super::folder::list;
use super::records::{Order, Piece, Records};
use super::set::Set;
use crate::error::{Error, Result};
use crate::storage::Bytes;

/// `[c, h, w]` of every image.
const SHAPE: [usize; 3] = [3, 32, 32];

/// Bytes of an image.
const IMAGE: usize = 3 * 32 * 32;

/// Which of the two sets a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ten,
    Hundred,
}

impl Family {
    /// That of a file, by its name.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        match name {
            "test.bin" | "train.bin" => Some(Self::Hundred),
            "test_batch.bin" => Some(Self::Ten),
            _ => (name.starts_with("data_batch_") && name.ends_with(".bin")).then_some(Self::Ten),
        }
    }

    /// Bytes of labels before an image; the last is the class.
    fn labels(self) -> usize {
        match self {
            Self::Ten => 1,
            Self::Hundred => 2,
        }
    }

    fn classes(self) -> u8 {
        match self {
            Self::Ten => 10,
            Self::Hundred => 100,
        }
    }

    /// The file with the names of the classes.
    fn names(self) -> &'static str {
        match self {
            Self::Ten => "batches.meta.txt",
            Self::Hundred => "fine_label_names.txt",
        }
    }
}

/// Whether a file's name is one of theirs.
pub(super) fn is_file(path: &Path) -> bool {
    Family::of(path).is_some()
}

/// The files for training or for the test in a folder, by name.
pub(super) fn part(folder: &Path, is_test: bool) -> Result<Vec<PathBuf>> {
    let mut files = list(folder)?;
    files.retain(|path| is_file(path) && path.is_file());
    files.retain(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("test") == is_test)
    });
    Ok(files)
}

/// The images of files of one set, one after another; `path` is what the user named.
///
/// # Errors
///
/// [`Error::File`] when a file cannot be mapped, [`Error::Malformed`] when one is no whole number of
/// records, a label is no class, or there are not as many names as classes.
pub(super) fn open(files: &[PathBuf], path: &Path) -> Result<Set> {
    let Some(family) = files.first().and_then(|file| Family::of(file)) else {
        let want = "a file of CIFAR".into();
        return Err(Error::Config { field: "data", got: path.display().to_string(), want });
    };
    let (mut pieces, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        pieces.push(records(file, family, &mut labels)?);
    }
    let set = Set::new(SHAPE, Records { pieces, order: Order::Planes, channels: SHAPE[0] }, labels, path)?;
    let names = files[0].with_file_name(family.names());
    if names.exists() { set.named(class_names(&names, family)?) } else { Ok(set) }
}

/// Maps a file and adds its labels.
fn records(path: &Path, family: Family, labels: &mut Vec<u32>) -> Result<Piece> {
    let malformed = |problem| Err(Error::Malformed { path: path.into(), problem });
    let (bytes, before) = (Bytes::open(path)?, family.labels());
    let stride = before + IMAGE;
    if !bytes.len().is_multiple_of(stride) {
        return malformed(format!("{} bytes are no whole number of records of {stride}", bytes.len()));
    }
    for (i, record) in bytes.chunks_exact(stride).enumerate() {
        let (label, classes) = (record[before - 1], family.classes());
        if label >= classes {
            return malformed(format!("record {i} has the label {label}, expected 0 to {}", classes - 1));
        }
        labels.push(label.into());
    }
    // The pages that the labels were read from are all the file's.
    bytes.release();
    Ok(Piece { images: bytes.len() / stride, start: before, stride, bytes })
}

/// A name a line.
fn class_names(path: &Path, family: Family) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect();
    if names.len() == usize::from(family.classes()) {
        return Ok(names);
    }
    let problem = format!("holds {} names, expected {}, one a line", names.len(), family.classes());
    Err(Error::Malformed { path: path.into(), problem })
}
