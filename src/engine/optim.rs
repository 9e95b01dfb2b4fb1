//! Optimizers: how gradients change weights.
//!
//! In `f32` on the CPU tensors are changed in place: the first step of a tensor copies it, since
//! it may share its memory with the deployed one, and makes its state. Later steps allocate
//! no memory for numbers. Elsewhere each step makes new tensors.

mod rules;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor, TensorId};

use crate::device::Compute;
use crate::error::{During, Result};
use crate::graph::Params;
use crate::kernels::in_place::Each;
use crate::kernels::{is_slow_path, slice};
use crate::meter::reserve;
use rules::{Adam, sgd_anew, sgd_in_place};

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
    /// Gradient descent by the root mean square of each tensor's gradient: `w -= rate g / rms(g)`.
    /// Steps are as long as Adam's at the same rate, and there is no state. (Ours, after
    /// normalized gradient descent, Hazan et al. 2015.)
    Normalized,
    /// Stochastic gradient descent with Nesterov momentum.
    Sgd {
        /// Decay of the velocity; at 0 there is none, and the rule keeps no state.
        momentum: f64,
        /// Added to the gradient, times the weight.
        decay: f64,
    },
}

impl Rule {
    /// Adam as PyTorch's defaults have it.
    pub const ADAM: Self = Self::AdamW { beta1: 0.9, beta2: 0.999, decay: 0.0 };

    /// Numbers of state for each trained number: what a planner multiplies with the bytes of the
    /// trained tensors.
    #[must_use]
    pub fn states(self) -> usize {
        match self {
            Self::AdamW { .. } => 2,
            Self::Normalized => 0,
            Self::Sgd { momentum, .. } => usize::from(momentum != 0.0),
        }
    }
}

const EPS: f64 = 1e-8;

/// A rule and its state: for each trained tensor [`Rule::states`] of its shape.
///
/// It owns the memory of the tensors that it has stepped: whoever clones them from the parameters
/// and keeps them beyond the next step sees them change. A new optimizer copies them again.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    /// Steps made.
    pub steps: usize,
    /// Mean of gradients, or velocity.
    pub first: Params,
    /// Mean of squared gradients.
    pub second: Params,
    /// The tensors whose memory no one else had when they were copied.
    own: BTreeMap<String, TensorId>,
}

impl Optimizer {
    /// The rule, with nothing seen yet.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self { rule, steps: 0, first: Params::default(), second: Params::default(), own: BTreeMap::new() }
    }

    /// As [`Optimizer::new`], but the tensors of `params` are changed where they are from the first
    /// step on: nothing else may read them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when candle refuses.
    pub fn owning(rule: Rule, params: &Params) -> Result<Self> {
        let mut optimizer = Self::new(rule);
        optimizer.own(params)?;
        Ok(optimizer)
    }

    /// From now on the tensors of `params` are changed where they are: nothing else may read them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when candle refuses.
    pub fn own(&mut self, params: &Params) -> Result<()> {
        let resident = params.iter().filter(|(_, weight)| !weight.is_mapped());
        let own = resident.map(|(name, weight)| Ok((name.clone(), weight.tensor()?.id())));
        self.own = own.collect::<Result<_>>()?;
        Ok(())
    }

    /// Moves the state to unnamed files in `folder`, and owns no tensor any more.
    ///
    /// # Errors
    ///
    /// As [`Params::spooled`].
    pub fn set_aside(&mut self, folder: &Path) -> Result<()> {
        self.own.clear();
        self.first = self.first.spooled(folder)?;
        self.second = self.second.spooled(folder)?;
        Ok(())
    }

    /// Brings the state back to where `compute` says.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when the device refuses.
    pub fn resume(&mut self, compute: &Compute) -> Result<()> {
        self.first = self.first.masters(compute)?;
        self.second = self.second.masters(compute)?;
        Ok(())
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
    /// [`crate::Error::Graph`] when a gradient's tensor is missing, [`crate::Error::Memory`] when
    /// the limit does not allow the first step of a tensor, [`crate::Error::Tensor`] when the
    /// device refuses.
    pub fn step(&mut self, params: &mut Params, grads: &Params, rate: impl Fn(&str) -> f64) -> Result<()> {
        self.begin();
        self.change_all(params, grads, rate)
    }

    /// Begins a step whose gradients come one after the other.
    pub(crate) fn begin(&mut self) {
        self.steps += 1;
    }

    /// Changes every tensor of `params` that has a gradient.
    pub(crate) fn change_all(
        &mut self,
        params: &mut Params,
        grads: &Params,
        rate: impl Fn(&str) -> f64,
    ) -> Result<()> {
        for (name, g) in grads.iter() {
            let (g, rate) = (&g.tensor()?, rate(name));
            let w = params.get(name)?;
            if is_slow_path(&w) || w.dtype() != DType::F32 {
                self.step_anew(name, params, (g, rate))?;
                continue;
            }
            drop(w);
            self.take(name, params)?;
            self.step_in_place(name, &params.get(name)?, (g, rate))?;
        }
        Ok(())
    }

    /// Whether `w`, the tensor of this name, can be changed where it is.
    pub(crate) fn owns(&self, name: &str, w: &Tensor) -> bool {
        self.own.get(name) == Some(&w.id()) && !is_slow_path(w) && w.dtype() == DType::F32
    }

    /// Changes a tensor that is [owned](Optimizer::owns).
    pub(crate) fn change(&mut self, name: &str, w: &Tensor, (g, rate): (&Tensor, f64)) -> Result<()> {
        self.remember(name, w)?;
        self.step_in_place(name, w, (g, rate))
    }

    /// Makes sure that the memory of this tensor and of its state is no one else's.
    fn take(&mut self, name: &str, params: &mut Params) -> Result<()> {
        let mut w = params.get(name)?;
        let bytes = w.elem_count() * size_of::<f32>();
        if self.own.get(name) != Some(&w.id()) {
            reserve("a copy of what is trained", bytes)?;
            w = copied(&w)?;
            self.own.insert(name.into(), w.id());
            params.insert(name, w.clone());
            // Whoever set the state may share it too.
            [&mut self.first, &mut self.second].into_iter().try_for_each(|state| own(state, name))?;
        }
        self.remember(name, &w)
    }

    /// Makes the state of `w`, the tensor of this name, where there is none yet.
    fn remember(&mut self, name: &str, w: &Tensor) -> Result<()> {
        for state in [&mut self.first, &mut self.second].into_iter().take(self.rule.states()) {
            if state.find(name).is_none() {
                reserve("an optimizer's state", w.elem_count() * size_of::<f32>())?;
                state.insert(name, zeros_like(w)?);
            }
        }
        Ok(())
    }

    fn step_in_place(&self, name: &str, w: &Tensor, (g, rate): (&Tensor, f64)) -> Result<()> {
        match self.rule {
            Rule::AdamW { .. } => {
                let (m, v) = (self.first.get(name)?, self.second.get(name)?);
                self.adam(rate).in_place(w, g, [&m, &v]).during("stepping Adam")
            }
            Rule::Normalized => {
                let factor = rate / root_mean_square(&slice::<f32>(g)?);
                w.inplace_op2(g, &Each(|w: &mut f32, [g]: [f32; 1]| *w -= factor as f32 * g))
                    .during("stepping down a gradient")
            }
            Rule::Sgd { momentum, decay } => {
                let u = if momentum == 0.0 { None } else { Some(self.first.get(name)?) };
                sgd_in_place(w, g, u.as_ref(), [rate, momentum, decay]).during("stepping SGD")
            }
        }
    }

    fn step_anew(&mut self, name: &str, params: &mut Params, (g, rate): (&Tensor, f64)) -> Result<()> {
        let w = &params.get(name)?;
        let state = |of: &Params| of.find(name).map_or_else(|| zeros_like(w), |t| t.tensor());
        let w = match self.rule {
            Rule::AdamW { .. } => {
                let states = [state(&self.first)?, state(&self.second)?];
                let [w, m, v] = self.adam(rate).anew(w, g, &states).during("stepping Adam")?;
                self.first.insert(name, m);
                self.second.insert(name, v);
                w
            }
            Rule::Normalized => {
                let squares = || g.to_dtype(DType::F64)?.sqr()?.mean_all()?.to_scalar::<f64>();
                let rms = squares().during("stepping down a gradient")?.sqrt().max(EPS);
                (g * (rate / rms)).and_then(|step| w - step).during("stepping down a gradient")?
            }
            Rule::Sgd { momentum, decay } => {
                let u = if momentum == 0.0 { None } else { Some(state(&self.first)?) };
                let (w, u) = sgd_anew(w, g, u, [rate, momentum, decay]).during("stepping SGD")?;
                u.into_iter().for_each(|u| self.first.insert(name, u));
                w
            }
        };
        params.insert(name, w);
        Ok(())
    }

    fn adam(&self, rate: f64) -> Adam {
        let Rule::AdamW { beta1, beta2, decay } = self.rule else { return Adam::default() };
        let t = self.steps.min(1 << 30) as i32;
        let correction = [1.0 - beta1.powi(t), 1.0 - beta2.powi(t)];
        Adam { rate, betas: [beta1, beta2], decay, correction }
    }
}

fn root_mean_square(g: &[f32]) -> f64 {
    let squares: f64 = g.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
    (squares / g.len().max(1) as f64).sqrt().max(EPS)
}

fn zeros_like(w: &Tensor) -> Result<Tensor> {
    Tensor::zeros(w.shape(), w.dtype(), w.device()).during("making an optimizer's state")
}

/// Makes the tensor of this name no one else's, if there is one.
fn own(params: &mut Params, name: &str) -> Result<()> {
    if let Some(weight) = params.find(name) {
        let tensor = copied(&weight.tensor()?)?;
        params.insert(name, tensor);
    }
    Ok(())
}

fn copied(w: &Tensor) -> Result<Tensor> {
    w.force_contiguous().during("copying what is trained")
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::kernels::in_place::TASK;
    use crate::rng::Rng;

    const SGD: Rule = Rule::Sgd { momentum: 0.9, decay: 0.01 };
    const PLAIN: Rule = Rule::Sgd { momentum: 0.0, decay: 0.01 };

    fn normal(n: usize, seed: u64) -> Tensor {
        let rng = &mut Rng::new(seed);
        Tensor::from_vec((0..n).map(|_| rng.normal()).collect::<Vec<_>>(), n, &Device::Cpu).unwrap()
    }

    fn one(tensor: &Tensor) -> Params {
        [("w".to_owned(), tensor.clone())].into_iter().collect()
    }

    fn values(params: &Params) -> Vec<f64> {
        params.get("w").unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    }

    /// The state keeps its shape of one tensor a rule asks for; both ways agree to `f32`.
    #[test]
    fn steps_in_place_are_those_that_make_new_tensors() {
        for (rule, n_states) in [(Rule::ADAM, 2), (SGD, 1), (PLAIN, 0), (Rule::Normalized, 0)] {
            for n in [3, 2 * TASK + 5] {
                let (w, g) = (normal(n, 1), normal(n, 2));
                let [w64, g64] = [&w, &g].map(|t| t.to_dtype(DType::F64).unwrap());
                let (mut fast, mut slow) = (one(&w), one(&w64));
                let (mut by_fast, mut by_slow) = (Optimizer::new(rule), Optimizer::new(rule));
                for _ in 0..3 {
                    by_fast.step(&mut fast, &one(&g), |_| 0.1).unwrap();
                    by_slow.step(&mut slow, &one(&g64), |_| 0.1).unwrap();
                }
                let pairs = values(&fast).into_iter().zip(values(&slow));
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5), "{rule:?}");
                assert_eq!((rule.states(), by_fast.bytes()), (n_states, n_states * n * 4));
            }
        }
    }

    #[test]
    fn what_was_deployed_does_not_change_with_what_is_trained() {
        let deployed = one(&normal(10, 1));
        let before = values(&deployed);
        let mut trained = deployed.clone();
        let (mut first, mut second) = (Optimizer::new(Rule::ADAM), Optimizer::new(PLAIN));
        first.step(&mut trained, &one(&normal(10, 2)), |_| 0.1).unwrap();
        let between = (trained.clone(), values(&trained));
        // Another optimizer does not know whose memory it is.
        second.step(&mut trained, &one(&normal(10, 2)), |_| 0.1).unwrap();
        assert_eq!(values(&between.0), between.1);
        assert_ne!(values(&trained), between.1);
        assert_eq!(values(&deployed), before);
    }

    /// A weight of 2 with gradient 1, rate 0.5 and decay 0.1: 2 - 0.5 (1 + 0.2) = 1.4.
    #[test]
    fn descent_without_momentum_is_that_on_paper() {
        let mut params = one(&Tensor::new(&[2.0f32], &Device::Cpu).unwrap());
        let grads = one(&Tensor::new(&[1.0f32], &Device::Cpu).unwrap());
        let rule = Rule::Sgd { momentum: 0.0, decay: 0.1 };
        Optimizer::new(rule).step(&mut params, &grads, |_| 0.5).unwrap();
        assert!((values(&params)[0] - 1.4).abs() < 1e-6);
    }
}
