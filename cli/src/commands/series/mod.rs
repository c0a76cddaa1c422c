//! `populate series`: pictures of one world from variable instructions, with a contact sheet and a
//! measure of how much each series holds together.

mod album;
mod consistency;
mod contact_sheet;
mod page;
mod studio;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::Ordering;

use diffusion::Moment;
use image::RgbImage;
use recipes::draws::Purpose;
use recipes::series::SeriesFile;
use serde_json::json;

use super::{Job, Outcome};
use crate::args::SeriesArguments;
use crate::drawing::{Audience, Drawing, Start, draw};
use crate::environment;
use crate::error::JobError;
use crate::progress::{Progress, Tick};
use crate::stage;
use album::Album;
use consistency::Consistency;
use studio::Studio;

/// Below which the folders of series files lie, if the user names none.
const FOLDER: &str = "series";

/// Draws what is not there yet, measures it and lays it out.
pub(crate) fn execute(arguments: &SeriesArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let file = recipes::series::load(&arguments.file)?;
    let folder = arguments.out.clone().unwrap_or_else(|| Path::new(FOLDER).join(&file.name));
    // What may be wrong with small files is said before large ones are read.
    let references = file.references.as_deref().map(consistency::references).transpose()?;
    let device = job.device()?;
    let studio = Studio::open(&file, arguments.batch, &device)?;
    stage::warn_of_precision(&studio.base, job.terminal);
    studio.check_instructions(&file)?;
    let file_sha256 = checkpoints::hash::file_sha256(&arguments.file)?.0;
    let album = Album::open(&folder, &file, &studio.provenance, file_sha256)?;
    let n_kept = album.pages().len() - album.missing().len();
    let Some(album) = hang(&file, &studio, album, job)? else {
        return Ok(Outcome::Requeue { go_on: environment::own_command() });
    };
    let references = references.unwrap_or_default();
    let consistency = consistency::measure(&file, &studio, &album, &references)?;
    album.finish(&consistency)?;
    let sheet = album.lay_out(&consistency)?;
    give(&album, &consistency, (sheet.as_path(), n_kept), job);
    Ok(Outcome::Done)
}

/// Draws the pictures that are missing; nothing if a stop was requested before the last of them.
fn hang<'a>(
    file: &SeriesFile,
    studio: &Studio,
    album: Album<'a>,
    job: &Job<'_>,
) -> Result<Option<Album<'a>>, JobError> {
    let missing = album.missing();
    // Also tells of a number of steps that the base's noise levels do not allow.
    let n_steps = studio.method.sampler(&studio.base)?.len();
    let sittings = sittings(&album, &missing);
    let mut wall = Wall {
        album,
        progress: job.progress(),
        tells: job.place.json,
        n_steps: 0,
        total: (missing.len() * n_steps) as u64,
        queue: VecDeque::new(),
    };
    let drawn = wall.draw_all(file, studio, &sittings, job);
    wall.progress.end();
    drawn?;
    Ok(wall.album.missing().is_empty().then_some(wall.album))
}

/// The missing pictures of one instruction: they are drawn together.
struct Sitting {
    instruction: String,
    /// Their places in the album.
    places: Vec<usize>,
}

/// The missing pictures by instruction, in the order in which the instructions come first.
fn sittings(album: &Album<'_>, missing: &[usize]) -> Vec<Sitting> {
    let mut sittings: Vec<Sitting> = Vec::new();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for &place in missing {
        let instruction = album.pages()[place].picture.instruction.as_str();
        let index = *known.entry(instruction).or_insert(sittings.len());
        if index == sittings.len() {
            sittings.push(Sitting { instruction: instruction.to_owned(), places: Vec::new() });
        }
        sittings[index].places.push(place);
    }
    sittings
}

/// Takes pictures as they are finished, and keeps them.
struct Wall<'a, 'p> {
    album: Album<'a>,
    progress: Progress<'p>,
    /// Whether programs are told of every picture.
    tells: bool,
    n_steps: u64,
    total: u64,
    /// Places of the pictures that come next.
    queue: VecDeque<usize>,
}

impl Wall<'_, '_> {
    fn draw_all(
        &mut self,
        file: &SeriesFile,
        studio: &Studio,
        sittings: &[Sitting],
        job: &Job<'_>,
    ) -> Result<(), JobError> {
        let stop = job.stop.flag();
        let shape = studio.method.latent_shape;
        for sitting in sittings {
            let pages = self.album.pages();
            // The start of a seed is that of `generate`, which can draw each picture again.
            let start = |&place: &usize| {
                Start::of_seed(pages[place].picture.seed, shape, Purpose::Generate)
            };
            let starts: Vec<Start> = sitting.places.iter().map(start).collect();
            let drawing = Drawing {
                prompt: &sitting.instruction,
                negative: &file.negative,
                method: studio.method,
            };
            self.queue = sitting.places.iter().copied().collect();
            draw(&studio.base, &drawing, &starts, stop, self)?;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }
}

impl Audience for Wall<'_, '_> {
    fn stepped(&mut self, moment: &Moment<'_>) {
        self.n_steps += moment.noisy.dims()[0] as u64;
        let (done, total) = (self.n_steps, self.total);
        self.progress.tick(&Tick { phase: "draw", unit: "steps", done, total, figures: &[] });
    }

    fn finished(&mut self, picture: RgbImage) -> Result<(), JobError> {
        // Pictures come in the order of their starts.
        let Some(place) = self.queue.pop_front() else { return Ok(()) };
        let path = self.album.add(place, &picture)?;
        if self.tells {
            let picture = self.album.pages()[place].picture;
            let record = json!({
                "event": "drawn", "out": path, "instruction": picture.instruction,
                "seed": picture.seed,
            });
            self.progress.note("", &record);
        }
        Ok(())
    }
}

/// Says what was drawn and how it holds together.
fn give(
    album: &Album<'_>,
    consistency: &Consistency,
    (sheet, n_kept): (&Path, usize),
    job: &Job<'_>,
) {
    let n_pictures = album.pages().len();
    let mut lines = vec![format!(
        "{n_pictures} pictures of {} series in `{}`: {} drawn, {n_kept} were there",
        consistency.series,
        album.folder().display(),
        n_pictures - n_kept,
    )];
    lines.extend(consistency.lines());
    lines.push(format!("contact sheet: {}", sheet.display()));
    let record = json!({
        "event": "series", "out": album.folder(), "pictures": n_pictures, "kept": n_kept,
        "consistency": consistency, "contact_sheet": sheet,
    });
    job.give(&lines.join("\n"), &record);
}
