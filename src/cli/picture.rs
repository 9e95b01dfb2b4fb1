//! Single image files, as `infer` takes them.

use std::path::Path;

use crate::data::folder::{decode, fill};
use crate::data::{Images, shape_text};
use crate::error::{Error, Result};

/// The pictures in `files`, each of `shape`, as one set with label 0; `name` stands in errors.
///
/// # Errors
///
/// [`Error::File`], [`Error::Malformed`] for bytes that are no picture, [`Error::ImageSize`] for
/// another size, [`Error::Config`] for a network that takes neither grey nor colour.
pub(super) fn read<P: AsRef<Path>>(files: &[P], shape: [usize; 3]) -> Result<Images> {
    if ![1, 3].contains(&shape[0]) {
        let want = "a network of 1 (grey) or 3 (colour) for image files".into();
        return Err(Error::Config { field: "channels", got: shape[0].to_string(), want });
    }
    let mut pixels = Vec::new();
    for file in files {
        append(file.as_ref(), shape, &mut pixels)?;
    }
    Images::from_parts(shape, pixels, vec![0; files.len()], "images")
}

/// Adds the planes of one picture.
fn append(path: &Path, shape: [usize; 3], pixels: &mut Vec<u8>) -> Result<()> {
    let picture = decode(path)?;
    let [c, h, w] = shape;
    let got = [c, picture.height() as usize, picture.width() as usize];
    if got != shape {
        let (got, want) = (shape_text(got), shape_text(shape));
        return Err(Error::ImageSize { path: path.into(), want, got });
    }
    let start = pixels.len();
    pixels.resize(start + c * h * w, 0);
    fill(picture, c, &mut pixels[start..]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;
    use crate::data::folder;

    /// The same picture must mean the same in `infer` and in `eval`.
    #[test]
    fn a_picture_is_read_as_a_folder_of_pictures_is() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("class/p.png");
        std::fs::create_dir(temporary.path().join("class")).unwrap();
        let pixel = |x, y| Rgb([(x * 80) as u8, (y * 50) as u8, (x * y * 20) as u8]);
        RgbImage::from_fn(3, 5, pixel).save(&file).unwrap();
        for channels in [1, 3] {
            let by_folder = folder::read(temporary.path(), "guard", Some(channels)).unwrap();
            let alone = read(&[&file], [channels, 5, 3]).unwrap();
            assert_eq!(alone.pixels(), by_folder.pixels());
        }
        assert_eq!(read(&[&file], [3, 3, 5]).unwrap_err().code(), 22);
        assert_eq!(read(&[&file], [2, 5, 3]).unwrap_err().code(), 10);
    }
}
