//! What each rule does with one tensor: where it is, and anew where it cannot be changed.

use candle_core::Tensor;

use super::EPS;
use crate::kernels::in_place::Each;

/// One step of Adam: `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
/// `w = w (1 - rate decay) - rate (m / c1) / (sqrt(v / c2) + eps)`
#[derive(Default)]
pub(super) struct Adam {
    pub(super) rate: f64,
    pub(super) betas: [f64; 2],
    pub(super) decay: f64,
    /// `c = 1 - beta^t`
    pub(super) correction: [f64; 2],
}

impl Adam {
    pub(super) fn in_place(&self, w: &Tensor, g: &Tensor, [m, v]: [&Tensor; 2]) -> candle_core::Result<()> {
        let [b1, b2] = self.betas.map(|b| b as f32);
        // A product takes a fraction of the time of a quotient.
        let [by_c1, by_c2] = self.correction.map(|c| (1.0 / c) as f32);
        let (rate, keep, eps) = (self.rate as f32, (1.0 - self.rate * self.decay) as f32, EPS as f32);
        m.inplace_op2(g, &Each(|m: &mut f32, [g]: [f32; 1]| *m = b1 * *m + (1.0 - b1) * g))?;
        v.inplace_op2(g, &Each(|v: &mut f32, [g]: [f32; 1]| *v = b2 * *v + (1.0 - b2) * g * g))?;
        let moved = |w: &mut f32, [m, v]: [f32; 2]| {
            *w = *w * keep - rate * (m * by_c1) / ((v * by_c2).sqrt() + eps);
        };
        w.inplace_op3(m, v, &Each(moved))
    }

    pub(super) fn anew(
        &self,
        w: &Tensor,
        g: &Tensor,
        [m, v]: &[Tensor; 2],
    ) -> candle_core::Result<[Tensor; 3]> {
        let ([b1, b2], [c1, c2]) = (self.betas, self.correction);
        let m = ((m * b1)? + (g * (1.0 - b1))?)?;
        let v = ((v * b2)? + (g.sqr()? * (1.0 - b2))?)?;
        let step = ((&m * (self.rate / c1))? / ((&v / c2)?.sqrt()? + EPS)?)?;
        let w = ((w * (1.0 - self.rate * self.decay))? - step)?;
        Ok([w, m, v])
    }
}

/// `g' = g + decay w`, `u = momentum u + g'`, `w = w - rate (g' + momentum u)`
pub(super) fn sgd_in_place(
    w: &Tensor,
    g: &Tensor,
    u: Option<&Tensor>,
    [rate, momentum, decay]: [f64; 3],
) -> candle_core::Result<()> {
    let [rate, momentum, decay] = [rate as f32, momentum as f32, decay as f32];
    let Some(u) = u else {
        return w.inplace_op2(g, &Each(|w: &mut f32, [g]: [f32; 1]| *w -= rate * (g + decay * *w)));
    };
    u.inplace_op3(w, g, &Each(|u: &mut f32, [w, g]: [f32; 2]| *u = momentum * *u + (g + decay * w)))?;
    let moved = |w: &mut f32, [g, u]: [f32; 2]| *w -= rate * (g + decay * *w + momentum * u);
    w.inplace_op3(g, u, &Each(moved))
}

pub(super) fn sgd_anew(
    w: &Tensor,
    g: &Tensor,
    u: Option<Tensor>,
    [rate, momentum, decay]: [f64; 3],
) -> candle_core::Result<(Tensor, Option<Tensor>)> {
    let g = (g + (w * decay)?)?;
    let Some(u) = u else { return Ok(((w - (g * rate)?)?, None)) };
    let u = ((u * momentum)? + &g)?;
    let w = (w - ((g + (&u * momentum)?)? * rate)?)?;
    Ok((w, Some(u)))
}
