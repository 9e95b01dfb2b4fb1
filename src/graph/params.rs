//! The weights of a graph, by name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{Graph, Weight};
use crate::device::Compute;
use crate::error::{During, Error, Result};
use crate::storage::{Bytes, View};

/// Weights by full name, in the order of the names. Each is on the heap or in a mapped file; see
/// [`Weight`]. A clone shares them all until one of both is changed.
#[derive(Clone, Debug, Default)]
pub struct Params(Arc<BTreeMap<String, Weight>>);

impl Params {
    /// The tensor of this name: shared if it is on the heap, else widened to `f32` into a new
    /// allocation of [`Params::widened_bytes`], which the caller frees by dropping it.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when there is none: the parameters are of another graph.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        self.weight(name)?.tensor()
    }

    /// The weight of this name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Weight> {
        self.0.get(name)
    }

    /// Shape of the tensor of this name, if there is one.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(self.find(name)?.shape())
    }

    pub(super) fn weight(&self, name: &str) -> Result<&Weight> {
        self.find(name).ok_or_else(|| Error::Graph { node: name.into(), problem: "has no tensor".into() })
    }

    /// Adds or replaces a weight.
    pub fn insert(&mut self, name: impl Into<String>, weight: impl Into<Weight>) {
        Arc::make_mut(&mut self.0).insert(name.into(), weight.into());
    }

    /// Adds or replaces all weights of `other`.
    pub fn extend(&mut self, other: &Self) {
        Arc::make_mut(&mut self.0).extend(other.iter().map(|(name, weight)| (name.clone(), weight.clone())));
    }

    /// Takes the weight of this name out.
    pub fn remove(&mut self, name: &str) -> Option<Weight> {
        Arc::make_mut(&mut self.0).remove(name)
    }

    /// Names and weights in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Weight)> {
        self.0.iter()
    }

    /// All tensors, those in the file widened.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when candle refuses.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        self.iter().map(|(name, weight)| Ok((name.clone(), weight.tensor()?))).collect()
    }

    /// The same weights, all on the heap: what runs often runs fastest so.
    ///
    /// # Errors
    ///
    /// As [`Params::tensors`].
    pub fn resident(&self) -> Result<Self> {
        Ok(self.tensors()?.into_iter().collect())
    }

    /// The same weights with those on the heap moved to an unnamed mapped file in `folder`, as
    /// `f32` on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the folder cannot be written, [`Error::Tensor`] when a tensor cannot
    /// be read.
    pub fn spooled(&self, folder: &Path) -> Result<Self> {
        let heap: Vec<_> = self.iter().filter(|(_, weight)| !weight.is_mapped()).collect();
        if heap.is_empty() {
            return Ok(self.clone());
        }
        let numbers = heap.iter().map(|(_, weight)| Ok(Floats(weight.floats()?)));
        let bytes = Bytes::try_spool(numbers, folder)?;
        let mut spooled = self.clone();
        let mut start = 0;
        for (name, weight) in heap {
            spooled.insert(name.clone(), View::f32(&bytes, start, weight.shape()));
            start += 4 * weight.shape().iter().product::<usize>();
        }
        Ok(spooled)
    }

    /// Where the tensors are; the CPU when there are none.
    #[must_use]
    pub fn device(&self) -> Device {
        self.0.values().next().map_or(Device::Cpu, Weight::device)
    }

    /// How many weights there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Heap bytes of all weights; those in the file count their factors only.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.values().map(Weight::bytes).sum()
    }

    /// Bytes of the mapped file that the weights read.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        self.0.values().map(Weight::mapped_bytes).sum()
    }

    /// Heap bytes that one [`Params::get`] of this name allocates for numbers: 0 for a weight on
    /// the heap, and for a name that is not there.
    #[must_use]
    pub fn widened_bytes(&self, name: &str) -> usize {
        self.find(name).map_or(0, Weight::widened_bytes)
    }

    /// Those that `graph` uses for an input of this shape.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when one is missing.
    pub fn of(&self, graph: &Graph, input: &[usize]) -> Result<Self> {
        let names = graph.params(input)?.into_iter().map(|p| p.name);
        names.map(|name| Ok((name.clone(), self.weight(&name)?.clone()))).collect()
    }

    /// The same weights as passes of `compute` read them; where that is on the CPU in `f32`, these.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn placed(&self, compute: &Compute) -> Result<Self> {
        if compute.is_host() { Ok(self.clone()) } else { self.each(|w| compute.weight(&w)) }
    }

    /// The same weights as an optimizer changes them where `compute` says: tensors in `f32`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn masters(&self, compute: &Compute) -> Result<Self> {
        self.each(|w| compute.master(&w))
    }

    fn each(&self, change: impl Fn(Tensor) -> Result<Tensor>) -> Result<Self> {
        self.iter().map(|(name, weight)| Ok((name.clone(), change(weight.tensor()?)?))).collect()
    }

    /// The same weights on `device`, in `dtype`. A mapped weight stays mapped where that is what
    /// it gives anyway: `f32` on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when the device refuses.
    pub fn to(&self, device: &Device, dtype: DType) -> Result<Self> {
        let stays = |weight: &Weight| weight.is_mapped() && device.is_cpu() && dtype == DType::F32;
        let moved = |weight: &Weight| -> Result<Weight> {
            if stays(weight) {
                return Ok(weight.clone());
            }
            let tensor = weight.tensor()?.to_device(device).and_then(|tensor| tensor.to_dtype(dtype));
            Ok(tensor.during("moving weights")?.into())
        };
        self.iter().map(|(name, weight)| Ok((name.clone(), moved(weight)?))).collect()
    }
}

/// Numbers as the bytes they are.
struct Floats(Vec<f32>);

impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl<W: Into<Weight>> FromIterator<(String, W)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, W)>>(items: I) -> Self {
        Self(Arc::new(items.into_iter().map(|(name, weight)| (name, weight.into())).collect()))
    }
}
