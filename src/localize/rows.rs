//! What every neuron did on each image: one row of numbers an image, in an unnamed file, since
//! a thousand images and tens of thousands of neurons are more than a device can hold.

use std::path::Path;

use crate::error::Result;
use crate::kernels::tensor;
use crate::memory::cache::{Cache, Precision};

/// Rows of equal length.
#[derive(Debug)]
pub struct Rows {
    cache: Cache,
    row_len: usize,
}

impl Rows {
    /// The rows that `fill` pushes, of `row_len` numbers each, in a file in `folder`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] when the file cannot be written, and those of `fill`.
    pub fn collect(
        folder: &Path,
        row_len: usize,
        fill: impl FnOnce(&mut dyn FnMut(Vec<f32>) -> Result<()>) -> Result<()>,
    ) -> Result<Self> {
        let mut cache = Cache::create(folder, &[row_len], Precision::F32)?;
        fill(&mut |row| cache.push(&tensor(row, &[1, row_len])?))?;
        cache.finish()?;
        Ok(Self { cache, row_len })
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Numbers of a row.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Shows `see` the rows `indices` one after another.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] for a row that is not there.
    pub fn each(&self, indices: impl IntoIterator<Item = usize>, mut see: impl FnMut(&[f32])) -> Result<()> {
        let mut row = vec![0.0; self.row_len];
        for index in indices {
            self.cache.read_into(&[index], &mut row)?;
            see(&row);
        }
        Ok(())
    }

    /// The mean row of the rows `indices`.
    ///
    /// # Errors
    ///
    /// As [`Rows::each`].
    pub fn mean(&self, indices: &[usize]) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; self.row_len];
        self.each(indices.iter().copied(), |row| {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        })?;
        let n = indices.len().max(1) as f64;
        Ok(sums.into_iter().map(|sum| sum / n).collect())
    }
}
