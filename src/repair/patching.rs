//! A repaired network as a patch, and a patch as a network.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::fit::{Level, Part, Site};
use crate::graph::{Graph, Network, Params, Weight};
use crate::kernels::slice;
use crate::storage::{Digest, Patch, PatchHeader, patch};
use crate::zoo::Model;

/// What is known about how a patch came about.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// What a search chose, as JSON.
    pub genotype: serde_json::Value,
    /// Program version, seed, settings, digests of the data, numbers before and after.
    pub provenance: serde_json::Value,
}

/// The patch that turns `old` into `new`: graphs of the parts that differ and the tensors that
/// are not the base's, bit for bit.
///
/// # Errors
///
/// [`Error::Graph`] when a tensor is missing, [`Error::Tensor`] when one cannot be compared.
pub fn difference(base: Digest, old: &Deployed, new: &Deployed, origin: Origin) -> Result<Patch> {
    let mut blocks = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    let shapes = new.network.shapes()?;
    for (i, (was, part)) in old.network.parts.iter().zip(&new.network.parts).enumerate() {
        let mut changed = was.graph != part.graph;
        for named in part.graph.params(&shapes[i])? {
            let (before, after) = (old.params.find(&named.name), new.params.find(&named.name));
            if before.zip(after).is_some_and(|(before, after)| before.is_same(after)) {
                continue;
            }
            let tensor = new.params.get(&named.name)?;
            let same = match before {
                Some(before) => equal(&before.tensor()?, &tensor)?,
                None => false,
            };
            if !same {
                tensors.insert(named.name, tensor);
                changed = true;
            }
        }
        if changed {
            blocks.insert(part.name.clone(), text(&part.graph)?);
        }
    }
    let Origin { genotype, provenance } = origin;
    let header = PatchHeader { version: patch::VERSION, base, blocks, genotype, provenance };
    Ok(Patch { header, tensors })
}

fn equal(a: &Tensor, b: &Tensor) -> Result<bool> {
    Ok(a.dims() == b.dims() && *slice::<f32>(a)? == *slice::<f32>(b)?)
}

fn text(graph: &Graph) -> Result<serde_json::Value> {
    serde_json::to_value(graph)
        .map_err(|error| Error::Graph { node: "patch".into(), problem: error.to_string() })
}

/// The network of `model`, with `patch` applied if there is one and all tensors on the heap.
///
/// # Errors
///
/// As [`deploy_mapped`].
pub fn deploy(model: &Model, patch: Option<(&Patch, &Path)>) -> Result<Deployed> {
    deploy_mapped(model, patch)?.resident()
}

/// As [`deploy`], with the weights of the base left in its file; those of the patch, which are
/// few, are on the heap.
///
/// # Errors
///
/// [`Error::BaseMismatch`] for a patch of another base, [`Error::Malformed`] for a graph that
/// cannot be read, [`Error::UnknownName`], [`Error::Graph`], [`Error::Shape`] for a part that
/// does not fit, [`Error::NotFinite`] for a damaged base.
pub fn deploy_mapped(model: &Model, patch: Option<(&Patch, &Path)>) -> Result<Deployed> {
    let Some((patch, path)) = patch else {
        return Ok(Deployed::new(model.network.clone(), model.mapped_params()?));
    };
    patched(&model.network, model.file.digest(), |name, want| model.weight(name, want), (patch, path))
}

/// `base`, of the file with this digest, with `patch` applied; they share what the patch leaves.
///
/// # Errors
///
/// As [`deploy_mapped`].
pub fn deploy_on(base: &Deployed, digest: Digest, patch: (&Patch, &Path)) -> Result<Deployed> {
    let shared = |name: &str, _: &[usize]| {
        let weight = base.params.find(name).cloned();
        weight.ok_or_else(|| Error::Graph { node: name.into(), problem: "has no tensor".into() })
    };
    let repaired = patched(&base.network, digest, shared, patch)?;
    Ok(Deployed { levers: base.levers, ..repaired.on(&base.compute) })
}

/// `network` with `patch` applied; `rest` gives the tensors that the patch leaves.
fn patched(
    network: &Network,
    digest: Digest,
    rest: impl Fn(&str, &[usize]) -> Result<Weight>,
    (patch, path): (&Patch, &Path),
) -> Result<Deployed> {
    patch.check_base(digest, path)?;
    let malformed = |problem: String| Error::Malformed { path: path.into(), problem };
    let mut network = network.clone();
    for (name, text) in &patch.header.blocks {
        let graph: Graph = serde_json::from_value(text.clone())
            .map_err(|error| malformed(format!("part {name}: {error}")))?;
        network = network.replace_part(name, graph)?;
    }
    let mut params = Params::default();
    for named in network.params()? {
        let (name, want) = (named.name, named.param.shape);
        let weight = match patch.tensors.get(&name) {
            Some(tensor) if tensor.dims() != want => {
                return Err(Error::Shape { path: path.into(), name, want, got: tensor.dims().to_vec() });
            }
            Some(tensor) => tensor.clone().into(),
            None => rest(&name, &want)?,
        };
        params.insert(name, weight);
    }
    Ok(Deployed::new(network, params))
}

/// `start` with `part` at `site`.
pub(super) fn place(start: &Deployed, site: &Site, part: &Part) -> Result<Deployed> {
    let mut network = start.network.clone();
    if let Level::Block(name) = &site.level {
        network = network.replace_part(name, part.graph.clone())?.into();
    }
    let mut params = start.params.clone();
    params.extend(&part.params);
    Ok(Deployed { network, params, ..start.clone() })
}
