//! From bytes to what a network takes: `(x / 255 - mean) / std`, channel by channel.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::Images;
use crate::error::{During, Error, Result};

/// Mean and deviation of each channel, of pixels scaled to 0..1.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    mean: Vec<f32>,
    std: Vec<f32>,
    /// What each of the 256 bytes becomes, for each channel.
    tables: Vec<[f32; 256]>,
}

impl Normalize {
    /// The normalization by these means and deviations, one a channel.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when their numbers differ or are 0, a mean is not finite, or a deviation
    /// is not finite and over 0.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Result<Self> {
        let config = |field, got: String, want: &str| Err(Error::Config { field, got, want: want.into() });
        if mean.is_empty() || mean.len() != std.len() {
            let got = format!("{} means and {} deviations", mean.len(), std.len());
            return config("normalization", got, "one of each a channel");
        }
        if let Some(wrong) = mean.iter().find(|mean| !mean.is_finite()) {
            return config("mean", wrong.to_string(), "finite");
        }
        if let Some(wrong) = std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            return config("std", wrong.to_string(), "finite and over 0");
        }
        Ok(Self::checked(mean, std))
    }

    /// Pixels scaled to 0..1 and nothing else, for `channels` channels.
    #[must_use]
    pub fn scale_only(channels: usize) -> Self {
        Self::checked(vec![0.0; channels], vec![1.0; channels])
    }

    /// Mean of each channel.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Deviation of each channel.
    #[must_use]
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    fn checked(mean: Vec<f32>, std: Vec<f32>) -> Self {
        let table = |(mean, std)| std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std);
        let tables = mean.iter().zip(&std).map(table).collect();
        Self { mean, std, tables }
    }
}

impl Images {
    /// The images at `indices` as one normalized tensor on the CPU.
    ///
    /// # Shapes and units
    ///
    /// `[n, c, h, w]` of `f32`, `n` the number of indices.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when `normalize` is for another number of channels or an index is not
    /// below [`Images::len`], [`Error::Tensor`] when candle refuses the shape.
    pub fn batch(&self, indices: &[usize], normalize: &Normalize) -> Result<Tensor> {
        let [c, h, w] = self.shape;
        let mut batch = vec![0.0; indices.len() * self.image_bytes()];
        self.batch_into(indices, normalize, &mut batch)?;
        Tensor::from_vec(batch, (indices.len(), c, h, w), &Device::Cpu).during("making a batch of images")
    }

    /// Writes the normalized images at `indices` to `batch`, `c * h * w` numbers an image.
    /// Allocates nothing.
    ///
    /// # Errors
    ///
    /// As [`Images::batch`], and [`Error::Config`] when `batch` is for another number of images.
    pub fn batch_into(&self, indices: &[usize], normalize: &Normalize, batch: &mut [f32]) -> Result<()> {
        let [c, h, w] = self.shape;
        if normalize.mean.len() != c {
            let got = format!("for {} channels", normalize.mean.len());
            return Err(Error::Config { field: "normalization", got, want: format!("for {c}") });
        }
        if let Some(wrong) = indices.iter().find(|i| **i >= self.len()) {
            let want = format!("below {}, the number of images", self.len());
            return Err(Error::Config { field: "image index", got: wrong.to_string(), want });
        }
        if batch.len() != indices.len() * self.image_bytes() {
            let want = format!("{} numbers", indices.len() * self.image_bytes());
            return Err(Error::Config { field: "batch", got: batch.len().to_string(), want });
        }
        batch.par_chunks_exact_mut(self.image_bytes()).zip(indices).for_each(|(to, i)| {
            let planes = self.image(*i).chunks_exact(h * w).zip(to.chunks_exact_mut(h * w));
            for (table, (from, to)) in normalize.tables.iter().zip(planes) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = table[usize::from(*from)]);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_the_normalized_images_in_the_order_asked() {
        let images =
            Images::from_parts([2, 1, 2], vec![0, 255, 51, 102, 255, 0, 0, 0], vec![0, 1], "t").unwrap();
        let normalize = Normalize::new(vec![0.5, 0.2], vec![0.5, 0.2]).unwrap();
        let batch = images.batch(&[1, 0], &normalize).unwrap();
        assert_eq!(batch.dims(), [2, 2, 1, 2]);
        // (51 / 255 - 0.2) / 0.2 = 0 and (102 / 255 - 0.2) / 0.2 = 1.
        let want = [1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 0.0, 1.0];
        let got = batch.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(got.iter().zip(want).all(|(got, want): (&f32, f32)| (got - want).abs() < 1e-6), "{got:?}");
    }

    #[test]
    fn a_batch_of_nothing_is_a_tensor_of_no_image() {
        let images = Images::from_parts([1, 1, 1], vec![0], vec![0], "t").unwrap();
        assert_eq!(images.batch(&[], &Normalize::scale_only(1)).unwrap().dims(), [0, 1, 1, 1]);
    }

    #[test]
    fn wrong_numbers_are_refused() {
        let images = Images::from_parts([1, 1, 1], vec![0], vec![0], "t").unwrap();
        let text = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert_eq!(
            text(images.batch(&[0], &Normalize::scale_only(3))),
            "normalization is for 3 channels, expected for 1"
        );
        assert_eq!(
            text(images.batch(&[1], &Normalize::scale_only(1))),
            "image index is 1, expected below 1, the number of images"
        );
        let error = images.batch_into(&[0], &Normalize::scale_only(1), &mut [0.0; 2]).unwrap_err();
        assert_eq!(error.to_string(), "batch is 2, expected 1 numbers");
        for (mean, std) in [
            (vec![], vec![]),
            (vec![0.0], vec![]),
            (vec![f32::NAN], vec![1.0]),
            (vec![0.0], vec![0.0]),
            (vec![0.0], vec![f32::NAN]),
        ] {
            assert_eq!(Normalize::new(mean, std).unwrap_err().code(), 10);
        }
    }
}
