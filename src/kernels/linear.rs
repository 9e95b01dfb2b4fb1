use crate::error::Result;
use candle_core::Tensor;
pub fn forward(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    todo!()
}
pub fn dx(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    todo!()
}
pub fn dw(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    todo!()
}
pub fn dbias(x: &Tensor) -> Result<Tensor> {
    todo!()
}
