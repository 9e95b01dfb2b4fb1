//! Times of a network's passes over batches of noise: in planned memory, or on a device.

use std::time::Instant;

use candle_core::{Device, Tensor};

use crate::device::{Compute, to_host};
use crate::engine::executor::Executor;
use crate::engine::infer::infer;
use crate::engine::layout::Layout;
use crate::error::{During, Result};
use crate::graph::lower::Lowered;
use crate::rng::Rng;

/// Passes that are not timed: threads make their scratch, pages of weights are read.
const WARM: usize = 2;
/// Passes that are, however long they take.
const LEAST: usize = 5;

/// One network with one size of batch.
pub(super) struct Passes<'a> {
    executor: Executor<'a>,
    nodes: usize,
    batch: usize,
    rng: Rng,
    /// How long they are repeated.
    seconds: f64,
}

impl<'a> Passes<'a> {
    /// Passes over batches of `batch` images of shape `input`, repeated for `seconds`.
    pub(super) fn new(
        network: &'a Lowered,
        (input, batch): (&[usize], usize),
        (seed, seconds): (u64, f64),
    ) -> Result<Self> {
        let threads = rayon::current_num_threads();
        let layout = Layout::new((&network.graph, &network.params), (input, batch), threads)?;
        let (executor, rng) = (layout.executor()?, Rng::new(seed));
        Ok(Self { executor, nodes: network.graph.nodes.len(), batch, rng, seconds })
    }

    /// Median seconds of a pass.
    pub(super) fn whole(&mut self) -> Result<f64> {
        let times = self.repeat(|passes| {
            let begun = Instant::now();
            passes.executor.run(passes.batch)?;
            Ok(begun.elapsed().as_secs_f64())
        })?;
        Ok(median(times))
    }

    /// Median seconds of each node.
    pub(super) fn by_node(&mut self) -> Result<Vec<f64>> {
        let all = self.repeat(|passes| {
            let mut times = Vec::with_capacity(passes.nodes);
            let mut begun = Instant::now();
            passes.executor.observe(passes.batch, |_| {
                let now = Instant::now();
                times.push((now - begun).as_secs_f64());
                begun = now;
            })?;
            Ok(times)
        })?;
        Ok((0..self.nodes).map(|i| median(all.iter().map(|times| times[i]).collect())).collect())
    }

    /// What `pass` says again and again; it finds new noise in the input each time.
    fn repeat<T>(&mut self, mut pass: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        repeat(self.seconds, || {
            self.executor.input(self.batch)?.fill_with(|| self.rng.normal());
            pass(self)
        })
    }
}

/// Median seconds of a pass of a network that was placed for `compute`, from values on its device to logits on
/// the CPU: who asks for them waits until the device has done its work.
pub(super) fn on_device(
    (network, compute): (&Lowered, &Compute),
    (input, batch): (&[usize], usize),
    (seed, seconds): (u64, f64),
) -> Result<f64> {
    let mut rng = Rng::new(seed);
    let shape = [&[batch], input].concat();
    let noise: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    let x = Tensor::from_vec(noise, shape, &Device::Cpu).during("making noise")?;
    let x = compute.value(&x)?;
    let times = repeat(seconds, || {
        let begun = Instant::now();
        to_host(&infer(&network.graph, &network.params, &x)?)?;
        Ok(begun.elapsed().as_secs_f64())
    })?;
    Ok(median(times))
}

/// What `pass` says again and again for so many seconds.
fn repeat<T>(seconds: f64, mut pass: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    for _ in 0..WARM {
        pass()?;
    }
    let (mut all, begun) = (Vec::new(), Instant::now());
    while all.len() < LEAST || begun.elapsed().as_secs_f64() < seconds {
        all.push(pass()?);
    }
    Ok(all)
}

/// The time in the middle; 0 of none.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
