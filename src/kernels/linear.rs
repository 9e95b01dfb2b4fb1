use crate::error::{During, Result};
use candle_core::Tensor;
pub fn forward(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&w.t().unwrap()).during("a")?;
    match b { Some(b) => y.broadcast_add(b).during("b"), None => Ok(y) }
}
pub fn dx(dy: &Tensor, w: &Tensor) -> Result<Tensor> { dy.matmul(w).during("a") }
pub fn dw(dy: &Tensor, x: &Tensor) -> Result<Tensor> { dy.t().unwrap().matmul(x).during("a") }
pub fn dbias(dy: &Tensor) -> Result<Tensor> { dy.sum(0).during("a") }
