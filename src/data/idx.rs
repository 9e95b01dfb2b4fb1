//! IDX files, the format of MNIST and its relatives, plain or gzipped.
//!
//! ```text
//! 0 0 8 RANK    RANK sizes, 32 bits each, big end first    one byte an element
//! ```
//!
//! Images have rank 3, `[n, h, w]`, or 4, `[n, c, h, w]`; labels have rank 1. The bytes are
//! foreign, so three rules hold.
//!
//! 1. A header that says more than the file could hold is refused: a plain file holds its length,
//!    a gzipped one 1032 times that, the most that deflate can give. Pixels go to an unnamed file
//!    as they come, in the system's folder for temporary files.
//! 2. No more is decompressed than the header says and one byte, which would be an error.
//! 3. Images and labels are counted against each other before either is decompressed.
//!
//! # Source
//!
//! LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats".

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use super::Images;
use super::set::check;
use crate::error::{Error, Result};
use crate::storage::Bytes;

/// What deflate can give at most: 258 bytes for 2 bits.
const DEFLATE_RATIO: u64 = 1032;

/// Bytes of pixels on the heap at once.
const PIECE: u64 = 1 << 16;

/// The two first bytes of a gzipped file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How the names of the two files of a pair differ.
const NAMES: [(&str, &str); 4] = [
    ("images-idx3-", "labels-idx1-"),
    ("images-idx4-", "labels-idx1-"),
    ("images.idx3-", "labels.idx1-"),
    ("images.idx4-", "labels.idx1-"),
];

/// The images of one file with the labels of another.
///
/// # Errors
///
/// [`Error::File`] when a file cannot be read; [`Error::Malformed`] when its bytes are not IDX of
/// 8-bit elements and the right rank, more or fewer than its header says, or the two files hold
/// different numbers.
pub fn read(images: &Path, labels: &Path) -> Result<Images> {
    let open = |path| {
        let file = File::open(path).map_err(Error::file("open", path))?;
        let len = file.metadata().map_err(Error::file("open", path))?.len();
        Stream::start(BufReader::new(file), len, path)
    };
    join(open(images)?, open(labels)?)
}

/// As [`read`], from bytes in memory; `path` stands in errors.
///
/// # Errors
///
/// [`Error::Malformed`] as in [`read`].
pub fn decode(images: &[u8], labels: &[u8], path: &Path) -> Result<Images> {
    let open = |bytes| Stream::start(bytes, <[u8]>::len(bytes) as u64, path);
    join(open(images)?, open(labels)?)
}

/// The bytes of the images file and of the labels file, gzipped; the same set always gives the
/// same bytes. Sets of one channel get rank 3, others rank 4.
///
/// # Errors
///
/// [`Error::Label`] for a label over 255, [`Error::Config`] for a side or a number over 32 bits.
pub fn encode(images: &Images) -> Result<(Vec<u8>, Vec<u8>)> {
    let path = images.path();
    let mut pixels = Writer::images(Vec::new(), images.shape(), images.len(), path)?;
    pixels.add(&images.pixels())?;
    Ok((pixels.finish()?, encode_labels(images.labels(), path)?))
}

/// The bytes of a labels file, gzipped; `path` stands in errors.
///
/// # Errors
///
/// [`Error::Label`] for a label over 255, [`Error::Config`] for more labels than 32 bits count.
pub fn encode_labels(labels: &[u32], path: &Path) -> Result<Vec<u8>> {
    check(labels, 256, path)?;
    let bytes: Vec<u8> = labels.iter().map(|label| *label as u8).collect();
    let mut writer = Writer::new(Vec::new(), &[labels.len()], path)?;
    writer.add(&bytes)?;
    writer.finish()
}

/// A gzipped file that is written piece by piece.
#[derive(Debug)]
pub struct Writer<W: Write> {
    file: GzEncoder<W>,
    path: PathBuf,
}

impl<W: Write> Writer<W> {
    /// An images file of `n` images of `shape`: rank 3 for one channel, otherwise rank 4. `path` stands in
    /// errors.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a side or a number over 32 bits, [`Error::File`] when it cannot be written.
    pub fn images(to: W, [c, h, w]: [usize; 3], n: usize, path: &Path) -> Result<Self> {
        if c == 1 { Self::new(to, &[n, h, w], path) } else { Self::new(to, &[n, c, h, w], path) }
    }

    /// Neither time nor system stand in the header of the gzipped file.
    fn new(to: W, sizes: &[usize], path: &Path) -> Result<Self> {
        let mut header = vec![0, 0, 8, sizes.len() as u8];
        for size in sizes {
            let size = u32::try_from(*size).map_err(|_| Error::Config {
                field: "size of an IDX file",
                got: size.to_string(),
                want: "below 2^32".into(),
            })?;
            header.extend(size.to_be_bytes());
        }
        let file = GzBuilder::new().mtime(0).operating_system(255).write(to, Compression::best());
        let mut writer = Self { file, path: path.into() };
        writer.add(&header)?;
        Ok(writer)
    }

    /// Writes the next elements.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn add(&mut self, elements: &[u8]) -> Result<()> {
        self.file.write_all(elements).map_err(Error::file("write", &self.path))
    }

    /// Writes what is left.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn finish(self) -> Result<W> {
        self.file.finish().map_err(Error::file("write", &self.path))
    }
}

/// The labels file that belongs to an images file: `train-labels-idx1-ubyte` to
/// `train-images-idx3-ubyte`, gzipped or not, whichever exists, and with the same ending when
/// neither does. `None` when the name is not that of an images file.
#[must_use]
pub fn labels_file(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let (from, to) = NAMES.iter().find(|(from, _)| name.contains(from))?;
    let same = images.with_file_name(name.replacen(from, to, 1));
    let other = match same.extension() {
        Some(ending) if ending == "gz" => same.with_extension(""),
        _ => same.with_added_extension("gz"),
    };
    Some(if !same.exists() && other.exists() { other } else { same })
}

/// All images files right inside a folder, by name.
///
/// # Errors
///
/// [`Error::File`] when the folder cannot be listed.
pub(super) fn images_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut files = list().map_err(Error::file("list", folder))?;
    files.retain(|path| labels_file(path).is_some() && path.is_file());
    files.sort();
    Ok(files)
}

/// An IDX file whose header is read and whose elements are not yet.
struct Stream<'a> {
    sizes: Vec<usize>,
    elements: Box<dyn Read + 'a>,
    path: &'a Path,
}

impl<'a> Stream<'a> {
    /// Reads the header; `stored` is the length of `bytes`, compressed or not.
    fn start(mut bytes: impl BufRead + 'a, stored: u64, path: &'a Path) -> Result<Self> {
        let start = bytes.fill_buf().map_err(Error::file("read", path))?;
        let (most, mut elements): (u64, Box<dyn Read + 'a>) = if start.starts_with(&GZIP) {
            (stored.saturating_mul(DEFLATE_RATIO), Box::new(MultiGzDecoder::new(bytes)))
        } else {
            (stored, Box::new(bytes))
        };
        let rank = match quad(&mut elements, path)? {
            [0, 0, 8, rank] => rank,
            magic => return Err(malformed(path, format!("starts with {magic:?}, expected [0, 0, 8, rank]"))),
        };
        let size = |_| Ok(u32::from_be_bytes(quad(&mut elements, path)?) as usize);
        let sizes = (0..rank).map(size).collect::<Result<Vec<_>>>()?;
        let count = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        if count.is_none_or(|count| count as u64 > most) {
            let problem =
                format!("the header says {sizes:?} elements, its {stored} bytes hold {most} at most");
            return Err(malformed(path, problem));
        }
        Ok(Self { sizes, elements, path })
    }

    /// The elements, exactly as many as the header says.
    fn finish(self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.pieces().try_for_each(|piece| piece.map(|piece| bytes.extend(piece)))?;
        Ok(bytes)
    }

    /// As [`Stream::finish`], in an unnamed file in `folder`: they take no heap.
    fn spooled(self, folder: &Path) -> Result<Bytes> {
        if self.sizes.contains(&0) {
            return Ok(Bytes::from(self.finish()?)); // no file can be mapped that is empty
        }
        Bytes::try_spool(self.pieces(), folder)
    }

    /// The elements a piece at a time; the last is an error where they are not as many as the
    /// header says.
    fn pieces(self) -> impl Iterator<Item = Result<Vec<u8>>> + 'a {
        let path = self.path;
        // `start` has made this product with checks.
        let want = self.sizes.iter().product::<usize>();
        let mut elements = self.elements.take(want as u64 + 1);
        let (mut got, mut ended) = (0, false);
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let mut piece = Vec::new();
            let read = elements.by_ref().take(PIECE).read_to_end(&mut piece);
            ended = read.is_err() || piece.len() < PIECE as usize;
            got += piece.len();
            if let Err(source) = read {
                return Some(Err(bad_bytes(source, path)));
            }
            if ended && got != want {
                let got = if got > want { "more".into() } else { format!("only {got}") };
                return Some(Err(malformed(path, format!("the header says {want} elements, {got} follow"))));
            }
            (!piece.is_empty()).then_some(Ok(piece))
        })
    }
}

/// Puts images and labels together, once their headers agree.
fn join(images: Stream, labels: Stream) -> Result<Images> {
    let (n, shape) = match images.sizes[..] {
        [n, h, w] => (n, [1, h, w]),
        [n, c, h, w] => (n, [c, h, w]),
        _ => {
            let problem = format!("has rank {}, expected images of rank 3 or 4", images.sizes.len());
            return Err(malformed(images.path, problem));
        }
    };
    if labels.sizes.len() != 1 {
        let problem = format!("has rank {}, expected labels of rank 1", labels.sizes.len());
        return Err(malformed(labels.path, problem));
    }
    if labels.sizes[0] != n {
        let problem = format!("holds {} labels for {n} images in {}", labels.sizes[0], images.path.display());
        return Err(malformed(labels.path, problem));
    }
    let path = images.path;
    let labels = labels.finish()?.into_iter().map(u32::from).collect();
    Images::from_bytes(shape, images.spooled(&std::env::temp_dir())?, labels, path)
}

/// The next four bytes of a header.
fn quad(bytes: &mut impl Read, path: &Path) -> Result<[u8; 4]> {
    let mut quad = [0; 4];
    bytes.read_exact(&mut quad).map_err(|source| bad_bytes(source, path))?;
    Ok(quad)
}

/// Tells bytes that end early or are no gzip from a failure of the system.
fn bad_bytes(source: io::Error, path: &Path) -> Error {
    match source.kind() {
        ErrorKind::UnexpectedEof => malformed(path, "ends too early".into()),
        ErrorKind::InvalidData | ErrorKind::InvalidInput => malformed(path, format!("gzip: {source}")),
        _ => Error::file("read", path)(source),
    }
}

fn malformed(path: &Path, problem: String) -> Error {
    Error::Malformed { path: path.into(), problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two images of 2 x 1 pixels.
    const PIXELS: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 10, 20, 30, 40];
    /// Their labels.
    const LABELS: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 2, 7, 3];

    fn read_bytes(images: &[u8], labels: &[u8]) -> Result<Images> {
        decode(images, labels, Path::new("t"))
    }

    #[test]
    fn labels_that_take_more_than_a_byte_are_refused() {
        assert_eq!(encode_labels(&[255, 256], Path::new("t")).unwrap_err().code(), 19);
        assert!(encode_labels(&[255], Path::new("t")).is_ok());
    }

    /// The bytes gzipped by the library's shortest way, not by [`Writer`].
    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut file = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        file.write_all(bytes).unwrap();
        file.finish().unwrap()
    }

    fn problem(images: &[u8], labels: &[u8]) -> String {
        let error = read_bytes(images, labels).unwrap_err();
        assert_eq!(error.code(), 13);
        error.to_string().replace("t is damaged or not of this format: ", "")
    }

    #[test]
    fn literal_bytes_are_read_plain_and_gzipped() {
        let want = Images::from_parts([1, 2, 1], vec![10, 20, 30, 40], vec![7, 3], "t").unwrap();
        assert_eq!(read_bytes(PIXELS, LABELS).unwrap(), want);
        assert_eq!(read_bytes(&packed(PIXELS), LABELS).unwrap(), want);
        assert_eq!(read_bytes(PIXELS, &packed(LABELS)).unwrap(), want);
        let colour = [0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3];
        let one = [0, 0, 8, 1, 0, 0, 0, 1, 9];
        assert_eq!(read_bytes(&colour, &one).unwrap().shape(), [3, 1, 1]);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        for (pixels, labels) in [(PIXELS.to_vec(), LABELS.to_vec()), (packed(PIXELS), packed(LABELS))] {
            for len in 0..pixels.len() {
                assert_eq!(read_bytes(&pixels[..len], &labels).unwrap_err().code(), 13, "{len}");
            }
            for len in 0..labels.len() {
                assert_eq!(read_bytes(&pixels, &labels[..len]).unwrap_err().code(), 13, "{len}");
            }
        }
    }

    #[test]
    fn every_wrong_header_is_named() {
        assert_eq!(problem(&[0, 0, 13, 3], LABELS), "starts with [0, 0, 13, 3], expected [0, 0, 8, rank]");
        assert_eq!(problem(LABELS, LABELS), "has rank 1, expected images of rank 3 or 4");
        assert_eq!(problem(PIXELS, PIXELS), "has rank 3, expected labels of rank 1");
        assert_eq!(problem(PIXELS, &[0, 0, 8, 1, 0, 0, 0, 1, 7]), "holds 1 labels for 2 images in t");
        assert_eq!(problem(&PIXELS[..4], LABELS), "ends too early");
        assert_eq!(problem(&PIXELS[..19], LABELS), "the header says 4 elements, only 3 follow");
        assert_eq!(problem(&[PIXELS, &[0]].concat(), LABELS), "the header says 4 elements, more follow");
        assert_eq!(
            problem(&packed(&[PIXELS, &[0]].concat()), LABELS),
            "the header says 4 elements, more follow"
        );
        assert!(problem(&[&packed(PIXELS)[..], b"junk behind it"].concat(), LABELS).starts_with("gzip: "));
    }

    /// A header of 2^32 - 1 images of 1000 x 1000 would be four petabytes.
    #[test]
    fn a_header_that_says_more_than_the_file_can_hold_is_refused_before_memory_is_asked_for() {
        let mut header = vec![0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 3, 232, 0, 0, 3, 232];
        assert!(problem(&header, LABELS).contains("its 16 bytes hold 16 at most"));
        assert!(problem(&packed(&header), LABELS).starts_with("the header says [4294967295, 1000, 1000]"));
        header[8..].fill(255);
        assert!(problem(&header, LABELS).starts_with("the header says"));
    }

    /// A megabyte of zeros behind a header of 4 elements: five bytes are unpacked.
    #[test]
    fn what_a_gzip_bomb_holds_beyond_its_header_is_not_unpacked() {
        let bomb = packed(&[PIXELS, &vec![0; 1 << 20]].concat());
        assert!(problem(&bomb, LABELS).ends_with("more follow"));
    }

    #[test]
    fn what_is_written_is_read_again_and_always_the_same_bytes() {
        for shape in [[1, 2, 2], [2, 2, 1]] {
            let images = Images::from_parts(shape, (0..12).collect(), vec![0, 255, 3], "t").unwrap();
            let (pixels, labels) = encode(&images).unwrap();
            assert_eq!(read_bytes(&pixels, &labels).unwrap(), images);
            assert_eq!(encode(&images).unwrap(), (pixels.clone(), labels));
            // No time: bytes 4 to 7 of a gzip header.
            assert_eq!(pixels[4..8], [0; 4]);
        }
        let beyond = Images::from_parts([1, 1, 1], vec![0], vec![256], "t").unwrap();
        assert_eq!(encode(&beyond).unwrap_err().code(), 19);
    }

    #[test]
    fn the_labels_file_is_found_by_name() {
        let labels = |name| labels_file(Path::new(name)).map(|path| path.display().to_string());
        assert_eq!(labels("d/train-images-idx3-ubyte.gz").unwrap(), "d/train-labels-idx1-ubyte.gz");
        assert_eq!(labels("images-idx4-ubyte").unwrap(), "labels-idx1-ubyte");
        assert_eq!(labels("t10k-images.idx3-ubyte").unwrap(), "t10k-labels.idx1-ubyte");
        assert_eq!(labels("train-labels-idx1-ubyte"), None);

        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("labels-idx1-ubyte.gz"), "").unwrap();
        let found = labels_file(&folder.path().join("images-idx3-ubyte")).unwrap();
        assert!(found.ends_with("labels-idx1-ubyte.gz"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_are_an_error_or_images_and_never_a_panic(
            noise in prop::collection::vec(any::<u8>(), 0..64),
            rank in 0u8..6,
            at in 0usize..40,
            byte: u8,
        ) {
            let _ = read_bytes(&noise, &noise);
            let _ = read_bytes(&[&[0, 0, 8, rank], &noise[..]].concat(), LABELS);
            for mut file in [PIXELS.to_vec(), packed(PIXELS)] {
                let len = file.len();
                file[at % len] = byte;
                if let Ok(images) = read_bytes(&file, LABELS) {
                    prop_assert_eq!(images.len(), 2);
                }
            }
        }

        #[test]
        fn any_set_survives_writing_and_reading(
            labels in prop::collection::vec(0u32..256, 0..8),
            c in 1usize..4, h in 1usize..5, w in 1usize..5,
        ) {
            let pixels = (0..labels.len() * c * h * w).map(|i| (i * 37) as u8).collect();
            let images = Images::from_parts([c, h, w], pixels, labels, "t").unwrap();
            let (pixels, labels) = encode(&images).unwrap();
            prop_assert_eq!(read_bytes(&pixels, &labels).unwrap(), images);
        }
    }
}
