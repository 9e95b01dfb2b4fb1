//! Sets made of others: their images changed when they are read.

use super::Fit;
use super::resize::Planes;
use super::set::{Set, Source};
use crate::error::Result;
use crate::rng::Rng;

impl Set {
    /// The same set with each image changed by `change(random, from, to)`, when it is read; `random` comes
    /// from `seed` and the image's number.
    pub(super) fn changed(
        &self,
        seed: u64,
        change: impl Fn(Rng, &[u8], &mut [u8]) + Send + Sync + 'static,
    ) -> Self {
        self.over_source(self.shape(), Changed { set: self.clone(), seed, change })
    }

    /// The same set at the size that `fit` asks for, if it says how pictures are resized.
    pub(super) fn fitted(self, fit: &Fit) -> Self {
        let [c, h, w] = self.shape();
        match (fit.size, fit.resize) {
            (Some(size), Some(_)) if size != [h, w] => {
                let source = Fitted { fit: fit.clone(), set: self.clone() };
                self.over_source([c, size[0], size[1]], source)
            }
            _ => self,
        }
    }
}

/// Images of another set, each changed on its own.
struct Changed<F> {
    set: Set,
    seed: u64,
    change: F,
}

impl<F: Fn(Rng, &[u8], &mut [u8]) + Send + Sync> Source for Changed<F> {
    fn read(&self, i: usize, to: &mut [u8]) -> Result<()> {
        let random = Rng::stream(self.seed, i as u64);
        if let Some(from) = self.set.kept(i) {
            (self.change)(random, from, to);
            return Ok(());
        }
        let mut from = vec![0; to.len()];
        self.set.read(i, &mut from)?;
        (self.change)(random, &from, to);
        Ok(())
    }
}

/// Images of another set at another size.
struct Fitted {
    set: Set,
    fit: Fit,
}

impl Source for Fitted {
    fn read(&self, i: usize, to: &mut [u8]) -> Result<()> {
        let [c, h, w] = self.set.shape();
        let mut pixels = vec![0; c * h * w];
        self.set.read(i, &mut pixels)?;
        let fitted = self.fit.apply(Planes { pixels, size: [h, w] }, self.set.path())?;
        to.copy_from_slice(&fitted.pixels);
        Ok(())
    }
}
