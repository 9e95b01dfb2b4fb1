//! A network that runs again and again, in memory that is made once.

use candle_core::Tensor;

use super::Runner;
use crate::data::{Images, shape_text};
use crate::engine::executor::Executor;
use crate::engine::layout::Layout;
use crate::error::{During, Error, Result};
use crate::graph::lower::Lowered;

/// Runs batches of images of one shape.
///
/// In `f32` on the CPU all memory is planned: after the first batch nothing is allocated. Elsewhere each
/// batch makes its own tensors.
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
        if !runner.compute.is_host() {
            return Ok(Self { runner, shape, memory: Memory::Tensors(Vec::new()) });
        }
        let layout = Self::layout(runner, shape, batch)?;
        Ok(Self { runner, shape, memory: Memory::Planned(layout.executor()?) })
    }

    /// Where everything lies on the CPU.
    pub(super) fn layout(runner: &Runner, shape: [usize; 3], batch: usize) -> Result<Layout<'_>> {
        let Lowered { graph, params } = &runner.lowered;
        Layout::new((graph, params), (&shape, batch), rayon::current_num_threads())
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::eval::Deployed;
    use crate::rng::Rng;
    use crate::zoo::{Model, Overrides};

    fn runner() -> Runner {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
        let model = Model::open(&path, &Overrides::default()).unwrap();
        Deployed::new(model.network.clone(), model.params().unwrap()).runner().unwrap()
    }

    fn noise(n: usize, [h, w]: [usize; 2]) -> Images {
        let rng = &mut Rng::new(1);
        let pixels = (0..n * h * w).map(|_| rng.below(256) as u8).collect();
        Images::from_parts([1, h, w], pixels, vec![0; n], "noise").unwrap()
    }

    #[test]
    fn planned_memory_and_tensors_give_the_same_bits() {
        let (runner, images) = (runner(), noise(5, [28, 28]));
        let mut planned = runner.session([1, 28, 28], 3).unwrap();
        let mut tensors =
            Session { runner: &runner, shape: [1, 28, 28], memory: Memory::Tensors(Vec::new()) };
        for indices in [&[0, 1, 2][..], &[4], &[3, 0]] {
            let logits = planned.logits(&images, indices).unwrap();
            assert_eq!(logits.len(), 10 * indices.len());
            assert_eq!(logits, tensors.logits(&images, indices).unwrap());
        }
        assert_eq!(runner.logits(&images).unwrap().dims(), [5, 10]);
        assert_eq!(runner.classes(&noise(0, [28, 28])).unwrap(), Vec::<usize>::new());
    }

    #[test]
    fn what_does_not_fit_a_session_is_refused() {
        let runner = runner();
        let mut session = runner.session([1, 28, 28], 1).unwrap();
        let text = |result: Result<&[f32]>| result.unwrap_err().to_string();
        let wrong = text(session.logits(&noise(1, [28, 14]), &[0]));
        assert!(wrong.contains("1x28x14") && wrong.contains("1x28x28"), "{wrong}");
        let many = text(session.logits(&noise(2, [28, 28]), &[0, 1]));
        assert_eq!(many, "images is 2, expected at most 1");
    }
}
