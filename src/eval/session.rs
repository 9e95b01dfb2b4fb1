//! A network that runs again and again, in memory that is made once.

use candle_core::Tensor;

use super::Runner;
use crate::data::{Images, shape_text};
use crate::engine::executor::Executor;
use crate::engine::layout::Layout;
use crate::error::{During, Error, Result};

/// Runs batches of images of one shape.
///
/// On the CPU all memory is planned: after the first batch nothing is allocated. On other devices
/// each batch makes its own tensors.
#[derive(Debug)]
pub struct Session<'a> {
    runner: &'a Runner,
    shape: [usize; 3],
    memory: Memory<'a>,
}

#[derive(Debug)]
enum Memory<'a> {
    Planned(Executor<'a>),
    /// The last logits, copied from the device.
    Tensors(Vec<f32>),
}

impl<'a> Session<'a> {
    pub(super) fn new(runner: &'a Runner, shape: [usize; 3], batch: usize) -> Result<Self> {
        let lowered = &runner.lowered;
        if !lowered.params.device().is_cpu() {
            return Ok(Self { runner, shape, memory: Memory::Tensors(Vec::new()) });
        }
        let threads = rayon::current_num_threads();
        let layout = Layout::new((&lowered.graph, &lowered.params), (&shape, batch), threads)?;
        Ok(Self { runner, shape, memory: Memory::Planned(layout.executor()?) })
    }

    /// Logits of the images at `indices`, `classes` numbers an image.
    ///
    /// # Errors
    ///
    /// [`Error::ImageSize`] for images of another shape, [`Error::Config`] when there are more
    /// indices than the session's batch or one is too high, [`Error::Tensor`] when the device
    /// refuses.
    pub fn logits(&mut self, images: &Images, indices: &[usize]) -> Result<&[f32]> {
        if images.shape() != self.shape {
            let (want, got) = (shape_text(self.shape), shape_text(images.shape()));
            return Err(Error::ImageSize { path: images.path().into(), want, got });
        }
        let normalize = &self.runner.normalize;
        match &mut self.memory {
            Memory::Planned(executor) => {
                images.batch_into(indices, normalize, executor.input(indices.len())?)?;
                executor.run(indices.len())
            }
            Memory::Tensors(last) => {
                *last = numbers(&self.runner.run(&images.batch(indices, normalize)?)?)?;
                Ok(last)
            }
        }
    }
}

fn numbers(logits: &Tensor) -> Result<Vec<f32>> {
    logits.flatten_all().and_then(|logits| logits.to_vec1()).during("reading logits")
}
