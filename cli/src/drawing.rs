//! Pictures that a user asks for, and previews: one prompt, several starts.

use std::sync::atomic::{AtomicBool, Ordering};

use diffusion::{Sampler, SamplerKind};
use eval::sample::{pictures_from_pixels, scheduler_config};
use image::RgbImage;
use models::base::tensor_from_host;
use models::{Base, Tensor};
use recipes::draws::{self, Purpose};

use crate::error::JobError;

/// Pictures per forward pass.
const BATCH: usize = 8;

/// What is drawn and how.
#[derive(Debug, Clone)]
pub(crate) struct Drawing<'a> {
    /// What to draw.
    pub(crate) prompt: &'a str,
    /// What not to draw; takes the place of the empty prompt in guidance.
    pub(crate) negative: &'a str,
    /// The algorithm.
    pub(crate) sampler: SamplerKind,
    /// Denoising steps.
    pub(crate) steps: usize,
    /// Guidance weight w; 1 is without guidance.
    pub(crate) guidance_scale: f64,
    /// `[channels, height, width]` of the latents.
    pub(crate) latent_shape: [usize; 3],
}

/// Where one picture begins.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// Unit normal latents, row-major.
    pub(crate) latents: Vec<f32>,
    /// Seed of the step noise.
    pub(crate) seed: u64,
}

impl Start {
    /// The start of a seed; previews and asked-for pictures have different ones.
    pub(crate) fn of_seed(seed: u64, latent_shape: [usize; 3], purpose: Purpose) -> Self {
        let n_values = latent_shape.iter().product();
        let mut stream = draws::stream(seed, 0, 0, purpose);
        Self { latents: draws::normals(&mut stream, n_values), seed }
    }
}

/// Draws one picture per start. After a request to stop, those that were finished.
///
/// `drawn` is told the number of finished pictures after each batch.
///
/// # Errors
///
/// A schedule, sampler or prompt that the base cannot use; a fault of the device.
pub(crate) fn draw(
    base: &Base,
    drawing: &Drawing<'_>,
    starts: &[Start],
    stop: &AtomicBool,
    drawn: &mut dyn FnMut(usize),
) -> Result<Vec<RgbImage>, JobError> {
    let config = scheduler_config(&base.scheduler, drawing.sampler)?;
    let mut sampler = Sampler::new(drawing.sampler, &config, drawing.steps)?;
    let guided = Guided::new(base, drawing)?;
    let mut pictures = Vec::with_capacity(starts.len());
    for batch in starts.chunks(BATCH) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let [channels, height, width] = drawing.latent_shape;
        let shape = [batch.len(), channels, height, width];
        let values = batch.iter().flat_map(|start| start.latents.iter().copied()).collect();
        let start = tensor_from_host(values, shape, &base.device);
        let mut noise = |step_idx: usize| {
            let of_start = |start: &Start| {
                let mut stream =
                    draws::stream(start.seed, step_idx as u64, 0, Purpose::SamplerStep);
                draws::normals(&mut stream, channels * height * width)
            };
            tensor_from_host(batch.iter().flat_map(of_start).collect(), shape, &base.device)
        };
        let mut denoise = |noisy: Tensor<4>, t: f64| guided.output(base, noisy, t);
        let latents = diffusion::sample(&mut sampler, start, &mut denoise, &mut noise)?;
        let pixels = base.vae.pixels_from_latents(latents);
        pictures.extend(pictures_from_pixels(pixels)?);
        drawn(pictures.len());
    }
    Ok(pictures)
}

/// Text states of the prompt and, with guidance, of what it is held against.
struct Guided {
    conditional: Tensor<3>,
    unconditional: Option<Tensor<3>>,
    guidance_scale: f64,
}

impl Guided {
    #[expect(clippy::float_cmp, reason = "exactly 1 means no guidance")]
    fn new(base: &Base, drawing: &Drawing<'_>) -> Result<Self, JobError> {
        let unconditional = if drawing.guidance_scale == 1.0 {
            None
        } else {
            Some(base.text_states(&[drawing.negative])?)
        };
        Ok(Self {
            conditional: base.text_states(&[drawing.prompt])?,
            unconditional,
            guidance_scale: drawing.guidance_scale,
        })
    }

    fn output(&self, base: &Base, noisy: Tensor<4>, t: f64) -> Result<Tensor<4>, JobError> {
        let n_pictures = noisy.dims()[0];
        let conditional = self.conditional.clone().repeat_dim(0, n_pictures);
        let Some(unconditional) = &self.unconditional else {
            let timesteps = base.timesteps(t, n_pictures);
            return Ok(base.unet.forward(noisy, timesteps, &conditional, None)?);
        };
        let unconditional = unconditional.clone().repeat_dim(0, n_pictures);
        let context = Tensor::cat(vec![unconditional, conditional], 0);
        let both = noisy.repeat_dim(0, 2);
        let output = base.unet.forward(both, base.timesteps(t, 2 * n_pictures), &context, None)?;
        let half = |index: usize| output.clone().narrow(0, index * n_pictures, n_pictures);
        Ok(diffusion::guide(half(0), half(1), self.guidance_scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_belongs_to_its_seed_and_its_purpose() {
        let start = |seed, purpose| Start::of_seed(seed, [2, 2, 2], purpose).latents;
        assert_eq!(start(1, Purpose::Generate), start(1, Purpose::Generate));
        assert_ne!(start(1, Purpose::Generate), start(2, Purpose::Generate));
        assert_ne!(start(1, Purpose::Generate), start(1, Purpose::Preview));
    }
}
