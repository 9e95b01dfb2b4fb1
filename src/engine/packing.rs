//! Weights packed once, for networks that run often.
//!
//! A convolution reads its weight in an order of its own. One in the network's file, or a tensor, is
//! copied into that order a part at a time, in every pass; for a single image of few pixels that takes as
//! long as the products. A packed weight lies in that order already.

use std::sync::Arc;

use half::slice::HalfFloatSliceExt;

use crate::device::Precision;
use crate::error::Result;
use crate::graph::lower::Lowered;
use crate::graph::op::{Conv2d, Op, elements};
use crate::graph::weight::{Packed, PackedNumbers, Weight, multiply};
use crate::kernels::conv2d::{self, Sizes};

/// Numbers of a weight from which on they are widened in every pass, rather than once: a MiB of `f32`. For a
/// single image large weights come from memory each time, and half as many bytes come sooner. Weights of many
/// pixels have few numbers, and are read many times in a pass.
const LARGE: usize = 1 << 18;

/// Whether this processor multiplies [`Precision::Bf16`] by instructions of its own: AVX-512's or Arm's.
#[must_use]
pub fn has_bf16() -> bool {
    conv2d::has_pairs()
}

/// The same network with all its weights on the heap, those of convolutions on the CPU in the order of
/// their kernel: rounded to pairs for [`Precision::Bf16`]; else large ones in half precision where the file
/// has them so, and all others in `f32`. Depthwise convolutions keep `f32` in either. Where nothing else has
/// the tensors, one of them is there twice at most.
///
/// Where the processor [has no instructions](has_bf16) for pairs, they are taken apart: the same
/// results within rounding, slowly.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when a weight cannot be read, [`crate::Error::Memory`] when the limit does not allow a copy.
pub fn packed(mut lowered: Lowered, precision: Precision) -> Result<Lowered> {
    for node in &lowered.graph.nodes {
        for suffix in ["weight", "bias"] {
            let name = node.param(suffix);
            let Some(weight) = lowered.params.remove(&name) else { continue };
            let own_order = match &node.op {
                Op::Conv2d(conv) if suffix == "weight" => in_order_of(conv, &weight, precision)?,
                _ => None,
            };
            let packed = own_order.map_or_else(|| weight.tensor().map(Weight::from), Ok)?;
            weight.release();
            lowered.params.insert(name, packed);
        }
    }
    Ok(lowered)
}

/// The weight in the order of the convolution's kernel, if it has one of its own.
fn in_order_of(conv: &Conv2d, weight: &Weight, precision: Precision) -> Result<Option<Weight>> {
    if weight.packed().is_some() {
        return Ok(Some(weight.clone()));
    }
    if !weight.device().is_cpu() {
        return Ok(None);
    }
    let shape = weight.shape().to_vec();
    let sizes = &sizes(conv, &shape)?;
    let halves = weight.halves().filter(|(halves, _)| halves.len() >= LARGE);
    let numbers = match (precision, halves) {
        (Precision::Bf16, _) => {
            conv2d::pairs(sizes, &weight.floats()?)?.map(Arc::new).map(PackedNumbers::Pairs)
        }
        (_, Some((halves, factors))) => conv2d::packed(sizes, halves)?
            .map(|halves| PackedNumbers::Halves(Arc::new(halves), factors.to_vec())),
        (_, None) => conv2d::packed(sizes, &weight.floats()?)?.map(Arc::new).map(PackedNumbers::Floats),
    };
    Ok(numbers.map(|numbers| Packed { numbers, conv: *conv, shape, unpack }.into()))
}

/// All numbers in the tensor's order.
fn unpack(packed: &Packed) -> Result<Vec<f32>> {
    let sizes = &sizes(&packed.conv, &packed.shape)?;
    Ok(match &packed.numbers {
        PackedNumbers::Floats(floats) => conv2d::unpacked(sizes, floats),
        PackedNumbers::Halves(halves, factors) => {
            let mut numbers = vec![0.0; elements(&packed.shape)];
            conv2d::unpacked(sizes, halves).convert_to_f32_slice(&mut numbers);
            multiply(&mut numbers, factors, packed.conv.outputs);
            numbers
        }
        PackedNumbers::Pairs(pairs) => conv2d::unpaired(sizes, pairs),
    })
}

/// Sizes of the smallest input there can be: the order does not depend on them.
fn sizes(conv: &Conv2d, weight: &[usize]) -> Result<Sizes> {
    let side = conv.dilation * conv.k.saturating_sub(1) + 1;
    Sizes::of(conv, [1, weight.get(1).map_or(0, |inputs| inputs * conv.groups), side, side])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::{Device, Tensor};

    use super::*;
    use crate::engine::layout::Layout;
    use crate::graph::{Graph, INPUT, Params};
    use crate::rng::Rng;
    use crate::storage::{Storage, WeightFile, serialize};

    fn normal(shape: &[usize], rng: &mut Rng) -> Tensor {
        let draws = (0..shape.iter().product()).map(|_| rng.normal()).collect::<Vec<f32>>();
        Tensor::from_vec(draws, shape, &Device::Cpu).unwrap()
    }

    /// Dense, grouped and depthwise windows, panels of several widths.
    fn convolutions() -> [(Conv2d, usize); 5] {
        [
            (Conv2d::same(129, 3, 1), 20),
            (Conv2d { groups: 2, ..Conv2d::same(194, 3, 2) }, 6),
            (Conv2d { groups: 8, ..Conv2d::same(8, 3, 1) }, 8),
            (Conv2d::same(70, 1, 1), 130),
            (Conv2d::valid(16, 7, 2), 3),
        ]
    }

    /// A weight that stays in half precision, on the heap and in a file.
    #[test]
    fn large_weights_in_half_precision_give_the_bits_of_mapped_ones() {
        let conv = Conv2d::same(160, 3, 1);
        let c = LARGE.div_ceil(9 * 160) + 1;
        let rng = &mut Rng::new(2);
        let mut graph = Graph::default();
        graph.push("conv", Op::Conv2d(conv), &[INPUT]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let tensors = [("w".to_string(), normal(&conv.weight_shape(c), rng))].into();
        std::fs::write(&path, serialize(&tensors, Storage::F16, &BTreeMap::new()).unwrap()).unwrap();
        let weight = Weight::from(WeightFile::open(&path).unwrap().view("w", &conv.weight_shape(c)).unwrap());
        let factors = normal(&[160], rng);
        let mut params = Params::default();
        params.insert("conv.weight", weight.scaled(&factors).unwrap());
        let mapped = Lowered { graph, params };
        let x = numbers(&normal(&[2, c, 8, 9], rng));
        let [halves, pairs] =
            [Precision::F32, Precision::Bf16].map(|precision| packed(mapped.clone(), precision).unwrap());
        let stored = |lowered: &Lowered| lowered.params.find("conv.weight").unwrap().packed().cloned();
        assert!(matches!(stored(&halves), Some(PackedNumbers::Halves(..))));
        assert!(matches!(stored(&pairs), Some(PackedNumbers::Pairs(_))));
        let want = run(&mapped, [c, 8, 9], &x);
        assert_eq!(run(&halves, [c, 8, 9], &x), want);
        let unpacked = |lowered: &Lowered| numbers(&lowered.params.get("conv.weight").unwrap());
        assert_eq!(unpacked(&halves), unpacked(&mapped));
        let greatest = want.iter().fold(0f32, |greatest, y| greatest.max(y.abs()));
        for (got, want) in run(&pairs, [c, 8, 9], &x).iter().zip(&want) {
            assert!((got - want).abs() < 0.03 * greatest, "{got} for {want}");
        }
    }

    fn numbers(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    }

    fn run(lowered: &Lowered, shape: [usize; 3], x: &[f32]) -> Vec<f32> {
        let layout = Layout::new((&lowered.graph, &lowered.params), (&shape, 2), 2).unwrap();
        let mut executor = layout.executor().unwrap();
        executor.input(2).unwrap().copy_from_slice(x);
        executor.run(2).unwrap().to_vec()
    }

    #[test]
    fn packed_weights_give_the_same_bits_and_come_back() {
        for (conv, c) in convolutions() {
            let rng = &mut Rng::new(1);
            let mut graph = Graph::default();
            graph.push("conv", Op::Conv2d(conv), &[INPUT]);
            let weight = normal(&conv.weight_shape(c), rng);
            let mut params = Params::default();
            params.insert("conv.weight", weight.clone());
            let packed = |lowered| super::packed(lowered, Precision::F32).unwrap();
            let plain = Lowered { graph: graph.clone(), params };
            let once = packed(plain.clone());
            let is_dense = conv.groups != c;
            let is_packed =
                |lowered: &Lowered| lowered.params.find("conv.weight").unwrap().packed().is_some();
            assert_eq!(is_packed(&once), is_dense);
            assert_eq!(is_packed(&packed(once.clone())), is_dense, "packed twice");
            assert_eq!(numbers(&once.params.get("conv.weight").unwrap()), numbers(&weight));
            let x = numbers(&normal(&[2, c, 14, 15], rng));
            assert_eq!(run(&once, [c, 14, 15], &x), run(&plain, [c, 14, 15], &x), "{conv:?}");
        }
    }
}
