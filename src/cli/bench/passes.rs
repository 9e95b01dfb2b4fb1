//! Times of a network's passes over batches of noise, in planned memory.

use std::time::Instant;

use crate::engine::executor::Executor;
use crate::engine::layout::Layout;
use crate::error::Result;
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
        let mut next = |passes: &mut Self| {
            passes.executor.input(passes.batch)?.fill_with(|| passes.rng.normal());
            pass(passes)
        };
        for _ in 0..WARM {
            next(self)?;
        }
        let (mut all, begun) = (Vec::new(), Instant::now());
        while all.len() < LEAST || begun.elapsed().as_secs_f64() < self.seconds {
            all.push(next(self)?);
        }
        Ok(all)
    }
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
