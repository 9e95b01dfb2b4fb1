//! Mixtures, whole or term by term, and the gates that they apply themselves.

use candle_core::Tensor;

use super::Collect;
use super::node::{Context, Inputs};
use crate::error::Result;
use crate::graph::Node;
use crate::kernels::mix::{self, gated};

impl Context<'_> {
    /// The mixture of these values.
    pub(super) fn mixed(&self, xs: &[&Tensor]) -> Result<Tensor> {
        let gates = self.own_gates()?;
        gated::forward(xs, &borrowed(&gates), &self.tensor("alpha")?)
    }

    /// The sum of a mixture with its term `i`.
    pub(super) fn term(&self, i: usize, sum: Option<Tensor>, xs: &[&Tensor]) -> Result<Tensor> {
        let alpha = &self.tensor("alpha")?;
        match (self.own_gate(i)?, sum, xs) {
            (Some(gate), Some(sum), [x, z]) => gated::add_term(&sum, [x, z], &gate, (alpha, i)),
            (_, sum, xs) => mix::add_term(sum.as_ref(), xs[xs.len() - 1], alpha, i),
        }
    }

    /// Gradients by all values. Terms are taken in the order in which a streamed mixture takes them.
    pub(super) fn mix(
        &self,
        xs: &Inputs,
        dy: &Tensor,
        collector: &mut dyn Collect,
    ) -> Result<Vec<Option<Tensor>>> {
        let n = self.node.inputs.len();
        let mut dxs = vec![None; n];
        for i in std::iter::once(0).chain((1..n).rev()) {
            dxs[i] = self.term_backward(i, &[xs[0], xs[i]], dy, collector)?;
        }
        Ok(dxs)
    }

    /// The gradient by the value of term `i`, the last of `xs`, and the term's part of those by the choices
    /// and by its gate.
    pub(super) fn term_backward(
        &self,
        i: usize,
        xs: &Inputs,
        dy: &Tensor,
        collector: &mut dyn Collect,
    ) -> Result<Option<Tensor>> {
        let alpha = &self.tensor("alpha")?;
        if let Some(node) = self.own_gate_node(i) {
            return self.gated_term_backward((node, i), xs, (dy, alpha), collector);
        }
        self.train("alpha", collector, || mix::dalpha(dy, self.input(xs, xs.len() - 1)?, alpha, i))?;
        self.wanted_dx(i, || match i {
            0 => gated::first_dx(dy, &borrowed(&self.own_gates()?), alpha),
            _ => mix::dx(dy, alpha, i),
        })
    }

    fn gated_term_backward(
        &self,
        (node, i): (&Node, usize),
        xs: &Inputs,
        (dy, alpha): (&Tensor, &Tensor),
        collector: &mut dyn Collect,
    ) -> Result<Option<Tensor>> {
        let name = node.param("gate");
        let gate = &self.params.get(&name)?;
        let dz = self.wanted_dx(i, || gated::dz(dy, gate, (alpha, i)))?;
        let trains_gate = (self.wanted.trained)(&name);
        if trains_gate || self.trains("alpha") {
            let x = self.input(xs, 0)?;
            let sums = gated::sums(dy, [x, self.input(xs, 1)?], (alpha, i))?;
            self.train("alpha", collector, || gated::dalpha((dy, x), [&sums, gate], (alpha, i)))?;
            if trains_gate {
                collector.collect(&name, gated::dgate(&sums, (alpha, i))?)?;
            }
        }
        Ok(dz)
    }

    /// For each value the gate it enters through, if the mixture applies one.
    fn own_gates(&self) -> Result<Vec<Option<Tensor>>> {
        (0..self.node.inputs.len()).map(|i| self.own_gate(i)).collect()
    }

    fn own_gate(&self, i: usize) -> Result<Option<Tensor>> {
        self.own_gate_node(i).map(|node| self.params.get(&node.param("gate"))).transpose()
    }

    fn own_gate_node(&self, i: usize) -> Option<&Node> {
        let gate = self.schedule.reads.gate(self.graph, self.at, i);
        gate.map(|gate| &self.graph.nodes[gate])
    }
}

fn borrowed(gates: &[Option<Tensor>]) -> Vec<Option<&Tensor>> {
    gates.iter().map(Option::as_ref).collect()
}
