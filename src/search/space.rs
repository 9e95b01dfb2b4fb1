//! The continuous relaxation of a part.
//!
//! A position is a value `v` of the deployed part and alternatives `c_j` to it. The relaxed
//! value is
//!
//! ```text
//! v + sum over j of  p_j g_j (c_j - v),     p = softmax(alpha) over the deployed value and all j
//! ```
//!
//! with one gate `g_j` a channel. A gate starts at 0 (or the alternative starts as `v`), so the
//! relaxed part starts as the deployed one whatever the choice weights are, and no choice can
//! make it worse before a gradient says so. In the graph: `Mix(v, Gate(v, c_1), ...)`.
//!
//! Positions are the part's input and each of its convolutions, behind its batch norm.

use std::collections::BTreeMap;
use std::iter::repeat_n;
use std::path::Path;

use super::builder::Builder;
use super::candidate::{CleanStatistics, ConvCandidate, InputCandidate};
use crate::error::Result;
use crate::fit::{Part, Site};
use crate::graph::op::{Conv2d, Op, Shape};
use crate::graph::{Graph, INPUT, Node, Params, Value};
use crate::rng::Rng;

/// One choice of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// What the choice is about: the name of a convolution, or of the part's input.
    pub name: String,
    /// Name of the node that mixes.
    pub mix: String,
    /// Alternatives to what is deployed, in the order of the mixture's inputs from the second on.
    pub alternatives: Vec<Alternative>,
}

/// An alternative at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Name of the candidate.
    pub name: String,
    /// Full name of its gate.
    pub gate: String,
}

/// A relaxed part.
#[derive(Clone, Debug)]
pub struct Space {
    /// The part with mixtures.
    pub graph: Graph,
    /// Its tensors: deployed ones and new ones.
    pub params: Params,
    /// The choices.
    pub positions: Vec<Position>,
}

/// Relaxes the part at `site`.
///
/// # Errors
///
/// [`crate::Error::Graph`] when the part is not sound.
pub fn relax(site: &Site, clean: &CleanStatistics, rng: &mut Rng) -> Result<Space> {
    relaxed(site, clean, (Some(rng), None))
}

/// As [`relax`], with each new tensor in an unnamed file in `folder` as soon as it is drawn.
pub(super) fn relax_into(
    folder: &Path,
    site: &Site,
    clean: &CleanStatistics,
    rng: &mut Rng,
) -> Result<Space> {
    relaxed(site, clean, (Some(rng), Some(folder)))
}

/// The graph of [`relax`], without its tensors: what the memory planner asks about.
///
/// # Errors
///
/// As [`relax`].
pub fn relaxed_graph(site: &Site) -> Result<Graph> {
    Ok(relaxed(site, &unmeasured(site), (None, None))?.graph)
}

/// The nodes of `graph` that mix, where there is a choice.
pub(super) fn mixtures(graph: &Graph) -> impl Iterator<Item = &Node> {
    graph.nodes.iter().filter(|node| is_choice(node))
}

/// Whether this is the name of the choice weights of a mixture.
#[must_use]
pub fn is_choice_weight(name: &str) -> bool {
    name.ends_with(".alpha")
}

pub(super) fn is_choice(node: &Node) -> bool {
    node.op == Op::Mix && node.inputs.len() > 1
}

/// Statistics of the right length.
fn unmeasured(site: &Site) -> CleanStatistics {
    let zeros = vec![0.0; site.input[0]];
    CleanStatistics {
        mean: zeros.clone(),
        std: zeros.clone(),
        mean_spread: zeros.clone(),
        std_mean: zeros.clone(),
        std_spread: zeros,
    }
}

fn relaxed(
    site: &Site,
    clean: &CleanStatistics,
    (rng, folder): (Option<&mut Rng>, Option<&Path>),
) -> Result<Space> {
    let shapes = site.graph.shapes(&site.input)?;
    let builder = Builder { folder, ..builder(site, rng) };
    let mut relaxing = Relaxing { builder, positions: Vec::new(), of: Vec::new() };
    let input = relaxing.input(&prefix(site), clean, site.input.len() == 3)?;
    relaxing.of.push(input);
    let uses = site.graph.uses();
    let normed: BTreeMap<Value, usize> = norms(&site.graph);
    // Convolutions that wait for their batch norm: value of the norm, convolution.
    let mut waiting: BTreeMap<Value, (usize, Conv2d)> = BTreeMap::new();
    for (i, node) in site.graph.nodes.iter().enumerate() {
        let mut value = relaxing.copy(node);
        let single = normed.get(&(i + 1)).filter(|_| uses[i + 1] == 1);
        match (&node.op, single) {
            (Op::Conv2d(conv), Some(&norm)) => {
                waiting.insert(norm, (i, *conv));
            }
            (Op::Conv2d(conv), None) => value = relaxing.conv(&site.graph, &shapes, (i, conv), value)?,
            _ => {
                if let Some((at, conv)) = waiting.remove(&(i + 1)) {
                    value = relaxing.conv(&site.graph, &shapes, (at, &conv), value)?;
                }
            }
        }
        relaxing.of.push(value);
    }
    let Relaxing { builder, positions, .. } = relaxing;
    Ok(Space { graph: builder.graph, params: builder.params, positions })
}

/// The part behind input candidates that need no choice: a short trial repair of what a search
/// there may reach.
///
/// # Errors
///
/// [`crate::Error::Graph`] when the part is not sound.
pub fn trial(site: &Site, clean: &CleanStatistics, rng: &mut Rng) -> Result<Part> {
    let (graph, params) = trial_of(site, clean, Some(rng))?;
    Part::new(graph, params, site)
}

/// The graph of [`trial`], without its tensors.
///
/// # Errors
///
/// As [`trial`].
pub fn trial_graph(site: &Site) -> Result<Graph> {
    Ok(trial_of(site, &unmeasured(site), None)?.0)
}

fn trial_of(site: &Site, clean: &CleanStatistics, rng: Option<&mut Rng>) -> Result<(Graph, Params)> {
    let mut builder = builder(site, rng);
    let mut x = INPUT;
    for candidate in TRIAL.into_iter().filter(|_| site.input.len() == 3) {
        let name = format!("{}.{}", prefix(site), candidate.name());
        let y = candidate.add(&mut builder, &name, clean, x)?;
        x = gate(&mut builder, &name, (x, y), vec![candidate.first_gate(); clean.mean.len()])?;
    }
    builder.graph.append(&site.graph);
    Ok((builder.graph, builder.params))
}

/// Groups that alternatives see channels in where weights must be few.
const GROUPS: usize = 16;

fn builder<'a>(site: &Site, rng: Option<&'a mut Rng>) -> Builder<'a> {
    let groups = if site.levers.grouped { GROUPS } else { 1 };
    Builder { graph: Graph::default(), params: site.params.clone(), rng, folder: None, groups }
}

/// What a trial repair stands behind.
const TRIAL: [InputCandidate; 2] = [InputCandidate::Normalize, InputCandidate::Condition];

/// The name new nodes at the input start with: the block's.
fn prefix(site: &Site) -> String {
    match &site.level {
        crate::fit::Level::Block(name) => format!("{name}.input"),
        other => format!("{other}.input").replace(' ', "_"),
    }
}

/// For each value the value of the batch norm that reads it.
fn norms(graph: &Graph) -> BTreeMap<Value, Value> {
    let norms = graph.nodes.iter().enumerate().filter(|(_, node)| matches!(node.op, Op::BatchNorm { .. }));
    norms.map(|(i, node)| (node.inputs[0], i + 1)).collect()
}

struct Relaxing<'a> {
    builder: Builder<'a>,
    positions: Vec<Position>,
    /// For each value of the deployed part its relaxed value.
    of: Vec<Value>,
}

impl Relaxing<'_> {
    fn copy(&mut self, node: &Node) -> Value {
        let inputs: Vec<Value> = node.inputs.iter().map(|&v| self.of[v]).collect();
        self.builder.graph.push(node.name.clone(), node.op.clone(), &inputs)
    }

    /// The input behind its candidates, each a position of its own so that several can stay.
    fn input(&mut self, prefix: &str, clean: &CleanStatistics, is_image: bool) -> Result<Value> {
        let mut x = INPUT;
        for candidate in InputCandidate::ALL.into_iter().filter(|_| is_image) {
            let name = format!("{prefix}.{}", candidate.name());
            let y = candidate.add(&mut self.builder, &name, clean, x)?;
            let start = vec![candidate.first_gate(); clean.mean.len()];
            let gated = gate(&mut self.builder, &name, (x, y), start)?;
            let alternatives =
                vec![Alternative { name: candidate.name().into(), gate: format!("{name}.open.gate") }];
            x = self.mix(&name, &[x, gated], alternatives)?;
        }
        Ok(x)
    }

    /// The value `deployed` of a convolution behind its alternatives.
    fn conv(
        &mut self,
        part: &Graph,
        shapes: &[Shape],
        (at, conv): (usize, &Conv2d),
        deployed: Value,
    ) -> Result<Value> {
        let node = &part.nodes[at];
        let (x_shape, y_shape) = (&shapes[node.inputs[0]], &shapes[at + 1]);
        let x = self.of[node.inputs[0]];
        let (mut values, mut alternatives) = (vec![deployed], Vec::new());
        for candidate in ConvCandidate::ALL {
            if candidate == ConvCandidate::Skip && x_shape != y_shape {
                continue;
            }
            let name = format!("{}.{}", node.name, candidate.name());
            let before = self.builder.graph.nodes.len();
            let y = candidate.add(&mut self.builder, &name, (conv, x_shape[0]), x)?;
            // Unusual padding: the candidate gives other pixels and cannot stand here.
            let added = Graph { nodes: self.builder.graph.nodes[before..].to_vec() };
            if !gives(&added, x_shape, y_shape, (x, before)) {
                self.builder.graph.nodes.truncate(before);
                continue;
            }
            values.push(gate(&mut self.builder, &name, (deployed, y), vec![0.0; y_shape[0]])?);
            alternatives
                .push(Alternative { name: candidate.name().into(), gate: format!("{name}.open.gate") });
        }
        self.mix(&node.name, &values, alternatives)
    }

    fn mix(&mut self, name: &str, values: &[Value], alternatives: Vec<Alternative>) -> Result<Value> {
        let mix = format!("{name}.choice");
        self.builder.tensor(&format!("{mix}.alpha"), repeat_n(0.0, values.len()), &[values.len()])?;
        self.positions.push(Position { name: name.into(), mix: mix.clone(), alternatives });
        Ok(self.builder.graph.push(mix, Op::Mix, values))
    }
}

/// `x` and through a gate `z`, one factor of `start` a channel.
fn gate(to: &mut Builder, name: &str, (x, z): (Value, Value), start: Vec<f32>) -> Result<Value> {
    let c = start.len();
    to.tensor(&format!("{name}.open.gate"), start, &[c])?;
    Ok(to.graph.push(format!("{name}.open"), Op::Gate, &[x, z]))
}

/// Whether a chain of nodes appended behind `before` takes `x_shape` to `y_shape`.
fn gives(added: &Graph, x_shape: &Shape, y_shape: &Shape, (x, before): (Value, usize)) -> bool {
    let mut chain = added.clone();
    for node in &mut chain.nodes {
        for v in &mut node.inputs {
            *v = if *v == x { INPUT } else { v.saturating_sub(before) };
        }
    }
    chain.shapes(x_shape).ok().and_then(|mut shapes| shapes.pop()).as_ref() == Some(y_shape)
}
