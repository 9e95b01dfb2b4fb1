//! Finds out what kind of data set a path is, and opens it.

use std::fs;
use std::path::{Path, PathBuf};

use super::set::Set;
use super::{Fit, Images, cifar, folder, idx, npy, table, tensors, tiny_imagenet};
use crate::error::{Error, Result};

/// All labelled images at `path`, see [`open_set`], kept for work that looks at them again and again.
///
/// # Errors
///
/// As [`open_set`] and [`Set::keep`].
pub fn open(path: &Path, set: &'static str) -> Result<Images> {
    open_set(path, set, &Fit::default())?.keep()
}

/// The labelled images at `path`, read when they are needed. `set` is the set's role, for errors:
/// failure, replay, guard. Pictures in files are made to `fit`.
///
/// | `path` | read as |
/// |---|---|
/// | a file like `train-images-idx3-ubyte.gz`, or a folder with one such file | [`idx`], labels in `train-labels-idx1-ubyte.gz` |
/// | `data_batch_1.bin`, `test_batch.bin`, `train.bin`, `test.bin`; a folder of them with `/train` or `/test` behind it | CIFAR-10 and CIFAR-100, binary |
/// | a file like `fog.npy`, or `fog.npy:3` for one severity | CIFAR-10-C, labels in `labels.npy` |
/// | a safetensors file | tensors `images` and `labels` |
/// | a CSV file, or a folder with `labels.csv` | pictures listed with their classes |
/// | `train` or `val` beside `wnids.txt` | Tiny-ImageNet |
/// | any other folder | [`folder`]: each sub-folder is a class, as in ImageNet and Tiny-ImageNet-C |
///
/// # Errors
///
/// [`Error::Empty`] for no image, [`Error::Config`] for a folder of several sets, a file of another kind or
/// a wrong `fit`; [`Error::File`], [`Error::ImageSize`], [`Error::Malformed`] and others as in each.
pub fn open_set(path: &Path, set: &'static str, fit: &Fit) -> Result<Set> {
    fit.check()?;
    let opened = match part(path)? {
        Some(opened) => opened,
        None if fs::metadata(path).map_err(Error::file("open", path))?.is_dir() => in_folder(path, set, fit)?,
        None => file(path, set, fit)?,
    };
    if opened.is_empty() {
        return Err(Error::Empty { set, path: path.into() });
    }
    Ok(opened.fitted(fit))
}

/// What is no file: `fog.npy:3`, and `train` and `test` of a folder of CIFAR.
fn part(path: &Path) -> Result<Option<Set>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    if path.exists() {
        return Ok(None);
    }
    if let Some((file, severity)) = name.split_once(".npy:") {
        let severity = npy::severity(severity)?;
        return npy::open(&folder.join(format!("{file}.npy")), Some(severity)).map(Some);
    }
    let files = match name {
        "test" | "train" if folder.is_dir() => cifar::part(folder, name == "test")?,
        _ => Vec::new(),
    };
    if files.is_empty() { Ok(None) } else { cifar::open(&files, path).map(Some) }
}

fn in_folder(path: &Path, set: &'static str, fit: &Fit) -> Result<Set> {
    let files = idx::images_files(path)?;
    match &files[..] {
        [] => {}
        [file] => return idx_pair(file),
        several => {
            let names: Vec<_> = several.iter().map(|file| file.display().to_string()).collect();
            let want = format!("the path of one: {}", names.join(" or "));
            return Err(ambiguous(path, format!("{} IDX image files", several.len()), want));
        }
    }
    let one_of = |parts: [&str; 2]| {
        let [first, second] = parts.map(|part| path.join(part).display().to_string());
        format!("{first} or {second}")
    };
    match [cifar::part(path, false)?, cifar::part(path, true)?] {
        [train, test] if !train.is_empty() && !test.is_empty() => {
            return Err(ambiguous(path, "both sets of CIFAR".into(), one_of(["train", "test"])));
        }
        [train, test] if !train.is_empty() || !test.is_empty() => {
            return cifar::open(&[train, test].concat(), path);
        }
        _ => {}
    }
    if tiny_imagenet::is_root(path) {
        return Err(ambiguous(path, "the sets of Tiny-ImageNet".into(), one_of(["train", "val"])));
    }
    if path.join("labels.npy").is_file() {
        return Err(ambiguous(path, "NPY files".into(), one_of(["fog.npy", "fog.npy:3"])));
    }
    if path.join(table::NAME).is_file() {
        return table::open(&path.join(table::NAME), set, fit);
    }
    match tiny_imagenet::open(path, set, fit)? {
        Some(opened) => Ok(opened),
        None => folder::open(path, set, fit),
    }
}

fn file(path: &Path, set: &'static str, fit: &Fit) -> Result<Set> {
    if cifar::is_file(path) {
        return cifar::open(&[path.to_path_buf()], path);
    }
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => table::open(path, set, fit),
        Some("npy") => npy::open(path, None),
        Some("safetensors") => tensors::open(path),
        _ => idx_pair(path),
    }
}

fn idx_pair(images: &Path) -> Result<Set> {
    Ok(idx::read(images, &labels_of(images)?)?.into())
}

/// The labels file of an images file.
fn labels_of(images: &Path) -> Result<PathBuf> {
    idx::labels_file(images).ok_or_else(|| Error::Config {
        field: "data",
        got: format!("the file {}", images.display()),
        want: "a folder, or a file named like train-images-idx3-ubyte.gz, test_batch.bin, fog.npy, \
               x.safetensors or x.csv"
            .into(),
    })
}

/// Says which sets there are to choose from.
fn ambiguous(folder: &Path, what: String, want: String) -> Error {
    Error::Config { field: "data", got: format!("the folder {} with {what}", folder.display()), want }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes one pair named by `prefix`, of one image of 1x1x1 with this pixel.
    fn put(folder: &Path, prefix: &str, pixel: u8) {
        let images = Images::from_parts([1, 1, 1], vec![pixel], vec![0], "t").unwrap();
        let (pixels, labels) = idx::encode(&images).unwrap();
        fs::write(folder.join(format!("{prefix}images-idx3-ubyte.gz")), pixels).unwrap();
        fs::write(folder.join(format!("{prefix}labels-idx1-ubyte.gz")), labels).unwrap();
    }

    #[test]
    fn a_folder_with_one_pair_is_read_and_with_two_needs_a_choice() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "t10k-", 7);
        assert_eq!(open(folder.path(), "guard").unwrap().pixels()[..], [7]);

        put(folder.path(), "train-", 9);
        let error = open(folder.path(), "guard").unwrap_err();
        let text = error.to_string();
        assert_eq!(error.code(), 10);
        assert!(
            text.contains("2 IDX image files")
                && text.contains("t10k-images")
                && text.contains("train-images")
        );
        let chosen = folder.path().join("train-images-idx3-ubyte.gz");
        assert_eq!(open(&chosen, "guard").unwrap().pixels()[..], [9]);
    }

    #[test]
    fn an_images_file_without_its_labels_names_the_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "", 7);
        fs::remove_file(folder.path().join("labels-idx1-ubyte.gz")).unwrap();
        let text = open(folder.path(), "guard").unwrap_err().to_string();
        assert!(text.starts_with("cannot open ") && text.ends_with("labels-idx1-ubyte.gz"), "{text}");
    }

    #[test]
    fn no_image_no_path_and_another_file_are_three_errors() {
        let folder = tempfile::tempdir().unwrap();
        let empty = open(folder.path(), "replay").unwrap_err();
        assert!(empty.to_string().starts_with("replay set ") && empty.code() == 20);
        assert_eq!(open(&folder.path().join("none"), "replay").unwrap_err().code(), 11);
        let other = folder.path().join("notes.txt");
        fs::write(&other, "hello").unwrap();
        assert_eq!(open(&other, "replay").unwrap_err().code(), 10);

        let (none, labels) =
            idx::encode(&Images::from_parts([1, 1, 1], vec![], vec![], "t").unwrap()).unwrap();
        fs::write(folder.path().join("images-idx3-ubyte"), none).unwrap();
        fs::write(folder.path().join("labels-idx1-ubyte"), labels).unwrap();
        assert_eq!(open(folder.path(), "replay").unwrap_err().code(), 20);
    }
}
