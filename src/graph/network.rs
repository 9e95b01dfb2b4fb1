//! A network: stem, named blocks in order, head.
//!
//! The block is the unit that is blamed, searched and swapped. Each part is a [`Graph`] with
//! one input and one output, so a part can be replaced by any graph of the same shapes.

use serde::{Deserialize, Serialize};

use super::op::Shape;
use super::{Cost, Graph, NamedParam};
use crate::error::{Error, Result};

/// Version of the text form.
pub const VERSION: u32 = 1;

/// Longest side of an image that is taken.
pub const MOST_PIXELS: usize = 1 << 14;

/// A network as data; its text form is JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Version of this text form; read first.
    pub version: u32,
    /// Name of the architecture: `resnet18`.
    pub architecture: String,
    /// What the network takes.
    pub input: Input,
    /// How many classes it tells apart.
    pub classes: usize,
    /// Names of the classes, if known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// Stem, blocks, head.
    pub parts: Vec<Part>,
}

/// Images a network takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// `[c, h, w]`
    pub shape: Shape,
    /// Mean of each channel, subtracted from pixels in 0 to 1.
    pub mean: Vec<f32>,
    /// Deviation of each channel, divided by afterwards.
    pub std: Vec<f32>,
}

/// A named piece of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// `stem`, `head`, or the block's name: `layer1.0`.
    pub name: String,
    /// What it computes.
    pub graph: Graph,
}

impl Network {
    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// The reason as text: another version, a field missing, a graph that is not sound.
    pub fn from_json(text: &str) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text).map_err(|e| format!("network text: {e}"))?;
        if version != VERSION {
            return Err(format!("network text of version {version}, this program reads {VERSION}"));
        }
        let network: Self = serde_json::from_str(text).map_err(|e| format!("network text: {e}"))?;
        network.check().map_err(|e| e.to_string())?;
        Ok(network)
    }

    /// The text form.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when a number has no text form, such as a NaN in `mean`.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| self.error(e.to_string()))
    }

    /// The blocks: every part but stem and head.
    pub fn blocks(&self) -> impl Iterator<Item = &Part> {
        let last = self.parts.len().saturating_sub(1);
        self.parts.iter().enumerate().filter(move |(i, _)| (1..last).contains(i)).map(|(_, part)| part)
    }

    /// Index in `parts` of the block of this name.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] with all names of blocks.
    pub fn block_index(&self, name: &str) -> Result<usize> {
        let names = || self.blocks().map(|b| b.name.as_str()).collect::<Vec<_>>().join(", ");
        let found =
            self.parts.iter().position(|part| part.name == name && self.blocks().any(|b| b.name == name));
        found.ok_or_else(|| Error::UnknownName { kind: "block", got: name.into(), known: names() })
    }

    /// Input shapes of all parts, and the output's shape last.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when a part is not sound or the parts do not meet.
    pub fn shapes(&self) -> Result<Vec<Shape>> {
        let mut shapes = vec![self.input.shape.clone()];
        for part in &self.parts {
            let input = shapes[shapes.len() - 1].clone();
            shapes.extend(part.graph.shapes(&input)?.pop());
        }
        Ok(shapes)
    }

    /// All parameters in order.
    ///
    /// # Errors
    ///
    /// As [`Network::shapes`].
    pub fn params(&self) -> Result<Vec<NamedParam>> {
        let shapes = self.shapes()?;
        let of_parts = self.parts.iter().zip(&shapes).map(|(part, input)| part.graph.params(input));
        Ok(of_parts.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Size of each part.
    ///
    /// # Errors
    ///
    /// As [`Network::shapes`].
    pub fn costs(&self) -> Result<Vec<Cost>> {
        let shapes = self.shapes()?;
        self.parts.iter().zip(&shapes).map(|(part, input)| part.graph.cost(input)).collect()
    }

    /// The parts `range` joined into one graph.
    #[must_use]
    pub fn joined(&self, range: std::ops::Range<usize>) -> Graph {
        let mut all = Graph::default();
        self.parts[range].iter().for_each(|part| all.append(&part.graph));
        all
    }

    /// The network with `graph` in the place of the part `name`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`] without such a part, [`Error::Graph`] when the graph does not
    /// keep the part's shapes.
    pub fn replace_part(&self, name: &str, graph: Graph) -> Result<Self> {
        let names = || self.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
        let unknown = || Error::UnknownName { kind: "part", got: name.into(), known: names() };
        let index = self.parts.iter().position(|part| part.name == name).ok_or_else(unknown)?;
        let shapes = self.shapes()?;
        let output = graph.shapes(&shapes[index])?.pop().unwrap_or_default();
        if output != shapes[index + 1] {
            let problem = format!("the new part gives {output:?}, the old one {:?}", shapes[index + 1]);
            return Err(Error::Graph { node: name.into(), problem });
        }
        let mut network = self.clone();
        network.parts[index].graph = graph;
        Ok(network)
    }

    /// Checks that the parts meet, the output is `[classes]` and the input is complete.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] naming what does not fit.
    pub fn check(&self) -> Result<()> {
        let channels = self.input.shape.first().copied().unwrap_or(0);
        if self.input.shape.len() != 3
            || self.input.mean.len() != channels
            || self.input.std.len() != channels
        {
            return Err(self.error(format!("input {:?} needs one mean and deviation a channel", self.input)));
        }
        if self.parts.len() < 2 {
            return Err(self.error("has no stem and head"));
        }
        let output = self.shapes()?.pop().unwrap_or_default();
        if output != [self.classes] {
            return Err(self.error(format!("gives {output:?} for {} classes", self.classes)));
        }
        Ok(())
    }

    /// Name of a class: its own, or its number.
    #[must_use]
    pub fn class_name(&self, class: usize) -> String {
        self.class_names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::Graph { node: self.architecture.clone(), problem: problem.into() }
    }
}
