//! The kernels of this library, one after the other.

use std::time::Instant;

use candle_core::Tensor;

use crate::kernels::{self, Convolution, Kernel};
use crate::measured::{Measured, Timing};
use crate::ratio::median;

/// As many as the script of the others has: runs that do not count, and those that do at least.
const WARM: usize = 3;
const LEAST: usize = 5;

/// Runs each kernel of the group `name` again and again for some `seconds`.
pub(crate) fn run(name: &str, seconds: f64) -> Result<Measured, String> {
    let group = kernels::all().into_iter().find(|group| group.name == name);
    let kernels = (group.ok_or_else(|| format!("no kernel {name}"))?.make)();
    let kernels = kernels.into_iter().map(|kernel| time(kernel, seconds)).collect();
    Ok(Measured { kernels, norms: norms(name) })
}

fn time(kernel: Kernel, seconds: f64) -> Timing {
    let Kernel { name, macs, bytes, mut run } = kernel;
    (0..WARM).for_each(|_| run());
    let (mut times, begun) = (Vec::new(), Instant::now());
    while times.len() < LEAST || begun.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    Timing { name: name.into(), macs, bytes, seconds: median(&times) }
}

fn norms(name: &str) -> Option<[f64; 3]> {
    let (_, conv, shape) = kernels::convolutions().into_iter().find(|(of, ..)| *of == name)?;
    let own = Convolution::new(conv, shape);
    Some([own.forward(), own.dx(), own.dw()].map(|tensor| norm(&tensor)))
}

fn norm(tensor: &Tensor) -> f64 {
    let numbers = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    numbers.into_iter().map(|number| f64::from(number).powi(2)).sum::<f64>().sqrt()
}
