//! What the frozen parts say of pictures and captions, computed once and kept on the host.
//!
//! The posterior is kept, not a sample of it, so that latents stay random at every step. Mirrored
//! pictures are encoded on their own: the autoencoder does not commute with mirroring.

mod pictures;

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::Watch;
use datasets::{Dataset, Mirror};
use models::base::{host_values, tensor_from_host};
use models::{Base, TextStates};
use recipes::{VaeSample, draws};

use crate::error::TrainError;
use crate::event::{Encoded, Event};
use crate::flat::Segment;
use crate::state::State;
use pictures::{Cut, Picture};

/// Captions per forward pass.
const BATCH: usize = 8;

/// What the text encoders say of a caption, row-major.
#[derive(Clone, Debug)]
struct Text {
    /// `[tokens, width]`.
    states: Vec<f32>,
    /// Pooled and projected, where the denoiser of the base reads that.
    pooled: Option<Vec<f32>>,
}

/// What the text encoders say of all captions.
#[derive(Clone, Debug, Default)]
struct KeptTexts {
    /// By caption; empty while a text encoder is trained.
    by_caption: BTreeMap<String, Text>,
    /// `[tokens, width]` of the states.
    shape: [usize; 2],
}

/// Posteriors and text states of a dataset.
#[derive(Clone, Debug)]
pub struct Cache {
    /// As the examples of the dataset.
    pictures: Vec<Picture>,
    scaling_factor: f64,
    vae_sample: VaeSample,
    texts: KeptTexts,
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
    /// Encodes all captions and pictures of `dataset`; `None` if a stop was requested, which is seen
    /// at every batch of captions and of pictures.
    ///
    /// Pictures are decoded on threads of their own while those before them are encoded. The result
    /// depends neither on their number nor, on a CPU, on how many pictures are encoded together.
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
        Self::filled(base, dataset, (texts, Cut::of(base)), watch)
    }

    fn filled(
        base: &Base,
        dataset: &Dataset,
        (texts, cut): (Texts, Cut),
        watch: &mut Watch<'_, Event>,
    ) -> Result<Option<Self>, TrainError> {
        check_captions(base, dataset)?;
        let texts = match texts {
            Texts::Live => Some(KeptTexts::default()),
            Texts::Cached => kept_texts(base, dataset, watch)?,
        };
        let Some(texts) = texts else { return Ok(None) };
        let Some(pictures) = pictures::encoded(base, dataset, cut, watch)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            pictures,
            scaling_factor: base.vae.config().scaling_factor,
            vae_sample: dataset.images.vae_sample,
            texts,
        }))
    }

    /// Text states of captions of this cache, one row each: kept ones, or from the encoders of
    /// `base` while one of them is trained.
    ///
    /// # Errors
    ///
    /// As [`Base::text_states`].
    pub fn text(&self, base: &Base, captions: &[&str]) -> Result<TextStates, TrainError> {
        let kept = &self.texts.by_caption;
        let known: Option<Vec<&Text>> = captions.iter().map(|caption| kept.get(*caption)).collect();
        let Some(known) = known else { return Ok(base.text_states(captions)?) };
        let n_rows = captions.len();
        let [tokens, width] = self.texts.shape;
        let states: Vec<&[f32]> = known.iter().map(|text| text.states.as_slice()).collect();
        let states = states.concat();
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

/// Encodes all captions of `dataset`; `None` if a stop was requested.
fn kept_texts(
    base: &Base,
    dataset: &Dataset,
    watch: &mut Watch<'_, Event>,
) -> Result<Option<KeptTexts>, TrainError> {
    let captions: Vec<&str> = captions(dataset).into_keys().collect();
    let total = captions.len();
    let mut kept = KeptTexts::default();
    watch.tell(&Event::Cached { what: Encoded::Captions, done: 0, total });
    for batch in captions.chunks(BATCH) {
        if watch.stop_requested() {
            return Ok(None);
        }
        kept.add(base, batch)?;
        let done = kept.by_caption.len();
        watch.tell(&Event::Cached { what: Encoded::Captions, done, total });
    }
    Ok(Some(kept))
}

impl KeptTexts {
    /// Encodes captions in one forward pass.
    fn add(&mut self, base: &Base, captions: &[&str]) -> Result<(), TrainError> {
        let TextStates { states, pooled } = base.text_states(captions)?;
        let [_, tokens, width] = states.dims();
        self.shape = [tokens, width];
        let states = host_values(states)?;
        let pooled = pooled.map(host_values).transpose()?;
        for (index, caption) in captions.iter().enumerate() {
            let row = |values: &[f32]| {
                let n_values = values.len() / captions.len();
                values[index * n_values..(index + 1) * n_values].to_vec()
            };
            let text = Text { states: row(&states), pooled: pooled.as_deref().map(row) };
            self.by_caption.insert((*caption).to_owned(), text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use checkpoints::Family;
    use datasets::Bucket;

    use super::*;
    use crate::fixtures::{self, World};

    /// The pictures of the world, the first and the fourth at another size than the others.
    fn of_two_sizes(world: &World) -> Dataset {
        let mut dataset = fixtures::dataset(&world.recipe(&[]));
        for example_idx in [0, 3] {
            dataset.examples[example_idx].bucket = Bucket { width: 32, height: 64 };
        }
        dataset
    }

    /// Fills a cache and keeps what is told; a stop is requested at `stop_at`.
    fn told(
        world: &World,
        dataset: &Dataset,
        stop_at: Option<&Event>,
    ) -> (Result<Option<Cache>, TrainError>, Vec<Event>) {
        let (stop, mut events) = (AtomicBool::new(false), Vec::new());
        let mut sink = |event: &Event| {
            if Some(event) == stop_at {
                stop.store(true, Ordering::Relaxed);
            }
            events.push(event.clone());
        };
        let mut watch = Watch { stop: &stop, sink: &mut sink };
        let cut = Cut { n_threads: 2, batch_px: 2 * 64 * 64 };
        let filled = Cache::filled(&world.base, dataset, (Texts::Cached, cut), &mut watch);
        (filled, events)
    }

    /// How many were done at each event about `kind`, and how many there were.
    fn counts(events: &[Event], kind: Encoded) -> (Vec<usize>, Vec<usize>) {
        let count = |event: &Event| {
            let Event::Cached { what, done, total } = event else { return None };
            (*what == kind).then_some((*done, *total))
        };
        events.iter().filter_map(count).unzip()
    }

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
    fn posteriors_have_the_same_bits_however_the_work_is_cut() {
        let world = World::of(Family::Postcards, 81);
        let dataset = of_two_sizes(&world);
        let found = [(1, 1), (1, usize::MAX), (2, 2 * 64 * 64), (8, 3 * 64 * 64)].map(|cut| {
            let cut = Cut { n_threads: cut.0, batch_px: cut.1 };
            let mut watch = Watch { stop: &AtomicBool::new(false), sink: &mut |_| {} };
            let cache = Cache::filled(&world.base, &dataset, (Texts::Live, cut), &mut watch);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let pictures = cache.unwrap().unwrap().pictures;
            let all = pictures.iter().flat_map(|picture| &picture.posteriors);
            let all: Vec<_> = all.map(|one| [bits(&one.mean), bits(&one.log_variance)]).collect();
            let shapes: Vec<[usize; 3]> = pictures.iter().map(|picture| picture.shape).collect();
            (shapes, all)
        });
        assert_eq!(found[0].1.len(), 10, "five pictures and their mirror images");
        assert!(found[0].0[0] == found[0].0[3] && found[0].0[0] != found[0].0[1]);
        for other in &found[1..] {
            assert!(found[0] == *other);
        }
    }

    #[test]
    fn what_is_told_counts_from_none_to_all_captions_and_then_all_pictures() {
        let world = World::new();
        let mut dataset = of_two_sizes(&world);
        // Besides the caption of all others and the empty one.
        dataset.examples[1].caption = "a tower".to_owned();
        let (filled, events) = told(&world, &dataset, None);
        filled.unwrap().unwrap();
        assert_eq!(counts(&events, Encoded::Captions), (vec![0, 3], vec![3; 2]));
        // Two narrow pictures, then two wide ones and one.
        assert_eq!(counts(&events, Encoded::Pictures), (vec![0, 2, 4, 5], vec![5; 4]));
        let kinds: Vec<usize> =
            [Encoded::Captions, Encoded::Pictures].map(|kind| counts(&events, kind).0.len()).into();
        assert_eq!(kinds, [2, 4]);
        assert!(matches!(events[2], Event::Cached { what: Encoded::Pictures, done: 0, .. }));
    }

    #[test]
    fn a_stop_is_seen_among_captions_and_among_pictures() {
        let world = World::new();
        let dataset = of_two_sizes(&world);
        let of = |what, done, total| Event::Cached { what, done, total };
        let (filled, events) = told(&world, &dataset, Some(&of(Encoded::Captions, 0, 2)));
        assert!(filled.unwrap().is_none());
        assert_eq!(events, [of(Encoded::Captions, 0, 2)]);
        let (filled, events) = told(&world, &dataset, Some(&of(Encoded::Pictures, 2, 5)));
        assert!(filled.unwrap().is_none());
        assert_eq!(counts(&events, Encoded::Pictures).0, [0, 2]);
    }

    #[test]
    fn of_several_pictures_that_have_changed_the_first_of_the_dataset_is_named() {
        let world = World::new();
        let dataset = of_two_sizes(&world);
        // The fourth is decoded before the second, since it has the size of the first.
        for number in [1, 3] {
            let path = &dataset.examples[number].path;
            checkpoints::fs::atomic_write(path, b"another picture").unwrap();
        }
        let (filled, events) = told(&world, &dataset, None);
        let message = filled.unwrap_err().to_string();
        assert!(message.contains("1.png") && !message.contains("3.png"), "{message}");
        assert_eq!(counts(&events, Encoded::Pictures).0, [0]);
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
