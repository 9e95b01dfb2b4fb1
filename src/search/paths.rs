//! A search with one path at a time, where memory is short.
//!
//! A path has at every position the deployed operation and one alternative to it. Paths are
//! trained one after the other, each for its share of the steps and from the deployed weights that
//! the path before it left; what belongs to the others waits in a file. So there are weights,
//! gradients and state of the optimizer of one path at a time. The price: an alternative is trained
//! in a share of the steps, and never beside another. (After the sampled paths of ProxylessNAS, Cai
//! et al. 2019; that paths take turns, so that tensors can wait in a file, is ours.)
//!
//! Choice weights of a path are those of the deployed operation, always 0, and of its alternative.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::bilevel::{Search, choice_weights};
use super::discretize::{Choice, discretize};
use super::space::{Position, Space, is_choice, mixtures, relax_into};
use super::worth::{Worth, worth};
use crate::error::{During, Result};
use crate::fit::Part;
use crate::graph::{Graph, Node, Params};
use crate::kernels::mix;

/// How many paths a relaxed part has: see [`path_graph`].
#[must_use]
pub fn n_paths(relaxed: &Graph) -> usize {
    mixtures(relaxed).map(|mix| mix.inputs.len() - 1).max().unwrap_or(0)
}

/// Path `i` of a relaxed part: at every position the deployed value and one alternative, the one
/// with index `i`, counted around where a position has fewer.
#[must_use]
pub fn path_graph(relaxed: &Graph, i: usize) -> Graph {
    let mut path = relaxed.clone();
    for mix in path.nodes.iter_mut().filter(|node| is_choice(node)) {
        mix.inputs = vec![mix.inputs[0], mix.inputs[of_mixture(mix, i)]];
    }
    path.reaching(path.output())
}

/// Steps of a path, however few there are of all: Adam's first follows the sign of a gradient alone.
const LEAST_STEPS: usize = 2;

/// Searches path by path: the chosen part with the weights it has so far, and the choices.
pub(super) fn by_path(search: &mut Search) -> Result<(Part, Vec<Choice>)> {
    let (site, data, config) = (search.site, search.data, search.config);
    let Space { graph, mut params, positions } = relax_into(data.folder, site, data.clean, search.rng)?;
    let n = n_paths(&graph);
    let start = |i: usize| config.steps.max(LEAST_STEPS * n) * i / n;
    for i in 0..n {
        let mut path = Part::new(path_graph(&graph, i), of_path(&graph, &params, i)?, site)?;
        search.steps(&mut path, start(i)..start(i + 1))?;
        put_back(&graph, (&path.params, i), &mut params, data.folder)?;
    }
    let mut part = Part::resting(graph, params, site)?;
    let mut worths = vec![Worth::new(); positions.len()];
    for i in 0..n {
        let (graph, params) = (path_graph(&part.graph, i), of_path(&part.graph, &part.params, i)?);
        let path = Part::resting(graph, params, site)?;
        let new = worth(site, (&positions_of(&positions, i), &path), data.validation)?;
        worths.iter_mut().zip(new).for_each(|(worth, new)| worth.extend(new));
    }
    for position in &positions {
        share_as_in_path(position, &mut part.params)?;
    }
    let most = (0..n)
        .map(|i| search.training_bytes(&path_graph(&part.graph, i)))
        .try_fold(0, |most, bytes| bytes.map(|bytes| bytes.max(most)))?;
    discretize(site, &positions, (&part, worths), &|chosen| search.fits(chosen, most))
}

/// Which alternative of a mixture path `i` has: its place among the mixture's inputs.
fn of_mixture(mix: &Node, i: usize) -> usize {
    1 + i % (mix.inputs.len() - 1)
}

/// `params` with the choice weights that path `i` of `relaxed` has.
fn of_path(relaxed: &Graph, params: &Params, i: usize) -> Result<Params> {
    let mut of_path = params.clone();
    for mix in mixtures(relaxed) {
        let alpha = choice_weights(params, &mix.name)?;
        of_path.insert(mix.param("alpha"), tensor(&[alpha[0], alpha[of_mixture(mix, i)]])?);
    }
    Ok(of_path)
}

/// Puts what path `i` learned among all tensors, in a file.
fn put_back(relaxed: &Graph, (path, i): (&Params, usize), params: &mut Params, folder: &Path) -> Result<()> {
    let all = params.clone();
    params.extend(&path.spooled(folder)?);
    for mix in mixtures(relaxed) {
        let (mut alpha, pair) = (choice_weights(&all, &mix.name)?, choice_weights(path, &mix.name)?);
        alpha[of_mixture(mix, i)] = pair[1] - pair[0];
        params.insert(mix.param("alpha"), tensor(&alpha)?);
    }
    Ok(())
}

/// Each position with the alternative that path `i` is the first to have; none if it is not.
fn positions_of(positions: &[Position], i: usize) -> Vec<Position> {
    let of = |position: &Position| {
        let alternatives = position.alternatives.iter().skip(i).take(1).cloned().collect();
        Position { alternatives, ..position.clone() }
    };
    positions.iter().map(of).collect()
}

/// A choice keeps its share of the whole mixture; here it is to be that of its path.
fn share_as_in_path(position: &Position, params: &mut Params) -> Result<()> {
    let alpha = choice_weights(params, &position.mix)?;
    let shares = mix::softmax(&alpha);
    for (i, alternative) in position.alternatives.iter().enumerate() {
        let in_path = mix::softmax(&[alpha[0], alpha[i + 1]])[1];
        let gate = (params.get(&alternative.gate)? * (in_path / shares[i + 1])).during("scaling a gate")?;
        params.insert(alternative.gate.clone(), gate);
    }
    Ok(())
}

fn tensor(values: &[f64]) -> Result<Tensor> {
    let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    let n = values.len();
    Tensor::from_vec(values, n, &Device::Cpu).during("writing choice weights")
}
