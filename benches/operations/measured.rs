//! What one program measured in one round: one line of JSON, the last it prints.

use serde::{Deserialize, Serialize};

/// By this library.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) kernels: Vec<Timing>,
    /// Norms of output, of the gradient by the input and of that by the weight; of a convolution.
    pub(crate) norms: Option<[f64; 3]>,
}

/// The time of a kernel, and what it had to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Timing {
    pub(crate) name: String,
    pub(crate) macs: u64,
    /// Read and written.
    pub(crate) bytes: [u64; 2],
    /// The median of a round.
    pub(crate) seconds: f64,
}

/// A convolution by PyTorch.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Backprop {
    pub(crate) forward: Fastest,
    pub(crate) backward: Fastest,
    /// As in [`Measured`].
    pub(crate) norms: [f64; 3],
}

/// The median of a round in the layout in which it is least.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fastest {
    pub(crate) seconds: f64,
    pub(crate) layout: String,
}

impl Measured {
    /// Seconds of the kernels of these names together.
    pub(crate) fn seconds(&self, names: &[&str]) -> f64 {
        let of = self.kernels.iter().filter(|kernel| names.contains(&kernel.name.as_str()));
        of.map(|kernel| kernel.seconds).sum()
    }
}
