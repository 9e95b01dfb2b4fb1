//! NPY files, NumPy's format of arrays, as CIFAR-10-C has them: bytes, `[n, h, w, c]`.
//!
//! ```text
//! \x93NUMPY 1 0 LENGTH    a Python dict as text, spaces, \n    the elements
//! ```
//!
//! `fog.npy` holds the images of one corruption under all severities, one severity after another,
//! `labels.npy` beside it their classes. `fog.npy:3` stands for the third fifth of it.
//!
//! # Source
//!
//! NumPy, "The NPY format", versions 1.0 to 3.0; Hendrycks and Dietterich 2019, CIFAR-10-C.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::records::{Order, Piece, Records};
use super::set::Set;
use super::tensors::integer;
use super::{Images, size_of_image};
use crate::error::{Error, Result};
use crate::storage::Bytes;

/// What the header is filled up to a multiple of.
const ALIGN: usize = 64;

/// The bytes that every file begins with.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Severities in a file.
const SEVERITIES: usize = 5;

/// The images of `path`, with the labels in `labels.npy` beside it: all, or those of one [`severity`].
/// Arrays of rank 3 are grey.
///
/// # Errors
///
/// [`Error::File`] when a file cannot be mapped; [`Error::Malformed`] when one is no NPY file of the right
/// type and rank, is cut or has more than its header says, the two hold different numbers, or images or
/// labels are no five severities.
pub(super) fn open(path: &Path, severity: Option<usize>) -> Result<Set> {
    let images = Array::open(path)?;
    let labels = Array::open(&path.with_file_name("labels.npy"))?;
    let [n, h, w, c] = match images.shape[..] {
        [n, h, w] => [n, h, w, 1],
        [n, h, w, c] => [n, h, w, c],
        _ => return Err(images.malformed(format!("has shape {:?}, expected [n, h, w, c]", images.shape))),
    };
    if images.kind != "|u1" {
        return Err(images.malformed(format!("holds elements of `{}`, expected bytes, `|u1`", images.kind)));
    }
    if labels.shape[..] != [n] {
        let problem =
            format!("has shape {:?}, expected [{n}], one a picture in {}", labels.shape, path.display());
        return Err(labels.malformed(problem));
    }
    let size = size_of_image([c, h, w])
        .ok_or_else(|| images.malformed(format!("has the impossible shape {:?}", images.shape)))?;
    let part = images.part(n, severity)?;
    let all = labels.numbers()?;
    let own = &all[part.clone()];
    if severity.is_some() && all.chunks(part.len().max(1)).any(|block| block != own) {
        let problem = format!("its labels do not repeat {SEVERITIES} times, as for {SEVERITIES} severities");
        return Err(labels.malformed(problem));
    }
    let labels = own.to_vec();
    let piece = Piece {
        start: images.start + part.start * size,
        stride: size,
        images: part.len(),
        bytes: images.bytes,
    };
    Set::new([c, h, w], Records { pieces: vec![piece], order: Order::Pixels, channels: c }, labels, path)
}

/// The severity that a path names behind a colon, 1 to 5.
///
/// # Errors
///
/// [`Error::Config`] for anything else.
pub(super) fn severity(text: &str) -> Result<usize> {
    text.parse().ok().filter(|severity| (1..=SEVERITIES).contains(severity)).ok_or_else(|| Error::Config {
        field: "severity",
        got: text.into(),
        want: format!("1 to {SEVERITIES}, as in fog.npy:3"),
    })
}

/// A mapped file whose header is read.
struct Array {
    path: PathBuf,
    bytes: Bytes,
    /// Where the elements begin; as many as `shape` says follow.
    start: usize,
    /// NumPy's name of their type, as `<i8`.
    kind: String,
    shape: Vec<usize>,
}

impl Array {
    fn open(path: &Path) -> Result<Self> {
        let bytes = Bytes::open(path)?;
        let malformed = |problem| Error::Malformed { path: path.into(), problem };
        let (text, start) = dict(&bytes).ok_or_else(|| malformed("has no whole NPY header".into()))?;
        let parsed = parse(text);
        let (kind, shape) = parsed.ok_or_else(|| malformed(format!("has the header {}", text.trim())))?;
        let size = size_of(&kind)
            .ok_or_else(|| malformed(format!("holds elements of `{kind}`, expected integers")))?;
        let want = shape.iter().try_fold(size, |all, side| all.checked_mul(*side));
        let got = bytes.len() - start;
        if want != Some(got) {
            return Err(malformed(format!(
                "{got} bytes follow the header, which says {shape:?} of `{kind}`"
            )));
        }
        Ok(Self { path: path.into(), kind, shape, start, bytes })
    }

    fn malformed(&self, problem: String) -> Error {
        Error::Malformed { path: self.path.clone(), problem }
    }

    /// Which of `n` images a severity, from 1 on, has.
    fn part(&self, n: usize, severity: Option<usize>) -> Result<Range<usize>> {
        let Some(severity) = severity else { return Ok(0..n) };
        if !n.is_multiple_of(SEVERITIES) {
            return Err(self.malformed(format!("{n} images are no {SEVERITIES} severities of as many")));
        }
        let block = n / SEVERITIES;
        Ok((severity - 1) * block..severity * block)
    }

    /// The elements as labels.
    fn numbers(&self) -> Result<Vec<u32>> {
        let size = size_of(&self.kind).unwrap_or(1);
        let elements = &self.bytes[self.start..];
        let is_signed = self.kind.as_bytes()[1] == b'i';
        let number = |i: usize| {
            integer(&elements[i * size..][..size], is_signed).ok_or_else(|| {
                self.malformed(format!("element {i} is no class, expected a number from 0 on"))
            })
        };
        (0..elements.len() / size).map(number).collect()
    }
}

/// The text of the header, and where the elements begin.
fn dict(bytes: &[u8]) -> Option<(&str, usize)> {
    let version = bytes.strip_prefix(MAGIC)?.first()?;
    let (start, length) = match version {
        1 => (10, usize::from(u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?))),
        2 | 3 => (12, u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize),
        _ => return None,
    };
    let end = start + length;
    Some((std::str::from_utf8(bytes.get(start..end)?).ok()?, end))
}

/// Type and shape of an array in C order.
fn parse(dict: &str) -> Option<(String, Vec<usize>)> {
    let value = |key: &str| Some(dict.split_once(&format!("'{key}':"))?.1.trim_start());
    if !value("fortran_order")?.starts_with("False") {
        return None;
    }
    let kind = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0;
    let sizes = value("shape")?.strip_prefix('(')?.split_once(')')?.0.split(',').map(str::trim);
    let shape: Option<Vec<usize>> =
        sizes.filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect();
    Some((kind.into(), shape?))
}

/// Bytes of an integer type with the low end first.
fn size_of(kind: &str) -> Option<usize> {
    match kind {
        "|i1" | "|u1" => Some(1),
        "<i2" | "<u2" => Some(2),
        "<i4" | "<u4" => Some(4),
        "<i8" | "<u8" => Some(8),
        _ => None,
    }
}

/// The bytes before the elements of an array of bytes.
#[must_use]
pub fn header(shape: &[usize]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    // A tuple of one has a comma behind it.
    let sizes = if sizes.len() == 1 { format!("{},", sizes[0]) } else { sizes.join(", ") };
    let dict = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({sizes}), }}");
    // Magic, version and length take 10 bytes, the end of the line one.
    let length = (10 + dict.len() + 1).next_multiple_of(ALIGN) - 10;
    let mut bytes = [MAGIC, &[1, 0]].concat();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dict:<width$}\n", width = length - 1).bytes());
    bytes
}

/// Adds images to a file; the first call makes it, for `total` images.
///
/// # Errors
///
/// [`Error::File`] when it cannot be written.
pub fn append(path: &Path, images: &Images, total: usize) -> Result<()> {
    let [c, h, w] = images.shape();
    let mut bytes = if path.exists() { Vec::new() } else { header(&[total, h, w, c]) };
    for i in 0..images.len() {
        let image = images.image(i);
        bytes.extend((0..h * w * c).map(|at| image[at % c * h * w + at / c]));
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(&bytes)).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `numpy.save` of `numpy.zeros((2, 3), 'u1')`, NumPy 2.4.6: 128 bytes before the elements.
    #[test]
    fn a_header_is_numpys() {
        let dict = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";
        let bytes = header(&[2, 3]);
        assert_eq!((bytes.len(), &bytes[..10]), (128, &b"\x93NUMPY\x01\x00\x76\x00"[..]));
        assert!(bytes[10..].starts_with(dict.as_bytes()) && bytes.ends_with(b" \n"));
        assert!(header(&[7]).windows(4).any(|text| text == b"(7,)"));
    }

    #[test]
    fn channels_stand_last_and_blocks_one_after_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let images = Images::from_parts([2, 1, 2], vec![1, 2, 3, 4], vec![0], "t").unwrap();
        append(&path, &images, 2).unwrap();
        append(&path, &images, 2).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..128], header(&[2, 1, 2, 2]));
        assert_eq!(bytes[128..], [1, 3, 2, 4, 1, 3, 2, 4]);
    }
}
