//! Finds out what kind of data set a path is, and reads it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Images, folder, idx};
use crate::error::{Error, Result};

/// The labelled images at `path`: an IDX images file, a folder with one IDX pair, or a folder of
/// images by class. `set` is the set's role, for errors: failure, replay, guard.
///
/// | `path` | read as |
/// |---|---|
/// | a file like `train-images-idx3-ubyte.gz` | IDX, labels in `train-labels-idx1-ubyte.gz` |
/// | a folder that holds one such file | IDX |
/// | any other folder | [`folder`]: each sub-folder is a class |
///
/// # Errors
///
/// [`Error::Empty`] for no image, [`Error::Config`] for a folder of several IDX pairs or a file
/// of another kind, [`Error::File`], [`Error::ImageSize`] and [`Error::Malformed`] as in [`idx`]
/// and [`folder`].
pub fn open(path: &Path, set: &'static str) -> Result<Images> {
    open_as(path, set, None)
}

/// As [`open`], with the number of `channels` of a folder of images (1 or 3) instead of that of
/// the first image; IDX files say it themselves.
///
/// # Errors
///
/// Those of [`open`].
pub fn open_as(path: &Path, set: &'static str, channels: Option<usize>) -> Result<Images> {
    let is_folder = fs::metadata(path).map_err(Error::file("open", path))?.is_dir();
    let files = if is_folder { idx::images_files(path)? } else { vec![path.to_path_buf()] };
    let images = match &files[..] {
        [] => folder::read(path, set, channels)?,
        [file] => idx::read(file, &labels_of(file)?)?,
        several => return Err(ambiguous(path, several)),
    };
    if images.is_empty() {
        return Err(Error::Empty { set, path: path.into() });
    }
    Ok(images)
}

/// The labels file of an images file.
fn labels_of(images: &Path) -> Result<PathBuf> {
    idx::labels_file(images).ok_or_else(|| Error::Config {
        field: "data",
        got: format!("the file {}", images.display()),
        want: "a folder, or a file named like `train-images-idx3-ubyte.gz`".into(),
    })
}

/// Says which files there are to choose from.
fn ambiguous(folder: &Path, files: &[PathBuf]) -> Error {
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    Error::Config {
        field: "data",
        got: format!("the folder {} with {} IDX image files", folder.display(), files.len()),
        want: format!("the path of one: {}", names.join(" or ")),
    }
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
