//! From a relaxed part to one architecture, by perturbation (DARTS-PT, Wang et al. 2021).
//!
//! A choice weight says how much an alternative was liked on the way, not what it is [worth](super::worth).
//! A position keeps its worthiest alternative if its worth is
//! above zero, else what was deployed; where the result would grow too much, or could not be trained in
//! the memory of the search, the least worthy give way. What is kept keeps its share of the mixture in its
//! gate: nothing else changes.

use serde::Serialize;

use super::bilevel::probabilities;
use super::space::{Alternative, Position};
use super::worth::Worth;
use crate::error::{During, Result};
use crate::fit::samples::Answers;
use crate::fit::{Part, Samples, Sets, Site};
use crate::graph::op::Op;
use crate::graph::{Graph, Value};

/// What a position came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Name of the position.
    pub position: String,
    /// Name of the alternative, `None` for what was deployed.
    pub chosen: Option<String>,
    /// Choice weights: the deployed operation's first, then each alternative's.
    pub weights: Vec<f64>,
    /// Rise of the validation loss when an alternative is taken out, in nats.
    pub worth: Vec<(String, f64)>,
}

/// Decides every position by the `worth` of its alternatives in the trained mixture `part`. As long as
/// the result does not fit, the least worthy alternative gives way.
///
/// # Errors
///
/// [`crate::Error::Graph`] when the part is not sound, [`crate::Error::Tensor`] when the device refuses.
pub(super) fn discretize(
    site: &Site,
    positions: &[Position],
    (part, worth): (&Part, Vec<Worth>),
    fits: &dyn Fn(&Part) -> Result<bool>,
) -> Result<(Part, Vec<Choice>)> {
    let choice = |(position, worth): (&Position, Worth)| {
        let weights = probabilities(part, &position.mix)?;
        Ok(Choice { position: position.name.clone(), chosen: best(&worth), weights, worth })
    };
    let mut choices = positions.iter().zip(worth).map(choice).collect::<Result<Vec<_>>>()?;
    loop {
        let chosen = rewrite(site, positions, part, &choices)?;
        if fits(&chosen)? {
            return Ok((chosen, choices));
        }
        let Some(least) = least_worthy(&mut choices) else { return Ok((chosen, choices)) };
        least.chosen = None;
    }
}

/// Whether `part` has at most so many times the parameters and multiply-adds of the deployed one.
pub(super) fn grown_at_most(site: &Site, part: &Part, max_growth: f64) -> Result<bool> {
    let (old, new) = (site.graph.cost(&site.input)?, part.graph.cost(&site.input)?);
    let limit = |n: u64| (n as f64 * max_growth).ceil() as u64;
    Ok(new.params <= limit(old.params) && new.macs <= limit(old.macs))
}

fn best(worth: &[(String, f64)]) -> Option<String> {
    let best = worth.iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    (best.1 > 0.0).then(|| best.0.clone())
}

fn least_worthy(choices: &mut [Choice]) -> Option<&mut Choice> {
    let worth = |choice: &Choice| {
        let found = choice.worth.iter().find(|(name, _)| Some(name) == choice.chosen.as_ref());
        found.map_or(0.0, |(_, worth)| *worth)
    };
    choices.iter_mut().filter(|c| c.chosen.is_some()).min_by(|a, b| worth(a).total_cmp(&worth(b)))
}

/// What a part says about images that choices are made on.
#[derive(Clone, Debug)]
pub struct HeldBack {
    /// About failures.
    pub failures: Answers,
    /// About surrogates of failures; about failures where there are none.
    pub surrogates: Answers,
    /// About replay.
    pub replay: Answers,
}

impl HeldBack {
    /// Asks `part` at `site`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] when a cache cannot be read.
    pub fn measure(site: &Site, part: &Part, validation: Sets) -> Result<Self> {
        let lowered = site.lowered(&part.graph, &part.params)?;
        let ask = |samples: &Samples| samples.evaluate(site, &lowered);
        let failures = ask(validation.failures)?;
        let surrogates = validation.surrogates.map_or_else(|| Ok(failures.clone()), ask)?;
        Ok(Self { failures, surrogates, replay: ask(validation.replay)? })
    }

    /// Whether two of the three sets say so by more than a standard error and none is against it
    /// by more than two. No set convinces alone: failures are real but few, surrogates are many
    /// but made, and replay says nothing about failures.
    #[must_use]
    pub fn is_better_than(&self, other: &Self) -> bool {
        let sets = [&self.failures, &self.surrogates, &self.replay];
        let others = [&other.failures, &other.surrogates, &other.replay];
        let leads = sets.iter().zip(others).map(|(set, other)| lead(&set.losses, &other.losses));
        let leads: Vec<f64> = leads.collect();
        leads.iter().filter(|&&lead| lead > 1.0).count() >= 2 && leads.iter().all(|&lead| lead >= -2.0)
    }
}

/// By how many standard errors the mean of `losses` is below that of `others`, image by image.
fn lead(losses: &[f64], others: &[f64]) -> f64 {
    let n = losses.len().max(1) as f64;
    let differences = || others.iter().zip(losses).map(|(other, loss)| other - loss);
    let mean = differences().sum::<f64>() / n;
    let variance = differences().map(|d| (d - mean).powi(2)).sum::<f64>() / n;
    if mean == 0.0 { 0.0 } else { mean / (variance / n).sqrt() }
}

/// The part with each mixture replaced by what was chosen.
fn rewrite(site: &Site, positions: &[Position], part: &Part, choices: &[Choice]) -> Result<Part> {
    let mut params = part.params.clone();
    let mut graph = Graph::default();
    let mut of: Vec<Value> = vec![0];
    for node in &part.graph.nodes {
        let inputs: Vec<Value> = node.inputs.iter().map(|&v| of[v]).collect();
        if node.op != Op::Mix {
            of.push(graph.push(node.name.clone(), node.op.clone(), &inputs));
            continue;
        }
        let chosen = positions.iter().zip(choices).find(|(position, _)| position.mix == node.name);
        let kept = chosen.and_then(|(position, choice)| index(position, choice));
        if let Some((i, alternative)) = kept {
            let share = probabilities(part, &node.name)?[i + 1];
            let gate = (params.get(&alternative.gate)? * share).during("folding a choice into its gate")?;
            params.insert(alternative.gate.clone(), gate);
        }
        of.push(inputs[kept.map_or(0, |(i, _)| i + 1)]);
    }
    let graph = graph.reaching(of[part.graph.output()]);
    Part::new(graph, params, site)
}

fn index<'a>(position: &'a Position, choice: &Choice) -> Option<(usize, &'a Alternative)> {
    let name = choice.chosen.as_ref()?;
    position.alternatives.iter().enumerate().find(|(_, alternative)| alternative.name == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_back(of: [[f64; 4]; 3]) -> HeldBack {
        let [failures, surrogates, replay] =
            of.map(|losses| Answers { classes: vec![0; 4], losses: losses.to_vec() });
        HeldBack { failures, surrogates, replay }
    }

    #[test]
    fn two_sets_convince_and_one_does_not() {
        let (high, low, worse) = ([1.0, 1.1, 0.9, 1.0], [0.5, 0.7, 0.3, 0.6], [1.5, 1.7, 1.3, 1.6]);
        let old = held_back([high; 3]);
        assert!(held_back([low, low, high]).is_better_than(&old));
        assert!(held_back([high, low, low]).is_better_than(&old));
        assert!(!held_back([high, low, high]).is_better_than(&old));
        assert!(!held_back([worse, low, low]).is_better_than(&old), "one set is clearly against it");
        assert!(!old.is_better_than(&old));
    }

    #[test]
    fn a_lead_counts_in_standard_errors() {
        // Differences 1, 3: mean 2, deviation 1, standard error 1 / sqrt 2.
        assert!((lead(&[1.0, 1.0], &[2.0, 4.0]) - 2.0 * 2f64.sqrt()).abs() < 1e-12);
        assert!((lead(&[2.0, 4.0], &[1.0, 1.0]) + 2.0 * 2f64.sqrt()).abs() < 1e-12);
    }
}
