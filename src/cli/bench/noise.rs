//! Images for measurements of memory and time: what they show does not matter.

use std::path::Path;

use crate::data::{Images, idx};
use crate::error::{Error, Result};
use crate::graph::Network;
use crate::rng::Rng;

/// `n` images of noise of the network's size, with random labels.
pub(super) fn images(network: &Network, n: usize, rng: &mut Rng) -> Result<Images> {
    let shape = shape(network);
    let pixels = (0..n * shape.iter().product::<usize>()).map(|_| rng.below(256) as u8).collect();
    // A byte holds the label in an IDX file.
    let labels = (0..n).map(|_| rng.below(network.classes.min(256)) as u32).collect();
    Images::from_parts(shape, pixels, labels, "noise")
}

/// `[c, h, w]` of the network's images.
pub(super) fn shape(network: &Network) -> [usize; 3] {
    [0, 1, 2].map(|i| network.input.shape[i])
}

/// Writes `images` as an IDX pair into `folder`, which is made.
pub(super) fn write(images: &Images, folder: &Path) -> Result<()> {
    std::fs::create_dir(folder).map_err(Error::file("make the folder", folder))?;
    let (pixels, labels) = idx::encode(images)?;
    for (name, bytes) in [("images-idx3-ubyte.gz", pixels), ("labels-idx1-ubyte.gz", labels)] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(Error::file("write", &path))?;
    }
    Ok(())
}
