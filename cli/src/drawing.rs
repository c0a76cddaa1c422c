//! Pictures that a user asks for, and previews: one prompt, several starts.

use std::sync::atomic::{AtomicBool, Ordering};

use diffusion::{Moment, Sampler, SamplerKind};
use eval::sample::{pictures_from_pixels, scheduler_config};
use image::RgbImage;
use models::base::{host_values, tensor_from_host};
use models::vae::Tiling;
use models::{Base, Conditioning, SizeConditions, Tensor};
use recipes::Spacing;
use recipes::draws::{self, Purpose};

use crate::error::JobError;

/// Most pictures of a forward pass: more make a small picture no faster.
const LARGEST_BATCH: usize = 8;
/// Pixels of a forward pass, all its pictures together. A processor is busy with one picture of
/// 512 px; a GPU wants more, and has less memory to lose.
const BATCH_PX: [(&str, usize); 2] = [("cpu", 1 << 18), ("gpu", 1 << 20)];
/// Pixels that the VAE decodes at once, whole pictures: it needs some 4 KiB for each.
const DECODE_PX: usize = 1 << 18;
/// Pixels above which a picture is decoded in tiles, if nobody decides otherwise: a whole one would
/// take more than 4 GiB.
const TILING_PX: usize = 1 << 20;
/// Side of a tile.
const TILE_PX: usize = 512;

/// What is drawn and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawing<'a> {
    /// What to draw.
    pub(crate) prompt: &'a str,
    /// What not to draw; takes the place of the empty prompt in guidance.
    pub(crate) negative: &'a str,
    /// How.
    pub(crate) method: Method,
}

/// How pictures are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method {
    /// The algorithm.
    pub(crate) sampler: SamplerKind,
    /// Which timesteps it visits; `None` leaves it to the base.
    pub(crate) spacing: Option<Spacing>,
    /// Denoising steps.
    pub(crate) steps: usize,
    /// Guidance weight w; 1 is without guidance.
    pub(crate) guidance_scale: f64,
    /// How far guidance is brought back to the deviation of the conditional output, in [0, 1].
    pub(crate) guidance_rescale: f64,
    /// Share of the steps that is taken by starts that hold a picture, in (0, 1].
    pub(crate) strength: f64,
    /// Size of the pictures (`target`), and what SDXL is told about it.
    pub(crate) sizes: SizeConditions,
    /// `[channels, height, width]` of the latents.
    pub(crate) latent_shape: [usize; 3],
    /// Whether the VAE works in tiles.
    pub(crate) tiles: Tiles,
    /// Pictures per forward pass; `None`: by their size.
    pub(crate) batch: Option<usize>,
}

/// When the VAE works in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tiles {
    /// For large pictures.
    Auto,
    /// For all that are larger than a tile.
    Always,
    /// Never.
    Never,
}

/// Where one picture begins.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// Unit normal latents, row-major.
    pub(crate) noise: Vec<f32>,
    /// Latents of the picture that is noised and drawn anew, row-major.
    pub(crate) clean: Option<Vec<f32>>,
    /// The noise that is added on the way.
    pub(crate) step_noise: StepNoise,
}

/// The noise that samplers add after a step.
#[derive(Debug, Clone)]
pub(crate) enum StepNoise {
    /// That of a seed.
    Seed(u64),
    /// Unit normal latents, one after the other for each step that is taken; with those of the last
    /// step, DDIM adds noise there, too.
    Given(Vec<f32>),
}

/// Who is told what happens while pictures are drawn.
pub(crate) trait Audience {
    /// All pictures of a batch have taken a step.
    fn stepped(&mut self, moment: &Moment<'_>);

    /// A picture is finished; they come in the order of their starts.
    ///
    /// # Errors
    ///
    /// Whatever keeps the audience from taking it; the drawing ends.
    fn finished(&mut self, picture: RgbImage) -> Result<(), JobError>;
}

/// Keeps the pictures and nothing else.
impl Audience for Vec<RgbImage> {
    fn stepped(&mut self, _moment: &Moment<'_>) {}

    fn finished(&mut self, picture: RgbImage) -> Result<(), JobError> {
        self.push(picture);
        Ok(())
    }
}

impl Start {
    /// The start of a seed in pure noise; previews and asked-for pictures have different ones.
    pub(crate) fn of_seed(seed: u64, latent_shape: [usize; 3], purpose: Purpose) -> Self {
        let n_values = latent_shape.iter().product();
        let mut stream = draws::stream(seed, 0, 0, purpose);
        let noise = draws::normals(&mut stream, n_values);
        Self { noise, clean: None, step_noise: StepNoise::Seed(seed) }
    }

    /// Unit normal noise for a step, of which this is the `nth` that is taken.
    fn step_noise(&self, step_idx: usize, nth: usize, n_values: usize) -> Vec<f32> {
        match &self.step_noise {
            StepNoise::Seed(seed) => {
                let mut stream = draws::stream(*seed, step_idx as u64, 0, Purpose::SamplerStep);
                draws::normals(&mut stream, n_values)
            }
            StepNoise::Given(values) => {
                values.iter().copied().skip(nth * n_values).take(n_values).collect()
            }
        }
    }
}

impl Method {
    /// The steps of this method on a base.
    ///
    /// # Errors
    ///
    /// A noise schedule that the base's files describe wrongly, or a number of steps that is none.
    pub(crate) fn sampler(&self, base: &Base) -> Result<Sampler, JobError> {
        let config = scheduler_config(&base.scheduler, self.sampler, self.spacing)?;
        Ok(Sampler::new(self.sampler, &config, self.steps)?)
    }

    /// The same for these starts, with noise after the last step if all of them hold some for it.
    fn sampler_for(&self, base: &Base, starts: &[Start]) -> Result<Sampler, JobError> {
        let sampler = self.sampler(base)?;
        let n_values: usize = self.latent_shape.iter().product();
        let holds_last = |start: &Start| match &start.step_noise {
            StepNoise::Seed(_) => false,
            StepNoise::Given(values) => {
                let first = start.clean.as_ref().map_or(0, |_| sampler.first_step(self.strength));
                values.len() == (sampler.len() - first) * n_values
            }
        };
        let all = starts.iter().all(holds_last);
        Ok(if all { sampler.with_last_noise() } else { sampler })
    }

    /// Pictures of a forward pass.
    fn per_batch(&self, base: &Base) -> usize {
        let fitting = || {
            let kind = base.device_kind();
            let of_kind = BATCH_PX.iter().find(|(name, _)| *name == kind);
            let n_px = of_kind.map_or(0, |(_, n_px)| *n_px);
            (n_px / self.n_px().max(1)).clamp(1, LARGEST_BATCH)
        };
        self.batch.unwrap_or_else(fitting).max(1)
    }

    /// Pixels of a picture.
    fn n_px(&self) -> usize {
        self.sizes.target.iter().product()
    }

    /// The tiles in which the VAE decodes, if it does not decode pictures whole.
    fn tiling(&self) -> Option<Tiling> {
        let wanted = match self.tiles {
            Tiles::Auto => self.n_px() > TILING_PX,
            Tiles::Always => self.sizes.target.iter().any(|&side_px| side_px > TILE_PX),
            Tiles::Never => false,
        };
        wanted.then_some(Tiling { tile_px: TILE_PX })
    }

    /// Pictures from scaled latents, as many at a time as there is memory for.
    ///
    /// # Shapes
    ///
    /// - `latents`: `[batch, channels, height, width]`
    ///
    /// # Errors
    ///
    /// Latents that are not finite; a fault of the device.
    pub(crate) fn pictures_from_latents(
        &self,
        base: &Base,
        latents: &Tensor<4>,
    ) -> Result<Vec<RgbImage>, JobError> {
        if !host_values(latents.clone())?.iter().all(|value| value.is_finite()) {
            // A picture of them would be black, and nobody would know why.
            return Err(JobError::Data {
                message: "the network's output is not finite: there is no picture".to_owned(),
                hint: Some(
                    "weights or an adapter overflow; a smaller dose or guidance weight may help"
                        .to_owned(),
                ),
            });
        }
        let tiling = self.tiling();
        let n_pictures = latents.dims()[0];
        let at_once = (DECODE_PX / self.n_px().max(1)).max(1);
        let mut pictures = Vec::with_capacity(n_pictures);
        for first in (0..n_pictures).step_by(at_once) {
            let part = latents.clone().narrow(0, first, at_once.min(n_pictures - first));
            let pixels = match tiling {
                Some(tiling) => base.vae.pixels_from_latents_tiled(part, tiling),
                None => base.vae.pixels_from_latents(part),
            };
            pictures.extend(pictures_from_pixels(pixels)?);
        }
        Ok(pictures)
    }
}

/// Draws one picture per start. After a request to stop, which is looked for before every step,
/// those that were finished.
///
/// # Errors
///
/// A schedule, sampler or prompt that the base cannot use; a fault of the device or the audience.
pub(crate) fn draw(
    base: &Base,
    drawing: &Drawing<'_>,
    starts: &[Start],
    stop: &AtomicBool,
    audience: &mut dyn Audience,
) -> Result<(), JobError> {
    let mut easel = Easel {
        base,
        method: drawing.method,
        sampler: drawing.method.sampler_for(base, starts)?,
        guided: Guided::new(base, drawing)?,
        stop,
    };
    for batch in starts.chunks(drawing.method.per_batch(base)) {
        let latents = match easel.latents(batch, audience) {
            Ok(latents) => latents,
            Err(Halt::Stopped) => break,
            Err(Halt::Failed(error)) => return Err(*error),
        };
        for picture in drawing.method.pictures_from_latents(base, &latents)? {
            audience.finished(picture)?;
        }
    }
    Ok(())
}

/// Why a batch ended before its last step.
enum Halt {
    Stopped,
    Failed(Box<JobError>),
}

/// All that a batch needs.
struct Easel<'a> {
    base: &'a Base,
    method: Method,
    sampler: Sampler,
    guided: Guided,
    stop: &'a AtomicBool,
}

impl Easel<'_> {
    /// The clean latents of a batch.
    fn latents(&mut self, batch: &[Start], audience: &mut dyn Audience) -> Result<Tensor<4>, Halt> {
        let (base, method, stop) = (self.base, self.method, self.stop);
        let Self { sampler, guided, .. } = self;
        let [channels, height, width] = method.latent_shape;
        let shape = [batch.len(), channels, height, width];
        let tensor = |values: Vec<f32>| tensor_from_host(values, shape, &base.device);
        let start = tensor(batch.iter().flat_map(|start| start.noise.iter().copied()).collect());
        let pictures: Option<Vec<&[f32]>> =
            batch.iter().map(|start| start.clean.as_deref()).collect();
        let first = pictures.as_ref().map_or(0, |_| sampler.first_step(method.strength));
        let mut denoise = |noisy: Tensor<4>, t: f64| {
            if stop.load(Ordering::Relaxed) {
                return Err(Halt::Stopped);
            }
            guided.output(base, noisy, t).map_err(|error| Halt::Failed(Box::new(error)))
        };
        let mut noise = |step_idx: usize| {
            let n_values = channels * height * width;
            let row = |start: &Start| start.step_noise(step_idx, step_idx - first, n_values);
            tensor(batch.iter().flat_map(row).collect())
        };
        let mut watch = |moment: &Moment<'_>| audience.stepped(moment);
        match pictures {
            None => diffusion::sample_watched(sampler, start, &mut denoise, &mut noise, &mut watch),
            Some(rows) => {
                let noised = sampler.noised(tensor(rows.concat()), start, first);
                diffusion::sample_from(sampler, first, noised, &mut denoise, &mut noise, &mut watch)
            }
        }
    }
}

/// The prompt and, with guidance, what it is held against.
struct Guided {
    conditional: Conditioning,
    unconditional: Option<Conditioning>,
    scale: f64,
    rescale: f64,
}

impl Guided {
    #[expect(clippy::float_cmp, reason = "exactly 1 means no guidance")]
    fn new(base: &Base, drawing: &Drawing<'_>) -> Result<Self, JobError> {
        let Method { guidance_scale: scale, guidance_rescale: rescale, sizes, .. } = drawing.method;
        let unconditional = if scale == 1.0 {
            None
        } else {
            Some(base.conditioning(base.negative_states(&[drawing.negative])?, &[sizes]))
        };
        let conditional = base.conditioning(base.text_states(&[drawing.prompt])?, &[sizes]);
        Ok(Self { conditional, unconditional, scale, rescale })
    }

    fn output(&self, base: &Base, noisy: Tensor<4>, t: f64) -> Result<Tensor<4>, JobError> {
        let Some(unconditional) = &self.unconditional else {
            let n_pictures = noisy.dims()[0];
            let timesteps = base.timesteps(t, n_pictures);
            return Ok(base.denoise(noisy, timesteps, &self.conditional.repeat(n_pictures))?);
        };
        let (without, with) = base.denoise_both(noisy, t, unconditional, &self.conditional)?;
        let guided = diffusion::guide(without, with.clone(), self.scale);
        Ok(diffusion::rescale_guidance(guided, with, self.rescale))
    }
}

#[cfg(test)]
mod tests {
    use models::Device;
    use models::tiny;

    use super::*;

    fn base() -> Base {
        let dir = tempfile::tempdir().unwrap();
        tiny::base(dir.path(), 5, &Device::flex()).unwrap()
    }

    fn method(base: &Base) -> Method {
        let size_px = [tiny::SIDE_PX; 2];
        Method {
            sampler: SamplerKind::EulerAncestral,
            spacing: None,
            steps: 4,
            guidance_scale: 3.0,
            guidance_rescale: 0.0,
            strength: 0.5,
            sizes: SizeConditions::whole(size_px),
            latent_shape: base.latent_shape(size_px).unwrap(),
            tiles: Tiles::Auto,
            batch: None,
        }
    }

    fn drawn(base: &Base, method: Method, starts: &[Start]) -> Vec<RgbImage> {
        let mut pictures: Vec<RgbImage> = Vec::new();
        let drawing = Drawing { prompt: "a boat", negative: "", method };
        draw(base, &drawing, starts, &AtomicBool::new(false), &mut pictures).unwrap();
        pictures
    }

    #[test]
    fn a_start_belongs_to_its_seed_and_its_purpose() {
        let start = |seed, purpose| Start::of_seed(seed, [2, 2, 2], purpose).noise;
        assert_eq!(start(1, Purpose::Generate), start(1, Purpose::Generate));
        assert_ne!(start(1, Purpose::Generate), start(2, Purpose::Generate));
        assert_ne!(start(1, Purpose::Generate), start(1, Purpose::Preview));
    }

    #[test]
    fn given_step_noise_is_taken_in_order_and_replaces_that_of_the_seed() {
        let base = base();
        let method = method(&base);
        let n_values: usize = method.latent_shape.iter().product();
        let seeded = Start::of_seed(3, method.latent_shape, Purpose::Generate);
        let noise_of = |step: usize| seeded.step_noise(step, 0, n_values);
        let given = |steps: &[usize]| Start {
            step_noise: StepNoise::Given(steps.iter().flat_map(|&step| noise_of(step)).collect()),
            ..seeded.clone()
        };
        let expected = drawn(&base, method, std::slice::from_ref(&seeded));
        assert_eq!(drawn(&base, method, &[given(&[0, 1, 2, 3])]), expected);
        assert_ne!(drawn(&base, method, &[given(&[1, 0, 2, 3])]), expected);
        // From the middle on, the first entry belongs to the first step that is taken.
        let clean = Some(vec![0.5; n_values]);
        let expected = drawn(&base, method, &[Start { clean: clean.clone(), ..seeded.clone() }]);
        let later = Start { clean, ..given(&[2, 3]) };
        assert_eq!(drawn(&base, method, &[later]), expected);
        // DDIM adds noise after the last step only where a start brings it.
        let method = Method { sampler: SamplerKind::Ddim { eta: 1.0 }, ..method };
        let expected = drawn(&base, method, std::slice::from_ref(&seeded));
        assert_eq!(drawn(&base, method, &[given(&[0, 1, 2])]), expected);
        assert_ne!(drawn(&base, method, &[given(&[0, 1, 2, 3])]), expected);
        assert_eq!(drawn(&base, method, &[given(&[0, 1, 2, 3]), seeded.clone()])[0], expected[0]);
    }

    #[test]
    fn the_company_of_a_picture_does_not_change_it() {
        let base = base();
        let method = method(&base);
        let start = |seed| Start::of_seed(seed, method.latent_shape, Purpose::Generate);
        let starts: Vec<Start> = (0..3).map(start).collect();
        let together = drawn(&base, method, &starts);
        let alone = drawn(&base, Method { batch: Some(1), ..method }, &starts);
        assert_eq!(together.len(), 3);
        assert_eq!(together, alone);
        assert_ne!(together[0], together[1]);
    }

    #[test]
    fn a_request_to_stop_keeps_what_is_finished() {
        struct StopAfterOne<'a>(&'a AtomicBool, usize);
        impl Audience for StopAfterOne<'_> {
            fn stepped(&mut self, _moment: &Moment<'_>) {}
            fn finished(&mut self, _picture: RgbImage) -> Result<(), JobError> {
                self.1 += 1;
                self.0.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
        let base = base();
        let method = Method { batch: Some(1), ..method(&base) };
        let start = |seed| Start::of_seed(seed, method.latent_shape, Purpose::Generate);
        let drawing = Drawing { prompt: "", negative: "", method };
        let stop = AtomicBool::new(false);
        let mut audience = StopAfterOne(&stop, 0);
        draw(&base, &drawing, &[start(0), start(1)], &stop, &mut audience).unwrap();
        assert_eq!(audience.1, 1);
    }

    #[test]
    fn guidance_and_its_rescaling_change_the_picture() {
        let base = base();
        let method = method(&base);
        let starts = [Start::of_seed(0, method.latent_shape, Purpose::Generate)];
        let of = |scale, rescale| {
            let changed = Method { guidance_scale: scale, guidance_rescale: rescale, ..method };
            drawn(&base, changed, &starts)
        };
        let plain = of(1.0, 0.0);
        assert_eq!(of(1.0, 0.7), plain, "without guidance there is nothing to bring back");
        assert_ne!(of(7.5, 0.0), plain);
        assert_ne!(of(7.5, 0.7), of(7.5, 0.0));
    }

    #[test]
    fn large_pictures_are_drawn_one_by_one_and_decoded_in_tiles() {
        let base = base();
        let sized =
            |side_px| Method { sizes: SizeConditions::whole([side_px; 2]), ..method(&base) };
        let of = |side_px, tiles| {
            let method = Method { tiles, ..sized(side_px) };
            (method.per_batch(&base), method.tiling().map(|tiling| tiling.tile_px))
        };
        assert_eq!(of(64, Tiles::Auto), (8, None));
        assert_eq!(of(512, Tiles::Always), (1, None));
        assert_eq!(of(768, Tiles::Always), (1, Some(512)));
        assert_eq!(of(1024, Tiles::Auto), (1, None));
        assert_eq!(of(1088, Tiles::Auto), (1, Some(512)));
        assert_eq!(of(2048, Tiles::Never), (1, None));
        assert_eq!(Method { batch: Some(5), ..sized(512) }.per_batch(&base), 5);
    }
}
