use crate::error::{During, Result};
use candle_core::Tensor;
use super::*;
pub fn avg(x: &Tensor) -> Result<Tensor> {
    let d = x.dims(); let px = d[2]*d[3];
    let v: Vec<f32> = slice::<f32>(x)?.chunks(px).map(|p| (planes::sum([p], |[y]| y)/px as f64) as f32).collect();
    tensor(v, &[d[0], d[1], 1, 1])
}
pub fn avg_dx(dy: &Tensor, [h, w]: [usize; 2]) -> Result<Tensor> {
    let d = dy.dims();
    let s = 1.0/(h*w) as f32;
    let v: Vec<f32> = slice::<f32>(dy)?.iter().flat_map(|g| std::iter::repeat_n(g*s, h*w)).collect();
    tensor(v, &[d[0], d[1], h, w])
}
pub fn std(x: &Tensor, eps: f64) -> Result<Tensor> {
    let d = x.dims(); let px = d[2]*d[3];
    let v: Vec<f32> = slice::<f32>(x)?.chunks(px).map(|p| { let m = planes::sum([p], |[y]| y)/px as f64; let s = planes::sum([p], |[y]| y*y)/px as f64; ((s-m*m).max(0.0)+eps).sqrt() as f32}).collect();
    tensor(v, &[d[0], d[1], 1, 1])
}
pub fn std_dx(dy: &Tensor, x: &Tensor, eps: f64) -> Result<Tensor> {
    let d = x.dims(); let px = d[2]*d[3];
    let s = std(x, eps)?; let m = avg(x)?;
    let (s, m, g, xs) = (slice::<f32>(&s)?, slice::<f32>(&m)?, slice::<f32>(dy)?, slice::<f32>(x)?);
    let v: Vec<f32> = xs.chunks(px).enumerate().flat_map(|(i, p)| { let k = g[i]/(px as f32*s[i]); let m=m[i]; p.iter().map(move |x| k*(x-m)).collect::<Vec<_>>()}).collect();
    tensor(v, d)
}
