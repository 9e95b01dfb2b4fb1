//! Labelled images of one size, and the ways to get, cut and change them.
//!
//! Pixels stay bytes until a batch is made: a set takes a quarter of its size as `f32`, and
//! damage and augmentation work on what the camera saw. A subset shares the pixels of the whole.
//!
//! Reading order: [`Images`], [`Set`], [`open()`], then [`batches`] and [`corrupt`].

pub mod augment;
pub mod batches;
mod change;
mod cifar;
pub mod corrupt;
pub mod decode;
mod fit;
pub mod folder;
pub mod idx;
mod map;
mod normalize;
pub mod npy;
mod open;
pub mod pictures;
mod records;
pub mod resize;
mod set;
pub mod split;
mod table;
mod tensors;
mod tiny_imagenet;
pub mod transfer;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::storage::{Bytes, Digest};

pub use fit::Fit;
pub use normalize::Normalize;
pub use open::{open, open_set};
pub use set::Set;
use set::check;

/// Labelled images of one size, 8 bits a channel.
#[derive(Clone, Debug)]
pub struct Images {
    shape: [usize; 3],
    /// Of all images that there are, shared with other sets.
    pixels: Bytes,
    /// Which of them are in this set, in its order; `None` for all.
    order: Option<Vec<u32>>,
    labels: Vec<u32>,
    path: PathBuf,
    class_names: Option<Vec<String>>,
}

impl Images {
    /// A set made of its parts; it may be empty.
    ///
    /// # Shapes and units
    ///
    /// `shape` is `[c, h, w]`; `pixels` holds `n * c * h * w` bytes, plane by plane (NCHW), for
    /// the `n` images that `labels` names. `path` says where they came from and stands in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when a side is 0 or the pixels are not as many as shape and labels say.
    pub fn from_parts(
        shape: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<u32>,
        path: impl Into<PathBuf>,
    ) -> Result<Self> {
        Self::from_bytes(shape, pixels.into(), labels, path)
    }

    /// As [`Images::from_parts`], with pixels that may lie in a mapped file.
    ///
    /// # Errors
    ///
    /// As [`Images::from_parts`].
    pub fn from_bytes(
        shape: [usize; 3],
        pixels: Bytes,
        labels: Vec<u32>,
        path: impl Into<PathBuf>,
    ) -> Result<Self> {
        let path = path.into();
        let want = size_of_image(shape).and_then(|size| size.checked_mul(labels.len()));
        if shape.contains(&0) || want != Some(pixels.len()) {
            let problem = format!(
                "{} bytes of pixels cannot be {} images of {}",
                pixels.len(),
                labels.len(),
                shape_text(shape)
            );
            return Err(Error::Malformed { path, problem });
        }
        Ok(Self { shape, pixels, order: None, labels, path, class_names: None })
    }

    /// The same set, whose classes have these names in the order of their labels.
    ///
    /// # Errors
    ///
    /// [`Error::Label`] when a label has no name.
    pub fn with_class_names(self, names: Vec<String>) -> Result<Self> {
        if !self.is_empty() {
            self.check(self.shape, names.len())?;
        }
        Ok(Self { class_names: Some(names), ..self })
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

    /// Bytes of image `i`, plane by plane.
    ///
    /// # Panics
    ///
    /// When `i` is not below [`Self::len`].
    #[must_use]
    pub fn image(&self, i: usize) -> &[u8] {
        let (i, size) = (self.order.as_ref().map_or(i, |order| order[i] as usize), self.image_bytes());
        &self.pixels[i * size..(i + 1) * size]
    }

    /// Bytes of all images, one after another; copied if the set is a part of another.
    #[must_use]
    pub fn pixels(&self) -> Cow<'_, [u8]> {
        match &self.order {
            None => Cow::Borrowed(&self.pixels),
            Some(_) => Cow::Owned((0..self.len()).flat_map(|i| self.image(i)).copied().collect()),
        }
    }

    /// The digest of [`Images::pixels`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_parts((0..self.len()).map(|i| self.image(i)))
    }

    /// The same images with other labels, and without names of classes.
    ///
    /// # Panics
    ///
    /// When there are not as many labels as images.
    #[must_use]
    pub fn relabelled(&self, labels: Vec<u32>) -> Self {
        assert_eq!(labels.len(), self.len(), "one label an image");
        Self { labels, class_names: None, ..self.clone() }
    }

    /// Classes of all images in order, as indices.
    #[must_use]
    pub fn targets(&self) -> Vec<usize> {
        self.labels.iter().map(|&label| label as usize).collect()
    }

    /// Class of image `i`.
    ///
    /// # Panics
    ///
    /// When `i` is not below [`Self::len`].
    #[must_use]
    pub fn label(&self, i: usize) -> u32 {
        self.labels[i]
    }

    /// Classes of all images, in their order.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// File or folder the images came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the classes, in the order of their labels, where the source has them.
    #[must_use]
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// Makes sure that a network of this input shape and this many classes can take the set.
    ///
    /// # Errors
    ///
    /// [`Error::ImageSize`] for another shape, [`Error::Label`] for a label without a class,
    /// [`Error::Config`] for a network without classes.
    pub fn check(&self, want_shape: [usize; 3], classes: usize) -> Result<()> {
        if self.shape != want_shape {
            return Err(Error::ImageSize {
                path: self.path.clone(),
                want: shape_text(want_shape),
                got: shape_text(self.shape),
            });
        }
        check(&self.labels, classes, &self.path)
    }

    /// The images at `indices`, in that order; an index may repeat.
    ///
    /// # Panics
    ///
    /// When an index is not below [`Self::len`].
    #[must_use]
    pub fn subset(&self, indices: &[usize]) -> Self {
        let place = |&i: &usize| self.order.as_ref().map_or(i as u32, |order| order[i]);
        Self {
            shape: self.shape,
            pixels: self.pixels.clone(),
            order: Some(indices.iter().map(place).collect()),
            labels: indices.iter().map(|i| self.labels[*i]).collect(),
            path: self.path.clone(),
            class_names: self.class_names.clone(),
        }
    }

    /// Adds the images of `other` behind the own ones; the path stays.
    ///
    /// # Errors
    ///
    /// [`Error::ImageSize`] when the shapes differ, [`Error::Config`] when both sets name their
    /// classes and the names differ. Nothing is added then.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        if self.shape != other.shape {
            let want =
                format!("images of one size, {} as in {}", shape_text(self.shape), self.path.display());
            return Err(Error::ImageSize { path: other.path.clone(), want, got: shape_text(other.shape) });
        }
        match (&self.class_names, &other.class_names) {
            (Some(own), Some(others)) if own != others => {
                return Err(Error::Config {
                    field: "class names",
                    got: format!("{} in {}", others.join(", "), other.path.display()),
                    want: format!("{} as in {}", own.join(", "), self.path.display()),
                });
            }
            (None, Some(others)) => self.class_names = Some(others.clone()),
            _ => {}
        }
        self.pixels = [self.pixels(), other.pixels()].concat().into();
        self.order = None;
        self.labels.extend_from_slice(&other.labels);
        Ok(())
    }

    /// Bytes of one image; over 0, for no side is 0.
    fn image_bytes(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Sets of the same images, labels and names, wherever their pixels are.
impl PartialEq for Images {
    fn eq(&self, other: &Self) -> bool {
        let facts = |set: &Self| (set.shape, set.labels.clone(), set.path.clone(), set.class_names.clone());
        facts(self) == facts(other) && (0..self.len()).all(|i| self.image(i) == other.image(i))
    }
}

impl Eq for Images {}

/// A shape as people write it: `1x28x28`.
#[must_use]
pub fn shape_text(shape: [usize; 3]) -> String {
    let [c, h, w] = shape;
    format!("{c}x{h}x{w}")
}

/// Bytes of an image of this shape, if they can be counted.
fn size_of_image([c, h, w]: [usize; 3]) -> Option<usize> {
    c.checked_mul(h)?.checked_mul(w)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three images of 2 channels and 1 x 2 pixels; pixel values count from 0.
    fn three() -> Images {
        Images::from_parts([2, 1, 2], (0..12).collect(), vec![1, 0, 2], "here").unwrap()
    }

    #[test]
    fn parts_that_do_not_fit_together_are_refused() {
        let refuse = |shape, pixels: usize, labels: usize| {
            Images::from_parts(shape, vec![0; pixels], vec![0; labels], "here").unwrap_err().to_string()
        };
        assert_eq!(
            refuse([1, 2, 2], 7, 2),
            "here is damaged or not of this format: 7 bytes of pixels cannot be 2 images of 1x2x2"
        );
        assert!(refuse([0, 2, 2], 0, 2).contains("0x2x2"));
        assert!(refuse([usize::MAX, 2, 2], 0, 0).contains("0 images"));
    }

    #[test]
    fn a_subset_takes_images_and_labels_in_the_order_asked() {
        let subset = three().subset(&[2, 0, 2]);
        assert_eq!((subset.image(0), subset.label(0)), (&[8, 9, 10, 11][..], 2));
        assert_eq!((subset.image(1), subset.label(1)), (&[0, 1, 2, 3][..], 1));
        assert_eq!((subset.len(), subset.shape()), (3, [2, 1, 2]));
        assert!(three().subset(&[]).is_empty());
    }

    #[test]
    fn a_network_of_another_shape_or_too_few_classes_is_told_so() {
        assert!(three().check([2, 1, 2], 3).is_ok());
        assert_eq!(
            three().check([1, 28, 28], 3).unwrap_err().to_string(),
            "here holds images of 2x1x2 (channels x height x width), the network takes 1x28x28"
        );
        assert_eq!(
            three().check([2, 1, 2], 2).unwrap_err().to_string(),
            "label 2 of image 2 in here: the network has 2 classes, 0 to 1"
        );
        assert_eq!(three().check([2, 1, 2], 0).unwrap_err().code(), 10);
        assert_eq!(three().with_class_names(vec!["one".into()]).unwrap_err().code(), 19);
    }

    #[test]
    fn extending_keeps_both_sets_and_refuses_what_does_not_match() {
        let mut both = three();
        both.extend(&three().with_class_names(["a", "b", "c"].map(String::from).into()).unwrap()).unwrap();
        assert_eq!(both.labels(), [1, 0, 2, 1, 0, 2]);
        assert_eq!(both.image(5), three().image(2));
        assert_eq!(both.class_names().unwrap().len(), 3);

        let renamed = three().with_class_names(["a", "x", "c"].map(String::from).into()).unwrap();
        assert_eq!(
            both.extend(&renamed).unwrap_err().to_string(),
            "class names is a, x, c in here, expected a, b, c as in here"
        );
        let other = Images::from_parts([1, 1, 1], vec![0], vec![0], "there").unwrap();
        assert!(
            both.extend(&other)
                .unwrap_err()
                .to_string()
                .ends_with("takes images of one size, 2x1x2 as in here")
        );
        assert_eq!(both.len(), 6);
    }
}
