//! Statistics of more images than memory holds at once.

use candle_core::Tensor;

use super::{Moments, Statistics, image_dims, join, moments, of_channel, rounded, slice};
use crate::error::Result;

/// Statistics of images that are seen a few at a time: the same bits as [`statistics`](super::statistics) of all.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// For each channel its planes.
    channels: Vec<Vec<Moments>>,
}

impl Seen {
    /// Looks at `x`, `[n, c, h, w]` in `f32` on the CPU, with as many channels and pixels as before.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] for another kind of tensor.
    pub fn add(&mut self, x: &Tensor) -> Result<()> {
        let [_, c, h, w] = image_dims(x)?;
        self.channels.resize_with(c, Vec::new);
        let x = slice::<f32>(x)?;
        for (j, planes) in self.channels.iter_mut().enumerate() {
            planes.extend(of_channel(&x, j, c, h * w).map(moments));
        }
        Ok(())
    }

    /// What was seen.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when candle refuses.
    pub fn statistics(&self) -> Result<Statistics> {
        let joined: Vec<Moments> = self.channels.iter().map(|planes| join(planes)).collect();
        let shape = &[joined.len()];
        Ok(Statistics {
            mean: rounded::<f32>(joined.iter().map(|m| m.mean), shape)?,
            var: rounded::<f32>(joined.iter().map(|m| m.var), shape)?,
        })
    }
}
