//! Pictures of the class, drawn by the base itself, so that training can hold the class in place.
//!
//! They lie in a folder whose name says how they were drawn; one that is there is never drawn again.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use checkpoints::{Watch, hash};
use datasets::{Bucket, Dataset, Example, Mirror, Role};
use diffusion::{Sampler, SamplerKind, SchedulerConfig};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use models::base::{Precision, host_values, tensor_from_host};
use models::{Base, Conditioning, SizeConditions};
use rayon::prelude::*;
use recipes::{ImageSpec, draws};
use serde_json::{Value, json};

use crate::error::TrainError;
use crate::event::Event;
use crate::objective::scheduler_config;

/// Steps of DDIM without step noise: enough for pictures that only stand for a class.
const STEPS: usize = 20;
/// Their noise does not follow the seed of a run, so that runs share them.
const SEED: u64 = 0;
/// Pixels of the pictures of one forward pass, all together; more pictures than [`BATCH`] never.
const BATCH_PX: usize = 16 * 64 * 64;
/// Most pictures per forward pass.
const BATCH: usize = 16;

/// What class pictures show and where they are kept.
#[derive(Clone, Debug)]
pub struct ClassImages<'a> {
    /// Folder below which they are kept.
    pub cache_dir: &'a Path,
    /// The prompt, and the caption of all of them.
    pub prompt: &'a str,
    /// How many.
    pub count: usize,
    /// What is done to every picture of the dataset; gives the side.
    pub images: ImageSpec,
    /// Guidance weight.
    pub guidance_scale: f64,
    /// Rescaling of guidance, 0 for none.
    pub guidance_rescale: f64,
}

impl ClassImages<'_> {
    /// `dataset` with the pictures as examples of the class; those that are not there yet are drawn.
    /// `None` if a stop was requested; what was drawn until then stays.
    ///
    /// # Errors
    ///
    /// A schedule that is not supported, a fault of the device, or a file that cannot be written.
    pub fn added_to(
        &self,
        dataset: &Dataset,
        base: &Base,
        watch: &mut Watch<'_, Event>,
    ) -> Result<Option<Dataset>, TrainError> {
        let dir = self.dir(base)?;
        let paths: Vec<PathBuf> =
            (0..self.count).map(|index| dir.join(format!("{index:05}.png"))).collect();
        let side_px = self.images.side_px;
        let usable = |path: &Path| {
            image::image_dimensions(path).is_ok_and(|found| found == (side_px, side_px))
                && datasets::pixels(path, &self.images, Mirror::No).is_ok()
        };
        let missing: Vec<usize> =
            (0..self.count).into_par_iter().filter(|&index| !usable(&paths[index])).collect();
        let mut done = self.count - missing.len();
        watch.tell(&Event::ClassImages { done, total: self.count });
        let side = side_px as usize;
        for batch in missing.chunks((BATCH_PX / (side * side).max(1)).clamp(1, BATCH)) {
            let Some(pictures) = self.draw(base, batch, watch)? else { return Ok(None) };
            for (&index, picture) in batch.iter().zip(pictures) {
                checkpoints::fs::atomic_write(&paths[index], &png(&picture, &paths[index])?)?;
            }
            done += batch.len();
            watch.tell(&Event::ClassImages { done, total: self.count });
        }
        let mut dataset = dataset.clone();
        let examples: Vec<_> = paths
            .into_par_iter()
            .enumerate()
            .map(|(index, path)| self.example(index, path))
            .collect();
        for example in examples {
            dataset.examples.push(example?);
        }
        Ok(Some(dataset))
    }

    fn example(&self, index: usize, path: PathBuf) -> Result<Example, TrainError> {
        let side = self.images.side_px;
        Ok(Example {
            id: format!("{index:05}"),
            sha256: hash::file_sha256(&path)?.0,
            path,
            caption: self.prompt.to_owned(),
            role: Role::Class,
            width: side,
            height: side,
            bucket: Bucket { width: side, height: side },
        })
    }

    /// How the pictures are drawn: whatever they depend on.
    fn how(&self, base: &Base) -> Result<Value, TrainError> {
        let mut how = json!({
            "version": 1, "base": base.hashes, "prompt": self.prompt, "negative_prompt": "", "seed": SEED,
            "sampler": { "ddim": { "steps": STEPS, "eta": 0.0 } }, "guidance_scale": self.guidance_scale,
            "side_px": self.images.side_px, "device": base.device_kind(),
        });
        // What is usual is not said, so that pictures drawn before it could be otherwise are found.
        let stated = scheduler_config(&base.scheduler)?;
        for (key, value, usual) in [
            ("guidance_rescale", json!(self.guidance_rescale), self.guidance_rescale == 0.0),
            ("clip_skip", json!(base.clip_skip), base.clip_skip <= 1),
            ("empty_prompt", json!("zeros"), !base.force_zeros_for_empty_prompt),
            ("precision", json!(base.precision.name()), base.precision == Precision::F32),
            ("spacing", json!("trailing"), schedule(base)? == stated),
        ] {
            if !usual {
                how[key] = value;
            }
        }
        Ok(how)
    }

    /// The folder of pictures drawn exactly so; writes down how.
    fn dir(&self, base: &Base) -> Result<PathBuf, TrainError> {
        let how = self.how(base)?;
        let key = hash::bytes_sha256(how.to_string().as_bytes());
        let dir = self.cache_dir.join("class-images").join(&key[..16]);
        let about = dir.join("about.json");
        if !about.is_file() {
            checkpoints::fs::atomic_write_json(&about, &how)?;
        }
        Ok(dir)
    }

    /// Draws the pictures of these indices; nothing if a stop is requested before the last step.
    fn draw(
        &self,
        base: &Base,
        indices: &[usize],
        watch: &Watch<'_, Event>,
    ) -> Result<Option<Vec<RgbImage>>, TrainError> {
        let kind = SamplerKind::Ddim { eta: 0.0 };
        let mut sampler = Sampler::new(kind, &schedule(base)?, STEPS)?;
        let [channels, height, width] = base.latent_shape([self.images.side_px as usize; 2])?;
        let n_values = channels * height * width;
        let noise: Vec<f32> = indices
            .iter()
            .flat_map(|&index| {
                let mut stream = draws::stream(SEED, 0, index as u64, draws::Purpose::ClassImage);
                draws::normals(&mut stream, n_values)
            })
            .collect();
        let n_pictures = indices.len();
        let start = tensor_from_host(noise, [n_pictures, channels, height, width], &base.device);
        let guided = Guided::new(base, self)?;
        let mut denoise = |noisy: Tensor<4>, t: f64| {
            if watch.stop_requested() {
                return Err(Undrawn::Stopped);
            }
            guided.output(base, noisy, t).map_err(Undrawn::Failed)
        };
        let drawn = diffusion::sample(&mut sampler, start.clone(), &mut denoise, &mut |_| {
            start.zeros_like()
        });
        match drawn {
            Ok(latents) => Ok(Some(images_from_pixels(base.vae.pixels_from_latents(latents))?)),
            Err(Undrawn::Stopped) => Ok(None),
            Err(Undrawn::Failed(error)) => Err(error),
        }
    }
}

/// Why a picture was not drawn to its end.
enum Undrawn {
    Stopped,
    Failed(TrainError),
}

/// The base's schedule, visited up to its last level.
fn schedule(base: &Base) -> Result<SchedulerConfig, TrainError> {
    Ok(scheduler_config(&base.scheduler)?.reaching_the_last_level())
}

/// What the base is told under the prompt and, with guidance, under none.
struct Guided {
    conditional: Conditioning,
    unconditional: Option<Conditioning>,
    guidance_scale: f64,
    guidance_rescale: f64,
}

impl Guided {
    #[expect(clippy::float_cmp, reason = "exactly 1 means no guidance")]
    fn new(base: &Base, wanted: &ClassImages<'_>) -> Result<Self, TrainError> {
        let sizes = [SizeConditions::whole([wanted.images.side_px as usize; 2])];
        let conditional = base.conditioning(base.text_states(&[wanted.prompt])?, &sizes);
        let unconditional = if wanted.guidance_scale == 1.0 {
            None
        } else {
            Some(base.conditioning(base.negative_states(&[""])?, &sizes))
        };
        let (guidance_scale, guidance_rescale) = (wanted.guidance_scale, wanted.guidance_rescale);
        Ok(Self { conditional, unconditional, guidance_scale, guidance_rescale })
    }

    fn output(&self, base: &Base, noisy: Tensor<4>, t: f64) -> Result<Tensor<4>, TrainError> {
        let Some(unconditional) = &self.unconditional else {
            let n_pictures = noisy.dims()[0];
            let times = base.timesteps(t, n_pictures);
            return Ok(base.denoise(noisy, times, &self.conditional.repeat(n_pictures))?);
        };
        let (without, with) = base.denoise_both(noisy, t, unconditional, &self.conditional)?;
        let guided = diffusion::guide(without, with.clone(), self.guidance_scale);
        Ok(diffusion::rescale_guidance(guided, with, self.guidance_rescale))
    }
}

/// Pictures of `[batch, 3, height, width]` in [−1, 1], clamped and rounded to 8 bits.
fn images_from_pixels(pixels: Tensor<4>) -> Result<Vec<RgbImage>, TrainError> {
    let [_, channels, height, width] = pixels.dims();
    let values = host_values(pixels)?;
    let image = |planes: &[f32]| {
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = y as usize * width + x as usize;
            let byte = |channel: usize| {
                let value = (planes[channel * height * width + at].clamp(-1.0, 1.0) + 1.0) * 127.5;
                value.round() as u8
            };
            image::Rgb([byte(0), byte(1), byte(2)])
        })
    };
    Ok(values.chunks(channels * height * width).map(image).collect())
}

fn png(picture: &RgbImage, path: &Path) -> Result<Vec<u8>, TrainError> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|error| TrainError::ClassImage {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use recipes::{AlphaPolicy, Flip, VaeSample};

    use super::*;
    use crate::fixtures::World;

    fn wanted(cache_dir: &Path, guidance_rescale: f64) -> ClassImages<'_> {
        let images = ImageSpec {
            side_px: 64,
            alpha: AlphaPolicy::Error,
            flip: Flip::Never,
            repeats: 1,
            caption_dropout: 0.0,
            vae_sample: VaeSample::Mean,
        };
        ClassImages {
            cache_dir,
            prompt: "a tower",
            count: 1,
            images,
            guidance_scale: 2.0,
            guidance_rescale,
        }
    }

    #[test]
    fn a_plain_base_is_described_as_before_and_everything_unusual_is_said() {
        let world = World::new();
        let keys = |how: &Value| how.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let plain = wanted(world.dir.path(), 0.0).how(&world.base).unwrap();
        assert_eq!(
            keys(&plain),
            [
                "base",
                "device",
                "guidance_scale",
                "negative_prompt",
                "prompt",
                "sampler",
                "seed",
                "side_px",
                "version"
            ]
        );
        let mut base = world.base.clone();
        base.clip_skip = 2;
        base.force_zeros_for_empty_prompt = true;
        base.precision = Precision::Bf16;
        base.scheduler["prediction_type"] = json!("v_prediction");
        base.scheduler["rescale_betas_zero_snr"] = json!(true);
        let how = wanted(world.dir.path(), 0.7).how(&base).unwrap();
        for key in ["guidance_rescale", "clip_skip", "empty_prompt", "precision", "spacing"] {
            assert!(how.get(key).is_some(), "{key}");
        }
        assert_eq!(keys(&how).len(), keys(&plain).len() + 5);
    }

    #[test]
    fn rescaled_guidance_draws_other_class_pictures_of_sdxl() {
        let world = World::sdxl();
        let stop = AtomicBool::new(false);
        let watch = Watch { stop: &stop, sink: &mut |_| {} };
        let draw = |rescale: f64| {
            let wanted = wanted(world.dir.path(), rescale);
            wanted.draw(&world.base, &[0], &watch).unwrap().unwrap().remove(0)
        };
        let plain = draw(0.0);
        assert_eq!(plain.dimensions(), (64, 64));
        assert_eq!(draw(0.0), plain);
        assert_ne!(draw(0.9), plain);
    }
}
