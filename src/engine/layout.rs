//! Where everything a forward pass holds lies in one piece of memory, decided before there is any.
//!
//! 1. A value lives from the node that makes it to the last that reads it; scratch and widened
//!    weights live for one node. What lives at the same time lies apart, what does not may share.
//! 2. `Identity` and `Flatten` move nothing: their output is their input.
//! 3. An operation element by element whose input nothing reads any more writes over it.
//!
//! The layout is for the largest batch. Fewer images use the front of each place.
//!
//! Reading order: [`Layout`], `sharing`, `fit`.

mod fit;
mod sharing;

use std::ops::Range;

use candle_core::{DType, Device};

use self::fit::{Block, fit, most_alive};
use self::sharing::Sharing;
use super::executor::Executor;
use crate::error::Result;
use crate::graph::op::{Op, elements};
use crate::graph::{Graph, INPUT, Node, Params, Value, Weight};
use crate::kernels::{conv2d, forward_scratch_len};

/// Places start at multiples of this many numbers, a cache line.
pub(super) const LINE: usize = 16;

/// Most tensors of one operation.
const WEIGHTS: usize = 4;

/// A graph, its weights, and where its values will lie: the plan of an [`Executor`].
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    pub(super) batch: usize,
    /// For each value.
    pub(super) places: Vec<Place>,
    /// For each node.
    pub(super) steps: Vec<Step<'a>>,
    /// Numbers from the first place to the end of the last.
    pub(super) len: usize,
    most_alive: usize,
}

/// Where a value lies: its images one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    start: usize,
    /// `[c, h, w]` of an image, or `[features, 1, 1]`.
    pub(super) dims: [usize; 3],
}

/// A node and what it has beside its inputs and output.
#[derive(Clone, Debug)]
pub(super) struct Step<'a> {
    pub(super) node: &'a Node,
    /// The input that lies where the output will.
    pub(super) in_place: Option<usize>,
    pub(super) scratch: Range<usize>,
    /// In the order of [`Op::params`].
    pub(super) weights: [Option<Operand<'a>>; WEIGHTS],
}

/// A weight that a node reads.
#[derive(Clone, Debug)]
pub(super) struct Operand<'a> {
    pub(super) weight: &'a Weight,
    /// Where it is widened to, unless it is on the heap.
    pub(super) widened: Option<Range<usize>>,
}

/// Where weights are taken to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weights {
    AsTheyAre,
    /// On the heap, wherever they are: to count bytes.
    Resident,
}

impl Place {
    fn new(start: usize, shape: &[usize]) -> Self {
        let dims = match *shape {
            [c, h, w] => [c, h, w],
            [] => [1; 3],
            [c, ref rest @ ..] => [c, elements(rest), 1],
        };
        Self { start, dims }
    }

    /// Where `n` images lie.
    pub(super) fn range(&self, n: usize) -> Range<usize> {
        self.start..self.start + n * elements(&self.dims)
    }
}

impl<'a> Layout<'a> {
    /// Lays out passes of `graph` over at most `batch` images of shape `input`, on `threads`
    /// threads. Passes on more threads are as right, and use no more than these.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when the graph is not sound, or a tensor is missing, has another
    /// shape, or is neither mapped nor `f32` on the CPU.
    pub fn new(
        (graph, params): (&'a Graph, &'a Params),
        (input, batch): (&[usize], usize),
        threads: usize,
    ) -> Result<Self> {
        Self::with((graph, params), (input, batch), (threads, Weights::AsTheyAre))
    }

    /// [`Layout::bytes`] of the same passes, were all weights on the heap.
    ///
    /// # Errors
    ///
    /// As [`Layout::new`].
    pub fn resident_bytes(
        (graph, params): (&Graph, &Params),
        (input, batch): (&[usize], usize),
        threads: usize,
    ) -> Result<usize> {
        Ok(Layout::with((graph, params), (input, batch), (threads, Weights::Resident))?.bytes())
    }

    fn with(
        (graph, params): (&'a Graph, &'a Params),
        (input, batch): (&[usize], usize),
        (threads, at): (usize, Weights),
    ) -> Result<Self> {
        let shapes = graph.shapes(input)?;
        let mut places: Vec<Place> = shapes.iter().map(|shape| Place::new(0, shape)).collect();
        let sharing = Sharing::new(graph, &shapes);
        let end = graph.nodes.len();
        // A block for each value, those of other roots empty; then two for each node.
        let mut blocks = Vec::with_capacity(places.len() + 2 * end);
        for (v, place) in places.iter().enumerate() {
            let len = if sharing.roots[v] == v { place.range(batch).len() } else { 0 };
            blocks.push(Block::new(v.saturating_sub(1), sharing.last[v].min(end), len));
        }
        let mut steps = Vec::with_capacity(end);
        for (i, node) in graph.nodes.iter().enumerate() {
            let x = node.inputs.first().map_or([1; 3], |&v| places[v].dims);
            let scratch = forward_scratch_len(&node.op, [batch, x[0], x[1], x[2]], threads)?;
            let (weights, widened) = operands(node, (params, at), &shapes)?;
            blocks.extend([Block::new(i, i, scratch), Block::new(i, i, widened)]);
            steps.push(Step { node, in_place: sharing.in_place[i], scratch: 0..scratch, weights });
        }
        let (starts, len) = fit(&blocks);
        for (v, place) in places.iter_mut().enumerate() {
            place.start = starts[sharing.roots[v]];
        }
        for (step, own) in steps.iter_mut().zip(starts[end + 1..].chunks_exact(2)) {
            step.move_to(own[0], own[1]);
        }
        Ok(Self { batch, places, steps, len, most_alive: most_alive(&blocks) })
    }

    /// Memory of this layout, and what runs in it.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Memory`] when the limit does not allow [`Layout::bytes`].
    pub fn executor(self) -> Result<Executor<'a>> {
        Executor::new(self)
    }

    /// Bytes that an executor holds: one block for all values, and its lists. Exact, and known
    /// before there is an executor. What matrix products keep for each thread is not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory_bytes() + size_of_val(&*self.places) + size_of_val(&*self.steps)
    }

    /// The block's part of [`Layout::bytes`].
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<f32>() * self.memory_len()
    }

    /// Numbers of the block: room to start at a cache line too.
    pub(super) fn memory_len(&self) -> usize {
        self.len + LINE - 1
    }

    /// Bytes that no layout can do without: the most that live at once, what they share left out.
    #[must_use]
    pub fn least_bytes(&self) -> usize {
        size_of::<f32>() * self.most_alive
    }

    /// Images of a pass at most.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Which numbers of the memory `value` has in a pass over `n` images, counted from its first
    /// cache line.
    ///
    /// # Panics
    ///
    /// When the graph has no such value.
    #[must_use]
    pub fn range(&self, value: Value, n: usize) -> Range<usize> {
        self.places[value].range(n)
    }

    pub(super) fn place(&self, v: Value) -> Place {
        self.places[v]
    }

    pub(super) fn input(&self) -> Place {
        self.places[INPUT]
    }

    pub(super) fn output(&self) -> Place {
        self.places[self.steps.len()]
    }
}

impl Step<'_> {
    fn move_to(&mut self, scratch: usize, widened: usize) {
        let moved = |range: &mut Range<usize>, by: usize| *range = range.start + by..range.end + by;
        moved(&mut self.scratch, scratch);
        let ranges = self.weights.iter_mut().flatten().filter_map(|operand| operand.widened.as_mut());
        ranges.for_each(|range| moved(range, widened));
    }
}

/// The weights of a node, those that are widened one after another from 0 on, and the numbers
/// of these.
fn operands<'a>(
    node: &Node,
    (params, at): (&'a Params, Weights),
    shapes: &[Vec<usize>],
) -> Result<([Option<Operand<'a>>; WEIGHTS], usize)> {
    let inputs: Vec<_> = node.inputs.iter().map(|&v| shapes[v].clone()).collect();
    let (mut operands, mut len) = ([const { None }; WEIGHTS], 0);
    for (operand, param) in operands.iter_mut().zip(node.op.params(&inputs)) {
        let name = node.param(param.suffix);
        let weight = params.find(&name).ok_or_else(|| node.error(format!("has no tensor {name}")))?;
        if weight.shape() != param.shape {
            let problem = format!("takes {name} of {:?}, got {:?}", param.shape, weight.shape());
            return Err(node.error(problem));
        }
        let is_plain = |tensor: &candle_core::Tensor| {
            matches!(tensor.device(), Device::Cpu) && tensor.dtype() == DType::F32
        };
        if weight.resident().is_some_and(|tensor| !is_plain(tensor)) {
            return Err(node.error(format!("takes {name} as f32 on the CPU")));
        }
        // A convolution's own weight is widened a part at a time, by the kernel.
        let is_read_in_place =
            param.suffix == "weight" && reads_panels(&node.op, &inputs) && weight.halves().is_some();
        let widens = at == Weights::AsTheyAre && weight.is_mapped() && !is_read_in_place;
        let widened = widens.then(|| len..len + elements(weight.shape()));
        len = widened.as_ref().map_or(len, |range| range.end.next_multiple_of(LINE));
        *operand = Some(Operand { weight, widened });
    }
    Ok((operands, len))
}

/// Whether the kernel of this operation reads its weight in panels, from wherever it is.
fn reads_panels(op: &Op, inputs: &[Vec<usize>]) -> bool {
    let channels = inputs.first().and_then(|shape| shape.first());
    matches!((op, channels), (Op::Conv2d(conv), Some(&c)) if conv2d::reads_panels(conv, c))
}

/// Whether nothing moves: the output is the input.
pub(super) fn is_alias(op: &Op) -> bool {
    matches!(op, Op::Flatten | Op::Identity)
}
