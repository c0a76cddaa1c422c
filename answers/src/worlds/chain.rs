//! The ancestral sampler of the known answers (DDIM with η = 1), walked through the same sums along
//! the path that a census takes.

use super::schedule::{FIRST_BETA, stable_diffusion};
use diffusion::NoiseSchedule;
use eval::EvalError;
use eval::path::{PathStep, PathSum, PathSums};
use eval::protocol::{Condition, Denoiser, Level};
use rayon::prelude::*;
use recipes::draws::{self, Purpose};
use statistics::number::{index, real};
use std::ops::Range;

/// One step: x′ = carry·x + gain·ε̂ + σ·z.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainStep {
    /// Where the step begins.
    pub level: Level,
    /// ∂μ/∂x.
    pub carry: f64,
    /// ∂μ/∂ε̂.
    pub gain: f64,
    /// Standard deviation of the noise.
    pub sigma: f64,
}

/// Steps from pure noise to a clean sample, all of them noisy.
///
/// With ᾱ′ the next level, σ² = (1−ᾱ′)/(1−ᾱ)·(1−ᾱ/ᾱ′) and μ = √ᾱ′·x̂₀ + √(1−ᾱ′−σ²)·ε̂. The last step
/// goes to x̂₀ with the variance of the first β, alike for all models, so that paths have densities.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// The steps, noisiest first.
    pub steps: Vec<ChainStep>,
}

impl Chain {
    /// `n_steps` steps over the levels round(linspace(0, 999, n)) of Stable Diffusion.
    ///
    /// # Errors
    ///
    /// None: the schedule is valid.
    pub fn new(n_steps: usize) -> Result<Self, EvalError> {
        let schedule = stable_diffusion()?;
        let gaps = real(n_steps.saturating_sub(1)).max(1.0);
        let place = |k: usize| index((real(k) * 999.0 / gaps).round_ties_even());
        let steps = (0..n_steps).rev().map(|k| {
            let next = k.checked_sub(1).map(|k| schedule.alpha_cumprod(place(k)));
            step(&schedule, place(k), next)
        });
        Ok(Self { steps: steps.collect() })
    }
}

/// The step from timestep `t` to the level `next`, or to the clean sample.
fn step(schedule: &NoiseSchedule, t: usize, next: Option<f64>) -> ChainStep {
    let alpha = schedule.alpha_cumprod(t);
    let level = Level { timestep: real(t), alpha_cumprod: alpha };
    // x̂₀ = (x − √(1−ᾱ)·ε̂)/√ᾱ
    let ratio = libm::sqrt((1.0 - alpha) / alpha);
    let Some(next) = next else {
        let carry = 1.0 / libm::sqrt(alpha);
        return ChainStep { level, carry, gain: -ratio, sigma: libm::sqrt(FIRST_BETA) };
    };
    let variance = (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
    let direction = libm::sqrt(1.0 - next - variance);
    ChainStep {
        level,
        carry: libm::sqrt(next / alpha),
        gain: direction - libm::sqrt(next) * ratio,
        sigma: libm::sqrt(variance),
    }
}

/// Noise of a sample at a step: `(step, sample, purpose) -> z`.
pub type StepNoise<'a> = dyn Fn(u64, u64, Purpose) -> Vec<f64> + Sync + 'a;

/// Makes a fresh denoiser for each batch.
pub type Maker<'a> = dyn Fn() -> Box<dyn Denoiser> + Sync + 'a;

/// Unit noise of `width` values keyed as a census keys it: by (seed, step, sample, purpose).
pub fn keyed(seed: u64, width: usize) -> impl Fn(u64, u64, Purpose) -> Vec<f64> + Sync {
    move |step, sample, purpose| {
        let mut stream = draws::stream(seed, step, sample, purpose);
        draws::normals(&mut stream, width).into_iter().map(f64::from).collect()
    }
}

/// How many samples are drawn, and how many together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Samples.
    pub samples: u64,
    /// Samples per batch; changes no sample.
    pub batch: u64,
}

impl Extent {
    /// `samples` samples in batches that keep two cores busy.
    pub fn of(samples: u64) -> Self {
        Self { samples, batch: 250 }
    }
}

/// Samples of the base, and what its paths add up to under the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawn {
    /// Clean samples, one after another.
    pub clean: Vec<f64>,
    /// Sums, `[other][sample]`.
    pub sums: Vec<Vec<PathSum>>,
}

/// Draws samples of `base` and asks `others` along its paths. Batches are drawn side by side and put
/// together in their order.
///
/// # Errors
///
/// A denoiser's own.
pub fn walk(
    chain: &Chain,
    noise: &StepNoise<'_>,
    extent: Extent,
    base: &Maker<'_>,
    others: &[&Maker<'_>],
) -> Result<Drawn, EvalError> {
    let size = extent.batch.max(1);
    let batches: Vec<Drawn> = (0..extent.samples.div_ceil(size))
        .into_par_iter()
        .map(|number| {
            let keys = number * size..((number + 1) * size).min(extent.samples);
            batch(chain, noise, &keys, base, others)
        })
        .collect::<Result<_, _>>()?;
    let mut all = Drawn { clean: Vec::new(), sums: vec![Vec::new(); others.len()] };
    for drawn in batches {
        all.clean.extend(drawn.clean);
        for (all, sums) in all.sums.iter_mut().zip(drawn.sums) {
            all.extend(sums);
        }
    }
    Ok(all)
}

fn batch(
    chain: &Chain,
    noise: &StepNoise<'_>,
    keys: &Range<u64>,
    base: &Maker<'_>,
    others: &[&Maker<'_>],
) -> Result<Drawn, EvalError> {
    let mut base = base();
    let mut others: Vec<Box<dyn Denoiser>> = others.iter().map(|make| make()).collect();
    let drawn = |step: u64, purpose: Purpose| -> Vec<f64> {
        keys.clone().flat_map(|sample| noise(step, sample, purpose)).collect()
    };
    let mut x = drawn(0, Purpose::CensusStart);
    let n_samples = x.len() / base.width().max(1);
    let mut sums = PathSums::new(base.width(), n_samples, others.len());
    for (number, step) in chain.steps.iter().enumerate() {
        let before = base.noise(&x, step.level, Condition::Nothing)?;
        let after: Vec<Vec<f64>> = others
            .iter_mut()
            .map(|other| other.noise(&x, step.level, Condition::Nothing))
            .collect::<Result<_, _>>()?;
        let z = drawn(number as u64, Purpose::CensusStep);
        sums.add(&PathStep {
            gain: step.gain,
            sigma: step.sigma,
            base: &before,
            others: &after,
            noise: &z,
        })?;
        for ((x, said), z) in x.iter_mut().zip(&before).zip(&z) {
            *x = step.carry * *x + step.gain * said + step.sigma * z;
        }
    }
    Ok(Drawn { clean: x, sums: sums.finish() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worlds::gauss::Gauss;

    #[test]
    fn steps_run_over_the_stated_levels() {
        let chain = Chain::new(200).unwrap();
        let levels: Vec<usize> =
            chain.steps.iter().map(|step| index(step.level.timestep)).collect();
        assert_eq!(
            (levels.len(), levels[0], levels[1], levels[198], levels[199]),
            (200, 999, 994, 5, 0)
        );
        assert!(chain.steps.iter().all(|step| step.sigma > 0.0));
        let last = chain.steps[199];
        assert!((last.sigma * last.sigma - 0.000_85).abs() < 1e-15);
        assert!((last.carry - 1.0 / 0.999_15_f64.sqrt()).abs() < 1e-12);
    }

    /// A step is linear: fed x̂₀-free noise, √ᾱ·x₀ + √(1−ᾱ)·ε and ε̂ = ε, its mean keeps the clean part
    /// at √ᾱ′ and the noise at √(1−ᾱ′−σ²).
    #[test]
    fn a_step_keeps_the_clean_part_and_leaves_room_for_its_noise() {
        let schedule = stable_diffusion().unwrap();
        let next = schedule.alpha_cumprod(490);
        let made = step(&schedule, 500, Some(next));
        let (signal, noise) = made.level.signal_and_noise();
        assert!((made.carry * signal - next.sqrt()).abs() < 1e-12);
        let left = made.carry * noise + made.gain;
        assert!((left * left + made.sigma * made.sigma - (1.0 - next)).abs() < 1e-12);
    }

    #[test]
    fn a_perfect_denoiser_draws_its_own_law() {
        let chain = Chain::new(200).unwrap();
        let make = || -> Box<dyn Denoiser> { Box::new(Gauss::new(0.3, 0.25, 1)) };
        let clean = walk(&chain, &keyed(3, 1), Extent::of(8000), &make, &[]).unwrap().clean;
        let mean = clean.iter().sum::<f64>() / 8000.0;
        let variance = clean.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 8000.0;
        assert!((mean - 0.3).abs() < 0.03 && (variance - 0.25).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn batches_of_any_size_draw_the_same_samples_and_sums() {
        let chain = Chain::new(10).unwrap();
        let base = || -> Box<dyn Denoiser> { Box::new(Gauss::new(0.3, 0.25, 2)) };
        let other = || -> Box<dyn Denoiser> { Box::new(Gauss::new(0.4, 0.30, 2)) };
        let drawn = |batch: u64| {
            let extent = Extent { samples: 23, batch };
            walk(&chain, &keyed(3, 2), extent, &base, &[&other]).unwrap()
        };
        let one = drawn(1);
        assert_eq!((one.clean.len(), one.sums[0].len()), (46, 23));
        assert!(one.sums[0].iter().all(|sum| sum.nats > 0.0));
        for batch in [7, 23, 64] {
            assert_eq!(drawn(batch), one);
        }
    }
}
