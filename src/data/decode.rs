//! Pictures in files: PNG, JPEG, BMP and WebP, recognised by their bytes.
//!
//! Grey becomes colour by repetition, colour becomes grey by the luma of ITU-R 601,
//! `0.299 r + 0.587 g + 0.114 b`, as Pillow does it. Transparency and the orientation that a camera
//! noted are ignored.

use std::io;
use std::path::{Component, Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};

use super::resize::Planes;
use super::set::{Set, Source};
use super::{Fit, shape_text};
use crate::error::{Error, Result};

/// Endings of the files that are read, in small letters.
const ENDINGS: [&str; 5] = ["bmp", "jpeg", "jpg", "png", "webp"];

/// Longest side of a picture, in pixels.
const MOST_PIXELS: u32 = 1 << 14;

/// Most bytes a decoder may ask for.
const MOST_BYTES: u64 = 256 << 20;

/// Whether a file's name ends like a picture's.
pub(super) fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&&*ending))
}

/// The picture in a file, made to fit.
///
/// # Errors
///
/// [`Error::File`] when it cannot be read, [`Error::Malformed`] for bytes that are no picture,
/// [`Error::Config`] for settings out of their range, [`Error::ImageSize`] as in [`Fit::apply`].
pub fn read(path: &Path, fit: &Fit) -> Result<Planes> {
    fit.check()?;
    let picture = decode(path)?;
    let channels = fit.channels.unwrap_or_else(|| channels_of(&picture));
    fit.apply(planes(picture, channels), path)
}

/// The set of the pictures in `files`, which are decoded when they are needed. Where `fit` says no size
/// or channels, those of the first hold for all.
///
/// # Errors
///
/// As [`read`], of the first picture; [`Error::Empty`] when there is none. `set` is its role.
pub(super) fn set(
    files: Vec<PathBuf>,
    labels: Vec<u32>,
    (path, set): (&Path, &'static str),
    fit: &Fit,
) -> Result<Set> {
    let Some(first) = files.first() else { return Err(Error::Empty { set, path: path.into() }) };
    fit.check()?;
    let shape = match (fit.channels, fit.size) {
        (Some(c), Some([h, w])) => [c, h, w],
        _ => {
            let picture = decode(first)?;
            let [h, w] = fit.size.unwrap_or([picture.height() as usize, picture.width() as usize]);
            [fit.channels.unwrap_or_else(|| channels_of(&picture)), h, w]
        }
    };
    let resized = fit.size.is_some();
    let fit = Fit { channels: Some(shape[0]), size: Some([shape[1], shape[2]]), ..fit.clone() };
    Set::new(shape, Files { files, shape, fit: resized.then_some(fit) }, labels, path)
}

/// Pictures in files.
struct Files {
    files: Vec<PathBuf>,
    shape: [usize; 3],
    /// `None` where all are as large as the first.
    fit: Option<Fit>,
}

impl Source for Files {
    fn read(&self, i: usize, to: &mut [u8]) -> Result<()> {
        let (path, [c, h, w]) = (&self.files[i], self.shape);
        let picture = planes(decode(path)?, c);
        let picture = match &self.fit {
            Some(fit) => fit.apply(picture, path)?,
            None => picture,
        };
        if picture.size != [h, w] {
            let got = shape_text([c, picture.size[0], picture.size[1]]);
            let first = self.files[0].display();
            let want = format!("images of one size, {} as in {first}", shape_text(self.shape));
            return Err(Error::ImageSize { path: path.clone(), want, got });
        }
        to.copy_from_slice(&picture.pixels);
        Ok(())
    }
}

fn channels_of(picture: &DynamicImage) -> usize {
    if picture.color().has_color() { 3 } else { 1 }
}

/// The planes of a picture: one of luma, or three of colour.
fn planes(picture: DynamicImage, channels: usize) -> Planes {
    let size = [picture.height() as usize, picture.width() as usize];
    let rgb = picture.into_rgb8();
    let pixels = if channels == 1 {
        rgb.pixels().map(|pixel| luma(pixel.0)).collect()
    } else {
        (0..channels).flat_map(|c| rgb.pixels().map(move |pixel| pixel.0[c])).collect()
    };
    Planes { pixels, size }
}

/// Luma in 16-bit fixed point, rounded; the weights sum to 65536, so grey stays itself.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = 19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b);
    ((sum + 0x8000) >> 16) as u8
}

/// The picture in a file, within [`MOST_PIXELS`] and [`MOST_BYTES`].
fn decode(path: &Path) -> Result<DynamicImage> {
    let reader = ImageReader::open(path).map_err(Error::file("open", path))?;
    let mut reader = reader.with_guessed_format().map_err(Error::file("read", path))?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MOST_PIXELS), Some(MOST_PIXELS));
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits.clone());
    let malformed = |problem| Error::Malformed { path: path.into(), problem };
    let broken = |error: ImageError| match error {
        ImageError::IoError(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Error::file("read", path)(source)
        }
        other => malformed(other.to_string()),
    };
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (w, h) = decoder.dimensions();
    // BMP files may say so.
    if w == 0 || h == 0 {
        return Err(malformed(format!("a picture of {h} x {w} pixels (height x width) cannot be")));
    }
    limits.reserve(decoder.total_bytes()).map_err(broken)?;
    decoder.set_limits(limits).map_err(broken)?;
    DynamicImage::from_decoder(decoder).map_err(broken)
}

/// Whether the name of a file that a list gives leads to the list's folder or below.
pub(super) fn is_below(file: &str) -> bool {
    Path::new(file).components().all(|part| matches!(part, Component::CurDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_stays_itself_as_luma() {
        assert!((0..=255).all(|v| luma([v; 3]) == v));
    }

    /// The two headers of a BMP file of 24 bits a pixel, 54 bytes, and no pixels.
    #[test]
    fn pictures_without_pixels_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bmp");
        for [w, h] in [[0u32, 4], [4, 0]] {
            let mut bytes = b"BM".to_vec();
            [54, 0, 54, 40, w, h, 1 | (24 << 16), 0, 0, 0, 0, 0, 0]
                .iter()
                .for_each(|number: &u32| bytes.extend(number.to_le_bytes()));
            assert_eq!(bytes.len(), 54);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(decode(&path).unwrap_err().code(), 13, "{w} x {h}");
        }
    }

    #[test]
    fn files_beside_a_list_or_below_are_told_from_others() {
        assert!(["a.png", "./a.png", "b/c/a.png"].into_iter().all(is_below));
        assert!(!["../a.png", "b/../../a.png", "/a.png"].into_iter().any(is_below));
    }
}
