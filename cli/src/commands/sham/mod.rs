//! `populate sham`: the null of a settlement that repeats what the base draws anyway. The base draws a
//! picture for each picture of a recipe's concept, from the very same caption, and the recipe is
//! written again with these in their place.
//!
//! `docs/census.md`, "Nulls", says what it is for.

mod folder;
mod recipe;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::Ordering;

use datasets::{Dataset, Role};
use diffusion::{Moment, SamplerKind};
use image::RgbImage;
use models::{Base, SizeConditions};
use recipes::Recipe;
use recipes::draws::{self, Purpose};
use serde_json::json;

use super::{Job, Outcome};
use crate::args::ShamArguments;
use crate::device::ChosenDevice;
use crate::drawing::{Audience, Drawing, Method, Start, StepNoise, Tiles, draw};
use crate::environment;
use crate::error::JobError;
use crate::progress::{Progress, Tick};
use crate::stage::{self, Opened};
use folder::{About, Folder};
use recipe::Sham;

/// Program and version.
const TOOL: &str = concat!("populate ", env!("CARGO_PKG_VERSION"));
/// Steps of DDIM without step noise: the pictures are drawn as those of a class are.
const STEPS: usize = 20;

/// Draws the pictures that are not there yet, and writes the recipe once all are.
pub(crate) fn execute(arguments: &ShamArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let (path, out) = (&arguments.recipe.recipe, arguments.out.as_path());
    let recipe = stage::settlement(recipes::load(path, &arguments.recipe.sets)?, "sham")?;
    // What is wrong with the folder is said before a base is hashed.
    let sham = Sham::of(&recipe, out)?;
    let earlier = folder::earlier(out, &sham)?;
    let opened = Opened::of(&recipe)?;
    opened.warn(job.terminal);
    let device = job.device()?;
    let about = about(&recipe, &opened, &device)?;
    let captions = captions_of(&opened.dataset);
    let folder = Folder::open((out, earlier), &about, &sham, &captions)?;
    let n_kept = folder.len() - folder.missing().len();
    let folder = if folder.missing().is_empty() {
        folder
    } else {
        let base = stage::load_base(&recipe, &opened, &device)?;
        trainer::cache::check_captions(&base, &opened.dataset)?;
        stage::warn_of_side(&recipe, &base, job.terminal);
        stage::warn_of_precision(&base, job.terminal);
        fill(folder, &recipe, &base, &captions, job)?
    };
    if !folder.missing().is_empty() {
        return Ok(Outcome::Requeue { go_on: environment::own_command() });
    }
    folder.write_captions()?;
    check_captions(out, &sham, &captions)?;
    let written = folder.write_recipe(&sham)?;
    give((out, written.as_path()), folder.len(), n_kept, job);
    Ok(Outcome::Done)
}

/// What all pictures of the sham have in common. Guidance is that of the previews, as for pictures of
/// a class.
fn about(recipe: &Recipe, opened: &Opened, device: &ChosenDevice) -> Result<About, JobError> {
    let previews = &recipe.fit.previews;
    Ok(About {
        tool: TOOL.to_owned(),
        draws: format!("populate/rng/{}", draws::SCHEME),
        recipe: recipe.name.clone(),
        base: opened.base_files.name(),
        base_sha256: opened.base_sha256.clone(),
        precision: stage::precision(recipe, device)?.name().to_owned(),
        clip_skip: recipe.base.model().map_or(1, |model| model.clip_skip),
        sampler: json!({ "ddim": { "steps": STEPS, "eta": 0.0 } }),
        guidance_scale: previews.guidance_scale,
        guidance_rescale: previews.guidance_rescale,
        side_px: recipe.dataset.image_options().side_px,
        seed: recipe.seed,
    })
}

/// Captions of the concept's pictures, in the order of the dataset.
fn captions_of(dataset: &Dataset) -> Vec<String> {
    let pictures = dataset.of_role(Role::Instance).into_iter();
    pictures.map(|place| dataset.examples[place].caption.clone()).collect()
}

/// How the pictures are drawn: as those of a class.
fn method(recipe: &Recipe, base: &Base) -> Result<Method, JobError> {
    let size_px = [recipe.dataset.image_options().side_px as usize; 2];
    Ok(Method {
        sampler: SamplerKind::Ddim { eta: 0.0 },
        spacing: None,
        steps: STEPS,
        guidance_scale: recipe.fit.previews.guidance_scale,
        guidance_rescale: recipe.fit.previews.guidance_rescale,
        strength: 1.0,
        sizes: SizeConditions::whole(size_px),
        latent_shape: base.latent_shape(size_px)?,
        tiles: Tiles::Auto,
        batch: None,
    })
}

/// Where the picture of a place begins: in noise of a purpose of its own, which no census, preview or
/// class picture ever draws.
fn start(seed: u64, place: usize, latent_shape: [usize; 3]) -> Start {
    let mut stream = draws::stream(seed, 0, place as u64, Purpose::Sham);
    let noise = draws::normals(&mut stream, latent_shape.iter().product());
    Start { noise, clean: None, step_noise: StepNoise::Seed(seed) }
}

/// Draws the pictures that are missing, up to a request to stop.
fn fill<'a>(
    folder: Folder<'a>,
    recipe: &Recipe,
    base: &Base,
    captions: &[String],
    job: &Job<'_>,
) -> Result<Folder<'a>, JobError> {
    let method = method(recipe, base)?;
    // Also tells of a number of steps that the base's noise levels do not allow.
    let n_steps = method.sampler(base)?.len();
    folder.write_record()?;
    let mut keeper = Keeper {
        total: (folder.missing().len() * n_steps) as u64,
        folder,
        progress: job.progress(),
        tells: job.place.json,
        n_steps: 0,
        queue: VecDeque::new(),
    };
    let drawn = keeper.draw_all((base, method), recipe.seed, captions, job);
    keeper.progress.end();
    drawn?;
    Ok(keeper.folder)
}

/// Takes pictures as they are finished, and keeps them.
struct Keeper<'a, 'p> {
    folder: Folder<'a>,
    progress: Progress<'p>,
    /// Whether programs are told of every picture.
    tells: bool,
    n_steps: u64,
    total: u64,
    /// Places of the pictures that come next.
    queue: VecDeque<usize>,
}

impl Keeper<'_, '_> {
    /// Draws what is missing, the pictures of one caption together.
    fn draw_all(
        &mut self,
        (base, method): (&Base, Method),
        seed: u64,
        captions: &[String],
        job: &Job<'_>,
    ) -> Result<(), JobError> {
        let mut sittings: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for place in self.folder.missing() {
            sittings.entry(captions[place].as_str()).or_default().push(place);
        }
        let stop = job.stop.flag();
        for (caption, places) in sittings {
            let start = |&place: &usize| start(seed, place, method.latent_shape);
            let starts: Vec<Start> = places.iter().map(start).collect();
            let drawing = Drawing { prompt: caption, negative: "", method };
            self.queue = places.into();
            draw(base, &drawing, &starts, stop, self)?;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }
}

impl Audience for Keeper<'_, '_> {
    fn stepped(&mut self, moment: &Moment<'_>) {
        self.n_steps += moment.noisy.dims()[0] as u64;
        let (done, total) = (self.n_steps, self.total);
        self.progress.tick(&Tick { phase: "draw", unit: "steps", done, total, figures: &[] });
    }

    #[expect(clippy::expect_used, reason = "one start for each picture, in the same order")]
    fn finished(&mut self, picture: RgbImage) -> Result<(), JobError> {
        // Pictures come in the order of their starts.
        let place = self.queue.pop_front().expect("each picture has its start");
        let path = self.folder.add(place, &picture)?;
        if self.tells {
            self.progress.note("", &json!({ "event": "drawn", "out": path }));
        }
        Ok(())
    }
}

/// Reads the pictures as the sham will, and refuses captions that differ from the recipe's.
fn check_captions(out: &Path, sham: &Sham, captions: &[String]) -> Result<(), JobError> {
    let dataset = datasets::open(&sham.recipe.dataset)?;
    let found = captions_of(&dataset);
    let refused = |message: String| JobError::Data {
        message,
        hint: Some("remove what does not belong there, and give the same command again".to_owned()),
    };
    let folder = out.join(&sham.pictures);
    let folder = folder.display();
    if found.len() != captions.len() {
        let (expected, found) = (captions.len(), found.len());
        return Err(refused(format!("`{folder}`: expected {expected} pictures, found {found}")));
    }
    match captions.iter().zip(&found).find(|(expected, found)| expected != found) {
        None => Ok(()),
        Some((expected, found)) => {
            Err(refused(format!("`{folder}`: expected the caption `{expected}`, found `{found}`")))
        }
    }
}

/// Says what was drawn and what to do with it.
fn give((out, recipe): (&Path, &Path), n_pictures: usize, n_kept: usize, job: &Job<'_>) {
    let text = format!(
        "{n_pictures} pictures in `{}`: {} drawn, {n_kept} were there\nrecipe: {}",
        out.display(),
        n_pictures - n_kept,
        recipe.display()
    );
    let record = json!({
        "event": "sham", "out": out, "recipe": recipe, "pictures": n_pictures, "kept": n_kept,
    });
    job.give(&text, &record);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [2, 2, 2];

    #[test]
    fn a_start_belongs_to_seed_and_place_and_to_no_census() {
        let of = |seed, place| start(seed, place, SHAPE).noise;
        assert_eq!(of(7, 3), of(7, 3));
        assert_ne!(of(7, 3), of(7, 4));
        assert_ne!(of(7, 3), of(8, 3));
        for purpose in
            [Purpose::CensusStart, Purpose::ClassImage, Purpose::Preview, Purpose::Generate]
        {
            let other = draws::normals(&mut draws::stream(7, 0, 3, purpose), 8);
            assert_ne!(of(7, 3), other, "{purpose:?}");
        }
    }

    #[test]
    fn only_the_pictures_of_the_concept_have_a_sham() {
        let dir = tempfile::tempdir().unwrap();
        for (name, shade) in [("a/1.png", 10), ("a/2.png", 20), ("b/1.png", 30)] {
            let path = dir.path().join(name);
            let picture = RgbImage::from_pixel(64, 64, image::Rgb([shade; 3]));
            let bytes = crate::picture::png(&picture, &[]).unwrap();
            checkpoints::fs::atomic_write(&path, &bytes).unwrap();
        }
        let text = "\
name: small
base: postcards
dataset:
  dreambooth:
    instance: { images: a, identifier: sks, class: tower, prompt: 'a {identifier} {class}' }
    class: { images: b, prompt: a tower }
adapter: lora
fit: { steps: 300, optimizer: { adamw: { learning_rate: 1.0e-3 } } }
";
        let loaded = recipes::load_text(&dir.path().join("t.yaml"), text, &[]).unwrap();
        let recipe = stage::settlement(loaded, "sham").unwrap();
        let dataset = datasets::open(&recipe.dataset).unwrap();
        assert_eq!(captions_of(&dataset), ["a sks tower", "a sks tower"]);
    }
}
