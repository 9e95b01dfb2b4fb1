//! Weights packed once, for networks that run often.
//!
//! A convolution reads its weight in an order of its own. One in the network's file, or a tensor, is
//! copied into that order a part at a time, in every pass; for a single image of few pixels that takes as
//! long as the products. A packed weight lies in that order already.

use std::sync::Arc;

use crate::error::Result;
use crate::graph::lower::Lowered;
use crate::graph::op::{Conv2d, Op};
use crate::graph::weight::{Packed, Weight};
use crate::kernels::conv2d::{self, Sizes};

/// The same network with all its weights on the heap in `f32`, those of convolutions on the CPU in the
/// order of their kernel. Where nothing else has the tensors, one of them is there twice at most.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when a weight cannot be read, [`crate::Error::Memory`] when the limit does
/// not allow a copy.
pub fn packed(mut lowered: Lowered) -> Result<Lowered> {
    for node in &lowered.graph.nodes {
        for suffix in ["weight", "bias"] {
            let name = node.param(suffix);
            let Some(weight) = lowered.params.remove(&name) else { continue };
            let own_order = match &node.op {
                Op::Conv2d(conv) if suffix == "weight" => in_order_of(conv, &weight)?,
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
fn in_order_of(conv: &Conv2d, weight: &Weight) -> Result<Option<Weight>> {
    if weight.packed().is_some() {
        return Ok(Some(weight.clone()));
    }
    if !weight.device().is_cpu() {
        return Ok(None);
    }
    let shape = weight.shape().to_vec();
    let numbers = conv2d::packed(&sizes(conv, &shape)?, &weight.floats()?)?;
    let unpack =
        |packed: &Packed| Ok(conv2d::unpacked(&sizes(&packed.conv, &packed.shape)?, &packed.numbers));
    Ok(numbers.map(|numbers| Packed { numbers: Arc::new(numbers), conv: *conv, shape, unpack }.into()))
}

/// Sizes of the smallest input there can be: the order does not depend on them.
fn sizes(conv: &Conv2d, weight: &[usize]) -> Result<Sizes> {
    let side = conv.dilation * conv.k.saturating_sub(1) + 1;
    Sizes::of(conv, [1, weight.get(1).map_or(0, |inputs| inputs * conv.groups), side, side])
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::engine::layout::Layout;
    use crate::graph::{Graph, INPUT, Params};
    use crate::rng::Rng;

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

    #[test]
    fn packed_weights_give_the_same_bits_and_come_back() {
        for (conv, c) in convolutions() {
            let rng = &mut Rng::new(1);
            let mut graph = Graph::default();
            graph.push("conv", Op::Conv2d(conv), &[INPUT]);
            let weight = normal(&conv.weight_shape(c), rng);
            let mut params = Params::default();
            params.insert("conv.weight", weight.clone());
            let packed = packed(Lowered { graph: graph.clone(), params: params.clone() }).unwrap();
            let is_dense = conv.groups != c;
            let is_packed =
                |lowered: &Lowered| lowered.params.find("conv.weight").unwrap().packed().is_some();
            assert_eq!(is_packed(&packed), is_dense);
            assert_eq!(is_packed(&super::packed(packed.clone()).unwrap()), is_dense, "packed twice");
            let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(numbers(&packed.params.get("conv.weight").unwrap()), numbers(&weight));
            let x = numbers(&normal(&[2, c, 14, 15], rng));
            let run = |params: &Params| {
                let layout = Layout::new((&graph, params), (&[c, 14, 15], 2), 2).unwrap();
                let mut executor = layout.executor().unwrap();
                executor.input(2).unwrap().copy_from_slice(&x);
                executor.run(2).unwrap().to_vec()
            };
            assert_eq!(run(&packed.params), run(&params), "{conv:?}");
        }
    }
}
