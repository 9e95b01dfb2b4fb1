//! Forward and backward passes by hand-written vector-Jacobian products.
//!
//! Rules:
//!
//! 1. A gradient is computed only if it leads to something wanted: a trained tensor, or the
//!    input when `input` asks for it. A frozen suffix thus passes gradients and forms none for
//!    its weights; a frozen prefix is not visited.
//! 2. Of the forward pass a node keeps what its wanted gradients read, no more. A ReLU of a
//!    frozen suffix keeps one bit an element; a frozen convolution keeps nothing.
//! 3. A forward pass writes nothing: batch statistics are returned, the caller decides.
//! 4. What [`Recompute`] lets go is computed again in the backward pass, to the same bits;
//!    batch statistics are those of the first time.

mod mixture;
mod node;
pub(crate) mod pass;
pub mod schedule;
pub mod units;

use candle_core::Tensor;

use self::node::{Context, Kept};
use self::pass::{Machine, Pass, Shared};
pub use self::schedule::Recompute;
use self::schedule::Schedule;
use crate::error::{Error, Result};
use crate::graph::{Graph, Params};
use crate::kernels::batch_norm::Statistics;
use crate::kernels::elementwise;

/// Which gradients a pass is for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Whether the tensor of this full name is trained.
    pub trained: &'a dyn Fn(&str) -> bool,
    /// Whether the gradient by the graph's input is asked for.
    pub input: bool,
    /// Which statistics batch norms use.
    pub norms: Norms,
}

/// Statistics of batch norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Of the batch, as in training from scratch.
    Batch,
    /// The stored ones.
    Fixed,
}

impl Wanted<'_> {
    /// A frozen graph that passes gradients on to its input.
    pub const INPUT_ONLY: Wanted<'static> = Wanted { trained: &|_| false, input: true, norms: Norms::Fixed };
}

/// What becomes of the gradients by trained tensors, as they are found.
pub trait Collect {
    /// Takes the gradient by the tensor of this name. One tensor may have several, which count
    /// together.
    ///
    /// # Errors
    ///
    /// What the collector cannot do.
    fn collect(&mut self, name: &str, gradient: Tensor) -> Result<()>;

    /// Whether collecting changes the tensor itself: a node's collector is then called after all
    /// else that the node reads its tensors for, and before that otherwise.
    fn changes_tensors(&self) -> bool {
        false
    }
}

/// Sums of gradients by name.
impl Collect for Params {
    fn collect(&mut self, name: &str, gradient: Tensor) -> Result<()> {
        let sum = match self.remove(name) {
            Some(sum) => elementwise::add_to(sum.tensor()?, &gradient)?,
            None => gradient,
        };
        self.insert(name, sum);
        Ok(())
    }
}

/// A forward pass and what its backward pass will read.
#[derive(Debug)]
pub struct Trace {
    /// The graph's output.
    pub y: Tensor,
    /// Batch statistics by name of the batch-norm node, with [`Norms::Batch`].
    pub statistics: Vec<(String, Statistics)>,
    schedule: Schedule,
    pass: Pass<Tensor, Kept>,
    /// For each value its shape.
    shapes: Vec<Vec<usize>>,
}

/// Gradients of a loss.
#[derive(Debug, Default)]
pub struct Gradients {
    /// By the input, if asked for.
    pub input: Option<Tensor>,
    /// By the trained tensors.
    pub params: Params,
}

impl Trace {
    /// Bytes kept for the backward pass; a value that several nodes keep counts once.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let mut seen = std::collections::BTreeSet::new();
        let kept = self.pass.kept.iter().flat_map(|kept| kept.activation.iter().chain(&kept.argmax));
        kept.chain(self.pass.values.iter().flatten())
            .filter(|t| seen.insert(format!("{:?}", t.id())))
            .map(|t| t.elem_count() * t.dtype().size_in_bytes())
            .sum()
    }
}

/// The output of `graph` for `x`, with what [`backward`] needs.
///
/// # Errors
///
/// As [`super::infer::infer`].
pub fn forward(graph: &Graph, params: &Params, x: &Tensor, wanted: Wanted) -> Result<Trace> {
    forward_recomputing(graph, params, x, (wanted, &Recompute::NOTHING))
}

/// As [`forward`], but keeps only what `recompute` does not let go. Gradients have the same bits.
///
/// # Errors
///
/// As [`forward`], and [`Error::Graph`] when `recompute` does not fit `graph`.
pub fn forward_recomputing(
    graph: &Graph,
    params: &Params,
    x: &Tensor,
    (wanted, recompute): (Wanted, &Recompute),
) -> Result<Trace> {
    let input = x.dims().get(1..).unwrap_or_default();
    let schedule = Schedule::new(graph, input, wanted, recompute)?;
    let of_all = |shape: Vec<usize>| std::iter::once(x.dims()[0]).chain(shape).collect();
    let shapes = graph.shapes(input)?.into_iter().map(of_all).collect();
    let mut none = Params::default();
    let mut engine = Engine::new((graph, params, wanted), &schedule, &shapes, &mut none);
    let mut pass = Pass::new(graph, x.clone());
    let y = pass.forward(graph, &schedule, &mut engine)?;
    let statistics = engine.statistics;
    Ok(Trace { y, statistics, schedule, pass, shapes })
}

/// Gradients for `dy`, the gradient of the loss by the output of `trace`.
///
/// # Errors
///
/// As [`forward`]; `graph`, `params` and `wanted` must be those of the forward pass:
/// [`Error::Graph`] when they visibly are not.
pub fn backward(
    graph: &Graph,
    params: &Params,
    wanted: Wanted,
    (trace, dy): (Trace, Tensor),
) -> Result<Gradients> {
    let mut gradients = Gradients::default();
    gradients.input = backward_into(graph, params, wanted, (trace, dy), &mut gradients.params)?;
    Ok(gradients)
}

/// As [`backward`], but gives the gradients by trained tensors to `collector` and returns the one
/// by the input.
///
/// # Errors
///
/// As [`backward`].
pub fn backward_into(
    graph: &Graph,
    params: &Params,
    wanted: Wanted,
    (trace, dy): (Trace, Tensor),
    collector: &mut dyn Collect,
) -> Result<Option<Tensor>> {
    let Trace { y, schedule, mut pass, shapes, .. } = trace;
    if shapes.len() != graph.nodes.len() + 1 || dy.dims() != y.dims() {
        let problem = format!(
            "a gradient {:?} through {} nodes for an output {:?} of {}",
            dy.dims(),
            graph.nodes.len(),
            y.dims(),
            shapes.len() - 1
        );
        return Err(Error::Graph { node: "backward".into(), problem });
    }
    drop(y);
    let mut engine = Engine::new((graph, params, wanted), &schedule, &shapes, collector);
    let input = pass.backward(graph, &schedule, &mut engine, dy)?;
    Ok(input.filter(|_| wanted.input))
}

/// Runs units on tensors.
struct Engine<'a> {
    graph: &'a Graph,
    params: &'a Params,
    wanted: Wanted<'a>,
    schedule: &'a Schedule,
    shapes: &'a Vec<Vec<usize>>,
    statistics: Vec<(String, Statistics)>,
    collector: &'a mut dyn Collect,
}

impl<'a> Engine<'a> {
    fn new(
        (graph, params, wanted): (&'a Graph, &'a Params, Wanted<'a>),
        schedule: &'a Schedule,
        shapes: &'a Vec<Vec<usize>>,
        collector: &'a mut dyn Collect,
    ) -> Self {
        Self { graph, params, wanted, schedule, shapes, statistics: Vec::new(), collector }
    }

    fn at(&self, node: usize) -> Context<'a> {
        let Self { graph, params, wanted, schedule, .. } = *self;
        Context { graph, at: node, node: &graph.nodes[node], params, wanted, schedule }
    }
}

impl Machine for Engine<'_> {
    type Value = Tensor;
    type Kept = Kept;

    fn forward(&mut self, node: usize, xs: &[&Tensor], keep: bool) -> Result<(Tensor, Kept)> {
        let (y, kept) = self.at(node).forward(xs, keep)?;
        // A recomputing pass is shown the same statistics again and reports to nobody.
        let found = kept.statistics.clone().map(|found| (self.graph.nodes[node].name.clone(), found));
        self.statistics.extend(found);
        Ok((y, kept))
    }

    fn term(&mut self, (node, i): (usize, usize), sum: Option<Tensor>, xs: &[&Tensor]) -> Result<Tensor> {
        self.at(node).term(i, sum, xs)
    }

    fn backward(
        &mut self,
        node: usize,
        kept: Kept,
        xs: &[Option<&Tensor>],
        dy: Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let inputs = &self.graph.nodes[node].inputs;
        let shapes: Vec<&[usize]> = inputs.iter().map(|&v| self.shapes[v].as_slice()).collect();
        self.at(node).backward(&kept, (xs, &shapes), &dy, self.collector)
    }

    fn term_backward(
        &mut self,
        (node, i): (usize, usize),
        xs: &[Option<&Tensor>],
        dy: Tensor,
    ) -> Result<Option<Tensor>> {
        self.at(node).term_backward(i, xs, &dy, self.collector)
    }

    fn add(&mut self, (sum, shared): (Tensor, Shared), x: Tensor) -> Result<Tensor> {
        match shared {
            Shared::Maybe => elementwise::add(&sum, &x),
            Shared::No => elementwise::add_to(sum, &x),
        }
    }
}
