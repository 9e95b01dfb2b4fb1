//! Bytes of a file without a copy of them. The only file here that maps memory.
//!
//! Weights in a mapping cost no memory that the system could not take back: their pages are
//! clean, are read when first touched and dropped when memory is short.
//!
//! A mapping shows the file as it is, not as it was. So whoever gives a path to [`Bytes::open`]
//! promises that nobody shortens or writes the file in place while it is in use; after a
//! shortening, reading a page that is gone stops the process with a bus error. Replacing the
//! file by a rename is fine, since the mapping then keeps the old one; everything in this crate
//! that writes does it so, and so do package and image updates.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Bytes that never change: of a mapped file, of the program itself, or of a vector. A clone
/// shares them.
#[derive(Clone)]
pub struct Bytes(Source);

#[derive(Clone)]
enum Source {
    Mapped(Arc<Mmap>),
    Owned(Arc<Vec<u8>>),
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps the file at `path` for reading. Until the last clone is dropped, nobody may shorten
    /// or write the file in place; see the head of this module.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when it cannot be opened or mapped or is no regular file,
    /// [`Error::Malformed`] when it is empty.
    pub fn open(path: &Path) -> Result<Self> {
        // Asked of the path, since opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(Error::file("open", path))?.is_file() {
            let source = io::Error::new(ErrorKind::InvalidInput, "it is not a regular file");
            return Err(Error::File { action: "map", path: path.into(), source });
        }
        let file = File::open(path).map_err(Error::file("open", path))?;
        let bytes = Self::map(&file).map_err(Error::file("map", path))?;
        if bytes.is_empty() {
            let problem = "it is empty".into();
            return Err(Error::Malformed { path: path.into(), problem });
        }
        Ok(bytes)
    }

    /// Maps an open file for reading, as long as it is now. The same promise as for
    /// [`Bytes::open`]: until the last clone is dropped, nobody shortens the file or writes to
    /// what is mapped.
    ///
    /// # Errors
    ///
    /// What the system says when it cannot be mapped.
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is only read, and by the contract of this function the file keeps
        // its length and bytes while mapped.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self(Source::Mapped(Arc::new(map))))
    }

    /// `pieces` one after another in an unnamed mapped file in `folder`, which is gone with the
    /// last clone, also after a crash.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the folder cannot be written or the pieces are empty.
    pub fn spool(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>, folder: &Path) -> Result<Self> {
        Self::try_spool(pieces.into_iter().map(Ok), folder)
    }

    /// As [`Bytes::spool`], of pieces that may fail.
    ///
    /// # Errors
    ///
    /// As [`Bytes::spool`], and the first error of a piece.
    pub fn try_spool(
        mut pieces: impl Iterator<Item = Result<impl AsRef<[u8]>>>,
        folder: &Path,
    ) -> Result<Self> {
        const WRITING: &str = "write a working file in";
        let file = tempfile::tempfile_in(folder).map_err(Error::file(WRITING, folder))?;
        let mut writer = std::io::BufWriter::new(file);
        pieces
            .try_for_each(|piece| writer.write_all(piece?.as_ref()).map_err(Error::file(WRITING, folder)))?;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error);
        let file = file.map_err(Error::file(WRITING, folder))?;
        // SAFETY: the mapping is only read, and no other handle or name of the file exists.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::file("map a working file in", folder))?;
        Ok(Self(Source::Mapped(Arc::new(map))))
    }

    /// Lets go of the resident pages of a mapped file; they are read again when next touched.
    /// Nothing happens where the bytes are no mapping or the system knows no such call.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Source::Mapped(map) = &self.0 {
            // SAFETY: a shared mapping that is only read has no page that differs from its file,
            // so pages that are dropped come back with the same bytes.
            let told = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // Advice that the system does not take costs memory that it can take back itself.
            drop(told);
        }
    }

    /// Bytes that are part of the program, such as an embedded model.
    #[must_use]
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Self(Source::Static(bytes))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::Owned(Arc::new(bytes)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Mapped(map) => map,
            Source::Owned(bytes) => bytes,
            Source::Static(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_is_its_bytes_even_after_it_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"old").unwrap();
        let bytes = Bytes::open(&path).unwrap();
        let shared = bytes.clone();
        let beside = folder.path().join("beside");
        std::fs::write(&beside, b"new").unwrap();
        std::fs::rename(&beside, &path).unwrap();
        assert_eq!(format!("{bytes:?}"), "Bytes(3 bytes)");
        drop(bytes);
        assert_eq!(&*shared, b"old");
    }

    #[test]
    fn embedded_and_owned_bytes_are_read_alike() {
        assert_eq!(&*Bytes::from_static(b"abc"), b"abc");
        assert_eq!(&*Bytes::from(vec![1, 2]), [1, 2]);
    }

    #[test]
    fn spooled_bytes_are_the_pieces_in_order() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(&*Bytes::spool([vec![1, 2], vec![3]], folder.path()).unwrap(), [1, 2, 3]);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
        let error = Bytes::spool([[1]], &folder.path().join("missing")).unwrap_err();
        assert!(error.to_string().starts_with("cannot write a working file in "));
    }

    #[test]
    fn bytes_come_back_after_their_pages_were_let_go() {
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, &[7; 10_000]).unwrap();
        let bytes = Bytes::map(&file).unwrap();
        assert_eq!(*bytes, [7; 10_000]);
        bytes.release();
        assert_eq!(*bytes, [7; 10_000]);
        Bytes::from_static(b"abc").release();
    }

    #[test]
    fn an_empty_file_is_malformed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Bytes::open(file.path()).unwrap_err();
        assert_eq!(error.code(), 13);
        assert!(error.to_string().ends_with("is damaged or not of this format: it is empty"));
    }

    #[test]
    fn what_is_no_file_cannot_be_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let error = Bytes::open(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot map {}", folder.path().display()));
        let missing = folder.path().join("missing");
        let error = Bytes::open(&missing).unwrap_err();
        assert_eq!((error.code(), error.to_string()), (11, format!("cannot open {}", missing.display())));
    }
}
