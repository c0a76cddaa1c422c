//! Euler's method in σ, with and without fresh noise.
//!
//! Latents are kept as x₀ + σ·ε; the network sees them divided by √(σ² + 1).

use super::{Next, Setup, Step, sigma_at};
use crate::prediction::Mix;
use crate::{DiffusionError, Prediction, TimestepSpacing};

/// x′ = x + (x − x̂₀)/σ·(σ′ − σ), written as (σ′/σ)·x + (1 − σ′/σ)·x̂₀.
///
/// Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1 without correction; agrees with
/// diffusers `EulerDiscreteScheduler.step`, proved by `tests/sampler_parity.rs`.
pub(super) fn steps(setup: &Setup<'_>) -> Result<Vec<Step>, DiffusionError> {
    steps_with(setup, |_, next_sigma| (next_sigma, 0.0))
}

/// Euler's step down to d, then noise u up to σ′: u² = σ′²·(σ² − σ′²)/σ², d² = σ′² − u².
///
/// Source: k-diffusion `get_ancestral_step`; agrees with diffusers
/// `EulerAncestralDiscreteScheduler.step`, proved by `tests/sampler_parity.rs`.
pub(super) fn ancestral_steps(setup: &Setup<'_>) -> Result<Vec<Step>, DiffusionError> {
    steps_with(setup, |sigma, next_sigma| {
        let share = next_sigma / sigma;
        // d = σ′²/σ is the same as above without the cancellation.
        (next_sigma * share, next_sigma * (1.0 - share * share).sqrt())
    })
}

/// σ of each step, noisiest first, with a final 0.
fn sigmas(setup: &Setup<'_>) -> Result<(Vec<f64>, Vec<f64>), DiffusionError> {
    setup.check_single_step()?;
    let timesteps = setup.grid.continuous();
    setup.check_timesteps(&timesteps)?;
    let train_sigmas = setup.train_sigmas();
    let sigmas = timesteps.iter().map(|&timestep| sigma_at(&train_sigmas, timestep));
    let sigmas = sigmas.chain([0.0]).collect();
    Ok((timesteps, sigmas))
}

/// The standard deviation of the start: the largest σ, under leading spacing √(σ² + 1).
///
/// Source: diffusers `EulerDiscreteScheduler.init_noise_sigma`.
pub(super) fn init_noise_sigma(setup: &Setup<'_>) -> Result<f64, DiffusionError> {
    let largest = sigmas(setup)?.1[0];
    Ok(match setup.grid.spacing {
        TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
        TimestepSpacing::Trailing | TimestepSpacing::Linspace => largest,
    })
}

/// Steps from σ down to the first of `levels(σ, σ′)`, with noise of its second.
fn steps_with(
    setup: &Setup<'_>,
    levels: impl Fn(f64, f64) -> (f64, f64),
) -> Result<Vec<Step>, DiffusionError> {
    let (timesteps, sigmas) = sigmas(setup)?;
    let step = |(&timestep, pair): (&f64, &[f64])| {
        let (sigma, next_sigma) = (pair[0], pair[1]);
        let (down, noise) = levels(sigma, next_sigma);
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Step {
            timestep,
            input_scale: signal,
            level: (1.0, sigma),
            clean: clean_mix(setup.config.prediction_type, sigma, signal),
            next: Next { noisy: down / sigma, clean: 1.0 - down / sigma, noise, ..Next::default() },
        }
    };
    Ok(timesteps.iter().zip(sigmas.windows(2)).map(step).collect())
}

/// x̂₀ from latents x₀ + σ·ε: those of the schedule divided by the signal share.
fn clean_mix(prediction: Prediction, sigma: f64, signal: f64) -> Mix {
    let mix = prediction.clean_mix((signal, sigma * signal));
    Mix { noisy: mix.noisy * signal, output: mix.output }
}
