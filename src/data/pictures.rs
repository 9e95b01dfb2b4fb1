//! Images as PNG files, in one sub-folder a class, which [`folder`](super::folder) reads again.

use std::fs;
use std::io;
use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use super::Images;
use crate::error::{Error, Result};

/// Writes each image to `folder/CLASS/NUMBER.png`; a class without a name has its number. The numbers are
/// `first` and those that follow, with as many digits as those of `total` images have.
///
/// # Errors
///
/// [`Error::Config`] for images of neither 1 (grey) nor 3 channels (colour), and for a class whose name no
/// folder can have; [`Error::File`] when something cannot be written.
pub fn write(images: &Images, folder: &Path, (first, total): (usize, usize)) -> Result<()> {
    let color = color_of(images)?;
    let class = |label: u32| match images.class_names() {
        Some(names) => names[label as usize].clone(),
        None => label.to_string(),
    };
    let mut labels = images.labels().to_vec();
    labels.sort_unstable();
    labels.dedup();
    if let Some(got) = labels.iter().map(|&label| class(label)).find(|name| !is_name(name)) {
        return Err(Error::Config { field: "class", got, want: "a name that a folder can have".into() });
    }
    for label in labels {
        let path = folder.join(class(label));
        fs::create_dir_all(&path).map_err(Error::file("make the folder", &path))?;
    }
    let digits = total.to_string().len();
    (0..images.len()).into_par_iter().try_for_each(|i| {
        let path = folder.join(class(images.label(i))).join(format!("{:0digits$}.png", first + i));
        let written =
            encode(images.image(i), images.shape(), color).and_then(|bytes| fs::write(&path, bytes));
        written.map_err(Error::file("write", &path))
    })
}

/// Whether this is the name of a folder, and no path of several or to elsewhere.
fn is_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|last| last == name)
}

/// Pixels between the cells of a sheet.
const GAP: usize = 2;

/// A PNG file with the images in columns of `rows`, one column after another, on white.
///
/// # Errors
///
/// [`Error::Config`] for images of neither 1 (grey) nor 3 channels (colour), [`Error::File`] when it
/// cannot be encoded; `path` stands in errors.
pub fn sheet(images: &Images, rows: usize, path: &Path) -> Result<Vec<u8>> {
    let (color, [c, h, w]) = (color_of(images)?, images.shape());
    let columns = images.len().div_ceil(rows.max(1));
    let [high, wide] = [rows * (h + GAP) + GAP, columns * (w + GAP) + GAP];
    let mut planes = vec![255; c * high * wide];
    for i in 0..images.len() {
        let (top, left) = (i % rows * (h + GAP) + GAP, i / rows * (w + GAP) + GAP);
        for (row, from) in images.image(i).chunks_exact(w).enumerate() {
            let start = (row / h * high + top + row % h) * wide + left;
            planes[start..start + w].copy_from_slice(from);
        }
    }
    encode(&planes, [c, high, wide], color).map_err(Error::file("encode", path))
}

fn color_of(images: &Images) -> Result<ExtendedColorType> {
    match images.shape()[0] {
        1 => Ok(ExtendedColorType::L8),
        3 => Ok(ExtendedColorType::Rgb8),
        other => {
            let want = "1 (grey) or 3 (colour) for PNG files".into();
            Err(Error::Config { field: "channels", got: other.to_string(), want })
        }
    }
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
    use super::super::open;
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for channels in [1, 3] {
            let pixels = (0..12 * channels as u8 * 3).collect();
            let images = Images::from_parts([channels, 3, 4], pixels, vec![1, 0, 1], "t").unwrap();
            let place = tempfile::tempdir().unwrap();
            write(&images, place.path(), (0, 3)).unwrap();
            let back = open(place.path(), "guard").unwrap();
            assert_eq!((back.shape(), back.labels()), (images.shape(), &[0, 1, 1][..]));
            assert_eq!([0, 1, 2].map(|i| back.image(i)), [1, 0, 2].map(|i| images.image(i)));
            let named = images.with_class_names(vec!["cat".into(), "dog".into()]).unwrap();
            write(&named, place.path(), (8, 12)).unwrap();
            assert!(place.path().join("dog/10.png").exists() && place.path().join("cat/09.png").exists());
        }
        let two = Images::from_parts([2, 1, 1], vec![0; 2], vec![0], "t").unwrap();
        assert_eq!(write(&two, Path::new("nowhere"), (0, 1)).unwrap_err().code(), 10);
    }

    #[test]
    fn classes_whose_names_are_paths_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        for name in ["", ".", "..", "../x", "x/y", "x/", "/x"] {
            let images = Images::from_parts([1, 1, 1], vec![0], vec![0], "t").unwrap();
            let images = images.with_class_names(vec![name.into()]).unwrap();
            assert_eq!(write(&images, &folder, (0, 1)).unwrap_err().code(), 10, "{name}");
        }
        assert!(fs::read_dir(place.path()).unwrap().next().is_none());
        assert!(is_name("boot, left") && is_name("..."));
    }

    /// Three cells of 1 x 2 in columns of 2: 2 * (1 + 2) + 2 rows, 2 * (2 + 2) + 2 columns.
    #[test]
    fn a_sheet_holds_the_images_column_by_column_on_white() {
        let images = Images::from_parts([1, 1, 2], vec![1, 2, 3, 4, 5, 6], vec![0; 3], "t").unwrap();
        let png = sheet(&images, 2, Path::new("t.png")).unwrap();
        let canvas = image::load_from_memory(&png).unwrap().into_luma8();
        assert_eq!(canvas.dimensions(), (10, 8));
        let dark = canvas.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 != [255]);
        let cells: Vec<_> = dark.map(|(x, y, pixel)| (x, y, pixel.0[0])).collect();
        assert_eq!(cells, [(2, 2, 1), (3, 2, 2), (6, 2, 5), (7, 2, 6), (2, 5, 3), (3, 5, 4)]);
    }
}
