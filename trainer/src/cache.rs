//! What the frozen parts say of pictures and captions, computed once and kept on the host.
//!
//! The posterior is kept, not a sample of it, so that latents stay random at every step. Mirrored
//! pictures are encoded on their own: the autoencoder does not commute with mirroring.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::Watch;
use datasets::{Dataset, Mirror, Pixels};
use models::base::{host_values, tensor_from_host};
use models::{Base, TextStates};
use recipes::{Flip, VaeSample, draws};

use crate::error::TrainError;
use crate::event::Event;
use crate::flat::Segment;
use crate::state::State;

/// Captions per forward pass.
const BATCH: usize = 8;

/// What the autoencoder says of a picture, and of its mirror image if the recipe mirrors.
#[derive(Clone, Debug)]
struct Picture {
    /// `[channels, height, width]` of its latents.
    shape: [usize; 3],
    posteriors: Vec<Posterior>,
}

/// Mean and log-variance of unscaled latents, row-major.
#[derive(Clone, Debug)]
struct Posterior {
    mean: Vec<f32>,
    log_variance: Vec<f32>,
}

/// What the text encoders say of a caption, row-major.
#[derive(Clone, Debug)]
struct Text {
    /// `[tokens, width]`.
    states: Vec<f32>,
    /// Pooled and projected, where the denoiser of the base reads that.
    pooled: Option<Vec<f32>>,
}

/// Posteriors and text states of a dataset.
#[derive(Clone, Debug)]
pub struct Cache {
    /// As the examples of the dataset.
    pictures: Vec<Picture>,
    scaling_factor: f64,
    vae_sample: VaeSample,
    /// By caption; empty while a text encoder is trained.
    texts: BTreeMap<String, Text>,
    /// `[tokens, width]` of the states.
    text_shape: [usize; 2],
}

/// Where text states come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// From the cache.
    Cached,
    /// From the text encoders at every step.
    Live,
}

impl Texts {
    /// Live where parameters of a text encoder are trained.
    pub fn of(state: &State) -> Self {
        let of_text = |segment: &Segment| !segment.name.starts_with("unet.");
        if state.flat.segments.iter().any(of_text) { Self::Live } else { Self::Cached }
    }
}

impl Cache {
    /// Encodes all pictures and captions of `dataset`; `None` if a stop was requested.
    ///
    /// # Errors
    ///
    /// A picture that cannot be decoded or is encoded to values that are not finite, by name; a
    /// caption that is too long.
    pub fn fill(
        base: &Base,
        dataset: &Dataset,
        texts: Texts,
        watch: &mut Watch<'_, Event>,
    ) -> Result<Option<Self>, TrainError> {
        check_captions(base, dataset)?;
        let captions = captions(dataset);
        let mut cache = Self {
            pictures: Vec::with_capacity(dataset.examples.len()),
            scaling_factor: base.vae.config().scaling_factor,
            vae_sample: dataset.images.vae_sample,
            texts: BTreeMap::new(),
            text_shape: [0; 2],
        };
        if texts == Texts::Cached {
            cache.encode_texts(base, &captions.into_keys().collect::<Vec<_>>())?;
        }
        let total = dataset.examples.len();
        for index in 0..total {
            if watch.stop_requested() {
                return Ok(None);
            }
            cache.pictures.push(picture(base, dataset, index)?);
            watch.tell(&Event::Cached { done: index + 1, total });
        }
        Ok(Some(cache))
    }

    fn encode_texts(&mut self, base: &Base, captions: &[&str]) -> Result<(), TrainError> {
        for batch in captions.chunks(BATCH) {
            let TextStates { states, pooled } = base.text_states(batch)?;
            let [_, tokens, width] = states.dims();
            self.text_shape = [tokens, width];
            let states = host_values(states)?;
            let pooled = pooled.map(host_values).transpose()?;
            for (index, caption) in batch.iter().enumerate() {
                let row = |values: &[f32]| {
                    let n_values = values.len() / batch.len();
                    values[index * n_values..(index + 1) * n_values].to_vec()
                };
                let text = Text { states: row(&states), pooled: pooled.as_deref().map(row) };
                self.texts.insert((*caption).to_owned(), text);
            }
        }
        Ok(())
    }

    /// Text states of captions of this cache, one row each: kept ones, or from the encoders of
    /// `base` while one of them is trained.
    ///
    /// # Errors
    ///
    /// As [`Base::text_states`].
    pub fn text(&self, base: &Base, captions: &[&str]) -> Result<TextStates, TrainError> {
        let known: Option<Vec<&Text>> =
            captions.iter().map(|caption| self.texts.get(*caption)).collect();
        let Some(known) = known else { return Ok(base.text_states(captions)?) };
        let n_rows = captions.len();
        let [tokens, width] = self.text_shape;
        let states = known.iter().flat_map(|text| text.states.iter().copied()).collect();
        let pooled: Option<Vec<&[f32]>> = known.iter().map(|text| text.pooled.as_deref()).collect();
        let pooled = pooled.map(|rows| {
            let values = rows.concat();
            let width = values.len() / n_rows.max(1);
            tensor_from_host(values, [n_rows, width], &base.device)
        });
        let states = tensor_from_host(states, [n_rows, tokens, width], &base.device);
        Ok(TextStates { states, pooled })
    }

    /// `[channels, height, width]` of the latents of an example.
    ///
    /// # Panics
    ///
    /// If `example_idx` is not below the number of examples.
    pub fn latent_shape(&self, example_idx: usize) -> [usize; 3] {
        self.pictures[example_idx].shape
    }

    /// Scaled latents of one use of an example, row-major: (mean + exp(log-variance / 2)·n)·scaling
    /// factor, with n from the sample's own draw, or the mean alone.
    ///
    /// # Panics
    ///
    /// If `example_idx` is not below the number of examples.
    pub fn latents(&self, example_idx: usize, mirror: Mirror, sample: Draw) -> Vec<f32> {
        let posteriors = &self.pictures[example_idx].posteriors;
        let posterior = &posteriors[if mirror == Mirror::Yes { posteriors.len() - 1 } else { 0 }];
        let scaled = |value: f64| (value * self.scaling_factor) as f32;
        if self.vae_sample == VaeSample::Mean {
            return posterior.mean.iter().map(|&mean| scaled(mean.into())).collect();
        }
        let mut stream =
            draws::stream(sample.seed, sample.step, sample.index, draws::Purpose::Posterior);
        let noise = draws::normals(&mut stream, posterior.mean.len());
        let values = posterior.mean.iter().zip(&posterior.log_variance).zip(noise);
        let value = |((&mean, &log_variance), noise): ((&f32, &f32), f32)| {
            let deviation = libm::exp(0.5 * f64::from(log_variance));
            scaled(f64::from(mean) + deviation * f64::from(noise))
        };
        values.map(value).collect()
    }
}

/// Names the draws of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Seed of the run.
    pub seed: u64,
    /// Optimizer step, from 0.
    pub step: u64,
    /// Index in the step's whole batch.
    pub index: u64,
}

/// Refuses the first caption that is too long for the base: before anything costly is done.
///
/// # Errors
///
/// [`TrainError::Caption`] with its picture.
pub fn check_captions(base: &Base, dataset: &Dataset) -> Result<(), TrainError> {
    for (caption, path) in captions(dataset) {
        base.check_prompt(caption).map_err(|error| TrainError::Caption {
            path: path.to_owned(),
            problem: Box::new(error),
        })?;
    }
    Ok(())
}

/// All captions, each with the first picture that has it; the empty one is always there.
fn captions(dataset: &Dataset) -> BTreeMap<&str, &Path> {
    let mut captions = BTreeMap::from([("", Path::new(""))]);
    for example in &dataset.examples {
        captions.entry(example.caption.as_str()).or_insert(&example.path);
    }
    captions
}

fn picture(base: &Base, dataset: &Dataset, index: usize) -> Result<Picture, TrainError> {
    let mirrors: &[Mirror] = match dataset.images.flip {
        Flip::Never => &[Mirror::No],
        Flip::Random => &[Mirror::No, Mirror::Yes],
    };
    let bucket = dataset.examples[index].bucket;
    let shape = base.latent_shape([bucket.height as usize, bucket.width as usize])?;
    let mut posteriors = Vec::with_capacity(mirrors.len());
    for &mirror in mirrors {
        let posterior = posterior(base, dataset.pixels(index, mirror)?)?;
        if posterior.mean.iter().chain(&posterior.log_variance).any(|value| !value.is_finite()) {
            return Err(TrainError::Latents { path: dataset.examples[index].path.clone() });
        }
        posteriors.push(posterior);
    }
    Ok(Picture { shape, posteriors })
}

fn posterior(base: &Base, pixels: Pixels) -> Result<Posterior, TrainError> {
    let shape = [1, 3, pixels.height as usize, pixels.width as usize];
    let pixels = tensor_from_host(pixels.values, shape, &base.device);
    let posterior = base.vae.posterior_from_pixels(pixels)?;
    let (mean, log_variance) = (host_values(posterior.mean)?, host_values(posterior.log_variance)?);
    Ok(Posterior { mean, log_variance })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use checkpoints::Family;

    use super::*;
    use crate::fixtures::{self, World};

    fn fill(world: &World, sets: &[&str]) -> Result<Cache, TrainError> {
        let dataset = fixtures::dataset(&world.recipe(sets));
        let mut watch = Watch { stop: &AtomicBool::new(false), sink: &mut |_| {} };
        Cache::fill(&world.base, &dataset, Texts::Cached, &mut watch).map(Option::unwrap)
    }

    fn draw(index: u64) -> Draw {
        Draw { seed: 1, step: 2, index }
    }

    #[test]
    fn latents_are_drawn_anew_from_the_posterior_of_the_picture_or_its_mirror_image() {
        let world = World::new();
        let cache = fill(&world, &[]).unwrap();
        let [channels, height, width] = cache.latent_shape(0);
        let first = cache.latents(0, Mirror::No, draw(0));
        assert_eq!(first.len(), channels * height * width);
        assert_eq!(cache.latents(0, Mirror::No, draw(0)), first);
        for other in [
            cache.latents(0, Mirror::No, draw(1)),
            cache.latents(1, Mirror::No, draw(0)),
            cache.latents(0, Mirror::Yes, draw(0)),
        ] {
            assert_ne!(other, first);
        }
    }

    #[test]
    fn the_mean_is_the_encoded_picture_times_the_scaling_factor() {
        let world = World::new();
        let cache = fill(&world, &["dataset.dreambooth.vae_sample=mean"]).unwrap();
        let found = cache.latents(0, Mirror::No, draw(0));
        assert_eq!(cache.latents(0, Mirror::No, draw(1)), found);
        let dataset = fixtures::dataset(&world.recipe(&[]));
        let pixels = dataset.pixels(0, Mirror::No).unwrap();
        let pixels = tensor_from_host(pixels.values, [1, 3, 64, 64], &world.base.device);
        let mean = world.base.vae.posterior_from_pixels(pixels).unwrap().mean;
        for (found, mean) in found.iter().zip(host_values(mean).unwrap()) {
            assert!((found - 0.5 * mean).abs() < 1e-6);
        }
    }

    #[test]
    fn kept_text_states_are_those_of_the_encoders() {
        for family in [Family::Postcards, Family::Sdxl] {
            let world = World::of(family, 81);
            let cache = fill(&world, &[]).unwrap();
            let captions = ["", "a sks tower", ""];
            let kept = cache.text(&world.base, &captions).unwrap();
            let live = world.base.text_states(&captions).unwrap();
            let near = |kept: Vec<f32>, live: Vec<f32>| {
                kept.len() == live.len()
                    && kept.iter().zip(&live).all(|(kept, live)| (kept - live).abs() < 1e-5)
            };
            assert!(near(host_values(kept.states).unwrap(), host_values(live.states).unwrap()));
            assert_eq!(kept.pooled.is_some(), world.base.text_encoder_2.is_some());
            assert_eq!(kept.pooled.is_some(), live.pooled.is_some());
            if let (Some(kept), Some(live)) = (kept.pooled, live.pooled) {
                assert_eq!(kept.dims(), live.dims());
                assert!(near(host_values(kept).unwrap(), host_values(live).unwrap()));
            }
        }
    }

    #[test]
    fn a_caption_that_is_too_long_is_refused_with_its_picture() {
        let world = World::new();
        let long = format!("dataset.dreambooth.instance.prompt=sks {}", "tower ".repeat(20));
        let message = fill(&world, &[&long]).unwrap_err().to_string();
        assert!(message.contains("0.png") && message.contains("at most"), "{message}");
    }
}
