//! What to let go in a forward pass: gradient checkpointing, cut where it costs least.
//!
//! A segment keeps what other segments read of it and is run a second time when the backward
//! pass reaches it. Its own operations are alive only then, so the peak is the largest segment
//! and the values between segments.
//!
//! # Source
//!
//! Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv:1604.06174); the
//! optimal cut by dynamic programming over all cuts of a graph in its order is ours.

use std::ops::Range;

use serde::Serialize;

use super::grad::schedule::{kept_bytes, needed};
use super::grad::units::{Reads, Unit};
use super::grad::{Recompute, Wanted};
use crate::error::Result;
use crate::graph::op::elements;
use crate::graph::{Graph, Value};

/// How much is computed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Nothing.
    #[default]
    Nothing,
    /// Each alternative of a mixture, one at a time.
    Mixtures,
    /// Everything, in the segments with the smallest peak.
    Segments,
}

/// What to let go in passes through `graph`, for an input of this shape without images.
///
/// # Errors
///
/// [`crate::Error::Graph`] when the graph is not sound.
pub fn cut(graph: &Graph, input: &[usize], wanted: Wanted, depth: Depth) -> Result<Recompute> {
    match depth {
        // What an alternative gives is added up, and its gradient used, while it is in the caches.
        Depth::Nothing => Ok(Recompute { streamed: true, segments: Vec::new() }),
        Depth::Mixtures => Ok(Recompute { streamed: true, segments: alternatives(graph) }),
        Depth::Segments => {
            let sizes = Sizes::new(graph, input, wanted)?;
            Ok(Recompute { streamed: true, segments: sizes.best() })
        }
    }
}

/// For each alternative of each mixture its own units and the term that adds it.
fn alternatives(graph: &Graph) -> Vec<Range<usize>> {
    let reads = Reads::new(graph);
    let units = reads.units(graph, true);
    let readers = readers(graph, (&reads, &units));
    let own = |i: usize, end: usize| {
        let y = units[i].node + 1;
        units[i].term.is_none()
            && y != graph.output()
            && readers[y].iter().all(|&reader| (i..=end).contains(&reader))
    };
    let mut segments = Vec::new();
    for (end, _) in units.iter().enumerate().filter(|(_, unit)| unit.adds()) {
        let mut start = end;
        while start > 0 && own(start - 1, end) {
            start -= 1;
        }
        if start < end {
            segments.push(start..end + 1);
        }
    }
    segments
}

/// For each value the units that read it going forward.
fn readers(graph: &Graph, (reads, units): (&Reads, &[Unit])) -> Vec<Vec<usize>> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len() + 1];
    for (i, unit) in units.iter().enumerate() {
        reads.forward(graph, *unit).into_iter().for_each(|v| readers[v].push(i));
    }
    readers
}

/// Bytes that segments hold, an image.
struct Sizes {
    /// `between[a][b - a - 1]`: what units `a..b` give that others read.
    between: Vec<Vec<usize>>,
    /// `inside[a][b - a - 1]`: what is alive when units `a..b` go backward.
    inside: Vec<Vec<usize>>,
}

impl Sizes {
    fn new(graph: &Graph, input: &[usize], wanted: Wanted) -> Result<Self> {
        let (shapes, needed) = (graph.shapes(input)?, needed(graph, input, wanted)?);
        let reads = Reads::new(graph);
        let units = reads.units(graph, true);
        let bytes = |v: Value| 4 * elements(&shapes[v]);
        // The last unit that reads each value, forward or backward.
        let mut last: Vec<Option<usize>> = vec![None; shapes.len()];
        let mut backward = vec![false; shapes.len()];
        for (i, unit) in units.iter().enumerate() {
            reads.forward(graph, *unit).into_iter().for_each(|v| last[v] = Some(i));
            if needed[unit.node + 1] {
                let read = reads.backward(graph, *unit, wanted, &needed);
                read.into_iter().for_each(|v| backward[v] = true);
            }
        }
        last[graph.output()] = Some(usize::MAX);
        let more = |unit: &Unit| {
            let y = unit.node + 1;
            if needed[y] { kept_bytes(&graph.nodes[unit.node].op, elements(&shapes[y])) } else { 0 }
        };
        let n = units.len();
        let (mut between, mut inside) = (vec![Vec::new(); n], vec![Vec::new(); n]);
        for a in 0..n {
            let mut held = 0;
            for b in a + 1..=n {
                let unit = &units[b - 1];
                let y = unit.node + 1;
                held += more(unit) + if backward[y] && !unit.adds() { bytes(y) } else { 0 };
                let read_later = (a..b).filter(|&i| last[units[i].node + 1].is_some_and(|last| last >= b));
                let mut values: Vec<Value> = read_later.map(|i| units[i].node + 1).collect();
                values.dedup();
                between[a].push(values.into_iter().map(bytes).sum());
                inside[a].push(held);
            }
        }
        Ok(Self { between, inside })
    }

    /// The segments with the least peak; the last one runs backward at once and is kept.
    fn best(&self) -> Vec<Range<usize>> {
        let n = self.inside.len();
        let (mut low, mut high) =
            (0, self.inside.first().and_then(|row| row.last()).copied().unwrap_or(0) + 1);
        let mut best = Vec::new();
        while low < high {
            let middle = low.midpoint(high);
            match self.within(middle) {
                Some(cuts) => (best, high) = (cuts, middle),
                None => low = middle + 1,
            }
        }
        let ends = best.iter().skip(1).copied();
        best.iter().copied().zip(ends).filter(|(_, end)| *end < n).map(|(start, end)| start..end).collect()
    }

    /// Cuts from 0 to the last unit under which no segment goes over `limit`, with the least
    /// held between segments.
    fn within(&self, limit: usize) -> Option<Vec<usize>> {
        let n = self.inside.len();
        let mut reached: Vec<Option<(usize, usize)>> = vec![None; n + 1];
        reached[0] = Some((0, 0));
        for a in 0..n {
            let Some((held, _)) = reached[a] else { continue };
            let sizes = self.inside[a].iter().zip(&self.between[a]);
            for (to, (inside, between)) in reached[a + 1..].iter_mut().zip(sizes) {
                if held + inside > limit {
                    break;
                }
                if to.is_none_or(|(best, _)| held + between < best) {
                    *to = Some((held + between, a));
                }
            }
        }
        let mut cuts = vec![n];
        let mut at = n;
        while at > 0 {
            at = reached[at]?.1;
            cuts.push(at);
        }
        cuts.reverse();
        Some(cuts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Sizes of `n` units: what is inside only grows with the segment.
    fn drawn(n: usize, rng: &mut Rng) -> Sizes {
        let (mut between, mut inside) = (Vec::new(), Vec::new());
        for a in 0..n {
            let mut sum = 0;
            let grown = (a..n).map(|_| {
                sum += rng.below(20);
                sum
            });
            inside.push(grown.collect());
            between.push((a..n).map(|_| rng.below(15)).collect());
        }
        Sizes { between, inside }
    }

    /// The peak under these cuts: what earlier segments hold and what this one does.
    fn peak(sizes: &Sizes, cuts: &[usize]) -> usize {
        let mut held = 0;
        let segments = cuts.windows(2).map(|cut| {
            let [a, b] = [cut[0], cut[1]];
            let peak = held + sizes.inside[a][b - a - 1];
            held += sizes.between[a][b - a - 1];
            peak
        });
        segments.max().unwrap_or(0)
    }

    #[test]
    fn no_other_cuts_have_a_smaller_peak() {
        let rng = &mut Rng::new(1);
        for _ in 0..200 {
            let n = 1 + rng.below(8);
            let sizes = drawn(n, rng);
            // Every set of cuts between the first unit and the last is a number in binary.
            let all = (0..1usize << (n - 1)).map(|set| {
                let inner = (1..n).filter(|cut| set >> (cut - 1) & 1 == 1);
                std::iter::once(0).chain(inner).chain(std::iter::once(n)).collect::<Vec<_>>()
            });
            let least = all.map(|cuts| peak(&sizes, &cuts)).min().unwrap();
            let segments = sizes.best();
            let cuts: Vec<usize> = std::iter::once(0)
                .chain(segments.iter().map(|segment| segment.end))
                .chain(std::iter::once(n))
                .collect();
            assert_eq!(peak(&sizes, &cuts), least);
        }
    }
}
