//! A folder of images by class: each sub-folder is a class, each picture in it an image.
//!
//! Classes are the sub-folders' names in byte order, as torchvision's `ImageFolder` sorts them
//! (so `10` stands before `2`), and pictures follow by name within a class. A class folder without
//! pictures may hold them in a folder `images`, as those of Tiny-ImageNet do. Hidden folders and
//! other files are passed over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Fit;
use super::decode::{self, is_picture};
use super::set::Set;
use crate::error::{Error, Result};

/// A picture's class and file.
type Labelled = (u32, PathBuf);

/// All pictures of the classes in `folder`, decoded when they are needed and made to fit. `set` is the
/// role of the set, for errors.
///
/// # Errors
///
/// [`Error::Config`] for settings out of their range and for pictures outside class folders,
/// [`Error::Empty`] for no picture, [`Error::File`] when something cannot be read,
/// [`Error::Malformed`] for a first picture that is none.
pub fn open(folder: &Path, set: &'static str, fit: &Fit) -> Result<Set> {
    let (class_names, files) = classes(folder)?;
    if files.is_empty() && list(folder)?.iter().any(|path| is_picture(path)) {
        let got = format!("the folder {} with images outside class folders", folder.display());
        let want = "one sub-folder of images for each class, or a file labels.csv".into();
        return Err(Error::Config { field: "data", got, want });
    }
    let (labels, files) = files.into_iter().unzip();
    decode::set(files, labels, (folder, set), fit)?.named(class_names)
}

/// Names of the classes, and each picture with its class.
fn classes(folder: &Path) -> Result<(Vec<String>, Vec<Labelled>)> {
    let (mut names, mut files) = (Vec::new(), Vec::new());
    for path in list(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || !path.is_dir() {
            continue;
        }
        let label = names.len() as u32;
        names.push(name.into_owned());
        files.extend(pictures(&path)?.into_iter().map(|file| (label, file)));
    }
    Ok((names, files))
}

/// The pictures of a class.
fn pictures(class: &Path) -> Result<Vec<PathBuf>> {
    let inside = |folder: &Path| {
        let mut files = list(folder)?;
        files.retain(|file| is_picture(file));
        Ok(files)
    };
    let (files, deeper) = (inside(class)?, class.join("images"));
    if files.is_empty() && deeper.is_dir() { inside(&deeper) } else { Ok(files) }
}

/// Everything in a folder, by name.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = list().map_err(Error::file("list", folder))?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};

    use super::*;
    use crate::data::Images;

    /// All images, with the channels that are asked for.
    fn read(folder: &Path, set: &'static str, channels: Option<usize>) -> Result<Images> {
        open(folder, set, &Fit { channels, ..Fit::default() })?.keep()
    }

    /// Writes a grey picture of this size and value.
    fn grey(folder: &Path, name: &str, size: (u32, u32), value: u8) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(size.0, size.1, Luma([value])).save(path).unwrap();
    }

    #[test]
    fn sub_folders_in_order_of_their_names_are_the_classes() {
        let folder = tempfile::tempdir().unwrap();
        grey(folder.path(), "dog/b.png", (2, 3), 20);
        grey(folder.path(), "dog/a.BMP", (2, 3), 10);
        grey(folder.path(), "cat/z.png", (2, 3), 30);
        fs::write(folder.path().join("cat/notes.txt"), "not a picture").unwrap();
        fs::create_dir(folder.path().join(".hidden")).unwrap();
        let images = read(folder.path(), "guard", None).unwrap();
        assert_eq!(images.shape(), [1, 3, 2]);
        assert_eq!(images.labels(), [0, 1, 1]);
        assert_eq!(images.class_names().unwrap(), ["cat", "dog"]);
        assert_eq!((0..3).map(|i| images.image(i)[5]).collect::<Vec<_>>(), [30, 10, 20]);
    }

    /// 0.299 * 100 + 0.587 * 150 + 0.114 * 200 = 140.75.
    #[test]
    fn colour_is_split_into_planes_or_made_grey_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("x")).unwrap();
        let mut picture = RgbImage::from_pixel(2, 1, Rgb([100, 150, 200]));
        picture.put_pixel(1, 0, Rgb([1, 2, 3]));
        picture.save(folder.path().join("x/p.png")).unwrap();
        assert_eq!(read(folder.path(), "guard", None).unwrap().pixels()[..], [100, 1, 150, 2, 200, 3]);
        assert_eq!(read(folder.path(), "guard", Some(1)).unwrap().pixels()[..], [141, 2]);
        assert_eq!(read(folder.path(), "guard", Some(2)).unwrap_err().code(), 10);
    }

    #[test]
    fn webp_and_jpeg_are_read_and_grey_repeats_in_colour() {
        let folder = tempfile::tempdir().unwrap();
        grey(folder.path(), "x/a.jpg", (8, 8), 128);
        let colour = RgbImage::from_pixel(8, 8, Rgb([128; 3]));
        colour.save(folder.path().join("x/b.webp")).unwrap();
        let images = read(folder.path(), "guard", Some(3)).unwrap();
        assert_eq!(images.len(), 2);
        assert!(images.pixels().iter().all(|byte| byte.abs_diff(128) <= 1));
    }

    #[test]
    fn a_picture_of_another_size_is_named() {
        let folder = tempfile::tempdir().unwrap();
        grey(folder.path(), "x/a.png", (4, 4), 0);
        grey(folder.path(), "x/b.png", (4, 5), 0);
        let error = read(folder.path(), "guard", None).unwrap_err();
        assert_eq!(error.code(), 22);
        let text = error.to_string();
        assert!(text.contains("b.png holds images of 1x5x4") && text.contains("1x4x4 as in"), "{text}");
    }

    #[test]
    fn bytes_that_are_no_picture_are_malformed_and_no_bytes_are_empty() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), "guard", None).unwrap_err().code(), 20);
        grey(folder.path(), "loose.png", (4, 4), 0);
        let loose = read(folder.path(), "guard", None).unwrap_err();
        assert!(
            loose
                .to_string()
                .ends_with("expected one sub-folder of images for each class, or a file labels.csv")
        );

        grey(folder.path(), "x/a.png", (40, 40), 77);
        let whole = fs::read(folder.path().join("x/a.png")).unwrap();
        for len in 0..whole.len() - 12 {
            fs::write(folder.path().join("x/a.png"), &whole[..len]).unwrap();
            assert_eq!(read(folder.path(), "guard", None).unwrap_err().code(), 13, "{len}");
        }
    }

    /// A PNG header of 2^31 - 1 by 2^31 - 1 pixels.
    #[test]
    fn a_picture_that_claims_to_be_huge_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        grey(folder.path(), "x/a.png", (4, 4), 0);
        let mut bytes = fs::read(folder.path().join("x/a.png")).unwrap();
        bytes[16..24].copy_from_slice(&[0x7f, 255, 255, 255, 0x7f, 255, 255, 255]);
        fs::write(folder.path().join("x/a.png"), bytes).unwrap();
        assert_eq!(read(folder.path(), "guard", None).unwrap_err().code(), 13);
    }
}
