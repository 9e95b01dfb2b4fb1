//! Images as PNG files, in one sub-folder a class, which [`folder`](super::folder) reads again.

use std::fs;
use std::io;
use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use super::Images;
use crate::error::{Error, Result};

/// Writes each image to `folder/CLASS/NUMBER.png`; a class without a name has its number.
///
/// # Errors
///
/// [`Error::Config`] for images of neither 1 (grey) nor 3 channels (colour), [`Error::File`] when
/// something cannot be written.
pub fn write(images: &Images, folder: &Path) -> Result<()> {
    let color = match images.shape()[0] {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        other => {
            let want = "1 (grey) or 3 (colour) for PNG files".into();
            return Err(Error::Config { field: "channels", got: other.to_string(), want });
        }
    };
    let class = |label: u32| match images.class_names() {
        Some(names) => names[label as usize].clone(),
        None => label.to_string(),
    };
    let mut labels = images.labels().to_vec();
    labels.sort_unstable();
    labels.dedup();
    for label in labels {
        let path = folder.join(class(label));
        fs::create_dir_all(&path).map_err(Error::file("make the folder", &path))?;
    }
    let digits = images.len().to_string().len();
    (0..images.len()).into_par_iter().try_for_each(|i| {
        let path = folder.join(class(images.label(i))).join(format!("{i:0digits$}.png"));
        let written =
            encode(images.image(i), images.shape(), color).and_then(|bytes| fs::write(&path, bytes));
        written.map_err(Error::file("write", &path))
    })
}

/// A PNG file of planes.
fn encode(planes: &[u8], [c, h, w]: [usize; 3], color: ExtendedColorType) -> io::Result<Vec<u8>> {
    let pixels: Vec<u8> = (0..h * w * c).map(|at| planes[at % c * h * w + at / c]).collect();
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive);
    encoder.write_image(&pixels, w as u32, h as u32, color).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::folder;
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for channels in [1, 3] {
            let pixels = (0..12 * channels as u8 * 3).collect();
            let images = Images::from_parts([channels, 3, 4], pixels, vec![1, 0, 1], "t").unwrap();
            let place = tempfile::tempdir().unwrap();
            write(&images, place.path()).unwrap();
            let back = folder::read(place.path(), "guard", None).unwrap();
            assert_eq!((back.shape(), back.labels()), (images.shape(), &[0, 1, 1][..]));
            assert_eq!([0, 1, 2].map(|i| back.image(i)), [1, 0, 2].map(|i| images.image(i)));
            let named = images.with_class_names(vec!["cat".into(), "dog".into()]).unwrap();
            write(&named, place.path()).unwrap();
            assert!(place.path().join("dog/2.png").exists());
        }
        let two = Images::from_parts([2, 1, 1], vec![0; 2], vec![0], "t").unwrap();
        assert_eq!(write(&two, Path::new("nowhere")).unwrap_err().code(), 10);
    }
}
