//! Optimizers: how gradients change weights.

use candle_core::{DType, Tensor};

use crate::error::{During, Result};
use crate::graph::Params;
use crate::kernels::{is_slow_path, slice, tensor};

/// A rule of change. Rates are given at each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Adam with decoupled weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019).
    AdamW {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of their squares.
        beta2: f64,
        /// Share of the weight taken away at each step, times the rate.
        decay: f64,
    },
    /// Stochastic gradient descent with Nesterov momentum.
    Sgd {
        /// Decay of the velocity.
        momentum: f64,
        /// Added to the gradient, times the weight.
        decay: f64,
    },
}

impl Rule {
    /// Adam as PyTorch's defaults have it.
    pub const ADAM: Self = Self::AdamW { beta1: 0.9, beta2: 0.999, decay: 0.0 };
}

const EPS: f64 = 1e-8;

/// A rule and its state: one tensor (SGD) or two (Adam) for each trained one.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Rule,
    /// Steps made.
    pub steps: usize,
    /// Mean of gradients, or velocity.
    pub first: Params,
    /// Mean of squared gradients.
    pub second: Params,
}

impl Optimizer {
    /// The rule, with nothing seen yet.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self { rule, steps: 0, first: Params::default(), second: Params::default() }
    }

    /// Bytes of the state.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.first.bytes() + self.second.bytes()
    }

    /// Changes every tensor of `params` that has a gradient; `rate` gives its learning rate by
    /// name.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when a gradient's tensor is missing, [`crate::Error::Tensor`]
    /// when the device refuses.
    pub fn step(&mut self, params: &mut Params, grads: &Params, rate: impl Fn(&str) -> f64) -> Result<()> {
        self.steps += 1;
        for (name, g) in grads.iter() {
            let (w, g) = (&params.get(name)?, &g.tensor()?);
            let state = |of: &Params| of.find(name).map_or_else(|| zeros_like(w), |t| t.tensor());
            let changed = match self.rule {
                Rule::AdamW { beta1, beta2, decay } => {
                    let t = self.steps.min(1 << 30) as i32;
                    let correction = [1.0 - beta1.powi(t), 1.0 - beta2.powi(t)];
                    let (m, v) = (state(&self.first)?, state(&self.second)?);
                    let step = Adam { rate: rate(name), betas: [beta1, beta2], decay, correction };
                    let [w, m, v] = step.change(w, g, [&m, &v])?;
                    self.second.insert(name.clone(), v);
                    [w, m]
                }
                Rule::Sgd { momentum, decay } => {
                    sgd(w, g, &state(&self.first)?, [rate(name), momentum, decay])?
                }
            };
            let [w, first] = changed;
            self.first.insert(name.clone(), first);
            params.insert(name.clone(), w);
        }
        Ok(())
    }
}

fn zeros_like(w: &Tensor) -> Result<Tensor> {
    Tensor::zeros(w.shape(), w.dtype(), w.device()).during("making an optimizer's state")
}

/// One step of Adam.
struct Adam {
    rate: f64,
    betas: [f64; 2],
    decay: f64,
    /// `1 - beta^t`
    correction: [f64; 2],
}

impl Adam {
    /// `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
    /// `w = w (1 - rate decay) - rate (m / c1) / (sqrt(v / c2) + eps)`
    fn change(&self, w: &Tensor, g: &Tensor, [m, v]: [&Tensor; 2]) -> Result<[Tensor; 3]> {
        if is_slow_path(w) || w.dtype() != DType::F32 {
            return self.slow(w, g, [m, v]).during("stepping Adam");
        }
        let [b1, b2] = self.betas.map(|b| b as f32);
        let [c1, c2] = self.correction.map(|c| c as f32);
        let (rate, keep, eps) = (self.rate as f32, (1.0 - self.rate * self.decay) as f32, EPS as f32);
        let (ws, gs, ms, vs) = (slice::<f32>(w)?, slice::<f32>(g)?, slice::<f32>(m)?, slice::<f32>(v)?);
        let m_new: Vec<f32> = ms.iter().zip(&*gs).map(|(m, g)| b1 * m + (1.0 - b1) * g).collect();
        let v_new: Vec<f32> = vs.iter().zip(&*gs).map(|(v, g)| b2 * v + (1.0 - b2) * g * g).collect();
        let moved = ws.iter().zip(m_new.iter().zip(&v_new));
        let w_new = moved.map(|(w, (m, v))| w * keep - rate * (m / c1) / ((v / c2).sqrt() + eps)).collect();
        Ok([tensor(w_new, w.dims())?, tensor(m_new, w.dims())?, tensor(v_new, w.dims())?])
    }

    fn slow(&self, w: &Tensor, g: &Tensor, [m, v]: [&Tensor; 2]) -> candle_core::Result<[Tensor; 3]> {
        let ([b1, b2], [c1, c2]) = (self.betas, self.correction);
        let m = ((m * b1)? + (g * (1.0 - b1))?)?;
        let v = ((v * b2)? + (g.sqr()? * (1.0 - b2))?)?;
        let step = ((&m * (self.rate / c1))? / ((&v / c2)?.sqrt()? + EPS)?)?;
        let w = ((w * (1.0 - self.rate * self.decay))? - step)?;
        Ok([w, m, v])
    }
}

/// `g' = g + decay w`, `u = momentum u + g'`, `w = w - rate (g' + momentum u)`
fn sgd(w: &Tensor, g: &Tensor, u: &Tensor, [rate, momentum, decay]: [f64; 3]) -> Result<[Tensor; 2]> {
    if is_slow_path(w) || w.dtype() != DType::F32 {
        let run = || {
            let g = (g + (w * decay)?)?;
            let u = ((u * momentum)? + &g)?;
            let w = (w - ((g + (&u * momentum)?)? * rate)?)?;
            Ok([w, u])
        };
        return run().during("stepping SGD");
    }
    let [rate, momentum, decay] = [rate as f32, momentum as f32, decay as f32];
    let (ws, gs, us) = (slice::<f32>(w)?, slice::<f32>(g)?, slice::<f32>(u)?);
    let decayed = |(w, g): (&f32, &f32)| g + decay * w;
    let u_new: Vec<f32> =
        us.iter().zip(ws.iter().zip(&*gs).map(decayed)).map(|(u, g)| momentum * u + g).collect();
    let moved = ws.iter().zip(ws.iter().zip(&*gs).map(decayed)).zip(&u_new);
    let w_new = moved.map(|((w, g), u)| w - rate * (g + momentum * u)).collect();
    Ok([tensor(w_new, w.dims())?, tensor(u_new, w.dims())?])
}
