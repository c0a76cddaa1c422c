//! Samplers: from noise to a clean latent along a falling sequence of noise levels.
//!
//! Each algorithm is a function that computes, on the host and in `f64`, the coefficients of all
//! its steps; [`Sampler`] applies them to tensors. Nothing is drawn here: step noise is passed in.

mod ddim;
mod ddpm;
mod dpmpp_2m;
mod euler;

use burn::tensor::Tensor;

use crate::prediction::Mix;
use crate::timesteps::{Grid, real};
use crate::{DiffusionError, NoiseSchedule, SchedulerConfig, TimestepSpacing};

/// ᾱ that samplers working in σ put in place of 0, so that σ stays finite (4096).
///
/// Source: diffusers `EulerDiscreteScheduler.__init__`.
const LEAST_ALPHA: f64 = 1.0 / 16_777_216.0;

/// Which algorithm leads from noise to a clean latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SamplerKind {
    /// DDIM; η = 0 is deterministic, η = 1 adds the full posterior noise in every step but the
    /// last ([`Sampler::with_last_noise`]).
    Ddim {
        /// Stochasticity η in [0, 1].
        eta: f64,
    },
    /// Ancestral sampling with the small fixed variance β̃.
    Ddpm,
    /// Euler's method on the probability-flow equation in σ.
    Euler,
    /// Euler's method with fresh noise after every step but the last.
    EulerAncestral,
    /// DPM-Solver++ of second order, multistep, midpoint; first order at both ends.
    DpmPp2M {
        /// Whether the noise levels are spaced after Karras (ρ = 7) instead of by the schedule.
        karras: bool,
    },
}

/// What an algorithm needs to know to compute its steps.
struct Setup<'a> {
    config: &'a SchedulerConfig,
    schedule: &'a NoiseSchedule,
    grid: Grid,
}

/// One step: timestep, input scale and the coefficients of two linear combinations.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    timestep: f64,
    input_scale: f64,
    /// Shares of clean latents and unit noise in the latents before the step.
    level: (f64, f64),
    /// x̂₀ from the *unscaled* noisy latents and the output.
    clean: Mix,
    next: Next,
}

/// Coefficients of the next noisy latents.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Next {
    noisy: f64,
    output: f64,
    clean: f64,
    previous_clean: f64,
    noise: f64,
}

/// A sequence of denoising steps with all its coefficients; remembers the last clean estimate.
///
/// A sampler can be used again for another trajectory: [`sample_from`] forgets the last one.
#[derive(Debug, Clone)]
pub struct Sampler {
    steps: Vec<Step>,
    timesteps: Vec<f64>,
    init_noise_sigma: f64,
    clip_range: Option<f64>,
    /// The standard deviation of the noise that the last step leaves out.
    last_noise: f64,
    previous_clean: Option<Tensor<4>>,
}

impl Sampler {
    /// Computes all steps of an algorithm on a base's schedule.
    ///
    /// # Errors
    ///
    /// A configuration that [`SchedulerConfig::check`] refuses, η outside [0, 1], no step at all,
    /// or so many that two steps would share a noise level.
    pub fn new(
        kind: SamplerKind,
        config: &SchedulerConfig,
        n_steps: usize,
    ) -> Result<Self, DiffusionError> {
        let schedule = NoiseSchedule::new(config)?;
        let n_train = schedule.len();
        if !(1..=n_train).contains(&n_steps) {
            return Err(step_count(n_steps, format!("1 to {n_train}")));
        }
        let grid = Grid {
            spacing: config.timestep_spacing,
            n_train,
            n_steps,
            offset: config.steps_offset,
        };
        let setup = Setup { config, schedule: &schedule, grid };
        let mut init_noise_sigma = 1.0;
        let mut clip_range = None;
        let mut steps = match kind {
            SamplerKind::Ddim { eta } => {
                clip_range = config.clip_range;
                ddim::steps(&setup, eta)?
            }
            SamplerKind::Ddpm => {
                clip_range = config.clip_range;
                ddpm::steps(&setup)?
            }
            SamplerKind::Euler => {
                init_noise_sigma = euler::init_noise_sigma(&setup)?;
                euler::steps(&setup)?
            }
            SamplerKind::EulerAncestral => {
                init_noise_sigma = euler::init_noise_sigma(&setup)?;
                euler::ancestral_steps(&setup)?
            }
            SamplerKind::DpmPp2M { karras: false } => dpmpp_2m::steps(&setup)?,
            SamplerKind::DpmPp2M { karras: true } => dpmpp_2m::karras_steps(&setup),
        };
        let timesteps = steps.iter().map(|step| step.timestep).collect();
        let last_noise = steps.last_mut().map_or(0.0, |last| std::mem::take(&mut last.next.noise));
        Ok(Self {
            steps,
            timesteps,
            init_noise_sigma,
            clip_range,
            last_noise,
            previous_clean: None,
        })
    }

    /// The same with noise after the last step, too, as diffusers runs DDIM with η > 0: a little is
    /// left where ᾱ behind the last step is below 1. No other sampler has any there.
    #[must_use]
    pub fn with_last_noise(mut self) -> Self {
        if let Some(last) = self.steps.last_mut() {
            last.next.noise = self.last_noise;
        }
        self
    }

    /// The number of steps, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a sampler always has a step")]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// The timestep of each step, noisiest first; whole numbers except for Euler under linspace.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// The standard deviation that the start of a trajectory must have.
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// The step at which a trajectory from a picture begins: n − min(⌊n·strength⌋, n).
    ///
    /// `strength` in (0, 1]: 1 makes all steps; below 1/n nothing is left to do, and the answer is
    /// [`Self::len`].
    ///
    /// Source: diffusers `StableDiffusionImg2ImgPipeline.get_timesteps`, proved by
    /// `tests/sampler_parity.rs`.
    pub fn first_step(&self, strength: f64) -> usize {
        let n_steps = self.len();
        let wanted = crate::timesteps::whole_part((real(n_steps) * strength).max(0.0));
        n_steps - wanted.min(n_steps)
    }

    /// Clean latents noised to the level at which a step begins.
    ///
    /// Scaled as this sampler's own latents are there: x₀ + σ·ε for Euler's method, √ᾱ·x₀ + √(1 − ᾱ)·ε
    /// for all others, with ᾱ = 1/(σ² + 1) on Karras' levels. Behind the last step, at
    /// [`Self::len`], the clean latents themselves.
    ///
    /// # Shapes
    ///
    /// - `clean`: scaled latents; `noise`: unit normal
    /// - both and the result: `[batch, channels, height, width]`
    ///
    /// Source: diffusers `add_noise` of each scheduler, proved by `tests/sampler_parity.rs`.
    pub fn noised(&self, clean: Tensor<4>, noise: Tensor<4>, step_idx: usize) -> Tensor<4> {
        match self.steps.get(step_idx) {
            Some(step) => plus(times(clean, step.level.0), step.level.1, noise),
            None => clean,
        }
    }

    /// The network's input at a step: the noisy latents brought to unit variance.
    pub fn scale_input(&self, noisy: Tensor<4>, step_idx: usize) -> Tensor<4> {
        times(noisy, self.steps[step_idx].input_scale)
    }

    /// Whether a step adds noise; the last one does only by [`Self::with_last_noise`].
    pub fn needs_noise(&self, step_idx: usize) -> bool {
        self.noise_scale(step_idx) != 0.0
    }

    /// The standard deviation σ of the noise that a step adds, 0 for a deterministic one.
    pub fn noise_scale(&self, step_idx: usize) -> f64 {
        self.steps[step_idx].next.noise
    }

    /// How far the mean of the next latents moves per unit of the network's output, ∂μ/∂output.
    ///
    /// For DDIM and noise prediction: √(1 − ᾱ′ − σ²) − √(ᾱ′(1 − ᾱ)/ᾱ). Clipping is not considered.
    pub fn output_gain(&self, step_idx: usize) -> f64 {
        let Step { clean, next, .. } = self.steps[step_idx];
        next.output + next.clean * clean.output
    }

    /// The clean latents x̂₀ that an output implies: a preview of the picture in the making.
    ///
    /// # Shapes
    ///
    /// - `output`, `noisy` (not scaled), result: `[batch, channels, height, width]`
    pub fn clean(&self, step_idx: usize, output: Tensor<4>, noisy: Tensor<4>) -> Tensor<4> {
        let mix = self.steps[step_idx].clean;
        let clean = plus(times(output, mix.output), mix.noisy, noisy);
        match self.clip_range {
            Some(range) => clean.clamp(-range, range),
            None => clean,
        }
    }

    /// The latents at the next lower noise level; after the last step these are the clean ones.
    ///
    /// Steps are taken in order, from any of them to `len() - 1`; the first that is taken has no
    /// estimate before it and is of first order.
    ///
    /// # Shapes
    ///
    /// - `output`: what the network made of [`Self::scale_input`]
    /// - `noisy`: the latents before scaling
    /// - `noise`: unit normal; ignored unless [`Self::needs_noise`]
    /// - all and the result: `[batch, channels, height, width]`
    ///
    /// # Panics
    ///
    /// If the step needs noise and none is given.
    pub fn step(
        &mut self,
        step_idx: usize,
        output: Tensor<4>,
        noisy: Tensor<4>,
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let next = self.steps[step_idx].next;
        let clean = self.clean(step_idx, output.clone(), noisy.clone());
        let previous_clean = self.previous_clean.take();
        let of_clean = match previous_clean {
            Some(_) => next.clean,
            // x̂₀ in place of the estimate before it: the slope between the two is 0.
            None => next.clean + next.previous_clean,
        };
        let mut latents = times(clean.clone(), of_clean);
        latents = plus(latents, next.noisy, noisy);
        latents = plus(latents, next.output, output);
        if let Some(previous_clean) = previous_clean {
            latents = plus(latents, next.previous_clean, previous_clean);
        }
        assert!(noise.is_some() || next.noise == 0.0, "step {step_idx} needs noise");
        if let Some(noise) = noise {
            latents = plus(latents, next.noise, noise);
        }
        let remembered = self.steps.get(step_idx + 1).is_some_and(|s| s.next.previous_clean != 0.0);
        self.previous_clean = remembered.then_some(clean);
        latents
    }
}

/// One finished step of a trajectory, as [`sample_watched`] shows it.
#[derive(Debug)]
pub struct Moment<'a> {
    /// Position of the step, from 0.
    pub step_idx: usize,
    /// The latents before the step, not scaled.
    pub noisy: &'a Tensor<4>,
    /// What the network made of them.
    pub output: &'a Tensor<4>,
    /// The latents after the step.
    pub next: &'a Tensor<4>,
    sampler: &'a Sampler,
}

impl Moment<'_> {
    /// The clean latents that the output implies, for a preview.
    pub fn clean(&self) -> Tensor<4> {
        self.sampler.clean(self.step_idx, self.output.clone(), self.noisy.clone())
    }
}

/// Runs a whole trajectory and returns the clean latents.
///
/// `denoise` gets the scaled latents and the timestep; guidance happens inside it. `noise` gets
/// the step's position and is called only for steps that need noise.
///
/// # Shapes
///
/// - `start`: unit normal; scaled here by [`Sampler::init_noise_sigma`]
/// - everywhere: `[batch, channels, height, width]`
///
/// # Errors
///
/// The first error of `denoise` ends the trajectory.
pub fn sample<E>(
    sampler: &mut Sampler,
    start: Tensor<4>,
    denoise: &mut dyn FnMut(Tensor<4>, f64) -> Result<Tensor<4>, E>,
    noise: &mut dyn FnMut(usize) -> Tensor<4>,
) -> Result<Tensor<4>, E> {
    sample_watched(sampler, start, denoise, noise, &mut |_| {})
}

/// Like [`sample`], and shows every finished step to `watch`.
///
/// # Errors
///
/// The first error of `denoise` ends the trajectory.
pub fn sample_watched<E>(
    sampler: &mut Sampler,
    start: Tensor<4>,
    denoise: &mut dyn FnMut(Tensor<4>, f64) -> Result<Tensor<4>, E>,
    noise: &mut dyn FnMut(usize) -> Tensor<4>,
    watch: &mut dyn FnMut(&Moment<'_>),
) -> Result<Tensor<4>, E> {
    let noisy = times(start, sampler.init_noise_sigma);
    sample_from(sampler, 0, noisy, denoise, noise, watch)
}

/// Like [`sample_watched`], from latents that stand before the step `first`: those of a picture,
/// noised by [`Sampler::noised`].
///
/// # Shapes
///
/// - `latents`: as the sampler scales them at that step; not scaled here
/// - everywhere: `[batch, channels, height, width]`
///
/// # Errors
///
/// The first error of `denoise` ends the trajectory.
#[expect(clippy::too_many_arguments, reason = "those of `sample_watched`, and where to begin")]
pub fn sample_from<E>(
    sampler: &mut Sampler,
    first: usize,
    latents: Tensor<4>,
    denoise: &mut dyn FnMut(Tensor<4>, f64) -> Result<Tensor<4>, E>,
    noise: &mut dyn FnMut(usize) -> Tensor<4>,
    watch: &mut dyn FnMut(&Moment<'_>),
) -> Result<Tensor<4>, E> {
    // Whatever a trajectory that ended early has left.
    sampler.previous_clean = None;
    let mut noisy = latents;
    for step_idx in first..sampler.len() {
        let timestep = sampler.timesteps[step_idx];
        let output = denoise(sampler.scale_input(noisy.clone(), step_idx), timestep)?;
        let step_noise = sampler.needs_noise(step_idx).then(|| noise(step_idx));
        let next = sampler.step(step_idx, output.clone(), noisy.clone(), step_noise);
        watch(&Moment { step_idx, noisy: &noisy, output: &output, next: &next, sampler });
        noisy = next;
    }
    Ok(noisy)
}

impl Setup<'_> {
    /// (√ᾱ, √(1 − ᾱ)) at a whole timestep.
    fn levels(&self, timestep: f64) -> (f64, f64) {
        self.schedule.signal_and_noise(crate::timesteps::whole_part(timestep))
    }

    /// ᾱ at a whole timestep, or `behind_last` below 0.
    fn alpha_or(&self, timestep: f64, behind_last: f64) -> f64 {
        if timestep < 0.0 {
            return behind_last;
        }
        self.schedule.alpha_cumprod(crate::timesteps::whole_part(timestep))
    }

    /// σ of every training timestep, rising and finite.
    fn train_sigmas(&self) -> Vec<f64> {
        let alphas = self.schedule.alphas_cumprod().iter();
        alphas.map(|&alpha| crate::schedule::sigma_from_alpha(alpha.max(LEAST_ALPHA))).collect()
    }

    /// Refuses timesteps outside the schedule and repeated ones.
    fn check_timesteps(&self, timesteps: &[f64]) -> Result<(), DiffusionError> {
        let n_steps = self.grid.n_steps;
        let last = real(self.grid.n_train - 1);
        if let Some(outside) = timesteps.iter().find(|timestep| !(0.0..=last).contains(*timestep)) {
            let expected = format!("fewer: timestep {outside} lies outside the schedule");
            return Err(step_count(n_steps, expected));
        }
        if timesteps.windows(2).any(|pair| pair[1] >= pair[0]) {
            let expected = "fewer: two steps would share a timestep".to_owned();
            return Err(step_count(n_steps, expected));
        }
        Ok(())
    }

    /// Refuses a single step under linspace: it would stand at timestep 0, the clean end.
    fn check_single_step(&self) -> Result<(), DiffusionError> {
        if self.grid.n_steps == 1 && self.grid.spacing == TimestepSpacing::Linspace {
            let expected = "at least 2 with `timestep_spacing` `linspace`".to_owned();
            return Err(step_count(1, expected));
        }
        Ok(())
    }
}

fn step_count(found: usize, expected: String) -> DiffusionError {
    DiffusionError::StepCount { found, expected }
}

/// σ at any timestep, linear between whole ones.
fn sigma_at(train_sigmas: &[f64], timestep: f64) -> f64 {
    let below = crate::timesteps::whole_part(timestep);
    let above = (below + 1).min(train_sigmas.len() - 1);
    let share = timestep - real(below);
    train_sigmas[below] + (train_sigmas[above] - train_sigmas[below]) * share
}

/// factor·tensor; nothing to do for 1.
#[expect(clippy::float_cmp, reason = "only an exact 1 may be left out")]
fn times(tensor: Tensor<4>, factor: f64) -> Tensor<4> {
    if factor == 1.0 { tensor } else { tensor.mul_scalar(factor) }
}

/// sum + factor·tensor; nothing to do for 0.
fn plus(sum: Tensor<4>, factor: f64, tensor: Tensor<4>) -> Tensor<4> {
    if factor == 0.0 { sum } else { sum + times(tensor, factor) }
}

#[cfg(test)]
mod tests;
