//! Single image files, as `infer` takes them.

use std::path::Path;

use crate::data::{Fit, Images, decode};
use crate::error::{Error, Result};

/// The pictures in `files`, made to `fit` a network of input `shape`, as one set with label 0.
///
/// # Errors
///
/// Those of [`decode::read`], and [`Error::Config`] for a network that takes neither grey nor colour.
pub(super) fn read<P: AsRef<Path>>(files: &[P], shape: [usize; 3], fit: &Fit) -> Result<Images> {
    if ![1, 3].contains(&shape[0]) {
        let want = "a network of 1 (grey) or 3 (colour) for image files".into();
        return Err(Error::Config { field: "channels", got: shape[0].to_string(), want });
    }
    let mut pixels = Vec::new();
    for file in files {
        pixels.extend(decode::read(file.as_ref(), fit)?.pixels);
    }
    Images::from_parts(shape, pixels, vec![0; files.len()], "images")
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
            let fit = Fit::network(&[channels, 5, 3]);
            let by_folder = folder::open(temporary.path(), "guard", &fit).unwrap().keep().unwrap();
            let alone = read(&[&file], [channels, 5, 3], &fit).unwrap();
            assert_eq!(alone.pixels(), by_folder.pixels());
        }
        let code = |shape: [usize; 3]| read(&[&file], shape, &Fit::network(&shape)).unwrap_err().code();
        assert_eq!((code([3, 3, 5]), code([2, 5, 3])), (22, 10));
    }
}
