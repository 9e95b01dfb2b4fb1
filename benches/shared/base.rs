//! Networks that stand for those of the field, with random weights as a model file holds them.

use std::collections::BTreeMap;
use std::path::Path;

use archrepair::engine::grad::{Norms, Wanted, forward};
use archrepair::graph::network::{Input, Network};
use archrepair::graph::{Params, op::Shape};
use archrepair::rng::Rng;
use archrepair::storage::{Storage, publish, serialize};
use archrepair::zoo::{METADATA, init, resnet::Layout};
use candle_core::{Device, Tensor};

/// All names that [`network`] knows.
const KNOWN: &str = "narrow28, wide32, resnet18, resnet34, resnet50, resnet101, resnet152";
const SEED: u64 = 7;

/// Writes the network `name` to `path`, which must be free: weights in `f16`, the network beside
/// them as text.
pub(crate) fn write(name: &str, path: &Path) -> archrepair::Result<()> {
    let rng = &mut Rng::new(SEED);
    let network = network(name)?;
    let params = calibrated(&network, init::draw(&network, rng)?, rng)?;
    let metadata = BTreeMap::from([(METADATA.to_owned(), network.to_json()?)]);
    publish(path, &serialize(&params.tensors()?, Storage::F16, &metadata)?)
}

/// `narrow28` and `wide32` are ResNet-18 of widths 16 to 128 and 64 to 512 with a CIFAR stem, for
/// gray images of 28 x 28 and colored ones of 32 x 32; `resnet18` to `resnet152` are those of
/// ImageNet at 224 x 224.
fn network(name: &str) -> archrepair::Result<Network> {
    let wide = [64, 128, 256, 512];
    let (depth, widths, stem, side) = match name {
        "narrow28" => (18, [16, 32, 64, 128], [1, 3, 10], 28),
        "wide32" => (18, wide, [3, 3, 10], 32),
        other => {
            let depth = other.strip_prefix("resnet").and_then(|depth| depth.parse().ok());
            let depth = depth.ok_or_else(|| archrepair::Error::UnknownName {
                kind: "network",
                got: name.into(),
                known: KNOWN.into(),
            })?;
            (depth, wide, [3, 7, 1000], 224)
        }
    };
    let channels = stem[0];
    let input =
        Input { shape: vec![channels, side, side], mean: vec![0.0; channels], std: vec![1.0; channels] };
    Ok(Layout::new(depth, widths, stem)?.network(input))
}

/// `n` random images.
pub(crate) fn images(shape: &[usize], n: usize, rng: &mut Rng) -> Tensor {
    let shape: Shape = std::iter::once(n).chain(shape.iter().copied()).collect();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The statistics that batch norms would have after training: without them the values of a deep
/// network with random weights grow block by block.
fn calibrated(network: &Network, mut params: Params, rng: &mut Rng) -> archrepair::Result<Params> {
    let wanted = Wanted { trained: &|_| false, input: false, norms: Norms::Batch };
    let x = images(&network.input.shape, 4, rng);
    let seen = forward(&network.joined(0..network.parts.len()), &params, &x, wanted)?.statistics;
    for (name, found) in seen {
        params.insert(format!("{name}.running_mean"), found.mean);
        params.insert(format!("{name}.running_var"), found.var);
    }
    Ok(params)
}
