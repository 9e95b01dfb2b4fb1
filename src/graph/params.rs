//! The tensors of a graph, by name.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::Graph;
use crate::error::{During, Error, Result};

/// Tensors by full name, in the order of the names.
#[derive(Clone, Debug, Default)]
pub struct Params(BTreeMap<String, Tensor>);

impl Params {
    /// The tensor of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when there is none: the parameters are of another graph.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| Error::Graph { node: name.into(), problem: "has no tensor".into() })
    }

    /// The tensor of this name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// Adds or replaces all tensors of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
    }

    /// Adds `tensor` to the one of this name, or inserts it.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the shapes differ.
    pub fn accumulate(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        let sum = match self.0.get(name) {
            Some(before) => (before + tensor).during("summing gradients")?,
            None => tensor,
        };
        self.insert(name, sum);
        Ok(())
    }

    /// Names and tensors in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.0.iter()
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum()
    }

    /// Those that `graph` uses for an input of this shape.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when one is missing.
    pub fn of(&self, graph: &Graph, input: &[usize]) -> Result<Self> {
        let names = graph.params(input)?.into_iter().map(|p| p.name);
        names.map(|name| Ok((name.clone(), self.get(&name)?.clone()))).collect()
    }

    /// The same tensors on `device`, in `dtype`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn to(&self, device: &Device, dtype: DType) -> Result<Self> {
        let moved = |t: &Tensor| t.to_device(device).and_then(|t| t.to_dtype(dtype));
        self.iter().map(|(name, t)| Ok((name.clone(), moved(t).during("moving weights")?))).collect()
    }
}

impl FromIterator<(String, Tensor)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl AsRef<BTreeMap<String, Tensor>> for Params {
    fn as_ref(&self) -> &BTreeMap<String, Tensor> {
        &self.0
    }
}
