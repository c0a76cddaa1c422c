//! DPM-Solver++ of second order, multistep.

use super::{Next, Setup, Step, sigma_at};
use crate::DiffusionError;
use crate::timesteps::real;

/// Exponent of Karras' spacing.
const RHO: f64 = 7.0;

/// Steps along the configured timesteps.
pub(super) fn steps(setup: &Setup<'_>) -> Result<Vec<Step>, DiffusionError> {
    Ok(steps_along(setup, levels(setup)?))
}

/// Steps along noise levels spaced after Karras.
pub(super) fn karras_steps(setup: &Setup<'_>) -> Vec<Step> {
    steps_along(setup, karras_levels(setup))
}

/// x′ = (s′/s)·x + a′·(1 − σ′/σ)·D with D = x̂₀ + (x̂₀ − x̂₀⁻)/(2r), r = h⁻/h, h = ln(σ/σ′).
///
/// a and s are the shares of signal and noise at σ, x̂₀⁻ and h⁻ belong to the step before. The
/// first step and the last, which ends at σ = 0, are of first order: D = x̂₀.
///
/// Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2 in its midpoint form; agrees with
/// diffusers `DPMSolverMultistepScheduler` (order 2, `midpoint`, `final_sigmas_type` `zero`),
/// proved by `tests/sampler_parity.rs`.
fn steps_along(setup: &Setup<'_>, (timesteps, sigmas): (Vec<f64>, Vec<f64>)) -> Vec<Step> {
    let mut previous_h = None;
    let step = |(timestep, pair): (f64, &[f64])| {
        let (sigma, next_sigma) = (pair[0], pair[1]);
        let (signal, noise) = shares(sigma);
        let (next_signal, next_noise) = shares(next_sigma);
        let ratio = next_sigma / sigma;
        let gain = next_signal * (1.0 - ratio);
        let h = -libm::log(ratio);
        // 1/(2r); the last step has h = ∞ and is of first order.
        let finite = previous_h.filter(|_| h.is_finite());
        let half_slope = finite.map_or(0.0, |previous: f64| h / previous / 2.0);
        previous_h = Some(h);
        Step {
            timestep,
            input_scale: 1.0,
            level: (signal, noise),
            clean: setup.config.prediction_type.clean_mix((signal, noise)),
            next: Next {
                noisy: next_noise / noise,
                clean: gain * (1.0 + half_slope),
                previous_clean: -gain * half_slope,
                ..Next::default()
            },
        }
    };
    timesteps.into_iter().zip(sigmas.windows(2)).map(step).collect()
}

/// (a, s) = (1, σ)/√(σ² + 1).
fn shares(sigma: f64) -> (f64, f64) {
    let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
    (signal, sigma * signal)
}

/// Timesteps by the configured spacing and their σ, with a final 0.
fn levels(setup: &Setup<'_>) -> Result<(Vec<f64>, Vec<f64>), DiffusionError> {
    let timesteps = setup.grid.multistep();
    setup.check_timesteps(&timesteps)?;
    let train_sigmas = setup.train_sigmas();
    let sigmas = timesteps.iter().map(|&timestep| sigma_at(&train_sigmas, timestep));
    let sigmas = sigmas.chain([0.0]).collect();
    Ok((timesteps, sigmas))
}

/// σ evenly spaced in σ^(1/ρ) between the largest and the smallest of the training, with the
/// nearest timesteps; the configured spacing plays no part, and timesteps may repeat.
///
/// Source: Karras et al. 2022, arXiv:2206.00364, equation 5; timesteps by interpolation in ln σ
/// as in diffusers `_sigma_to_t`.
pub(super) fn karras_levels(setup: &Setup<'_>) -> (Vec<f64>, Vec<f64>) {
    let train_sigmas = setup.train_sigmas();
    let n_steps = setup.grid.n_steps;
    let root = |sigma: f64| libm::pow(sigma, 1.0 / RHO);
    let (most, least) = (root(train_sigmas[train_sigmas.len() - 1]), root(train_sigmas[0]));
    let roots = crate::timesteps::linspace(most, least, n_steps);
    let mut sigmas: Vec<f64> = roots.into_iter().map(|root| libm::pow(root, RHO)).collect();
    let timesteps = sigmas.iter().map(|&sigma| nearest_timestep(&train_sigmas, sigma)).collect();
    sigmas.push(0.0);
    (timesteps, sigmas)
}

/// The whole timestep whose ln σ is nearest, by linear interpolation.
fn nearest_timestep(train_sigmas: &[f64], sigma: f64) -> f64 {
    let n_below = train_sigmas.partition_point(|&train_sigma| train_sigma <= sigma);
    let below = n_below.saturating_sub(1).min(train_sigmas.len().saturating_sub(2));
    let above = (below + 1).min(train_sigmas.len() - 1);
    if above == below {
        return real(below);
    }
    let (low, high) = (libm::log(train_sigmas[below]), libm::log(train_sigmas[above]));
    let share = ((libm::log(sigma) - low) / (high - low)).clamp(0.0, 1.0);
    (real(below) + share).round_ties_even()
}
