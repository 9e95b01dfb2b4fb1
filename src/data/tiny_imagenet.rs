//! Tiny-ImageNet's pictures for validation: all in one folder, their classes in a file.
//!
//! ```text
//! wnids.txt                  a class a line: n02124075
//! words.txt                  what it is: n02124075, a tabulator, Egyptian cat
//! train/CLASS/images/*.JPEG
//! val/images/*.JPEG          with val/val_annotations.txt: file, class and a box, by tabulators
//! ```
//!
//! Classes are in byte order, as those of `train` are, which is a [`folder`](super::folder) by class;
//! so is every folder `CORRUPTION/SEVERITY` of Tiny-ImageNet-C. Boxes are passed over.
//!
//! # Source
//!
//! The layout of the data of Stanford's course CS231n, and of Hendrycks and Dietterich 2019.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::set::Set;
use super::{Fit, decode, folder};
use crate::error::{Error, Result};

const ANNOTATIONS: &str = "val_annotations.txt";
const CLASSES: &str = "wnids.txt";
const WORDS: &str = "words.txt";

/// Whether a folder is the whole data set.
pub(super) fn is_root(folder: &Path) -> bool {
    folder.join(CLASSES).is_file()
}

/// The pictures in `folder`, `train` or `val`; `None` when it is neither.
///
/// # Errors
///
/// [`Error::File`] when a file of texts cannot be read, [`Error::Malformed`] when a line names no file and
/// class, a file elsewhere or no class of `wnids.txt`; those of a folder of pictures.
pub(super) fn open(folder: &Path, set: &'static str, fit: &Fit) -> Result<Option<Set>> {
    let root = folder.parent().unwrap_or(folder);
    let annotations = folder.join(ANNOTATIONS);
    if annotations.is_file() {
        let opened = validation(folder, (&annotations, &root.join(CLASSES)), set, fit)?;
        return named(opened, &root.join(WORDS)).map(Some);
    }
    if is_root(root) && !is_root(folder) {
        return named(folder::open(folder, set, fit)?, &root.join(WORDS)).map(Some);
    }
    Ok(None)
}

fn validation(
    folder: &Path,
    (annotations, classes): (&Path, &Path),
    set: &'static str,
    fit: &Fit,
) -> Result<Set> {
    let text = read(annotations)?;
    let malformed = |i: usize, problem: &str| Error::Malformed {
        path: annotations.into(),
        problem: format!("line {}: {problem}", i + 1),
    };
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut parts = line.split('\t').map(str::trim);
        let (Some(file), Some(class)) = (parts.next(), parts.next()) else {
            return Err(malformed(i, "expected a file, a tabulator and a class"));
        };
        rows.push((i, file, class));
    }
    // The file of all classes counts; without it those that pictures have.
    let listed = if classes.is_file() { Some(read(classes)?) } else { None };
    let mut names: Vec<String> = match &listed {
        Some(text) => text.split_whitespace().map(Into::into).collect(),
        None => rows.iter().map(|(_, _, class)| (*class).into()).collect(),
    };
    names.sort();
    names.dedup();
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (i, file, class) in rows {
        let label = names.binary_search_by(|name| name.as_str().cmp(class));
        let label = label.map_err(|_| malformed(i, &format!("`{class}` is no class of {CLASSES}")))?;
        if !decode::is_below(file) {
            let want = "expected one in `images` or below";
            return Err(malformed(i, &format!("names the file `{file}`, {want}")));
        }
        files.push(folder.join("images").join(file));
        labels.push(label as u32);
    }
    decode::set(files, labels, (folder, set), fit)?.named(names)
}

/// The set with the words for its classes, where there is a file of them.
fn named(set: Set, words: &Path) -> Result<Set> {
    if !words.is_file() {
        return Ok(set);
    }
    let text = read(words)?;
    let known: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('\t')).collect();
    let names = set.class_names().unwrap_or_default().iter();
    let names = names.map(|name| known.get(name.as_str()).map(|words| words.trim().to_owned())).collect();
    Ok(set.also_named(names))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::file("read", path))
}
