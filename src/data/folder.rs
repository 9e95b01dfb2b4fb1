//! A folder of images by class: each sub-folder is a class, each picture in it an image.
//!
//! Classes are the sub-folders' names in byte order, as torchvision's `ImageFolder` sorts them
//! (so `10` stands before `2`), and pictures follow by name within a class. PNG, JPEG, BMP and
//! WebP are read, recognised by their bytes once their names end like one. Hidden
//! folders and other files are passed over. Transparency and the orientation that a camera noted
//! are ignored.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageError, ImageReader, Limits};
use rayon::prelude::*;

use super::{Images, shape_text};
use crate::error::{Error, Result};
use crate::storage::Bytes;

/// Endings of the files that are read, in small letters.
const ENDINGS: [&str; 5] = ["bmp", "jpeg", "jpg", "png", "webp"];

/// Longest side of a picture, in pixels.
const MOST_PIXELS: u32 = 1 << 14;

/// Most bytes a decoder may ask for.
const MOST_BYTES: u64 = 256 << 20;

/// Pictures that are decoded together.
const TOGETHER: usize = 16;

/// A picture's class and file.
type Labelled = (u32, PathBuf);

/// All pictures of the classes in `folder`. `set` is the role of the set, for errors; `channels`
/// is 1 for grey and 3 for colour, `None` for what the first picture is.
///
/// Grey becomes colour by repetition, colour becomes grey by the luma of ITU-R 601,
/// `0.299 r + 0.587 g + 0.114 b`, as Pillow does it.
///
/// # Errors
///
/// [`Error::Config`] for `channels` other than 1 and 3 and for pictures outside class folders,
/// [`Error::Empty`] for no picture, [`Error::File`] when something cannot be read,
/// [`Error::ImageSize`] for a picture of another size than the first, [`Error::Malformed`] for
/// bytes that are no picture. Of several faults the first by name is told.
pub fn read(folder: &Path, set: &'static str, channels: Option<usize>) -> Result<Images> {
    if let Some(wrong) = channels.filter(|c| ![1, 3].contains(c)) {
        let want = "1 (grey) or 3 (colour)".into();
        return Err(Error::Config { field: "channels", got: wrong.to_string(), want });
    }
    let (class_names, files) = classes(folder)?;
    let Some((_, first_path)) = files.first() else { return Err(nothing(folder, set)?) };
    let first = decode(first_path)?;
    let c = channels.unwrap_or(if first.color().has_color() { 3 } else { 1 });
    let shape = [c, first.height() as usize, first.width() as usize];
    drop(first);
    let pixels = spool(&files, shape, &std::env::temp_dir())?;
    let labels = files.iter().map(|(label, _)| *label).collect();
    Images::from_bytes(shape, pixels, labels, folder)?.with_class_names(class_names)
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
        files.extend(list(&path)?.into_iter().filter(|file| is_picture(file)).map(|file| (label, file)));
    }
    Ok((names, files))
}

/// Everything in a folder, by name.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = list().map_err(Error::file("list", folder))?;
    paths.sort();
    Ok(paths)
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&&*ending)) && path.is_file()
}

/// Why there is no picture: none at all, or none in a class folder.
fn nothing(folder: &Path, set: &'static str) -> Result<Error> {
    if !list(folder)?.iter().any(|path| is_picture(path)) {
        return Ok(Error::Empty { set, path: folder.into() });
    }
    let got = format!("the folder {} with images outside class folders", folder.display());
    Ok(Error::Config { field: "data", got, want: "one sub-folder of images for each class".into() })
}

/// Decodes all files, some in parallel, into an unnamed file in `folder`.
fn spool(files: &[Labelled], shape: [usize; 3], folder: &Path) -> Result<Bytes> {
    let size: usize = shape.iter().product();
    let pieces = files.chunks(TOGETHER).map(|some| {
        let mut pixels = vec![0; size * some.len()];
        let places = pixels.par_chunks_exact_mut(size).zip(some);
        let read: Vec<Result<()>> =
            places.map(|(place, (_, path))| read_one(path, shape, &files[0].1, place)).collect();
        read.into_iter().collect::<Result<()>>()?;
        Ok(pixels)
    });
    Bytes::try_spool(pieces, folder)
}

/// Decodes one file into `place`, when it has the shape that `first` had.
fn read_one(path: &Path, shape: [usize; 3], first: &Path, place: &mut [u8]) -> Result<()> {
    let picture = decode(path)?;
    let [c, h, w] = shape;
    if (picture.height() as usize, picture.width() as usize) != (h, w) {
        let got = shape_text([c, picture.height() as usize, picture.width() as usize]);
        let want = format!("images of one size, {} as in {}", shape_text(shape), first.display());
        return Err(Error::ImageSize { path: path.into(), want, got });
    }
    fill(picture, c, place);
    Ok(())
}

/// Writes a picture into the planes at `place`: one of luma, or three of colour.
pub(crate) fn fill(picture: DynamicImage, channels: usize, place: &mut [u8]) {
    let pixels = place.len() / channels.max(1);
    for (i, pixel) in picture.into_rgb8().pixels().enumerate() {
        if channels == 1 {
            place[i] = luma(pixel.0);
            continue;
        }
        for (plane, value) in pixel.0.into_iter().enumerate() {
            place[plane * pixels + i] = value;
        }
    }
}

/// Luma in 16-bit fixed point, rounded; the weights sum to 65536, so grey stays itself.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = 19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b);
    ((sum + 0x8000) >> 16) as u8
}

/// The picture in a file, within [`MOST_PIXELS`] and [`MOST_BYTES`].
pub(crate) fn decode(path: &Path) -> Result<DynamicImage> {
    let reader = ImageReader::open(path).map_err(Error::file("open", path))?;
    let mut reader = reader.with_guessed_format().map_err(Error::file("read", path))?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MOST_PIXELS), Some(MOST_PIXELS));
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    reader.decode().map_err(|error| match error {
        ImageError::IoError(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Error::file("read", path)(source)
        }
        other => Error::Malformed { path: path.into(), problem: other.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};

    use super::*;

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
        assert!((0..=255).all(|v| luma([v; 3]) == v));
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
        assert!(loose.to_string().ends_with("expected one sub-folder of images for each class"));

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
