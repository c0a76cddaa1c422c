//! DDIM, deterministic to ancestral.

use super::{Next, Setup, Step};
use crate::{DiffusionError, FinalAlpha};

/// x′ = √ᾱ′·x̂₀ + √(1 − ᾱ′ − σ²)·ε̂ + σ·z with σ² = η²·(1 − ᾱ′)/(1 − ᾱ)·(1 − ᾱ/ᾱ′).
///
/// The target time is t − T div n, not the next timestep of the list. Clipping acts on x̂₀ alone, ε̂
/// stays the network's.
///
/// Source: Song et al. 2020, arXiv:2010.02502, equations 12 and 16; agrees with diffusers
/// `DDIMScheduler.step`, proved by `tests/sampler_parity.rs`.
pub(super) fn steps(setup: &Setup<'_>, eta: f64) -> Result<Vec<Step>, DiffusionError> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(DiffusionError::Eta { found: eta });
    }
    setup.check_single_step()?;
    let timesteps = setup.grid.whole();
    setup.check_timesteps(&timesteps)?;
    let stride = crate::timesteps::real(setup.grid.n_train / setup.grid.n_steps);
    let behind_last = match setup.config.final_alpha {
        FinalAlpha::One => 1.0,
        FinalAlpha::First => setup.schedule.alpha_cumprod(0),
    };
    let prediction = setup.config.prediction_type;
    let step = |timestep: f64| {
        let alpha = setup.alpha_or(timestep, behind_last);
        let next_alpha = setup.alpha_or(timestep - stride, behind_last);
        let variance = (1.0 - next_alpha) / (1.0 - alpha) * (1.0 - alpha / next_alpha);
        let sigma = eta * variance.sqrt();
        // Rounding can leave less than nothing where no signal is left and η = 1.
        let direction = (1.0 - next_alpha - sigma * sigma).max(0.0).sqrt();
        let epsilon = prediction.epsilon_mix(setup.levels(timestep));
        Step {
            timestep,
            input_scale: 1.0,
            level: setup.levels(timestep),
            clean: prediction.clean_mix(setup.levels(timestep)),
            next: Next {
                noisy: direction * epsilon.noisy,
                output: direction * epsilon.output,
                clean: next_alpha.sqrt(),
                previous_clean: 0.0,
                noise: sigma,
            },
        }
    };
    Ok(timesteps.into_iter().map(step).collect())
}
