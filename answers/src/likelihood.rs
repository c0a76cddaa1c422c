//! Known answers of the likelihood census: its weights, its quadrature, its wrappers, its variance, and
//! the identity nats lost = population lost + deformation.

use crate::answer::{Answer, Check};
use crate::worlds::gauss::{self, Gauss};
use crate::worlds::ring::{Ring, SIX, SIX_SELECTED};
use crate::worlds::schedule::{even_in_gamma, linspace, native, stable_diffusion};
use eval::EvalError;
use eval::likelihood::{energies, nats_lost};
use eval::noising::{Grid, Samples, keyed_noise};
use eval::protocol::{Condition, Denoiser, FromFlow, FromVelocity, Level};
use rayon::prelude::*;
use serde_json::json;
use statistics::number::{mean, real};

/// KAT `weights`: three forms of the weights of the DDPM bound on the schedule of Stable Diffusion.
///
/// Source: Kingma et al. 2021, arXiv:2107.00630, and Ho et al. 2020, arXiv:2006.11239.
///
/// # Errors
///
/// None: the schedule is valid.
pub fn weights(_seed: u64) -> Result<Answer, EvalError> {
    let weights = bound_weights()?;
    let levels = native()?;
    let mut farthest: f64 = 0.0;
    for (pair, weight) in levels.windows(2).zip(&weights) {
        let (before, alpha_bar) = (pair[0].alpha_cumprod, pair[1].alpha_cumprod);
        let alpha = alpha_bar / before;
        let beta = 1.0 - alpha;
        let posterior = beta * (1.0 - before) / (1.0 - alpha_bar);
        let by_beta = beta / (2.0 * alpha * (1.0 - before));
        let by_posterior = beta * beta / (2.0 * posterior * alpha * (1.0 - alpha_bar));
        farthest = farthest.max((weight - by_beta).abs()).max((weight - by_posterior).abs());
    }
    let mut checks = vec![Check::new("largest distance of the three forms", farthest, 0.0, 1e-13)];
    let known = [
        (2, 0.503_194, 1e-6),
        (10, 0.057_329_6, 1e-7),
        (100, 0.006_678_95, 1e-8),
        (500, 0.003_347_47, 1e-8),
        (1000, 0.006_101_65, 1e-8),
    ];
    for (t, expected, tolerance) in known {
        checks.push(Check::new(format!("w at level {t}"), weights[t - 2], expected, tolerance));
    }
    let sum: f64 = weights.iter().sum();
    checks.push(Check::new("sum from the second level on", sum, 6.527_743, 1e-6));
    let betas: Vec<f64> = levels.iter().map(|level| 1.0 - level.alpha_cumprod).collect();
    Ok(Answer { name: "weights", checks, inputs: json!({ "one_minus_alpha_cumprod": betas }) })
}

/// `w_t = ½·expm1(γ_t − γ_{t−1})` for t = 2 … 1000.
fn bound_weights() -> Result<Vec<f64>, EvalError> {
    let schedule = stable_diffusion()?;
    let gamma = |t: usize| -libm::log(schedule.snr(t));
    Ok((1..schedule.len()).map(|t| libm::expm1(gamma(t) - gamma(t - 1)) / 2.0).collect())
}

/// The weights of the DDPM bound as a grid: what a likelihood census must not use.
fn bound_grid() -> Result<Grid, EvalError> {
    Ok(Grid {
        levels: native()?.into_iter().skip(1).collect(),
        weights: bound_weights()?.into_iter().map(|weight| 2.0 * weight).collect(),
    })
}

/// Expected nats that the second denoiser lost against the first at each x, one dimension.
///
/// The error of a normal law is quadratic in the noise, whose mean over N(0, 1) is that over −1 and 1:
/// the instrument is asked with these two.
fn expected_nats(
    base: &mut dyn Denoiser,
    adapted: &mut dyn Denoiser,
    x: &[f64],
    grid: &Grid,
) -> Result<Vec<f64>, EvalError> {
    let values: Vec<f64> = x.iter().flat_map(|x| [*x, *x]).collect();
    let keys: Vec<u64> = (0..values.len() as u64).collect();
    let samples = Samples { values: &values, keys: &keys };
    let opposite = |_: usize, key: u64| vec![if key.is_multiple_of(2) { 1.0 } else { -1.0 }];
    let mut models: [&mut dyn Denoiser; 2] = [base, adapted];
    let lost = nats_lost(&mut models, Condition::Nothing, samples, grid, &opposite)?;
    let totals: Vec<f64> = lost[0].iter().map(|levels| levels.iter().sum::<f64>()).collect();
    Ok(totals.chunks_exact(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect())
}

/// The three settlements of `quad`, with the largest error of the trapezoid and of the bound's weights.
const QUAD: [(f64, f64, f64, f64); 3] =
    [(0.5, 0.36, 8.1e-4, 5.8e-2), (0.5, 0.25, 3.2e-4, 2.5e-2), (0.3, 0.36, 6.5e-4, 4.5e-2)];

/// KAT `quad`: nats by the trapezoid rule on native levels against the closed form; the weights of the
/// DDPM bound miss it by a hundredth and more.
///
/// # Errors
///
/// None: the worlds are valid.
pub fn quad(_seed: u64) -> Result<Answer, EvalError> {
    quad_with(&Grid::trapezoid(native()?))
}

fn quad_with(grid: &Grid) -> Result<Answer, EvalError> {
    let x = linspace(-1.0, 2.0, 13);
    let bound = bound_grid()?;
    let mut checks = Vec::new();
    for (mean, variance, by_trapezoid, by_bound) in QUAD {
        let name = format!("N({mean}, {variance})");
        let found = largest_error((mean, variance), &x, grid)?;
        let (low, high) = (by_trapezoid / 2.0, by_trapezoid * 2.0);
        checks.push(Check::between(format!("{name}: largest error"), found, low, high));
        let found = largest_error((mean, variance), &x, &bound)?;
        let (low, high) = (by_bound / 2.0, by_bound * 2.0);
        let what = format!("{name}: largest error of the bound's weights");
        checks.push(Check::between(what, found, low.max(1e-2), high));
    }
    Ok(Answer { name: "quad", checks, inputs: json!({ "base": [0.3, 0.25], "x": x }) })
}

/// Largest distance of the instrument on this grid from the closed form, over x.
fn largest_error((mean, variance): (f64, f64), x: &[f64], grid: &Grid) -> Result<f64, EvalError> {
    let (mut base, mut adapted) = (Gauss::new(0.3, 0.25, 1), Gauss::new(mean, variance, 1));
    let found = expected_nats(&mut base, &mut adapted, x, grid)?;
    let native = native()?;
    let ends = (native[0], native[native.len() - 1]);
    let error =
        |(x, found): (&f64, f64)| (found - gauss::nats_lost(&base, &adapted, *x, ends)).abs();
    Ok(x.iter().zip(found).map(error).fold(0.0, f64::max))
}

/// A grid over σ of a rectified flow.
type FlowGrid<'a> = dyn Fn(&[f64]) -> Grid + 'a;

/// KAT `wrappers`: a network that predicts the noise, the velocity or the flow gives the same nats.
///
/// # Errors
///
/// None: the worlds are valid.
pub fn wrappers(_seed: u64) -> Result<Answer, EvalError> {
    wrappers_with(&Grid::flow)
}

fn wrappers_with(flow: &FlowGrid<'_>) -> Result<Answer, EvalError> {
    let native = native()?;
    let (first, last) = (native[0].gamma(), native[native.len() - 1].gamma());
    let levels = even_in_gamma(first, last, 4001);
    let sigmas: Vec<f64> = levels.iter().map(|level| level.flow_sigma()).collect();
    let even = Grid::trapezoid(levels);
    let (base, adapted) = (Gauss::new(0.3, 0.25, 1), Gauss::new(0.5, 0.36, 1));
    let x = 1.5;
    let epsilon = expected_nats(&mut base.clone(), &mut adapted.clone(), &[x], &even)?[0];
    let mut velocities = [velocity_network(&base), velocity_network(&adapted)];
    let [before, after] = &mut velocities;
    let velocity = expected_nats(before, after, &[x], &even)?[0];
    let mut flows = [flow_network(&base), flow_network(&adapted)];
    let [before, after] = &mut flows;
    let by_flow = expected_nats(before, after, &[x], &flow(&sigmas))?[0];
    let whole = adapted.clean_energy(x) - base.clean_energy(x);
    Ok(Answer {
        name: "wrappers",
        checks: vec![
            Check::new("nats by the noise", epsilon, -1.302_302, 1e-5),
            Check::new("nats by the velocity", velocity, -1.302_302, 1e-5),
            Check::new("nats by the flow", by_flow, -1.302_302, 1e-5),
            Check::new("nats of the clean densities", whole, -1.308_790, 1e-6),
        ],
        inputs: json!({ "base": [0.3, 0.25], "adapted": [0.5, 0.36], "x": x, "levels": 4001 }),
    })
}

/// The law's network with v-prediction: v = √ᾱ·ε* − √(1−ᾱ)·x₀*.
fn velocity_network(world: &Gauss) -> impl Denoiser {
    let mut world = world.clone();
    FromVelocity::new(1, move |noisy: &[f64], level: Level, condition: Condition<'_>| {
        let (signal, noise) = level.signal_and_noise();
        let said = world.noise(noisy, level, condition)?;
        let velocity = |(x, eps): (&f64, f64)| signal * eps - noise * (x - noise * eps) / signal;
        Ok(noisy.iter().zip(said).map(velocity).collect())
    })
}

/// The law's network as a rectified flow: v = ε* − x₀*, from samples (1 − σ)·x₀ + σ·ε.
fn flow_network(world: &Gauss) -> impl Denoiser {
    let mut world = world.clone();
    FromFlow::new(1, move |flowing: &[f64], sigma: f64, condition: Condition<'_>| {
        let level = Level::of_flow_sigma(sigma, sigma);
        let (signal, _) = level.signal_and_noise();
        let noisy: Vec<f64> = flowing.iter().map(|x| x * signal / (1.0 - sigma)).collect();
        let said = world.noise(&noisy, level, condition)?;
        let velocity = |(x, eps): (&f64, f64)| eps - (x - sigma * eps) / (1.0 - sigma);
        Ok(flowing.iter().zip(said).map(velocity).collect())
    })
}

/// One repetition of `crn`: both laws at one x, on a stratified grid of its own.
struct Repetition<'a> {
    clean: &'a [f64],
    grid: Grid,
    seed: u64,
    number: u64,
}

/// Nats lost in one repetition.
type Gap<'a> = dyn Fn(&Repetition<'_>) -> Result<f64, EvalError> + Sync + 'a;

/// Dimensions of `crn`.
const DIMENSIONS: usize = 64;

/// The laws of `crn`: base, adapted model.
fn near_laws() -> (Gauss, Gauss) {
    (Gauss::new(0.30, 0.25, DIMENSIONS), Gauss::new(0.32, 0.26, DIMENSIONS))
}

/// Both models on the same (γ, ε).
fn on_shared_noise(at: &Repetition<'_>) -> Result<f64, EvalError> {
    let (mut base, mut adapted) = near_laws();
    let samples = Samples { values: at.clean, keys: &[at.number] };
    let noise = keyed_noise(at.seed, DIMENSIONS);
    let mut models: [&mut dyn Denoiser; 2] = [&mut base, &mut adapted];
    let lost = nats_lost(&mut models, Condition::Nothing, samples, &at.grid, &noise)?;
    Ok(lost[0][0].iter().sum())
}

/// Each model on noise of its own.
fn on_separate_noise(at: &Repetition<'_>) -> Result<f64, EvalError> {
    let (mut base, mut adapted) = near_laws();
    let samples = Samples { values: at.clean, keys: &[at.number] };
    let energy = |world: &mut Gauss, seed: u64| -> Result<f64, EvalError> {
        let noise = keyed_noise(seed, DIMENSIONS);
        let rows = energies(world, Condition::Nothing, samples, &at.grid, &noise)?;
        Ok(rows[0].iter().sum())
    };
    Ok(energy(&mut adapted, at.seed)? - energy(&mut base, at.seed.wrapping_add(1))?)
}

/// KAT `crn`: common random numbers leave the mean where it is, summed over 64 dimensions, and take
/// away more than 99.9 % of the variance.
///
/// # Errors
///
/// None: the worlds are valid.
pub fn crn(seed: u64) -> Result<Answer, EvalError> {
    crn_with(seed, &on_shared_noise)
}

fn crn_with(seed: u64, gap: &Gap<'_>) -> Result<Answer, EvalError> {
    const REPETITIONS: u64 = 2000;
    let native = native()?;
    let (base, adapted) = near_laws();
    let clean = base.sample(seed, 0);
    let repeated = |gap: &Gap<'_>| -> Result<Vec<f64>, EvalError> {
        (0..REPETITIONS)
            .into_par_iter()
            .map(|number| {
                let grid = Grid::stratified(&native, 32, seed, number);
                gap(&Repetition { clean: &clean, grid, seed, number })
            })
            .collect()
    };
    let (center, variance) = moments(&repeated(gap)?);
    let (_, separate) = moments(&repeated(&on_separate_noise)?);
    let ends = (native[0], native[native.len() - 1]);
    let exact: f64 = clean.iter().map(|&x| gauss::nats_lost(&base, &adapted, x, ends)).sum();
    let errors = (center - exact) / libm::sqrt(variance / real(REPETITIONS as usize));
    Ok(Answer {
        name: "crn",
        checks: vec![
            Check::new("distance of the mean from exact, in standard errors", errors, 0.0, 3.0),
            Check::at_least("variance on separate over shared noise", separate / variance, 1000.0),
        ],
        inputs: json!({ "x": clean, "exact": exact, "mean": center, "variance": variance }),
    })
}

/// Mean and sample variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let center = mean(values).unwrap_or(f64::NAN);
    let squares: f64 = values.iter().map(|value| (value - center) * (value - center)).sum();
    (center, squares / (real(values.len()) - 1.0))
}

/// Clean samples of Ring6's entity, and nats that each of `others` lost on them against Ring6, summed
/// over 401 levels; in parts that run side by side.
fn lost_on(entity: usize, others: &[Ring], seed: u64) -> Result<Vec<Vec<f64>>, EvalError> {
    const PART: u64 = 250;
    let grid = Grid::trapezoid(even_in_gamma(-12.0, 8.0, 401));
    let noise = keyed_noise(seed, 2);
    let part = |number: u64| -> Result<Vec<Vec<f64>>, EvalError> {
        let mut base = Ring::six(SIX);
        let keys: Vec<u64> = (number * PART..(number + 1) * PART).collect();
        let values: Vec<f64> =
            keys.iter().flat_map(|&key| base.sample(entity, seed, key)).collect();
        let mut others = others.to_vec();
        let mut models: Vec<&mut dyn Denoiser> = vec![&mut base];
        for other in &mut others {
            models.push(other);
        }
        let samples = Samples { values: &values, keys: &keys };
        let lost = nats_lost(&mut models, Condition::Nothing, samples, &grid, &noise)?;
        let totals = |rows: Vec<Vec<f64>>| -> Vec<f64> {
            rows.into_iter().map(|levels| levels.iter().sum::<f64>()).collect()
        };
        Ok(lost.into_iter().map(totals).collect())
    };
    let parts: Vec<Vec<Vec<f64>>> =
        (0..4000 / PART).into_par_iter().map(part).collect::<Result<_, _>>()?;
    let of_other =
        |i: usize| -> Vec<f64> { parts.iter().flat_map(|part| part[i].iter().copied()).collect() };
    Ok((0..others.len()).map(of_other).collect())
}

/// KAT `identity`: nats lost on the base's pictures of an entity are population lost plus deformation.
///
/// # Errors
///
/// None: the worlds are valid.
pub fn identity(seed: u64) -> Result<Answer, EvalError> {
    let by = [0.15, 0.0];
    let settled = [
        Ring::six(SIX_SELECTED),
        Ring::six(SIX).moved(2, by),
        Ring::six(SIX_SELECTED).moved(2, by),
    ];
    let found = lost_on(2, &settled, seed)?;
    let untouched = lost_on(0, &settled[1..2], seed)?;
    let average = |nats: &Vec<f64>| mean(nats).unwrap_or(f64::NAN);
    let population = -libm::log(SIX_SELECTED[2] / SIX[2]);
    let deformation = by[0] * by[0] / (2.0 * 0.04);
    let known = [
        ("population alone", population),
        ("deformation alone", deformation),
        ("both", population + deformation),
    ];
    let mut checks: Vec<Check> = found
        .iter()
        .zip(known)
        .map(|(nats, (what, known))| Check::new(what, average(nats), known, 0.03))
        .collect();
    let still = average(&untouched[0]);
    checks.push(Check::between("another entity, deformation alone", still, -0.002, 0.002));
    Ok(Answer {
        name: "identity",
        checks,
        inputs: json!({ "base": SIX, "selected": SIX_SELECTED, "moved": by, "pictures": 4000 }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 1;

    fn holds(answer: &Answer) {
        assert!(answer.holds(), "{:?}", answer.checks);
    }

    #[test]
    fn the_three_forms_of_the_weights_agree() {
        holds(&weights(SEED).unwrap());
    }

    #[test]
    fn the_trapezoid_reaches_the_closed_form() {
        holds(&quad(SEED).unwrap());
    }

    /// Mutation: the weights of the DDPM bound.
    #[test]
    fn weights_of_the_bound_break_quad() {
        let answer = quad_with(&bound_grid().unwrap()).unwrap();
        for check in answer.checks.iter().step_by(2) {
            assert!(!check.holds(), "{check:?}");
        }
    }

    #[test]
    fn three_kinds_of_network_give_the_same_nats() {
        holds(&wrappers(SEED).unwrap());
    }

    /// Mutation: σ/(1 − σ) in place of (1 − σ)/σ.
    #[test]
    fn an_inverted_flow_weight_breaks_wrappers() {
        let inverted = |sigmas: &[f64]| {
            let mut grid = Grid::flow(sigmas);
            for (weight, sigma) in grid.weights.iter_mut().zip(sigmas) {
                *weight *= (sigma / (1.0 - sigma)).powi(2);
            }
            grid
        };
        let answer = wrappers_with(&inverted).unwrap();
        let failed: Vec<bool> = answer.checks.iter().map(|check| !check.holds()).collect();
        assert_eq!(failed, vec![false, false, true, false]);
    }

    #[test]
    fn common_random_numbers_take_the_variance_out() {
        holds(&crn(SEED).unwrap());
    }

    /// Mutation: noise of its own for each model.
    #[test]
    fn independent_noise_breaks_crn() {
        let answer = crn_with(SEED, &on_separate_noise).unwrap();
        assert!(!answer.checks[1].holds(), "{:?}", answer.checks);
    }

    /// Mutation: the mean over dimensions in place of the sum.
    #[test]
    fn a_mean_over_dimensions_breaks_crn() {
        let by_mean = |at: &Repetition<'_>| -> Result<f64, EvalError> {
            Ok(on_shared_noise(at)? / real(DIMENSIONS))
        };
        let answer = crn_with(SEED, &by_mean).unwrap();
        assert!(!answer.checks[0].holds(), "{:?}", answer.checks);
    }

    #[test]
    fn nats_lost_are_population_and_deformation() {
        holds(&identity(SEED).unwrap());
    }

    /// The instrument itself, not the closed form: of one world against itself nothing is lost.
    #[test]
    fn a_world_loses_nothing_against_itself() {
        let grid = Grid::trapezoid(native().unwrap());
        let (mut base, mut same) = (Gauss::new(0.3, 0.25, 1), Gauss::new(0.3, 0.25, 1));
        let lost = expected_nats(&mut base, &mut same, &[1.5, -0.2], &grid).unwrap();
        assert_eq!(lost, vec![0.0, 0.0]);
    }
}
