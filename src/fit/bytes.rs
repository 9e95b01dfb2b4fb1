//! Bytes of a training step before it runs.

use std::collections::BTreeSet;

use super::Site;
use crate::engine::checkpoint::cut;
use crate::engine::grad::{Norms, Wanted};
use crate::error::Result;
use crate::graph::Graph;
use crate::graph::op::elements;
use crate::memory::plan::{Fate, Peak, Step};

/// Bytes of all tensors of `graph` in `f32`, for an input of this shape.
///
/// # Errors
///
/// [`crate::Error::Graph`] when the graph is not sound.
pub fn own_bytes(graph: &Graph, input: &[usize]) -> Result<usize> {
    Ok(graph.params(input)?.iter().map(|p| 4 * elements(&p.param.shape)).sum())
}

/// What a training step of `graph` at `site` holds beside its tensors, with batches of `batch` images
/// on `threads` threads. The tensors of which `changes` says so change; the optimizer remembers all.
///
/// # Errors
///
/// As [`own_bytes`].
pub fn step_peak(
    site: &Site,
    graph: &Graph,
    (batch, threads): (usize, usize),
    changes: &dyn Fn(&str) -> bool,
) -> Result<Peak> {
    let levers = site.levers;
    let wanted = Wanted { trained: &|_| true, input: false, norms: Norms::Fixed };
    let named = graph.params(&site.input)?;
    let trainable = || named.iter().filter(|p| p.param.trainable);
    let trained: BTreeSet<String> =
        trainable().map(|p| p.name.clone()).filter(|name| changes(name)).collect();
    let step = Step {
        graph,
        trained: &trained,
        trained_bytes: trainable().map(|p| 4 * elements(&p.param.shape)).sum(),
        recompute: &cut(graph, &site.input, wanted, levers.depth)?,
        input: &site.input,
        suffix: &site.suffix,
        params: None,
        gradients: if site.steps_at_once(batch) { Fate::Stepped } else { Fate::Summed },
        mapped: levers.mapped,
        batch,
        micro_batch: levers.micro_batch,
        states: levers.rule().states(),
        threads,
    };
    step.peak()
}
