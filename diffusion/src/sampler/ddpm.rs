//! Ancestral sampling from the posterior of each step.

use super::{Next, Setup, Step};
use crate::DiffusionError;

/// x′ = √ᾱ′·β/(1 − ᾱ)·x̂₀ + √α·(1 − ᾱ′)/(1 − ᾱ)·x + √β̃·z with α = ᾱ/ᾱ′, β = 1 − α and the small
/// variance β̃ = (1 − ᾱ′)/(1 − ᾱ)·β.
///
/// ᾱ′ belongs to the next timestep of the list and is 1 behind the last.
///
/// Source: Ho et al. 2020, arXiv:2006.11239, equations 6 and 7; agrees with diffusers
/// `DDPMScheduler.step` (`fixed_small`), proved by `tests/sampler_parity.rs`.
pub(super) fn steps(setup: &Setup<'_>) -> Result<Vec<Step>, DiffusionError> {
    setup.check_single_step()?;
    let timesteps = setup.grid.whole();
    setup.check_timesteps(&timesteps)?;
    let step = |(step_idx, &timestep): (usize, &f64)| {
        let alpha = setup.alpha_or(timestep, 1.0);
        let next_alpha = timesteps.get(step_idx + 1).map_or(1.0, |&t| setup.alpha_or(t, 1.0));
        let step_alpha = alpha / next_alpha;
        let step_beta = 1.0 - step_alpha;
        Step {
            timestep,
            input_scale: 1.0,
            level: setup.levels(timestep),
            clean: setup.config.prediction_type.clean_mix(setup.levels(timestep)),
            next: Next {
                noisy: step_alpha.sqrt() * (1.0 - next_alpha) / (1.0 - alpha),
                clean: next_alpha.sqrt() * step_beta / (1.0 - alpha),
                noise: ((1.0 - next_alpha) / (1.0 - alpha) * step_beta).sqrt(),
                ..Next::default()
            },
        }
    };
    Ok(timesteps.iter().enumerate().map(step).collect())
}
