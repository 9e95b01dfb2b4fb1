//! Sets made from others image by image.

use std::path::Path;

use rayon::prelude::*;

use super::Images;
use crate::error::Result;
use crate::storage::Bytes;

/// Bytes of images that are changed before they are written, and most images of them.
const TOGETHER_BYTES: usize = 1 << 20;
const TOGETHER: usize = 32;

/// How many images of `size` bytes are changed before they are written.
pub(super) fn together(size: usize) -> usize {
    (TOGETHER_BYTES / size.max(1)).clamp(1, TOGETHER)
}

impl Images {
    /// The same set with each image changed by `change(index, from, to)`, in parallel; `to` is
    /// zero before.
    pub(crate) fn map(&self, change: impl Fn(usize, &[u8], &mut [u8]) + Sync) -> Self {
        let size = self.image_bytes();
        let mut pixels = vec![0; self.len() * size];
        let images = pixels.par_chunks_exact_mut(size).enumerate();
        images.for_each(|(i, to)| change(i, self.image(i), to));
        Self { pixels: pixels.into(), order: None, ..self.clone() }
    }

    /// [`Self::map`] with the result in an unnamed mapped file, a few images at a time.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the folder cannot be written.
    pub(crate) fn map_spooled(
        &self,
        folder: &Path,
        change: impl Fn(usize, &[u8], &mut [u8]) + Sync,
    ) -> Result<Self> {
        if self.is_empty() {
            return Ok(self.clone());
        }
        let size = self.image_bytes();
        let together = together(size);
        let changed = (0..self.len()).step_by(together).map(|start| {
            let mut pixels = vec![0; together.min(self.len() - start) * size];
            let images = pixels.par_chunks_exact_mut(size).enumerate();
            images.for_each(|(i, to)| change(start + i, self.image(start + i), to));
            pixels
        });
        Ok(Self { pixels: Bytes::spool(changed, folder)?, order: None, ..self.clone() })
    }
}
