//! What an alternative is worth: what the validation loss does when it is taken out of the trained mixture
//! (DARTS-PT, Wang et al. 2021).
//!
//! Each is taken out in turn, so plainly the part runs once for every alternative. What comes before the
//! alternative's mixture is the same in all of these passes, and so are the other alternatives of that mixture,
//! which are most of the work. So here one pass halts before every mixture; copies of it, each with another
//! alternative closed, go on from there. Losses are those of whole passes, to the bit.

use super::space::{Position, is_choice};
use crate::engine::infer::Forward;
use crate::error::{Error, Result};
use crate::fit::{Part, Samples, Sets, Site};
use crate::graph::lower::Lowered;
use crate::graph::op::{Op, elements};
use crate::graph::{Graph, Node, Value};

/// Names of the alternatives of a position, and by how much the loss on held-back images rises without each.
pub(super) type Worth = Vec<(String, f64)>;

/// An alternative that is taken out.
struct Closed {
    /// The value of its gate.
    gate: Value,
    /// The node that mixes it with others.
    mix: usize,
}

/// What each alternative at each position of the trained mixture `part` is worth.
///
/// # Errors
///
/// [`Error::Graph`] when an alternative is in no mixture, [`Error::File`] when a cache cannot be read,
/// [`Error::Tensor`] when the device refuses.
pub(super) fn worth(
    site: &Site,
    (positions, part): (&[Position], &Part),
    validation: Sets,
) -> Result<Vec<Worth>> {
    let lowered = site.lowered(&part.graph, &part.params)?;
    let alternatives = positions.iter().flat_map(|position| &position.alternatives);
    let closed = alternatives.map(|alternative| Closed::new(&lowered.graph, &alternative.gate));
    let closed = closed.collect::<Result<Vec<_>>>()?;
    let ask = |samples| losses(site, (&lowered, &closed), samples);
    let failures = ask(validation.failures)?;
    let surrogates = validation.surrogates.map_or_else(|| Ok(failures.clone()), ask)?;
    let replay = ask(validation.replay)?;
    // Half is the loss on replay, the other half that on failures and surrogates.
    let sets = failures.iter().zip(surrogates).zip(replay);
    let mut held_back =
        sets.map(|((failures, surrogates), replay)| ((failures + surrogates) / 2.0 + replay) / 2.0);
    let whole = held_back.next().unwrap_or_default();
    let of = |position: &Position| {
        let names = position.alternatives.iter().map(|alternative| alternative.name.clone());
        names.zip(held_back.by_ref().map(|without| without - whole)).collect()
    };
    Ok(positions.iter().map(of).collect())
}

/// The mean cross entropy of `samples` in the whole mixture, then without each of `closed`.
fn losses(site: &Site, (part, closed): (&Lowered, &[Closed]), samples: &Samples) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; 1 + closed.len()];
    for batch in samples.batches(site) {
        let x = site.compute.value(&samples.batch(&batch)?)?;
        let mut add = |i: usize, pass: Forward| {
            let losses = samples.losses(&batch, &site.behind(&pass.finish()?)?)?;
            losses.into_iter().for_each(|loss| sums[i] += loss);
            Ok::<_, Error>(())
        };
        let mut pass = Forward::new(&part.graph, &part.params, &x);
        for (at, node) in part.graph.nodes.iter().enumerate() {
            for (i, closed) in closed.iter().enumerate().filter(|(_, closed)| closed.mix == at) {
                // A closed gate hands on what was deployed, which the mixture has as its first.
                let mut without = pass.clone();
                without.replace(closed.gate, node.inputs[0]);
                add(1 + i, without)?;
            }
            pass.step()?;
        }
        add(0, pass)?;
    }
    Ok(sums.into_iter().map(|sum| sum / samples.len().max(1) as f64).collect())
}

impl Closed {
    /// The alternative with this gate.
    fn new(graph: &Graph, gate: &str) -> Result<Self> {
        let at = |is: &dyn Fn(&Node) -> bool| graph.nodes.iter().position(is);
        let value = at(&|node| node.op == Op::Gate && node.param("gate") == gate).map(|node| node + 1);
        let mix = value.and_then(|value| at(&|node| node.op == Op::Mix && node.inputs.contains(&value)));
        match (value, mix) {
            (Some(gate), Some(mix)) => Ok(Self { gate, mix }),
            _ => Err(Error::Graph { node: gate.into(), problem: "is the gate of no alternative".into() }),
        }
    }
}

/// Numbers of an image that live before a mixture of `graph` and stay while copies of the pass go on: the most of
/// them.
///
/// # Errors
///
/// [`Error::Graph`] when the graph is not sound.
pub fn held(graph: &Graph, input: &[usize]) -> Result<usize> {
    let (shapes, last) = (graph.shapes(input)?, graph.last_uses());
    let before = |(i, node): (usize, &Node)| {
        let alive = (0..=i).filter(|&v| last[v].is_some_and(|last| last >= i));
        if is_choice(node) { alive.map(|v| elements(&shapes[v])).sum() } else { 0 }
    };
    Ok(graph.nodes.iter().enumerate().map(before).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{Device, Tensor};

    use super::super::candidate::CleanStatistics;
    use super::super::discretize::HeldBack;
    use super::super::space::{Space, relax};
    use super::*;
    use crate::eval::Deployed;
    use crate::fit::Level;
    use crate::memory::cache::{Cache, Precision};
    use crate::rng::Rng;
    use crate::zoo::{Model, Overrides};

    fn normal(shape: &[usize], rng: &mut Rng) -> Tensor {
        let numbers: Vec<f32> = (0..elements(shape)).map(|_| rng.normal()).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    }

    /// `n` images of noise.
    fn samples(site: &Site, n: usize, rng: &mut Rng) -> Samples {
        let mut cache = Cache::create(&std::env::temp_dir(), &site.input, Precision::F32).unwrap();
        cache.push(&normal(&[&[n], site.input.as_slice()].concat(), rng)).unwrap();
        cache.finish().unwrap();
        Samples::of(cache, (0..n).map(|i| (i % site.classes) as u32).collect::<Vec<_>>(), site.classes)
            .unwrap()
    }

    /// A relaxed block all of whose gates are open, some more and some less.
    fn open(site: &Site, rng: &mut Rng) -> (Part, Vec<Position>) {
        let ones = || vec![1.0; site.input[0]];
        let (mean, std, mean_spread, std_mean, std_spread) = (ones(), ones(), ones(), ones(), ones());
        let clean = CleanStatistics { mean, std, mean_spread, std_mean, std_spread };
        let Space { graph, mut params, positions } = relax(site, &clean, rng).unwrap();
        for alternative in positions.iter().flat_map(|position| &position.alternatives) {
            let shape = params.get(&alternative.gate).unwrap().dims().to_vec();
            params.insert(alternative.gate.clone(), normal(&shape, rng));
        }
        (Part::new(graph, params, site).unwrap(), positions)
    }

    #[test]
    fn worth_is_that_of_whole_passes_with_a_gate_shut() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
        let model = Model::open(&path, &Overrides::default()).unwrap();
        let deployed = Deployed::new(model.network.clone(), model.params().unwrap());
        let site = Site::new(&deployed, Level::Block("layer3.0".into())).unwrap();
        let rng = &mut Rng::new(3);
        let (part, positions) = open(&site, rng);
        // More than run together, and a rest.
        let sets = [3, 2, site.levers.infer_batch + 1].map(|n| samples(&site, n, rng));
        for surrogates in [None, Some(&sets[1])] {
            let sets = Sets { failures: &sets[0], surrogates, replay: &sets[2] };
            let loss = |part: &Part| {
                let HeldBack { failures, surrogates, replay } = HeldBack::measure(&site, part, sets).unwrap();
                ((failures.loss() + surrogates.loss()) / 2.0 + replay.loss()) / 2.0
            };
            let whole = loss(&part);
            let shut = |gate: &str| {
                let mut without = part.clone();
                let zeros = without.params.get(gate).unwrap().zeros_like().unwrap();
                without.params.insert(gate, zeros);
                loss(&without) - whole
            };
            let got = worth(&site, (&positions, &part), sets).unwrap();
            assert_eq!(got.len(), positions.len());
            let mut all = Vec::new();
            for (worth, position) in got.iter().zip(&positions) {
                let of = |of: &super::super::space::Alternative| (of.name.clone(), shut(&of.gate));
                assert_eq!(*worth, position.alternatives.iter().map(of).collect::<Worth>());
                all.extend(worth.iter().map(|(_, rise)| rise.to_bits()));
            }
            all.sort_unstable();
            all.dedup();
            assert!(all.len() > 10, "alternatives hardly differ: {all:?}");
        }
    }

    #[test]
    fn a_gate_that_is_nowhere_is_named() {
        let error = Closed::new(&Graph::default(), "a.gate").err().unwrap().to_string();
        assert_eq!(error, "node `a.gate`: is the gate of no alternative");
    }
}
