//! Draws pictures in pairs: equal prompt and seed share the start and all step noise, whatever
//! weights draw them, in whatever batch and order.

mod along;

use crate::error::EvalError;
use crate::panel::Prompt;
use crate::plan::guided;
use diffusion::{Sampler, SamplerKind, SchedulerClass, SchedulerConfig, TimestepSpacing};
use image::RgbImage;
use models::adapter::{self, Adapter};
use models::base::{host_values, tensor_from_host};
use models::{Base, Conditioning, ModelError, SizeConditions, Tensor};
use recipes::draws::{self, Purpose};
use recipes::{CensusSpec, KarrasSigmas, SamplerSpec, Spacing};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pictures of one shard. Batches never cross a shard, so equal seeds always share their batch.
pub(crate) const SHARD: u32 = 64;
/// Pixels of a batch, all its pictures together.
const BATCH_PX: usize = 1 << 20;
/// Pixels that are decoded at once.
const DECODED_PX: usize = 1 << 18;
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
    /// Share φ by which guided outputs get back the deviation of unguided ones; 0 is none.
    pub guidance_rescale: f64,
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
        let scheduler = scheduler_config(&base.scheduler, kind, spec.sampler.spacing)?;
        Ok(Self {
            seed: spec.seed,
            kind,
            steps: usize::try_from(spec.sampler.steps).unwrap_or(usize::MAX),
            guidance_scale: spec.guidance_scale,
            guidance_rescale: spec.guidance_rescale,
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
        Ok(self.sketches(base, prompt, seeds, stop)?.into_iter().map(|s| s.picture).collect())
    }

    /// The same, with the latents behind each picture.
    pub(crate) fn sketches(
        &self,
        base: &Base,
        prompt: &Prompt,
        seeds: &[u32],
        stop: &AtomicBool,
    ) -> Result<Vec<Sketch>, EvalError> {
        let mut sketches = Vec::with_capacity(seeds.len());
        for batch in seeds.chunks(self.per_batch()) {
            let latents = self.latents(base, prompt, batch, stop)?;
            let pictures = decoded(base, &latents)?;
            let width = latents.dims()[1..].iter().product::<usize>().max(1);
            let values = host_values(latents)?;
            let rows = values.chunks(width).map(<[f32]>::to_vec);
            sketches.extend(
                pictures
                    .into_iter()
                    .zip(rows)
                    .map(|(picture, latents)| Sketch { picture, latents }),
            );
        }
        Ok(sketches)
    }

    /// Pictures per forward pass.
    pub(crate) fn per_batch(&self) -> usize {
        (BATCH_PX / (self.side_px * self.side_px).max(1)).clamp(1, LARGEST_BATCH)
    }

    /// Unit noise of latents of `shape`, one row for each of `seeds`.
    fn normal(
        &self,
        prompt: &Prompt,
        seeds: &[u32],
        [channels, height, width]: [usize; 3],
        (step, purpose): (usize, Purpose),
    ) -> Vec<f32> {
        let step = u64::try_from(step).unwrap_or(u64::MAX);
        let row = |&seed: &u32| {
            let mut stream = draws::stream(self.seed, step, place(&prompt.id, seed), purpose);
            draws::normals(&mut stream, channels * height * width)
        };
        seeds.iter().flat_map(row).collect()
    }

    fn latents(
        &self,
        base: &Base,
        prompt: &Prompt,
        seeds: &[u32],
        stop: &AtomicBool,
    ) -> Result<Tensor<4>, EvalError> {
        let denoiser = Guided::new(base, prompt, self)?;
        let mut sampler = Sampler::new(self.kind, &self.scheduler, self.steps)?;
        let shape = base.latent_shape([self.side_px; 2])?;
        let normal = |step: usize, purpose: Purpose| {
            let values = self.normal(prompt, seeds, shape, (step, purpose));
            tensor_from_host(values, [seeds.len(), shape[0], shape[1], shape[2]], &base.device)
        };
        let mut denoise = |noisy: Tensor<4>, t: f64| {
            if stop.load(Ordering::Relaxed) {
                return Err(EvalError::Stopped);
            }
            denoiser.output(noisy, t)
        };
        let mut noise = |step: usize| normal(step, Purpose::CensusStep);
        let start = normal(0, Purpose::CensusStart);
        diffusion::sample(&mut sampler, start, &mut denoise, &mut noise)
    }
}

/// A drawn picture with the latents behind it.
#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    /// The picture.
    pub(crate) picture: RgbImage,
    /// Its scaled latents, one channel after another.
    pub(crate) latents: Vec<f32>,
}

/// Pictures of latents. Large ones are decoded one by one: the VAE needs some 4 KiB for each pixel.
fn decoded(base: &Base, latents: &Tensor<4>) -> Result<Vec<RgbImage>, EvalError> {
    let [n, _, height, width] = latents.dims();
    let n_px = (height * width * base.vae.config().factor().pow(2)).max(1);
    let at_once = (DECODED_PX / n_px).max(1);
    let mut pictures = Vec::with_capacity(n);
    for first in (0..n).step_by(at_once) {
        let part = latents.clone().narrow(0, first, at_once.min(n - first));
        pictures.extend(pictures_from_pixels(base.vae.pixels_from_latents(part))?);
    }
    Ok(pictures)
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
        recipes::SamplerKind::EulerAncestral => SamplerKind::EulerAncestral,
        recipes::SamplerKind::DpmPp2M { karras } => {
            SamplerKind::DpmPp2M { karras: matches!(karras, KarrasSigmas::On) }
        }
    }
}

/// The meaning of a base's `scheduler_config.json` for one algorithm.
///
/// Timesteps are spaced as `spacing` says, else as the file says; where both leave it open, the
/// algorithm's own default holds. On a schedule that ends without signal, trailing takes the place of
/// a leading spacing that nobody asked for, which would never visit that level.
///
/// Source: diffusers `SchedulerMixin.from_config`, but for the last rule.
///
/// # Errors
///
/// [`EvalError::Scheduler`] for a file that is none.
pub fn scheduler_config(
    file: &Value,
    kind: SamplerKind,
    spacing: Option<Spacing>,
) -> Result<SchedulerConfig, EvalError> {
    let config: SchedulerConfig =
        serde_json::from_value(file.clone()).map_err(EvalError::Scheduler)?;
    let asked = spacing.map(|spacing| match spacing {
        Spacing::Leading => TimestepSpacing::Leading,
        Spacing::Trailing => TimestepSpacing::Trailing,
        Spacing::Linspace => TimestepSpacing::Linspace,
    });
    if let Some(timestep_spacing) = asked {
        return Ok(SchedulerConfig { timestep_spacing, ..config });
    }
    if file.get("timestep_spacing").is_some_and(|spacing| !spacing.is_null()) {
        return Ok(config.reaching_the_last_level());
    }
    let class = match kind {
        SamplerKind::Ddim { .. } => SchedulerClass::Ddim,
        SamplerKind::Ddpm => SchedulerClass::Ddpm,
        SamplerKind::Euler => SchedulerClass::Euler,
        SamplerKind::EulerAncestral => SchedulerClass::EulerAncestral,
        SamplerKind::DpmPp2M { .. } => SchedulerClass::DpmSolverMultistep,
    };
    let timestep_spacing = SchedulerConfig::defaults(class).timestep_spacing;
    Ok(SchedulerConfig { timestep_spacing, ..config }.reaching_the_last_level())
}

/// The denoiser under one prompt: what it is told with and, where guidance acts, without it.
struct Guided<'a> {
    base: &'a Base,
    sampling: &'a Sampling,
    conditional: Conditioning,
    unconditional: Option<Conditioning>,
}

impl<'a> Guided<'a> {
    fn new(base: &'a Base, prompt: &Prompt, sampling: &'a Sampling) -> Result<Self, EvalError> {
        let sizes = [SizeConditions::whole([sampling.side_px; 2])];
        let unconditional = if guided(sampling.guidance_scale, prompt) {
            Some(base.conditioning(base.negative_states(&[""])?, &sizes))
        } else {
            None
        };
        let text = prompt.text.as_str();
        // Nothing asked for is what guidance is held against: of some bases zeros.
        let asked = if text.trim().is_empty() {
            base.negative_states(&[text])?
        } else {
            base.text_states(&[text])?
        };
        let conditional = base.conditioning(asked, &sizes);
        Ok(Self { base, sampling, conditional, unconditional })
    }

    fn output(&self, noisy: Tensor<4>, t: f64) -> Result<Tensor<4>, EvalError> {
        let Some(unconditional) = &self.unconditional else {
            let n = noisy.dims()[0];
            let times = self.base.timesteps(t, n);
            return Ok(self.base.denoise(noisy, times, &self.conditional.repeat(n))?);
        };
        let (without, with) = self.base.denoise_both(noisy, t, unconditional, &self.conditional)?;
        let guided = diffusion::guide(without, with.clone(), self.sampling.guidance_scale);
        Ok(diffusion::rescale_guidance(guided, with, self.sampling.guidance_rescale))
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
    let mut rest = adapter.modules.clone();
    for (component, network) in settled.adapted() {
        let (modules, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            rest.into_iter().partition(|(path, _)| path.split('.').next() == Some(component));
        adapter::attach(network, component, &Adapter { modules }, dose)?;
        rest = others;
    }
    match rest.into_keys().next() {
        None => Ok(settled),
        Some(module) => {
            let reason = "the base has no such layer".to_owned();
            Err(ModelError::Adapter { module, reason })
        }
    }
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
pub fn through_vae(pictures: &[RgbImage], base: &Base) -> Result<Vec<RgbImage>, EvalError> {
    let mut decoded = Vec::with_capacity(pictures.len());
    let area = pictures.first().map_or(1, |picture| picture.as_raw().len() / 3);
    for batch in pictures.chunks((BATCH_PX / area.max(1)).clamp(1, LARGEST_BATCH / 2)) {
        let posterior = base.vae.posterior_from_pixels(pixels_from_pictures(batch, base))?;
        decoded.extend(pictures_from_pixels(base.vae.pixels_from_unscaled(posterior.mean))?);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use checkpoints::{Family, HostTensor};
    use models::Device;
    use models::adapter::Factors;

    use super::*;
    use crate::panel::Stratum;

    /// The tiny base of a family.
    fn tiny(family: Family) -> Base {
        let dir = tempfile::tempdir().unwrap();
        models::tiny::family_base(dir.path(), family, 3, &Device::flex()).unwrap()
    }

    fn sampling(base: &Base, guidance_rescale: f64) -> Sampling {
        let kind = SamplerKind::Ddim { eta: 0.0 };
        Sampling {
            seed: 1,
            kind,
            steps: 3,
            guidance_scale: 3.0,
            guidance_rescale,
            scheduler: scheduler_config(&base.scheduler, kind, None).unwrap(),
            side_px: 64,
        }
    }

    /// The bytes of one picture.
    fn drawn(base: &Base, text: &str, guidance_rescale: f64) -> Vec<u8> {
        let prompt = Prompt::new(Stratum::Medium, text, None);
        let stop = AtomicBool::new(false);
        let pictures = sampling(base, guidance_rescale).draw(base, &prompt, &[0], &stop).unwrap();
        pictures[0].as_raw().clone()
    }

    /// A module of rank 1 on one layer of a base, every value of it drawn.
    fn module(base: &Base, end: &str) -> Adapter {
        let layers = adapter::base_layers(base);
        let layer = layers.iter().find(|layer| layer.path.ends_with(end)).unwrap();
        let drawn = |shape: [usize; 2]| {
            let mut stream = draws::keyed(1, &format!("{end} {shape:?}"));
            HostTensor::from_f32(shape, draws::normals(&mut stream, shape[0] * shape[1]))
        };
        let (down, up) = (drawn([1, layer.weight[1]]), drawn([layer.weight[0], 1]));
        Adapter {
            modules: BTreeMap::from([(layer.path.clone(), Factors { down, up, alpha: 1.0 })]),
        }
    }

    #[test]
    fn sdxl_draws_the_empty_prompt_from_what_guidance_is_held_against() {
        let zeros = tiny(Family::Sdxl);
        assert!(zeros.force_zeros_for_empty_prompt);
        let encoded = Base { force_zeros_for_empty_prompt: false, ..zeros.clone() };
        assert_ne!(drawn(&zeros, "", 0.0), drawn(&encoded, "", 0.0));
        // Under words the two differ in guidance alone.
        assert_ne!(drawn(&zeros, "a boat", 0.0), drawn(&encoded, "a boat", 0.0));
        let unguided = |base: &Base| {
            let prompt = Prompt::new(Stratum::Medium, "a boat", None);
            let sampling = Sampling { guidance_scale: 1.0, ..sampling(base, 0.0) };
            let stop = AtomicBool::new(false);
            sampling.draw(base, &prompt, &[0], &stop).unwrap()[0].as_raw().clone()
        };
        assert_eq!(unguided(&zeros), unguided(&encoded));
    }

    #[test]
    fn rescaled_guidance_draws_another_picture_and_none_of_the_empty_prompt() {
        let base = tiny(Family::Sd2);
        assert_ne!(drawn(&base, "a boat", 0.0), drawn(&base, "a boat", 0.7));
        assert_eq!(drawn(&base, "", 0.0), drawn(&base, "", 0.7));
    }

    #[test]
    fn an_adapter_settles_in_every_network_that_it_names() {
        let base = tiny(Family::Sdxl);
        let pooled = |base: &Base| {
            host_values(base.text_states(&["a boat"]).unwrap().pooled.unwrap()).unwrap()
        };
        let second = module(&base, "text_encoder_2.text_projection");
        assert_ne!(pooled(&settled(&base, &second, 1.0).unwrap()), pooled(&base));
        assert_eq!(pooled(&settled(&base, &second, 0.0).unwrap()), pooled(&base));
        let states =
            |base: &Base| host_values(base.text_states(&["a boat"]).unwrap().states).unwrap();
        let first = module(&base, "text_encoder.text_model.encoder.layers.0.mlp.fc1");
        let settled_first = settled(&base, &first, 1.0).unwrap();
        assert_ne!(states(&settled_first), states(&base));
        assert_eq!(pooled(&settled_first), pooled(&base));
    }

    #[test]
    fn a_module_of_a_network_that_the_base_lacks_is_refused() {
        let (sdxl, postcards) = (tiny(Family::Sdxl), tiny(Family::Postcards));
        let second = module(&sdxl, "text_encoder_2.text_projection");
        let error = settled(&postcards, &second, 1.0).unwrap_err().to_string();
        assert!(error.contains("text_encoder_2.text_projection"), "{error}");
        assert!(error.contains("no such layer"), "{error}");
    }

    #[test]
    fn every_prompt_and_seed_has_its_own_stream() {
        assert_eq!(place("empty/empty", 3), place("empty/empty", 3));
        assert_ne!(place("empty/empty", 3), place("empty/empty", 4));
        assert_ne!(place("empty/empty", 3), place("medium/a-card", 3));
    }

    #[test]
    fn an_open_spacing_follows_the_algorithm_that_samples() {
        let file = serde_json::json!({ "_class_name": "PNDMScheduler" });
        let spacing = |file: &Value, kind, asked| {
            scheduler_config(file, kind, asked).unwrap().timestep_spacing
        };
        let leading = TimestepSpacing::Leading;
        assert_eq!(spacing(&file, SamplerKind::Ddim { eta: 0.0 }, None), leading);
        assert_eq!(spacing(&file, SamplerKind::Euler, None), TimestepSpacing::Linspace);
        let closed =
            serde_json::json!({ "_class_name": "PNDMScheduler", "timestep_spacing": "leading" });
        assert_eq!(spacing(&closed, SamplerKind::Euler, None), leading);
        let trailing = Some(Spacing::Trailing);
        assert_eq!(spacing(&closed, SamplerKind::Euler, trailing), TimestepSpacing::Trailing);
        assert_eq!(spacing(&file, SamplerKind::Euler, Some(Spacing::Leading)), leading);
    }

    #[test]
    fn a_schedule_without_terminal_signal_is_visited_to_its_end_unless_told_otherwise() {
        let spacing = |spacing: &str, asked| {
            let file = serde_json::json!({
                "_class_name": "DDIMScheduler", "timestep_spacing": spacing,
                "prediction_type": "v_prediction", "rescale_betas_zero_snr": true,
            });
            scheduler_config(&file, SamplerKind::Ddpm, asked).unwrap().timestep_spacing
        };
        assert_eq!(spacing("leading", None), TimestepSpacing::Trailing);
        assert_eq!(spacing("linspace", None), TimestepSpacing::Linspace);
        assert_eq!(spacing("trailing", Some(Spacing::Leading)), TimestepSpacing::Leading);
    }

    #[test]
    fn bytes_cover_the_range_and_clamp() {
        assert_eq!([-1.0, -2.0, 1.0, 3.0, 0.0].map(byte), [0, 0, 255, 255, 128]);
    }
}
