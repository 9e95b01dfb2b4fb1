//! First weights of a network that is trained from scratch.

use candle_core::{Device, Tensor};

use crate::error::{During, Result};
use crate::graph::{Network, Params};
use crate::rng::Rng;

/// Draws all tensors of `network`: convolutions normal with deviation `sqrt(2 / fan out)`
/// (He et al. 2015), linear layers uniform within `1 / sqrt(fan in)`, norms as the identity.
///
/// # Errors
///
/// [`crate::Error::Graph`] when the network is not sound.
pub fn draw(network: &Network, rng: &mut Rng) -> Result<Params> {
    let mut params = Params::default();
    let mut fan_in = 1;
    for named in network.params()? {
        let shape = named.param.shape;
        let n: usize = shape.iter().product();
        let values: Vec<f32> = match (named.param.suffix, shape.as_slice()) {
            ("weight", &[outputs, _, k, _]) => {
                let deviation = (2.0 / (outputs * k * k) as f32).sqrt();
                (0..n).map(|_| rng.normal() * deviation).collect()
            }
            ("weight", &[_, inputs]) => {
                fan_in = inputs;
                uniform(n, fan_in, rng)
            }
            ("weight" | "running_var", _) => vec![1.0; n],
            // A norm's bias starts at 0, that of the linear layer before it in order is drawn.
            ("bias", _) if fan_in > 1 => uniform(n, fan_in, rng),
            _ => vec![0.0; n],
        };
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).during("drawing first weights")?;
        params.insert(named.name, tensor);
    }
    Ok(params)
}

fn uniform(n: usize, fan_in: usize, rng: &mut Rng) -> Vec<f32> {
    let bound = 1.0 / (fan_in as f32).sqrt();
    (0..n).map(|_| (2.0 * rng.uniform() - 1.0) * bound).collect()
}
