//! The search: weights on training batches, choice weights on validation batches.
//!
//! First order (DARTS with xi = 0): at each step the weights of all alternatives and gates move
//! along the gradient of a training batch; every `choice_every` steps the choice weights move
//! along the gradient of a validation batch. Two rules stop a search early, since long searches
//! drift towards operations without weights: the order of the choices has not changed for
//! `patience` checks, or the validation loss rises over its best by more than a tenth twice.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use super::candidate::CleanStatistics;
use super::discretize::{Choice, discretize, grown_at_most};
use super::paths::by_path;
use super::space::{Space, is_choice_weight, mixtures, relax};
use super::worth::worth;
use crate::device::Compute;
use crate::engine::optim::{Optimizer, Rule};
use crate::error::{During, Error, Result};
use crate::fit::bytes::{own_bytes, step_peak};
use crate::fit::train::{Sampler, rate_factor};
use crate::fit::{self, Part, Sets, Site};
use crate::graph::{Graph, Params};
use crate::kernels::mix;
use crate::rng::Rng;

/// How a part is searched.
///
/// | field | default | range | unit |
/// |---|---|---|---|
/// | `steps` | 100 | 1.. | weight updates of the relaxed part |
/// | `choice_rate` | 0.01 | over 0, below 1 | learning rate of choice weights (Adam) |
/// | `choice_every` | 3 | 1.. | weight updates between two of choice weights |
/// | `patience` | 4 | 1.. | checks without a change of order that end a search |
/// | `max_growth` | 2.0 | 1.. | parameters and multiply-adds of the new part over those of the old |
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Weight updates of the relaxed part.
    pub steps: usize,
    /// Learning rate of the choice weights.
    pub choice_rate: f64,
    /// Weight updates between two updates of the choice weights.
    pub choice_every: usize,
    /// Checks without a change of order that end a search.
    pub patience: usize,
    /// Most growth of parameters and of multiply-adds.
    pub max_growth: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { steps: 100, choice_rate: 0.01, choice_every: 3, patience: 4, max_growth: 2.0 }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the first field that is outside.
    pub fn check(&self) -> Result<()> {
        let wrong = |field, got: String, want: &str| Err(Error::Config { field, got, want: want.into() });
        let counts =
            [("steps", self.steps), ("choice-every", self.choice_every), ("patience", self.patience)];
        if let Some((field, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return wrong(field, "0".into(), "at least 1");
        }
        if !(self.choice_rate > 0.0 && self.choice_rate < 1.0) {
            return wrong("choice-rate", self.choice_rate.to_string(), "over 0 and below 1");
        }
        if !(self.max_growth >= 1.0 && self.max_growth.is_finite()) {
            return wrong("max-growth", self.max_growth.to_string(), "1 or more");
        }
        Ok(())
    }
}

/// What a search is given besides its settings.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Weights are trained on these.
    pub training: Sets<'a>,
    /// Choices are made on these.
    pub validation: Sets<'a>,
    /// What clean images look like at the part's input.
    pub clean: &'a CleanStatistics,
    /// Folder for unnamed working files.
    pub folder: &'a Path,
}

/// Searches the part at `site`: the chosen part with the weights it has so far, and the choices.
///
/// # Errors
///
/// [`Error::Diverged`] when the loss is not finite, [`Error::File`] when a cache cannot be read.
pub fn search(
    site: &Site,
    data: Data,
    (config, weights): (&Config, &fit::Config),
    rng: &mut Rng,
    progress: &mut dyn FnMut(usize, f64),
) -> Result<(Part, Vec<Choice>)> {
    let (training, validation) = (Sampler::new(), Sampler::new());
    let mut search = Search { site, data, config, weights, rng, progress, training, validation };
    if site.levers.by_path {
        return by_path(&mut search);
    }
    let Space { graph, params, positions } = relax(site, data.clean, search.rng)?;
    let mut part = Part::new(graph, params, site)?;
    search.steps(&mut part, 0..config.steps)?;
    part.set_aside(site, data.folder)?;
    let worth = worth(site, (&positions, &part), data.validation)?;
    let most = search.training_bytes(&part.graph)?;
    discretize(site, &positions, (&part, worth), &|chosen| search.fits(chosen, most))
}

/// A search under way.
pub(super) struct Search<'a> {
    pub(super) site: &'a Site,
    pub(super) data: Data<'a>,
    pub(super) config: &'a Config,
    pub(super) weights: &'a fit::Config,
    pub(super) rng: &'a mut Rng,
    progress: &'a mut dyn FnMut(usize, f64),
    training: Sampler,
    validation: Sampler,
}

impl Search<'_> {
    /// Bytes of training `graph`.
    pub(super) fn training_bytes(&self, graph: &Graph) -> Result<usize> {
        let run = (self.weights.batch, rayon::current_num_threads());
        let step = step_peak(self.site, graph, run, &|name| !is_choice_weight(name))?;
        Ok(step.bytes + own_bytes(graph, &self.site.input)?)
    }

    /// Whether a choice has not grown too much and its training takes `most` bytes at most: those of
    /// what was trained in the search, since a plan knows of that alone. A choice can take more: it may
    /// join alternatives of different paths, and it has no mixtures to compute again.
    pub(super) fn fits(&self, chosen: &Part, most: usize) -> Result<bool> {
        let has_grown = !grown_at_most(self.site, chosen, self.config.max_growth)?;
        Ok(!has_grown && self.training_bytes(&chosen.graph)? <= most)
    }

    /// Makes the `steps` of all on `part`, or some of them.
    pub(super) fn steps(&mut self, part: &mut Part, steps: Range<usize>) -> Result<()> {
        let Self { site, data, config, weights, .. } = *self;
        let mixtures: Vec<String> = mixtures(&part.graph).map(|node| node.name.clone()).collect();
        let alphas: BTreeSet<String> = mixtures.iter().map(|mix| format!("{mix}.alpha")).collect();
        let all = part.trained.clone();
        part.move_to(&site.compute)?;
        let only_weights: BTreeSet<String> = all.difference(&alphas).cloned().collect();
        let (mut by_weight, mut by_choice) =
            (Optimizer::owning(site.levers.rule(), &part.params)?, Optimizer::new(Rule::ADAM));
        let (middle, most) = ((steps.start + steps.end) / 2, config.steps.max(steps.end));
        let mut stop =
            Stop { config, mixtures, order: Vec::new(), unchanged: 0, best: f64::INFINITY, rises: 0 };
        for step in steps {
            part.trained.clone_from(&only_weights);
            let draws = self.training.draw(data.training, weights.batch, self.rng);
            // The fit that follows starts where the search ends, so the rate falls only half way.
            let factor = rate_factor(step, 2 * most);
            let rate = |name: &str| {
                factor * if site.params.find(name).is_some() { weights.rate } else { weights.new_rate }
            };
            let loss = part.step(site, (&draws, weights.distill), (&mut by_weight, &rate))?;
            if !loss.is_finite() {
                return Err(Error::Diverged { what: format!("the search at {}", site.level), step, loss });
            }
            (self.progress)(step, loss);
            if (step + 1) % config.choice_every == 0 {
                part.trained.clone_from(&alphas);
                let draws = self.validation.draw(data.validation, weights.batch, self.rng);
                let rate = |_: &str| config.choice_rate;
                let loss = part.step(site, (&draws, weights.distill), (&mut by_choice, &rate))?;
                // Orders are noise while the gates are still shut.
                if step >= middle && stop.check(part, loss)? {
                    break;
                }
            }
        }
        part.trained = all;
        part.move_to(&Compute::HOST)
    }
}

/// The early ends of a search.
struct Stop<'a> {
    config: &'a Config,
    /// Names of the mixtures.
    mixtures: Vec<String>,
    /// Alternatives of each position by falling choice weight.
    order: Vec<Vec<usize>>,
    unchanged: usize,
    best: f64,
    rises: usize,
}

impl Stop<'_> {
    fn check(&mut self, part: &Part, loss: f64) -> Result<bool> {
        let orders = self.mixtures.iter().map(|mix| order(part, mix)).collect::<Result<Vec<_>>>()?;
        self.unchanged = if orders == self.order { self.unchanged + 1 } else { 0 };
        self.order = orders;
        self.rises = if loss > self.best * 1.1 { self.rises + 1 } else { 0 };
        self.best = self.best.min(loss);
        Ok(self.unchanged >= self.config.patience || self.rises >= 2 * self.config.patience)
    }
}

fn order(part: &Part, mix_node: &str) -> Result<Vec<usize>> {
    let p = probabilities(part, mix_node)?;
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
    Ok(order)
}

/// The softmax of a mixture's choice weights.
pub(super) fn probabilities(part: &Part, mix_node: &str) -> Result<Vec<f64>> {
    Ok(mix::softmax(&choice_weights(&part.params, mix_node)?))
}

/// A mixture's choice weights: the deployed operation's first, then each alternative's.
pub(super) fn choice_weights(params: &Params, mix_node: &str) -> Result<Vec<f64>> {
    let alpha = params.get(&format!("{mix_node}.alpha"))?;
    let alpha = alpha.to_vec1::<f32>().during("reading choice weights")?;
    Ok(alpha.into_iter().map(f64::from).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::super::space::Position;
    use super::super::worth::Worth;
    use super::*;
    use crate::engine::checkpoint::Depth;
    use crate::eval::Deployed;
    use crate::fit::{Level, Samples};
    use crate::memory::Levers;
    use crate::memory::cache::{Cache, Precision};
    use crate::zoo::{Model, Overrides};

    /// A block whose mixtures are computed again.
    fn site() -> Site {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
        let model = Model::open(&path, &Overrides::default()).unwrap();
        let levers = Levers { depth: Depth::Mixtures, ..Levers::FASTEST };
        let deployed = Deployed { levers, ..Deployed::new(model.network.clone(), model.params().unwrap()) };
        Site::new(&deployed, Level::Block("layer2.1".into())).unwrap()
    }

    fn one_image(site: &Site, folder: &Path) -> Samples {
        let mut cache = Cache::create(folder, &site.input, Precision::F32).unwrap();
        let shape = [&[1], site.input.as_slice()].concat();
        cache.push(&Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()).unwrap();
        cache.finish().unwrap();
        Samples::of(cache, vec![0], site.classes).unwrap()
    }

    /// Every position likes its alternative `i` alone.
    fn liking(positions: &[Position], i: usize) -> Vec<Worth> {
        let worth = |j: usize| if i == j { 1.0 } else { -1.0 };
        let of = |position: &Position| {
            position.alternatives.iter().enumerate().map(|(j, of)| (of.name.clone(), worth(j))).collect()
        };
        positions.iter().map(of).collect()
    }

    /// Some choices take more, since they have no mixture to compute again.
    #[test]
    fn a_choice_trains_in_the_memory_of_the_search() {
        let (site, folder) = (site(), std::env::temp_dir());
        let samples = one_image(&site, &folder);
        let sets = Sets { failures: &samples, surrogates: None, replay: &samples };
        let one = || vec![1.0; site.input[0]];
        let (std_mean, mean_spread, std_spread) = (one(), one(), one());
        let clean = CleanStatistics { mean: one(), std: one(), std_mean, mean_spread, std_spread };
        let search = Search {
            site: &site,
            data: Data { training: sets, validation: sets, clean: &clean, folder: &folder },
            // Only memory is to bound a choice.
            config: &Config { max_growth: 1e9, ..Config::default() },
            weights: &fit::Config::default(),
            rng: &mut Rng::new(1),
            progress: &mut |_, _| {},
            training: Sampler::new(),
            validation: Sampler::new(),
        };
        let Space { graph, params, positions } = relax(&site, &clean, &mut Rng::new(1)).unwrap();
        let part = Part::new(graph, params, &site).unwrap();
        let most = search.training_bytes(&part.graph).unwrap();
        let alternatives = positions.iter().map(|position| position.alternatives.len()).max().unwrap();
        let mut gave_way = 0;
        for i in 0..alternatives {
            let decide = |fits: &dyn Fn(&Part) -> Result<bool>| {
                let worth = liking(&positions, i);
                let (chosen, choices) = discretize(&site, &positions, (&part, worth), fits).unwrap();
                let kept = choices.iter().filter(|choice| choice.chosen.is_some()).count();
                (search.training_bytes(&chosen.graph).unwrap(), kept)
            };
            let (free, wanted) = decide(&|_| Ok(true));
            let (bound, kept) = decide(&|chosen| search.fits(chosen, most));
            assert!(bound <= most, "alternative {i}: {bound} bytes, the search took {most}");
            assert_eq!(kept < wanted, free > most, "alternative {i}: kept {kept} of {wanted}");
            gave_way += wanted - kept;
        }
        assert!(gave_way > 0, "every choice fitted: the bound was not tested");
    }
}
