//! Draws pictures in pairs: equal prompt and seed share the start and all step noise, whatever
//! weights draw them, in whatever batch and order.

use crate::error::EvalError;
use crate::panel::Prompt;
use crate::plan::guided;
use diffusion::{Sampler, SamplerKind, SchedulerClass, SchedulerConfig};
use image::RgbImage;
use models::adapter::{self, Adapter};
use models::base::{host_values, tensor_from_host};
use models::{Base, ModelError, Tensor};
use recipes::draws::{self, Purpose};
use recipes::{CensusSpec, KarrasSigmas, SamplerSpec};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicBool, Ordering};

/// Pictures of one shard. Batches never cross a shard, so equal seeds always share their batch.
pub(crate) const SHARD: u32 = 64;
/// Pixels of a batch, all its pictures together.
const BATCH_PX: usize = 1 << 20;
/// Most pictures of a batch.
const LARGEST_BATCH: usize = 64;

/// How a census draws.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Seed of all noise.
    pub seed: u64,
    /// The algorithm.
    pub kind: SamplerKind,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance weight w.
    pub guidance_scale: f64,
    /// The base's noise schedule.
    pub scheduler: SchedulerConfig,
    /// Side of the pictures in pixels.
    pub side_px: usize,
}

impl Sampling {
    /// The sampling that a recipe's census names, on a base.
    ///
    /// # Errors
    ///
    /// [`EvalError::Scheduler`] for a `scheduler_config.json` that is none.
    pub fn new(spec: &CensusSpec, base: &Base) -> Result<Self, EvalError> {
        let kind = sampler_kind(&spec.sampler);
        let scheduler = scheduler_config(&base.scheduler, kind)?;
        Ok(Self {
            seed: spec.seed,
            kind,
            steps: usize::try_from(spec.sampler.steps).unwrap_or(usize::MAX),
            guidance_scale: spec.guidance_scale,
            scheduler,
            side_px: base.nominal_side_px(),
        })
    }

    /// Draws `prompt` with these seeds.
    ///
    /// # Errors
    ///
    /// A schedule or prompt that the base cannot use; a fault of the device; [`EvalError::Stopped`]
    /// once `stop` is set, which is read before every forward pass.
    pub fn draw(
        &self,
        base: &Base,
        prompt: &Prompt,
        seeds: &[u32],
        stop: &AtomicBool,
    ) -> Result<Vec<RgbImage>, EvalError> {
        let per_batch = (BATCH_PX / (self.side_px * self.side_px).max(1)).clamp(1, LARGEST_BATCH);
        let mut pictures = Vec::with_capacity(seeds.len());
        for batch in seeds.chunks(per_batch) {
            pictures.extend(self.batch(base, prompt, batch, stop)?);
        }
        Ok(pictures)
    }

    fn batch(
        &self,
        base: &Base,
        prompt: &Prompt,
        seeds: &[u32],
        stop: &AtomicBool,
    ) -> Result<Vec<RgbImage>, EvalError> {
        let [channels, height, width] = base.latent_shape([self.side_px; 2])?;
        let shape = [seeds.len(), channels, height, width];
        let normal = |step: usize, purpose: Purpose| {
            let step = u64::try_from(step).unwrap_or(u64::MAX);
            let row = |&seed: &u32| {
                let mut stream = draws::stream(self.seed, step, place(&prompt.id, seed), purpose);
                draws::normals(&mut stream, channels * height * width)
            };
            tensor_from_host(seeds.iter().flat_map(row).collect(), shape, &base.device)
        };
        let denoiser = Guided::new(base, prompt, self.guidance_scale)?;
        let mut sampler = Sampler::new(self.kind, &self.scheduler, self.steps)?;
        let start = normal(0, Purpose::CensusStart);
        let mut denoise = |noisy: Tensor<4>, t: f64| {
            if stop.load(Ordering::Relaxed) {
                return Err(EvalError::Stopped);
            }
            denoiser.output(noisy, t)
        };
        let mut noise = |step: usize| normal(step, Purpose::CensusStep);
        let latents = diffusion::sample(&mut sampler, start, &mut denoise, &mut noise)?;
        pictures_from_pixels(base.vae.pixels_from_latents(latents))
    }
}

/// Which stream belongs to a prompt's seed: the first eight bytes of a hash of both.
fn place(prompt: &str, seed_idx: u32) -> u64 {
    let hash = Sha256::new().chain_update(prompt).chain_update(seed_idx.to_le_bytes()).finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(bytes)
}

/// The algorithm that a recipe names.
pub const fn sampler_kind(spec: &SamplerSpec) -> SamplerKind {
    match spec.kind {
        recipes::SamplerKind::Ddim { eta } => SamplerKind::Ddim { eta },
        recipes::SamplerKind::Ddpm => SamplerKind::Ddpm,
        recipes::SamplerKind::Euler => SamplerKind::Euler,
        recipes::SamplerKind::DpmPp2M { karras } => {
            SamplerKind::DpmPp2M { karras: matches!(karras, KarrasSigmas::On) }
        }
    }
}

/// The meaning of a base's `scheduler_config.json` for one algorithm: where the file leaves the
/// spacing of timesteps open, the algorithm's own default holds.
///
/// Source: diffusers `SchedulerMixin.from_config`.
///
/// # Errors
///
/// [`EvalError::Scheduler`] for a file that is none.
pub fn scheduler_config(file: &Value, kind: SamplerKind) -> Result<SchedulerConfig, EvalError> {
    let config: SchedulerConfig =
        serde_json::from_value(file.clone()).map_err(EvalError::Scheduler)?;
    if file.get("timestep_spacing").is_some_and(|spacing| !spacing.is_null()) {
        return Ok(config);
    }
    let class = match kind {
        SamplerKind::Ddim { .. } => SchedulerClass::Ddim,
        SamplerKind::Ddpm => SchedulerClass::Ddpm,
        SamplerKind::Euler => SchedulerClass::Euler,
        SamplerKind::EulerAncestral => SchedulerClass::EulerAncestral,
        SamplerKind::DpmPp2M { .. } => SchedulerClass::DpmSolverMultistep,
    };
    let timestep_spacing = SchedulerConfig::defaults(class).timestep_spacing;
    Ok(SchedulerConfig { timestep_spacing, ..config })
}

/// The denoiser under one prompt: text states with and, where guidance acts, without it.
struct Guided<'a> {
    base: &'a Base,
    conditional: Tensor<3>,
    unconditional: Option<Tensor<3>>,
    guidance_scale: f64,
}

impl<'a> Guided<'a> {
    fn new(base: &'a Base, prompt: &Prompt, guidance_scale: f64) -> Result<Self, EvalError> {
        let unconditional =
            if guided(guidance_scale, prompt) { Some(base.text_states(&[""])?) } else { None };
        let conditional = base.text_states(&[prompt.text.as_str()])?;
        Ok(Self { base, conditional, unconditional, guidance_scale })
    }

    fn output(&self, noisy: Tensor<4>, t: f64) -> Result<Tensor<4>, EvalError> {
        let n = noisy.dims()[0];
        let conditional = self.conditional.clone().repeat_dim(0, n);
        let Some(unconditional) = &self.unconditional else {
            let times = self.base.timesteps(t, n);
            return Ok(self.base.unet.forward(noisy, times, &conditional, None)?);
        };
        let context = Tensor::cat(vec![unconditional.clone().repeat_dim(0, n), conditional], 0);
        let times = self.base.timesteps(t, 2 * n);
        let output = self.base.unet.forward(noisy.repeat_dim(0, 2), times, &context, None)?;
        let half = |which: usize| output.clone().narrow(0, which * n, n);
        Ok(diffusion::guide(half(0), half(1), self.guidance_scale))
    }
}

/// A copy of `base`, sharing its tensors, with `adapter` attached at `dose` to every component that
/// it names.
///
/// # Errors
///
/// [`ModelError::Adapter`] for a module that the base lacks.
pub fn settled(base: &Base, adapter: &Adapter, dose: f64) -> Result<Base, ModelError> {
    let mut settled = base.clone();
    let of = |component: &str| Adapter {
        modules: adapter
            .modules
            .iter()
            .filter(|(path, _)| path.split('.').next() == Some(component))
            .map(|(path, factors)| (path.clone(), factors.clone()))
            .collect(),
    };
    adapter::attach(&mut settled.unet, "unet", &of("unet"), dose)?;
    adapter::attach(&mut settled.text_encoder, "text_encoder", &of("text_encoder"), dose)?;
    Ok(settled)
}

/// Pictures of `[batch, 3, height, width]` in [−1, 1], clamped and rounded to 8 bits (half to even,
/// as numpy does).
///
/// # Errors
///
/// [`ModelError::Device`] for a fault of the device.
pub fn pictures_from_pixels(pixels: Tensor<4>) -> Result<Vec<RgbImage>, EvalError> {
    let [_, channels, height, width] = pixels.dims();
    let values = host_values(pixels)?;
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let pictures = values.chunks(channels * height * width).map(|planes| {
        RgbImage::from_fn(side(width), side(height), |x, y| {
            let at = |side: u32| usize::try_from(side).unwrap_or(0);
            let place = at(y) * width + at(x);
            image::Rgb([0, 1, 2].map(|channel| byte(planes[channel * height * width + place])))
        })
    });
    Ok(pictures.collect())
}

/// A value in [−1, 1] as a byte.
pub(crate) fn byte(value: f32) -> u8 {
    let scaled = ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in 0 ..= 255")]
    let byte = scaled as u8;
    byte
}

/// `[batch, 3, side, side]` in [−1, 1] from pictures of one size.
pub(crate) fn pixels_from_pictures(pictures: &[RgbImage], base: &Base) -> Tensor<4> {
    let (width, height) = pictures.first().map_or((0, 0), RgbImage::dimensions);
    let at = |side: u32| usize::try_from(side).unwrap_or(0);
    let planes = pictures.iter().flat_map(|picture| {
        (0..3).flat_map(move |channel: usize| {
            picture.pixels().map(move |pixel| f32::from(pixel.0[channel]) / 127.5 - 1.0)
        })
    });
    let shape = [pictures.len(), 3, at(height), at(width)];
    tensor_from_host(planes.collect(), shape, &base.device)
}

/// Pictures as the autoencoder gives them back: encoded to the mean of the posterior, and decoded.
///
/// # Errors
///
/// Sides that the autoencoder cannot halve often enough; a fault of the device.
pub(crate) fn through_vae(pictures: &[RgbImage], base: &Base) -> Result<Vec<RgbImage>, EvalError> {
    let mut decoded = Vec::with_capacity(pictures.len());
    for batch in pictures.chunks(LARGEST_BATCH / 2) {
        let posterior = base.vae.posterior_from_pixels(pixels_from_pictures(batch, base))?;
        decoded.extend(pictures_from_pixels(base.vae.pixels_from_unscaled(posterior.mean))?);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_and_seed_has_its_own_stream() {
        assert_eq!(place("empty/empty", 3), place("empty/empty", 3));
        assert_ne!(place("empty/empty", 3), place("empty/empty", 4));
        assert_ne!(place("empty/empty", 3), place("medium/a-card", 3));
    }

    #[test]
    fn an_open_spacing_follows_the_algorithm_that_samples() {
        let file = serde_json::json!({ "_class_name": "PNDMScheduler" });
        let spacing = |file: &Value, kind| scheduler_config(file, kind).unwrap().timestep_spacing;
        let leading = diffusion::TimestepSpacing::Leading;
        assert_eq!(spacing(&file, SamplerKind::Ddim { eta: 0.0 }), leading);
        assert_ne!(spacing(&file, SamplerKind::Euler), leading);
        let closed =
            serde_json::json!({ "_class_name": "PNDMScheduler", "timestep_spacing": "leading" });
        assert_eq!(spacing(&closed, SamplerKind::Euler), leading);
    }

    #[test]
    fn bytes_cover_the_range_and_clamp() {
        assert_eq!([-1.0, -2.0, 1.0, 3.0, 0.0].map(byte), [0, 0, 255, 255, 128]);
    }
}
