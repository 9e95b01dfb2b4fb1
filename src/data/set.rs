//! Labelled images that are read when they are needed, a batch at a time.
//!
//! [`open()`](super::open()) keeps a whole set as [`Images`], for work that looks at its images again and
//! again. A [`Set`] keeps labels and where the pixels are: a mapped file, pictures to decode, or
//! another set to change. What goes through it once never has more than two batches in memory, however
//! many images there are.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::map::together;
use super::{Images, shape_text, size_of_image};
use crate::error::{Error, Result};
use crate::storage::Bytes;

/// Where pixels come from.
pub(super) trait Source: Send + Sync {
    /// Writes image `i`, plane by plane, over all bytes of `to`.
    fn read(&self, i: usize, to: &mut [u8]) -> Result<()>;
}

/// Labelled images of one size, 8 bits a channel, read when they are needed.
#[derive(Clone)]
pub struct Set {
    shape: [usize; 3],
    pixels: Pixels,
    labels: Vec<u32>,
    path: PathBuf,
    class_names: Option<Vec<String>>,
    other_names: Option<Vec<String>>,
}

#[derive(Clone)]
enum Pixels {
    /// In memory or in a mapped file; a batch shares them.
    Kept(Images),
    /// Made when they are needed.
    Read(Arc<dyn Source>),
}

impl Set {
    /// The set of `labels.len()` images of `source`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when a side is 0 or an image too large to be counted.
    pub(super) fn new(
        shape: [usize; 3],
        source: impl Source + 'static,
        labels: Vec<u32>,
        path: &Path,
    ) -> Result<Self> {
        if size_of_image(shape).is_none_or(|size| size == 0) {
            let problem = format!("images of {} cannot be", shape_text(shape));
            return Err(Error::Malformed { path: path.into(), problem });
        }
        let pixels = Pixels::Read(Arc::new(source));
        Ok(Self { shape, pixels, labels, path: path.into(), class_names: None, other_names: None })
    }

    /// The same set, whose classes have these names in the order of their labels.
    ///
    /// # Errors
    ///
    /// [`Error::Label`] when a label has no name.
    pub(super) fn named(self, names: Vec<String>) -> Result<Self> {
        check(&self.labels, names.len(), &self.path)?;
        Ok(Self { class_names: Some(names), ..self })
    }

    /// The same set, whose classes have second names in the order of their labels.
    pub(super) fn also_named(self, names: Option<Vec<String>>) -> Self {
        Self { other_names: names, ..self }
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `[c, h, w]` of every image.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Classes of all images, in their order.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Classes of all images in order, as indices.
    #[must_use]
    pub fn targets(&self) -> Vec<usize> {
        self.labels.iter().map(|&label| label as usize).collect()
    }

    /// File or folder the images come from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the classes, in the order of their labels, where the source has them.
    #[must_use]
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// Second names of the classes: words, where the first are numbers of WordNet.
    #[must_use]
    pub fn other_names(&self) -> Option<&[String]> {
        self.other_names.as_deref()
    }

    /// The same images with other labels, and without names of classes.
    ///
    /// # Panics
    ///
    /// When there are not as many labels as images.
    #[must_use]
    pub fn relabelled(self, labels: Vec<u32>) -> Self {
        assert_eq!(labels.len(), self.len(), "one label an image");
        Self { labels, class_names: None, other_names: None, ..self }
    }

    /// Makes sure that a network of this input shape and this many classes can take the set.
    ///
    /// # Errors
    ///
    /// As [`Images::check`].
    pub fn check(&self, want_shape: [usize; 3], classes: usize) -> Result<()> {
        if self.shape != want_shape {
            let (want, got) = (shape_text(want_shape), shape_text(self.shape));
            return Err(Error::ImageSize { path: self.path.clone(), want, got });
        }
        check(&self.labels, classes, &self.path)
    }

    /// Writes image `i`, plane by plane.
    ///
    /// # Errors
    ///
    /// [`Error::File`] or [`Error::Malformed`] for a picture that cannot be read, [`Error::ImageSize`] for
    /// one that does not fit.
    ///
    /// # Panics
    ///
    /// When `i` is not below [`Self::len`] or `to` has another size than an image.
    pub fn read(&self, i: usize, to: &mut [u8]) -> Result<()> {
        assert!(i < self.len() && to.len() == self.image_bytes(), "image {i} of {}", self.len());
        match &self.pixels {
            Pixels::Kept(images) => to.copy_from_slice(images.image(i)),
            Pixels::Read(source) => source.read(i, to)?,
        }
        Ok(())
    }

    /// Some images, read in parallel; those of a mapped file are not copied.
    ///
    /// # Errors
    ///
    /// As [`Set::read`]; of several faults the first.
    ///
    /// # Panics
    ///
    /// When the range ends behind [`Self::len`].
    pub fn batch(&self, range: Range<usize>) -> Result<Images> {
        let labels = self.labels[range.clone()].to_vec();
        if let Pixels::Kept(images) = &self.pixels {
            return Ok(images.subset(&range.collect::<Vec<_>>()).relabelled(labels));
        }
        Images::from_parts(self.shape, self.pixels_of(range)?, labels, &self.path)
    }

    fn pixels_of(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let mut pixels = vec![0; range.len() * self.image_bytes()];
        let places = pixels.par_chunks_exact_mut(self.image_bytes()).zip(range);
        let read: Vec<Result<()>> = places.map(|(to, i)| self.read(i, to)).collect();
        read.into_iter().collect::<Result<()>>()?;
        Ok(pixels)
    }

    /// Shows all images in order, at most `size` together, with the number of the first; while some are
    /// shown, the next are read.
    ///
    /// # Errors
    ///
    /// Those of `show` and, as [`Set::read`], of reading; [`Error::Config`] when `size` is 0.
    pub fn each_batch(
        &self,
        size: usize,
        mut show: impl FnMut(usize, &Images) -> Result<()> + Send,
    ) -> Result<()> {
        if size == 0 {
            return Err(Error::Config { field: "batch", got: "0".into(), want: "at least 1".into() });
        }
        let from = |start: usize| start..self.len().min(start.saturating_add(size));
        let mut images = self.batch(from(0))?;
        for start in (0..self.len()).step_by(size) {
            let next = from(from(start).end);
            let (shown, read) = rayon::join(|| show(start, &images), || self.batch(next));
            shown?;
            images = read?;
        }
        Ok(())
    }

    /// All images, for work that looks at them again and again: read once into an unnamed mapped file in
    /// the system's folder for temporary files, unless they are in such a file already.
    ///
    /// # Errors
    ///
    /// As [`Set::read`], and [`Error::File`] when the folder cannot be written.
    pub fn keep(&self) -> Result<Images> {
        let images = match &self.pixels {
            Pixels::Kept(images) => images.relabelled(self.labels.clone()),
            Pixels::Read(_) if self.is_empty() => {
                Images::from_parts(self.shape, Vec::new(), Vec::new(), &self.path)?
            }
            Pixels::Read(_) => {
                let size = together(self.image_bytes());
                let pieces = (0..self.len())
                    .step_by(size)
                    .map(|start| self.pixels_of(start..self.len().min(start + size)));
                let pixels = Bytes::try_spool(pieces, &std::env::temp_dir())?;
                Images::from_bytes(self.shape, pixels, self.labels.clone(), &self.path)?
            }
        };
        self.class_names.clone().map_or(Ok(images.clone()), |names| images.with_class_names(names))
    }

    /// The same labels and names, with pixels of another shape from another place.
    pub(super) fn over_source(&self, shape: [usize; 3], source: impl Source + 'static) -> Self {
        Self { shape, pixels: Pixels::Read(Arc::new(source)), ..self.clone() }
    }

    /// Image `i` where it is in memory already.
    pub(super) fn kept(&self, i: usize) -> Option<&[u8]> {
        match &self.pixels {
            Pixels::Kept(images) => Some(images.image(i)),
            Pixels::Read(_) => None,
        }
    }

    /// Bytes of one image; over 0, for no side is 0.
    fn image_bytes(&self) -> usize {
        self.shape.iter().product()
    }
}

impl From<Images> for Set {
    fn from(images: Images) -> Self {
        let class_names = images.class_names().map(<[String]>::to_vec);
        Self {
            shape: images.shape(),
            labels: images.labels().to_vec(),
            path: images.path().into(),
            class_names,
            other_names: None,
            pixels: Pixels::Kept(images),
        }
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Set({} images of {} in {})", self.len(), shape_text(self.shape), self.path.display())
    }
}

/// Makes sure that there is a class for each label; `path` stands in errors.
pub(super) fn check(labels: &[u32], classes: usize, path: &Path) -> Result<()> {
    if classes == 0 {
        return Err(Error::Config { field: "classes", got: "0".into(), want: "at least 1".into() });
    }
    let wrong = labels.iter().position(|label| *label as usize >= classes);
    wrong.map_or(Ok(()), |index| {
        Err(Error::Label { path: path.into(), index, got: labels[index] as usize, classes })
    })
}
