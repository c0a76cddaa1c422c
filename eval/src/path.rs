//! Path-space figures: the base walks its own trajectories, other models say at each place what they
//! would have done there. Nothing is sampled for them.
//!
//! With `δ = (μ_A − μ_B)/σ` of a noisy step and its unit noise z, a trajectory adds up
//!
//! * nats: Σ‖δ‖²/2, whose mean is `KL_path ≥ KL(p_B‖p_A) ≥ KL(P_B‖P_A)`;
//! * the log weight: `log W = Σ⟨z, δ⟩ − ‖δ‖²/2 = Σ[‖x′ − μ_B‖² − ‖x′ − μ_A‖²]/2σ²`;
//! * the derivative of log W by the dose, at dose 0: Σ⟨z, δ⟩/dose of a small dose (a secant).
//!
//! Owns these sums, whatever sampler feeds them, and their reduction. The walk itself is the caller's.

use crate::error::EvalError;
use crate::means::{self, Mean};
use crate::protocol::same_length;
use crate::record::{Forecast, ForecastEntity, PathDose, PathRecord, WeightedShare};
use rayon::prelude::*;
use statistics::interval::{CiKind, Estimate, Replicate, Resampler, max_t};
use statistics::number::real;

/// Least effective share of a sample for figures that are made of its weights.
pub const LEAST_EFFECTIVE_SHARE: f64 = 0.1;

/// One noisy step of a batch of trajectories; all lists hold whole samples.
#[derive(Clone, Copy, Debug)]
pub struct PathStep<'a, T> {
    /// ∂μ/∂output, the same for all models.
    pub gain: f64,
    /// Standard deviation σ of the step's noise.
    pub sigma: f64,
    /// What the base put out.
    pub base: &'a [T],
    /// What each other model put out at the same place.
    pub others: &'a [Vec<T>],
    /// The step's unit noise z.
    pub noise: &'a [T],
}

/// What one trajectory adds up to under one other model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PathSum {
    /// Σ‖δ‖²/2, never below 0.
    pub nats: f64,
    /// Σ⟨z, δ⟩, of mean 0 in theory.
    pub cross: f64,
}

impl PathSum {
    /// The sum whose nats and log weight stand in a row of the census.
    pub fn of_row(nats: f64, log_weight: f64) -> Self {
        Self { nats, cross: log_weight + nats }
    }

    /// log W = Σ⟨z, δ⟩ − Σ‖δ‖²/2.
    pub fn log_weight(self) -> f64 {
        self.cross - self.nats
    }
}

/// Adds up the steps of a batch of trajectories. Knows no sampler: a step is its gain, its σ and what
/// the models put out.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSums {
    width: usize,
    steps: u64,
    sums: Vec<Vec<PathSum>>,
}

impl PathSums {
    /// Nothing yet, of `n_samples` trajectories of `width` values beside which `n_models` are asked.
    pub fn new(width: usize, n_samples: usize, n_models: usize) -> Self {
        Self { width, steps: 0, sums: vec![vec![PathSum::default(); n_samples]; n_models] }
    }

    /// Adds one step. Guidance is allowed: it is another output. A noiseless last step is left out by
    /// the caller, see [`noisy_steps`].
    ///
    /// # Errors
    ///
    /// [`EvalError::Noiseless`] for a σ that is not above 0; [`EvalError::Length`] for lists that do
    /// not fit.
    pub fn add<T: Copy + Into<f64>>(&mut self, step: &PathStep<'_, T>) -> Result<(), EvalError> {
        if step.sigma.is_nan() || step.sigma <= 0.0 {
            return Err(EvalError::Noiseless { step: self.steps });
        }
        same_length("the list of models along a path", step.others.len(), self.sums.len())?;
        let scale = step.gain / step.sigma;
        let double = |value: T| -> f64 { value.into() };
        for (sums, other) in self.sums.iter_mut().zip(step.others) {
            let expected = self.width * sums.len();
            for (what, list) in [
                ("the base's output", step.base),
                ("an output", other.as_slice()),
                ("the noise", step.noise),
            ] {
                same_length(what, list.len(), expected)?;
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                let part = i * self.width..(i + 1) * self.width;
                let outputs = other[part.clone()].iter().zip(&step.base[part.clone()]);
                for ((&other, &base), &noise) in outputs.zip(&step.noise[part]) {
                    // The difference first, so that nothing is lost of two outputs that are close.
                    let delta = scale * (double(other) - double(base));
                    sum.nats += delta * delta / 2.0;
                    sum.cross += delta * double(noise);
                }
            }
        }
        self.steps += 1;
        Ok(())
    }

    /// Steps that were added.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The sums, `[model][sample]`.
    pub fn finish(self) -> Vec<Vec<PathSum>> {
        self.sums
    }
}

/// How many steps of a sampler a path sums, from the noise of each: all of them, less a last one
/// without noise.
///
/// # Errors
///
/// [`EvalError::Noiseless`] if another step, or the only one, adds no noise (η = 0): two models would
/// never be at one place, and their paths have no density to each other.
pub fn noisy_steps(scales: &[f64]) -> Result<usize, EvalError> {
    let is_noisy = |scale: &f64| *scale > 0.0;
    let n = scales.len() - usize::from(scales.last().is_some_and(|last| !is_noisy(last)));
    match scales[..n].iter().position(|scale| !is_noisy(scale)) {
        Some(step) => Err(EvalError::Noiseless { step: step as u64 }),
        None if n == 0 => Err(EvalError::Noiseless { step: 0 }),
        None => Ok(n),
    }
}

/// A model that was asked along the base's trajectories.
#[derive(Clone, Debug, PartialEq)]
pub struct PathModel {
    /// `adapted`, `placebo-0` …
    pub model: String,
    /// Multiplier of the adapter.
    pub dose: f64,
}

/// The base's trajectories of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PathBlock {
    /// Weight ω of the prompt in the headline; the weights of all blocks sum to 1.
    pub weight: f64,
    /// What each base picture bears in the facet, as a position among [`PathInput::entities`].
    pub labels: Vec<u16>,
    /// Sums, `[model][trajectory]`.
    pub sums: Vec<Vec<PathSum>>,
}

/// All that a record of paths is reduced from.
#[derive(Clone, Copy, Debug)]
pub struct PathInput<'a> {
    /// The models, in the order of the record.
    pub models: &'a [PathModel],
    /// One block per prompt.
    pub blocks: &'a [PathBlock],
    /// The facet that labels stand for.
    pub facet: &'a str,
    /// Its entities.
    pub entities: &'a [String],
    /// Noisy steps that were summed.
    pub steps: u64,
    /// Position of the model whose small dose the forecast is made of.
    pub secant: Option<usize>,
    /// Draws trajectories with replacement, within prompts.
    pub resampler: Resampler,
}

/// The record: KL with intervals that hold for all models at once, weights where they carry, the
/// forecast.
pub fn reduce(input: &PathInput<'_>) -> PathRecord {
    let lengths: Vec<usize> = input.blocks.iter().map(|block| block.labels.len()).collect();
    let nats = |positions: Option<&[Vec<usize>]>| -> Vec<Mean> {
        (0..input.models.len()).map(|m| mean_nats(input.blocks, m, positions)).collect()
    };
    let replicates: Vec<Vec<Mean>> = (0..input.resampler.draws)
        .into_par_iter()
        .map(|draw| nats(Some(&input.resampler.positions(draw, &lengths))))
        .collect();
    let estimates = means::simultaneous(&nats(None), &replicates);
    let doses = estimates.into_iter().enumerate().map(|(m, kl)| of_dose(input, m, kl));
    PathRecord {
        steps: input.steps,
        doses: doses.collect(),
        forecast: input.secant.and_then(|secant| forecast(input, secant)),
    }
}

/// Weighted mean of a model's nats over all trajectories or the drawn ones, and its standard error.
fn mean_nats(blocks: &[PathBlock], model: usize, positions: Option<&[Vec<usize>]>) -> Mean {
    let mut total = Mean::default();
    let mut variance = 0.0;
    for (j, block) in blocks.iter().enumerate() {
        let nats: Vec<f64> = block.sums[model].iter().map(|sum| sum.nats).collect();
        let mean = match positions {
            Some(positions) => Mean::drawn(&nats, &positions[j]),
            None => Mean::of(&nats),
        };
        total.value += block.weight * mean.value;
        variance += (block.weight * mean.error) * (block.weight * mean.error);
    }
    Mean { error: libm::sqrt(variance), ..total }
}

fn of_dose(input: &PathInput<'_>, model: usize, kl: Estimate) -> PathDose {
    // A KL is not below 0, whatever its interval says.
    let kl = Estimate { ci: kl.ci.map(|[low, high]| [low.max(0.0), high]), ..kl };
    let weights = Weights::new(input, model);
    let carries = weights.effective_share >= LEAST_EFFECTIVE_SHARE;
    let weighted = || -> Vec<WeightedShare> {
        let shares = weights.base.iter().zip(&weights.weighted).zip(input.entities);
        shares
            .filter(|((base, _), _)| **base > 0.0)
            .map(|((&base, &share), id)| WeightedShare { id: id.clone(), base, share })
            .collect()
    };
    PathDose {
        model: input.models[model].model.clone(),
        dose: input.models[model].dose,
        pairs: input.blocks.iter().map(|block| block.labels.len() as u64).sum(),
        tv_bound: libm::sqrt(kl.value / 2.0).min(1.0),
        kl,
        mean_weight: weights.mean,
        effective_share: weights.effective_share,
        outside: carries.then_some(1.0 - weights.mean),
        weighted: carries.then(weighted),
    }
}

/// What the weights W of the base's trajectories say.
struct Weights {
    /// Mean of W.
    mean: f64,
    /// (ΣW)²/(NΣW²).
    effective_share: f64,
    /// Share of each entity in the base.
    base: Vec<f64>,
    /// `mean(W·1[c = e])` of each entity.
    weighted: Vec<f64>,
}

impl Weights {
    fn new(input: &PathInput<'_>, model: usize) -> Self {
        let logs = |block: &PathBlock| -> Vec<f64> {
            block.sums[model].iter().map(|sum| sum.log_weight()).collect()
        };
        let all: Vec<Vec<f64>> = input.blocks.iter().map(logs).collect();
        // The largest weight is 1 while sums are taken, so that none of them overflows.
        let largest = all.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let n = input.entities.len();
        let (mut mean, mut square) = (0.0, 0.0);
        let (mut base, mut weighted) = (vec![0.0; n], vec![0.0; n]);
        for (block, logs) in input.blocks.iter().zip(&all) {
            let of = BlockWeights::new(&block.labels, logs, largest, n);
            let unit = block.weight / real(logs.len().max(1));
            mean += unit * of.sum;
            square += unit * of.square;
            for e in 0..n {
                base[e] += unit * of.counts[e];
                weighted[e] += unit * of.by_entity[e];
            }
        }
        let scale = libm::exp(largest).min(f64::MAX);
        Self {
            mean: (scale * mean).min(f64::MAX),
            effective_share: if square > 0.0 { mean * mean / square } else { 0.0 },
            base,
            weighted: weighted.into_iter().map(|share| (scale * share).min(f64::MAX)).collect(),
        }
    }
}

/// Sums over the trajectories of one prompt, of weights relative to the largest.
struct BlockWeights {
    sum: f64,
    square: f64,
    counts: Vec<f64>,
    by_entity: Vec<f64>,
}

impl BlockWeights {
    fn new(labels: &[u16], logs: &[f64], largest: f64, n: usize) -> Self {
        let mut all = Self { sum: 0.0, square: 0.0, counts: vec![0.0; n], by_entity: vec![0.0; n] };
        for (&label, log) in labels.iter().zip(logs) {
            let weight = libm::exp(log - largest);
            all.sum += weight;
            all.square += weight * weight;
            all.counts[usize::from(label)] += 1.0;
            all.by_entity[usize::from(label)] += weight;
        }
        all
    }
}

/// Slopes of the shares at dose 0: `∂P(e)/∂s ≈ mean[(1[c = e] − P_B(e))·Σ⟨z, δ⟩/dose]`, centered within
/// each prompt, over entities in the order of their positions. They sum to 0.
///
/// `secant` is the position of the model at the small `dose`. An adapter is not linear in its dose at
/// 1, so this model is another than the one whose KL is asked.
///
/// Source: the score-function (likelihood-ratio) derivative, Glynn 1990, CACM 33(10):75.
pub fn slopes(blocks: &[PathBlock], secant: usize, dose: f64, n_entities: usize) -> Vec<f64> {
    let place = (secant, dose);
    slopes_with_errors(blocks, place, n_entities, None).values
}

/// Slopes and their standard errors, over all trajectories or the drawn ones.
fn slopes_with_errors(
    blocks: &[PathBlock],
    (secant, dose): (usize, f64),
    n_entities: usize,
    positions: Option<&[Vec<usize>]>,
) -> Replicate {
    let mut all = Replicate { values: vec![0.0; n_entities], errors: vec![0.0; n_entities] };
    for (j, block) in blocks.iter().enumerate() {
        let score = |i: usize| block.sums[secant][i].cross / dose;
        let mut sums = ScoreSums::new(n_entities);
        let all_of_them: Vec<usize>;
        let drawn = if let Some(positions) = positions {
            &positions[j]
        } else {
            all_of_them = (0..block.labels.len()).collect();
            &all_of_them
        };
        for &i in drawn {
            sums.add(block.labels[i], score(i));
        }
        for e in 0..n_entities {
            let (slope, variance) = sums.slope(e);
            all.values[e] += block.weight * slope;
            all.errors[e] += block.weight * block.weight * variance;
        }
    }
    for error in &mut all.errors {
        *error = libm::sqrt(*error);
    }
    all
}

/// Count, sum and sum of squares of the scores, per entity.
struct ScoreSums {
    of: Vec<[f64; 3]>,
}

impl ScoreSums {
    fn new(n_entities: usize) -> Self {
        Self { of: vec![[0.0; 3]; n_entities] }
    }

    fn add(&mut self, label: u16, score: f64) {
        let [n, sum, square] = &mut self.of[usize::from(label)];
        *n += 1.0;
        *sum += score;
        *square += score * score;
    }

    /// Slope of one entity, and the variance of it as a mean of `(1[c = e] − P)(g − ḡ)`.
    fn slope(&self, e: usize) -> (f64, f64) {
        let total = |k: usize| self.of.iter().map(|of| of[k]).sum::<f64>();
        let n = total(0);
        if n < 1.0 {
            return (0.0, 0.0);
        }
        let [count, sum, _] = self.of[e];
        let (share, mean) = (count / n, total(1) / n);
        let slope = (sum - share * total(1)) / n;
        // Σ(g − ḡ)² over an entity's trajectories.
        let spread =
            |[count, sum, square]: [f64; 3]| square - 2.0 * mean * sum + count * mean * mean;
        let within = spread(self.of[e]);
        let others = self.of.iter().map(|&of| spread(of)).sum::<f64>() - within;
        let square = ((1.0 - share) * (1.0 - share) * within + share * share * others) / n;
        (slope, (square - slope * slope).max(0.0) / n)
    }
}

/// The forecast with intervals that hold for all entities at once; `None` for a dose of 0.
fn forecast(input: &PathInput<'_>, secant: usize) -> Option<Forecast> {
    let dose = input.models.get(secant).map(|model| model.dose).filter(|dose| dose.abs() > 0.0)?;
    let lengths: Vec<usize> = input.blocks.iter().map(|block| block.labels.len()).collect();
    let n = input.entities.len();
    let own = slopes_with_errors(input.blocks, (secant, dose), n, None);
    let replicates: Vec<Replicate> = (0..input.resampler.draws)
        .into_par_iter()
        .map(|draw| {
            let positions = input.resampler.positions(draw, &lengths);
            slopes_with_errors(input.blocks, (secant, dose), n, Some(&positions))
        })
        .collect();
    let intervals = max_t(&own.values, &own.errors, &replicates, 0.95);
    let drawn = |e: usize| {
        let bears = |block: &PathBlock| block.labels.iter().any(|&label| usize::from(label) == e);
        input.blocks.iter().any(bears)
    };
    let entities = input.entities.iter().zip(own.values.iter().zip(intervals)).enumerate();
    Some(Forecast {
        dose,
        facet: input.facet.to_owned(),
        entities: entities
            .filter(|(e, _)| drawn(*e))
            .map(|(_, (id, (&slope, ci)))| ForecastEntity {
                id: id.clone(),
                slope: Estimate::with(slope, ci, CiKind::MaxT),
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests;
