//! One weight of a graph: on the heap, or in the mapped file until an operation reads it.

use std::iter::{once, repeat_n};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use half::f16;

use super::op::Conv2d;
use crate::error::{During, Result};
use crate::storage::View;

/// A weight. A clone shares its numbers.
///
/// One on the heap is a tensor of any type and device. One in the mapped file is an `f32` tensor
/// on the CPU each time it is asked for, and takes no heap in between. One that is packed for a kernel is
/// on the heap too, and becomes a tensor when it is asked for. Folding a batch norm
/// multiplies it without a copy: the factors are kept beside it and applied as it is widened.
#[derive(Clone, Debug)]
pub struct Weight(Place);

#[derive(Clone, Debug)]
enum Place {
    /// The lists of factors apply one after another.
    Mapped {
        view: View,
        factors: Vec<Factors>,
    },
    Packed(Packed),
    Resident(Tensor),
}

/// The numbers of a convolution's weight on the heap, in the order of the kernel that reads them.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// In that order.
    pub(crate) numbers: PackedNumbers,
    /// The convolution.
    pub(crate) conv: Conv2d,
    /// Of the tensor.
    pub(crate) shape: Vec<usize>,
    /// The way back to the tensor's order.
    pub(crate) unpack: fn(&Self) -> Result<Vec<f32>>,
}

/// PackedNumbers on the heap.
#[derive(Clone, Debug)]
pub(crate) enum PackedNumbers {
    /// As they are computed with.
    Floats(Arc<Vec<f32>>),
    /// As the file has them, and lists of factors as a mapped weight has.
    Halves(Arc<Vec<f16>>, Vec<Factors>),
    /// Pairs of `bf16` of two input channels, each in the bits of an `f32`.
    Pairs(Arc<Vec<f32>>),
}

impl PackedNumbers {
    fn bytes(&self) -> usize {
        match self {
            Self::Floats(numbers) | Self::Pairs(numbers) => size_of_val(numbers.as_slice()),
            Self::Halves(halves, factors) => size_of_val(halves.as_slice()) + factors_bytes(factors),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Floats(a), Self::Floats(b)) | (Self::Pairs(a), Self::Pairs(b)) => Arc::ptr_eq(a, b),
            (Self::Halves(a, f), Self::Halves(b, g)) => Arc::ptr_eq(a, b) && f == g,
            _ => false,
        }
    }
}

/// One factor for each index of a weight's first axis.
pub(crate) type Factors = Arc<[f32]>;

impl From<Packed> for Weight {
    fn from(packed: Packed) -> Self {
        Self(Place::Packed(packed))
    }
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self(Place::Resident(tensor))
    }
}

impl From<View> for Weight {
    fn from(view: View) -> Self {
        Self(Place::Mapped { view, factors: Vec::new() })
    }
}

impl Weight {
    /// The tensor: shared if it is on the heap, else widened into one new allocation of
    /// [`Weight::widened_bytes`], which is freed with the last clone of what is returned.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when candle refuses.
    pub fn tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Place::Mapped { view, factors } => {
                Tensor::from_vec(widened(view, factors), view.shape(), &Device::Cpu)
                    .during("widening a weight")
            }
            Place::Packed(packed) => {
                Tensor::from_vec((packed.unpack)(packed)?, packed.shape.as_slice(), &Device::Cpu)
                    .during("unpacking a weight")
            }
            Place::Resident(tensor) => Ok(tensor.clone()),
        }
    }

    /// Writes the numbers of a mapped weight to `out`, which has as many; nothing for one on the
    /// heap.
    pub(crate) fn widen_into(&self, out: &mut [f32]) {
        if let Place::Mapped { view, factors } = &self.0 {
            widen(view, factors, out);
        }
    }

    /// The tensor of a weight on the heap, in its own order.
    pub(crate) fn resident(&self) -> Option<&Tensor> {
        match &self.0 {
            Place::Resident(tensor) => Some(tensor),
            Place::Mapped { .. } | Place::Packed(_) => None,
        }
    }

    /// The numbers in the order of a kernel.
    pub(crate) fn packed(&self) -> Option<&PackedNumbers> {
        match &self.0 {
            Place::Packed(packed) => Some(&packed.numbers),
            Place::Mapped { .. } | Place::Resident(_) => None,
        }
    }

    /// The numbers of half precision in the mapped file, if they are and can be read there, and lists of
    /// factors for each index of the first axis, which apply one after another.
    pub(crate) fn halves(&self) -> Option<(&[f16], &[Factors])> {
        match &self.0 {
            Place::Mapped { view, factors } => Some((view.halves()?, factors)),
            Place::Packed(_) | Place::Resident(_) => None,
        }
    }

    /// All numbers, last index first.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when they are no `f32` or cannot be read.
    pub(crate) fn floats(&self) -> Result<Vec<f32>> {
        match &self.0 {
            Place::Mapped { view, factors } => Ok(widened(view, factors)),
            Place::Packed(packed) => (packed.unpack)(packed),
            Place::Resident(tensor) => {
                tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).during("reading a weight")
            }
        }
    }

    /// Lets go of the pages of a mapped weight's file: they are read again when they are needed.
    pub(crate) fn release(&self) {
        if let Place::Mapped { view, .. } = &self.0 {
            view.release();
        }
    }

    /// Shape of the tensor.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        match &self.0 {
            Place::Mapped { view, .. } => view.shape(),
            Place::Packed(packed) => &packed.shape,
            Place::Resident(tensor) => tensor.dims(),
        }
    }

    /// Where the tensor is or will be.
    #[must_use]
    pub fn device(&self) -> Device {
        match &self.0 {
            Place::Mapped { .. } | Place::Packed(_) => Device::Cpu,
            Place::Resident(tensor) => tensor.device().clone(),
        }
    }

    /// Whether the numbers stay in the file.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Place::Mapped { .. })
    }

    /// Heap bytes that this weight holds all the time: all of a tensor, the factors of a mapped
    /// weight. Bookkeeping of some hundred bytes is not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Place::Mapped { factors, .. } => factors_bytes(factors),
            Place::Packed(packed) => packed.numbers.bytes(),
            Place::Resident(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        }
    }

    /// Bytes of the mapped file that this weight reads; 0 when it is on the heap.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        match &self.0 {
            Place::Mapped { view, .. } => view.len_bytes(),
            Place::Packed(_) | Place::Resident(_) => 0,
        }
    }

    /// Heap bytes that one call of [`Weight::tensor`] allocates for numbers; 0 when it is on the
    /// heap already, in the tensor's order.
    #[must_use]
    pub fn widened_bytes(&self) -> usize {
        match &self.0 {
            Place::Mapped { view, .. } => view.n_elements() * size_of::<f32>(),
            Place::Packed(packed) => packed.shape.iter().product::<usize>() * size_of::<f32>(),
            Place::Resident(_) => 0,
        }
    }

    /// This weight times one factor for each index of its first axis: at once on the heap, else
    /// whenever it is widened, with the same bits.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when there is another number of factors.
    pub fn scaled(&self, factors: &Tensor) -> Result<Self> {
        let n = factors.elem_count();
        match &self.0 {
            Place::Mapped { view, factors: before } if view.shape().first() == Some(&n) => {
                let factors = factors.flatten_all().and_then(|f| f.to_vec1()).during("reading factors")?;
                let factors = before.iter().cloned().chain(once(factors.into())).collect();
                Ok(Self(Place::Mapped { view: view.clone(), factors }))
            }
            _ => {
                let tensor = self.tensor()?;
                let dims: Vec<usize> = once(n).chain(repeat_n(1, tensor.rank().saturating_sub(1))).collect();
                let scaled = factors.reshape(dims).and_then(|factors| tensor.broadcast_mul(&factors));
                Ok(scaled.during("scaling a weight")?.into())
            }
        }
    }

    /// Whether both share their numbers, so that none need be compared.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Place::Mapped { view: a, factors: f }, Place::Mapped { view: b, factors: g }) => {
                a.is_same(b) && f == g
            }
            (Place::Packed(a), Place::Packed(b)) => a.numbers.is_same(&b.numbers),
            (Place::Resident(a), Place::Resident(b)) => a.id() == b.id(),
            _ => false,
        }
    }
}

fn factors_bytes(factors: &[Factors]) -> usize {
    factors.iter().map(|of| size_of_val(&**of)).sum()
}

fn widened(view: &View, factors: &[Factors]) -> Vec<f32> {
    let mut values = vec![0.0; view.n_elements()];
    widen(view, factors, &mut values);
    values
}

fn widen(view: &View, factors: &[Factors], values: &mut [f32]) {
    view.read(0, values);
    multiply(values, factors, view.shape().first().copied().unwrap_or(1));
}

/// Multiplies each of `n` parts of `values` with its factors.
pub(crate) fn multiply(values: &mut [f32], factors: &[Factors], n: usize) {
    let per_channel = values.len() / n.max(1);
    for factors in factors {
        for (channel, factor) in values.chunks_mut(per_channel.max(1)).zip(factors.iter()) {
            channel.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::rng::Rng;
    use crate::storage::{Storage, WeightFile, serialize};

    /// A weight of this shape, in the file and on the heap.
    fn both(shape: &[usize], store: Storage) -> [Weight; 2] {
        let mut rng = Rng::new(1);
        let draws = (0..shape.iter().product()).map(|_| rng.normal()).collect::<Vec<f32>>();
        let tensor = Tensor::from_vec(draws, shape, &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("w".to_owned(), tensor)]);
        let bytes = serialize(&tensors, store, &BTreeMap::new()).unwrap();
        let file = WeightFile::from_bytes(bytes.into(), Path::new("w")).unwrap();
        let resident = file.tensor("w", shape, &Device::Cpu).unwrap();
        [file.view("w", shape).unwrap().into(), resident.into()]
    }

    fn bits(weight: &Weight) -> (Vec<usize>, Vec<u32>) {
        let values = weight.tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (weight.shape().to_vec(), values.into_iter().map(f32::to_bits).collect())
    }

    fn factors(n: usize, seed: u64) -> Tensor {
        let mut rng = Rng::new(seed);
        Tensor::from_vec((0..n).map(|_| rng.normal()).collect::<Vec<f32>>(), n, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_mapped_weight_is_the_resident_one_bit_for_bit_however_often_it_is_scaled() {
        for store in [Storage::Bf16, Storage::F16, Storage::F32] {
            for shape in [&[5, 3, 3, 3][..], &[4, 1, 1, 1], &[2, 70], &[3], &[0, 2]] {
                let [mut mapped, mut resident] = both(shape, store);
                assert_eq!(bits(&mapped), bits(&resident));
                for seed in 0..3 {
                    let factors = factors(shape[0], seed);
                    [mapped, resident] = [&mapped, &resident].map(|w| w.scaled(&factors).unwrap());
                    assert_eq!(bits(&mapped), bits(&resident), "{store} {shape:?} scaled {seed}");
                    assert!(mapped.is_mapped() && !resident.is_mapped());
                }
            }
        }
    }

    /// 6 x 4 numbers of 2 bytes in the file and of 4 on the heap, 6 factors of 4 bytes.
    #[test]
    fn bytes_are_where_the_numbers_are() {
        let [mapped, resident] = both(&[6, 4], Storage::F16);
        let folded = mapped.scaled(&factors(6, 1)).unwrap();
        let bytes = |w: &Weight| [w.bytes(), w.mapped_bytes(), w.widened_bytes()];
        assert_eq!([&mapped, &resident, &folded].map(bytes), [[0, 48, 96], [96, 0, 0], [24, 48, 96]]);
    }

    #[test]
    fn weights_are_the_same_when_nothing_was_made_of_them() {
        let [mapped, resident] = both(&[2, 2], Storage::F16);
        for weight in [&mapped, &resident] {
            assert!(weight.is_same(&weight.clone()));
            assert!(!weight.is_same(&weight.scaled(&factors(2, 1)).unwrap()));
        }
        assert!(!mapped.is_same(&resident));
    }

    #[test]
    fn a_wrong_number_of_factors_is_refused() {
        for weight in both(&[3, 2], Storage::F16) {
            assert_eq!(weight.scaled(&factors(2, 1)).unwrap_err().to_string(), "scaling a weight failed");
        }
    }
}
