use crate::error::{During, Result};
use candle_core::Tensor;
use super::*;
pub fn forward_backward(logits: &Tensor, targets: &Tensor, w: &[f64]) -> Result<(Vec<f64>, Tensor)> {
    let (n, c) = logits.dims2().during("x")?;
    let (z, t) = (slice::<f32>(logits)?, slice::<f32>(targets)?);
    let mut losses = vec![]; let mut d = vec![0f32; n*c];
    for i in 0..n {
        let z = &z[i*c..][..c]; let t = &t[i*c..][..c];
        let m = z.iter().fold(f32::MIN, |a, &b| a.max(b)) as f64;
        let sum: f64 = z.iter().map(|&z| (z as f64 - m).exp()).sum();
        let l = sum.ln() + m;
        losses.push(t.iter().zip(z).map(|(&t, &z)| t as f64 * (l - z as f64)).sum());
        for j in 0..c { d[i*c+j] = (w[i] * ((z[j] as f64 - l).exp() - t[j] as f64)) as f32; }
    }
    Ok((losses, tensor(d, &[n, c])?))
}
pub fn softmax(logits: &Tensor) -> Result<Tensor> { candle_nn::ops::softmax_last_dim(logits).during("s") }
