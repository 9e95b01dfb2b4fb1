//! Safetensors files of images: a tensor `images` and a tensor `labels`.
//!
//! `images` is `[n, h, w, c]` or `[n, c, h, w]`, whichever has 1 or 3 where channels stand, of bytes, or
//! of `f32` from 0 to 1, which are multiplied by 255 and rounded. `labels` is `[n]`, of integers.

use std::path::Path;

use safetensors::Dtype;

use super::records::Order;
use super::set::{Set, Source};
use crate::error::{Error, Result};
use crate::storage::WeightFile;

const IMAGES: &str = "images";
const LABELS: &str = "labels";

/// The labelled images of a file.
///
/// # Errors
///
/// [`Error::File`] when it cannot be mapped; [`Error::Shape`] for labels that are not one an image;
/// [`Error::Malformed`] for a tensor that is missing or of another type, for a shape whose channels cannot be
/// told, and for a label below 0.
pub(super) fn open(path: &Path) -> Result<Set> {
    let file = WeightFile::open(path)?;
    let (shape, dtype) = found(&file, IMAGES)?;
    let malformed = |problem| Error::Malformed { path: path.into(), problem };
    if !matches!(dtype, Dtype::F32 | Dtype::U8) {
        return Err(malformed(format!("`{IMAGES}` holds {dtype:?}, expected U8 or F32")));
    }
    let is_channel = |at: usize| matches!(shape.get(at), Some(1 | 3));
    let (order, image) = match (is_channel(1), is_channel(3), shape) {
        (true, false, &[_, c, h, w]) => (Order::Planes, [c, h, w]),
        (false, true, &[_, h, w, c]) => (Order::Pixels, [c, h, w]),
        _ => {
            let want = "[n, h, w, c] or [n, c, h, w] with 1 or 3 channels in one of both places";
            return Err(malformed(format!("`{IMAGES}` has shape {shape:?}, expected {want}")));
        }
    };
    let labels = labels(&file, shape[0])?;
    let is_float = dtype == Dtype::F32;
    Set::new(image, Tensor { order, channels: image[0], is_float, file }, labels, path)
}

/// Shape and type of a tensor.
fn found<'a>(file: &'a WeightFile, name: &str) -> Result<(&'a [usize], Dtype)> {
    file.shape(name).zip(file.dtype(name)).ok_or_else(|| Error::Malformed {
        path: file.path().into(),
        problem: format!("has no tensor `{name}`; a set has `{IMAGES}` and `{LABELS}`"),
    })
}

/// One number an image, `n` in all.
fn labels(file: &WeightFile, n: usize) -> Result<Vec<u32>> {
    let (path, (got, dtype)) = (file.path(), found(file, LABELS)?);
    if got != [n] {
        return Err(Error::Shape { path: path.into(), name: LABELS.into(), want: vec![n], got: got.into() });
    }
    let malformed = |problem| Error::Malformed { path: path.into(), problem };
    let (size, is_signed) = match dtype {
        Dtype::I8 => (1, true),
        Dtype::U8 => (1, false),
        Dtype::I16 => (2, true),
        Dtype::U16 => (2, false),
        Dtype::I32 => (4, true),
        Dtype::U32 => (4, false),
        Dtype::I64 => (8, true),
        Dtype::U64 => (8, false),
        other => return Err(malformed(format!("`{LABELS}` holds {other:?}, expected integers"))),
    };
    let raw = file.raw(LABELS).unwrap_or_default();
    let label = |(i, bytes): (usize, &[u8])| {
        integer(bytes, is_signed)
            .ok_or_else(|| malformed(format!("label {i} is no class, expected 0 or more")))
    };
    raw.chunks_exact(size).enumerate().map(label).collect()
}

/// A class out of an integer of up to 8 bytes, the low end first; `None` when it is negative or too large.
pub(super) fn integer(bytes: &[u8], is_signed: bool) -> Option<u32> {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let is_negative = is_signed && bytes.last().is_some_and(|byte| *byte >= 128);
    u32::try_from(u64::from_le_bytes(wide)).ok().filter(|_| !is_negative)
}

/// The images of a file.
struct Tensor {
    file: WeightFile,
    order: Order,
    channels: usize,
    is_float: bool,
}

impl Source for Tensor {
    fn read(&self, i: usize, to: &mut [u8]) -> Result<()> {
        let raw = self.file.raw(IMAGES).unwrap_or_default();
        if !self.is_float {
            self.order.write(&raw[i * to.len()..][..to.len()], self.channels, to);
            return Ok(());
        }
        let numbers = raw[4 * i * to.len()..][..4 * to.len()].chunks_exact(4);
        let byte = |(at, bytes): (usize, &[u8])| {
            let value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if (0.0..=1.0).contains(&value) {
                return Ok((value * 255.0).round() as u8);
            }
            let problem = format!("`{IMAGES}` holds {value} at element {at} of image {i}, expected 0 to 1");
            Err(Error::Malformed { path: self.file.path().into(), problem })
        };
        let bytes = numbers.enumerate().map(byte).collect::<Result<Vec<u8>>>()?;
        self.order.write(&bytes, self.channels, to);
        Ok(())
    }
}
