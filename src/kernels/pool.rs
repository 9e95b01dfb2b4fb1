use crate::error::{During, Result};
use crate::graph::op::Pool;
use candle_core::Tensor;
use super::*;
use super::unfold::Unfold;
pub fn max(p: &Pool, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let d = x.dims(); let u = Unfold::new(p.window(), d[2], d[3]).unwrap();
    let px = u.oh*u.ow; let n = d[0]*d[1];
    let mut y = vec![f32::NEG_INFINITY; n*px]; let mut a = vec![0u32; n*px];
    let xs = slice::<f32>(x)?;
    for i in 0..n { let xp = &xs[i*d[2]*d[3]..][..d[2]*d[3]]; let yp = &mut y[i*px..][..px]; let ap = &mut a[i*px..][..px];
        for t in 0..u.taps() { u.runs(t, &(0..u.oh), |to, from| { for (k, o) in to.enumerate() { let f = from + k*p.stride; if xp[f] > yp[o] { yp[o] = xp[f]; ap[o] = f as u32; } } }); } }
    Ok((tensor(y, &[d[0], d[1], u.oh, u.ow])?, tensor(a, &[d[0], d[1], u.oh, u.ow])?))
}
pub fn max_dx(dy: &Tensor, a: &Tensor, x: &[usize]) -> Result<Tensor> {
    let px = x[2]*x[3]; let o = dy.dims()[2]*dy.dims()[3];
    let mut v = vec![0f32; x.iter().product()];
    let (g, a) = (slice::<f32>(dy)?, slice::<u32>(a)?);
    for (i, g) in g.iter().enumerate() { v[i/o*px + a[i] as usize] += g; }
    tensor(v, x)
}
fn counts(u: &Unfold) -> Vec<f32> { let mut c = vec![0f32; u.oh*u.ow]; for t in 0..u.taps() { u.runs(t, &(0..u.oh), |to, _| c[to].iter_mut().for_each(|c| *c += 1.0)); } c }
pub fn avg(p: &Pool, x: &Tensor) -> Result<Tensor> {
    let d = x.dims(); let u = Unfold::new(p.window(), d[2], d[3]).unwrap(); let c = counts(&u);
    let px = u.oh*u.ow; let n = d[0]*d[1];
    let mut y = vec![0f32; n*px]; let xs = slice::<f32>(x)?;
    for i in 0..n { let xp = &xs[i*d[2]*d[3]..][..d[2]*d[3]]; let yp = &mut y[i*px..][..px];
        for t in 0..u.taps() { u.runs(t, &(0..u.oh), |to, from| { for (k, o) in to.enumerate() { yp[o] += xp[from + k*p.stride]; } }); }
        yp.iter_mut().zip(&c).for_each(|(y, c)| *y /= c); }
    tensor(y, &[d[0], d[1], u.oh, u.ow])
}
pub fn avg_dx(p: &Pool, dy: &Tensor, x: &[usize]) -> Result<Tensor> {
    let u = Unfold::new(p.window(), x[2], x[3]).unwrap(); let c = counts(&u); let px = u.oh*u.ow;
    let mut v = vec![0f32; x.iter().product()]; let g = slice::<f32>(dy)?;
    for i in 0..x[0]*x[1] { let xp = &mut v[i*x[2]*x[3]..][..x[2]*x[3]]; let gp = &g[i*px..][..px];
        for t in 0..u.taps() { u.runs(t, &(0..u.oh), |to, from| { for (k, o) in to.enumerate() { xp[from + k*p.stride] += gp[o]/c[o]; } }); } }
    tensor(v, x)
}
