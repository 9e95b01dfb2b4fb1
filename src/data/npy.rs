//! NPY files, NumPy's format of arrays, as CIFAR-10-C has them: bytes, `[n, h, w, c]`.
//!
//! ```text
//! \x93NUMPY 1 0 LENGTH    a Python dict as text, spaces, \n    one byte an element
//! ```
//!
//! # Source
//!
//! NumPy, "The NPY format", version 1.0.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::Images;
use crate::error::{Error, Result};

/// What the header is filled up to a multiple of.
const ALIGN: usize = 64;

/// The bytes before the elements of an array of bytes.
#[must_use]
pub fn header(shape: &[usize]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    // A tuple of one has a comma behind it.
    let sizes = if sizes.len() == 1 { format!("{},", sizes[0]) } else { sizes.join(", ") };
    let dict = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({sizes}), }}");
    // Magic, version and length take 10 bytes, the end of the line one.
    let length = (10 + dict.len() + 1).next_multiple_of(ALIGN) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
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
