//! Weights in the order of the kernels, once and for all.

use std::ops::Range;

use candle_core::WithDType;

use super::Sizes;
use super::correlation::Correlation;
use crate::error::Result;
use crate::kernels::share::zeros;
use crate::kernels::simd::Element;
use crate::kernels::simd::pair::{numbers, pair};

/// `weight` `[outputs, inputs of a group, k, k]` in the order of [`Weights::Packed`](super::Weights::Packed), for outputs; none for
/// convolutions that do not read weights so.
///
/// # Errors
///
/// [`crate::Error::Memory`] when the limit does not allow it.
pub(crate) fn packed<N: WithDType>(sizes: &Sizes, weight: &[N]) -> Result<Option<Vec<N>>> {
    if sizes.is_depthwise() || weight.len() != sizes.weight_len() {
        return Ok(None);
    }
    let depth = sizes.depth().max(1);
    let panels = panels(sizes);
    let mut packed = zeros("packing a weight", panels.last().map_or(0, |last| last.place.end))?;
    for Panel { outputs, place, width } in panels {
        let (from, to) = (&weight[outputs.start * depth..outputs.end * depth], &mut packed[place]);
        for (i, from) in from.chunks_exact(depth).enumerate() {
            to[i..].iter_mut().step_by(width).zip(from).for_each(|(to, &x)| *to = x);
        }
    }
    Ok(Some(packed))
}

/// The weight that [`packed`] was given.
pub(crate) fn unpacked<N: WithDType>(sizes: &Sizes, packed: &[N]) -> Vec<N> {
    let depth = sizes.depth().max(1);
    let mut weight = vec![N::zero(); sizes.weight_len()];
    for Panel { outputs, place, width } in panels(sizes) {
        let (from, to) = (&packed[place], &mut weight[outputs.start * depth..outputs.end * depth]);
        for (i, to) in to.chunks_exact_mut(depth).enumerate() {
            to.iter_mut().zip(from[i..].iter().step_by(width)).for_each(|(to, &x)| *to = x);
        }
    }
    weight
}

/// What [`packed`] gives for `weight`, with pairs of neighbouring input channels: `[c / 2][taps][width]`.
///
/// # Errors
///
/// As there.
pub(crate) fn pairs(sizes: &Sizes, weight: &[f32]) -> Result<Option<Vec<f32>>> {
    let Some(packed) = packed(sizes, weight)? else { return Ok(None) };
    let mut pairs = zeros("pairing a weight", packed.len().div_ceil(2))?;
    pairs.clear();
    for Panel { place, width, .. } in panels(sizes) {
        let channel = sizes.unfold.taps() * width;
        for two in packed[place].chunks(2 * channel) {
            let (first, second) = two.split_at(channel);
            let second = second.iter().copied().chain(std::iter::repeat(0.0));
            pairs.extend(first.iter().zip(second).map(|(&first, second)| pair(first, second)));
        }
    }
    Ok(Some(pairs))
}

/// The weight that [`pairs`] was given, rounded.
pub(crate) fn unpaired(sizes: &Sizes, pairs: &[f32]) -> Vec<f32> {
    let mut packed = Vec::with_capacity(2 * pairs.len());
    let mut pairs = pairs.iter();
    for Panel { place, width, .. } in panels(sizes) {
        let (channel, end) = (sizes.unfold.taps() * width, place.end);
        for _ in 0..place.len().div_ceil(2 * channel.max(1)) {
            let two: Vec<[f32; 2]> = pairs.by_ref().take(channel).map(|&pair| numbers(pair)).collect();
            packed.extend([0, 1].into_iter().flat_map(|i| two.iter().map(move |of| of[i])));
        }
        packed.truncate(end);
    }
    unpacked(sizes, &packed)
}

/// A panel of a packed weight.
struct Panel {
    /// Counted over all groups.
    outputs: Range<usize>,
    /// Where it lies.
    place: Range<usize>,
    width: usize,
}

/// The panels of all groups, for the instructions that `f32` is computed by.
fn panels(sizes: &Sizes) -> Vec<Panel> {
    let how = &Correlation::forward(sizes);
    let [lanes, widest] = f32::widths();
    let mut end = 0;
    let of_group = |group: usize| {
        let last = (group + 1) * how.outputs;
        (group * how.outputs..last)
            .step_by(how.panel(widest))
            .map(move |first| first..last.min(first + how.panel(widest)))
    };
    let place = |outputs: Range<usize>| {
        let width = outputs.len().next_multiple_of(lanes);
        let start = end;
        end += how.inputs * how.k * how.k * width;
        Panel { outputs, place: start..end, width }
    };
    (0..how.groups).flat_map(of_group).map(place).collect()
}
