//! Where a repair happens: what stands before, what is trained, what stands behind.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use candle_core::Tensor;

use crate::device::{Compute, Precision, to_host};
use crate::engine::infer::infer;
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::graph::lower::{Lowered, lower, lower_to_differentiate};
use crate::graph::op::Shape;
use crate::graph::{Graph, Network, Params};
use crate::memory::Levers;

/// How much of a network is repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// One block, by name.
    Block(String),
    /// The head alone.
    LastLayer,
    /// Everything.
    Network,
}

impl Level {
    /// The parts of `network` that are trained.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] for a block that is not there.
    pub fn parts(&self, network: &Network) -> Result<Range<usize>> {
        let n = network.parts.len();
        match self {
            Self::Block(name) => network.block_index(name).map(|i| i..i + 1),
            Self::LastLayer => Ok(n - 1..n),
            Self::Network => Ok(0..n),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Block(name) => write!(f, "block {name}"),
            Self::LastLayer => f.write_str("last layer"),
            Self::Network => f.write_str("network"),
        }
    }
}

impl FromStr for Level {
    type Err = Error;

    /// `network`, `last-layer`, or `block:NAME`.
    fn from_str(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("block:")) {
            ("network", _) => Ok(Self::Network),
            ("last-layer", _) => Ok(Self::LastLayer),
            (_, Some(name)) => Ok(Self::Block(name.into())),
            _ => Err(Error::UnknownName {
                kind: "level",
                got: text.into(),
                known: "network, last-layer, block:NAME".into(),
            }),
        }
    }
}

/// A network cut at the part that is trained.
#[derive(Clone, Debug)]
pub struct Site {
    /// What is trained.
    pub level: Level,
    /// Its place among the network's parts.
    pub parts: Range<usize>,
    /// Everything before it, lowered.
    pub prefix: Lowered,
    /// The part as deployed.
    pub graph: Graph,
    /// The tensors of the part as deployed.
    pub params: Params,
    /// Shape of the part's input.
    pub input: Shape,
    /// Everything behind it, lowered.
    pub suffix: Lowered,
    /// Classes of the network.
    pub classes: usize,
    /// How much is held at once.
    pub levers: Levers,
    /// Where passes compute: there are the tensors of the prefix and the suffix, those of the part rest on
    /// the CPU.
    pub compute: Compute,
}

impl Site {
    /// Cuts `deployed` at `level`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] for a block that is not there, [`Error::Graph`] when a tensor is
    /// missing.
    pub fn new(deployed: &Deployed, level: Level) -> Result<Self> {
        let Deployed { network, params, levers, compute } = deployed;
        let parts = level.parts(network)?;
        let shapes = network.shapes()?;
        let graph = network.joined(parts.clone());
        let input = shapes[parts.start].clone();
        Ok(Self {
            prefix: lower(&network.joined(0..parts.start), params)?.placed(compute)?,
            suffix: lower_to_differentiate(&network.joined(parts.end..network.parts.len()), params)?
                .placed(compute)?,
            params: params.of(&graph, &input)?,
            classes: network.classes,
            levers: *levers,
            compute: compute.clone(),
            level,
            parts,
            graph,
            input,
        })
    }

    /// `graph` with the tensors `params`, ready to run in the trained place.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when a tensor is missing, [`Error::Tensor`] when the device refuses.
    pub fn lowered(&self, graph: &Graph, params: &Params) -> Result<Lowered> {
        lower(graph, params)?.placed(&self.compute)
    }

    /// Logits for features `x` with `part` of [`Site::lowered`] in the trained place, in `f32` on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn logits(&self, part: &Lowered, x: &Tensor) -> Result<Tensor> {
        self.behind(&infer(&part.graph, &part.params, &self.compute.value(x)?)?)
    }

    /// Logits for an output `y` of the trained place, in `f32` on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn behind(&self, y: &Tensor) -> Result<Tensor> {
        to_host(&infer(&self.suffix.graph, &self.suffix.params, y)?)
    }

    /// Whether each gradient changes its tensor as soon as it is there, in steps of `batch` images. Halves
    /// wait for the last of them: a step is made if all are finite.
    #[must_use]
    pub fn steps_at_once(&self, batch: usize) -> bool {
        self.compute.precision != Precision::F16 && self.levers.steps_at_once(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_from_text() {
        assert_eq!("block:layer1.0".parse::<Level>().unwrap(), Level::Block("layer1.0".into()));
        assert_eq!("network".parse::<Level>().unwrap(), Level::Network);
        let error = "layer1.0".parse::<Level>().unwrap_err().to_string();
        assert_eq!(error, "unknown level `layer1.0`, expected one of network, last-layer, block:NAME");
    }
}
