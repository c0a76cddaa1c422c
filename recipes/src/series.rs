//! Series files: pictures of one world from variable instructions.
//!
//! Templates have slots, slots have values, and a series is a list of pictures, each of one
//! combination of values and one seed. All of them follow from the file alone: a picture depends on
//! the seed of the file, on the name of its series and on its place there, so that a series that
//! comes or goes moves no other picture, and neither do further pictures of its own.
//!
//! The format is one of its own, `populate/series/1`; base, sampler and paths are those of recipes.

mod combination;
mod entries;
mod section;
mod template;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::generate::SchemaSettings;
use serde_saphyr::{Location, Spanned};

use crate::base::{self, BaseSpec, RawBase};
use crate::choice::Choice;
use crate::error::{RecipeError, RecipeErrorKind};
use crate::field::{Field, Real, Whole, WordOrList, raw_section, words};
use crate::problem::{Checks, Problem, items};
use crate::recipe::{self, MAX_RECIPE_BYTES};
use crate::sampler::{self, RawSampler, SamplerKind, SamplerSpec};
use crate::units::{self, Places, SIDE_PX, file_name, folder};
use entries::Entries;
use section::RawSeries;
use vocabulary::Vocabulary;

/// The format that a series file names.
pub const SCHEMA: &str = "populate/series/1";

/// All that determines the pictures of a series file: immutable, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesFile {
    /// Its name: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Seed of all seeds and orders that are drawn.
    pub seed: u64,
    /// The frozen model.
    pub base: BaseSpec,
    /// Adapters in the order in which they are attached.
    pub adapters: Vec<DosedFile>,
    /// How pictures are drawn.
    pub sampler: SamplerSpec,
    /// Guidance weight w; 1 is without guidance.
    pub guidance_scale: f64,
    /// Share φ, in [0, 1], by which guided outputs get back the contrast of unguided ones; 0 is off.
    pub guidance_rescale: f64,
    /// What not to draw, in all pictures.
    pub negative: String,
    /// Side of the square pictures, a multiple of 64.
    pub side_px: u32,
    /// Folder of the evaluator; `None`: the one that ships with the base, if there is one.
    pub evaluator: Option<PathBuf>,
    /// Folder of pictures that the drawn ones are compared with.
    pub references: Option<PathBuf>,
    /// The series, in the order of the text; at least one.
    pub series: Vec<Series>,
}

/// An adapter file and its dose.
#[derive(Debug, Clone, PartialEq)]
pub struct DosedFile {
    /// The file.
    pub file: PathBuf,
    /// Multiplier in [−4, 4]; 0 is the base, 1 the adapter as fitted.
    pub dose: f64,
}

/// One series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// Its name, and that of its folder: letters, digits, `-`, `_`.
    pub name: String,
    /// Its pictures in order; 1 to 999, no two of one instruction and one seed.
    pub pictures: Vec<Picture>,
}

/// One picture of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The template with values in its slots, on one line.
    pub instruction: String,
    /// The value of each slot.
    pub slots: BTreeMap<String, String>,
    /// Seed of its noise.
    pub seed: u64,
}

words! {
    /// How the combinations of values follow each other.
    Order {
        /// Every slot moves on to its next value from picture to picture; where combinations would
        /// begin to repeat, one slot is shifted.
        InTurn,
        /// In an order that is drawn, all before any comes again.
        Drawn,
    }
}

raw_section! {
    /// A series file of populate: pictures of one world from variable instructions.
    RawSeriesFile {
        /// The format, `populate/series/1`.
        #[schemars(!default, required)]
        schema: String,
        /// Name of the file and of its folder of pictures.
        #[schemars(!default, required)]
        name: String,
        /// Seed of all seeds and orders that are drawn (default 0).
        seed: Whole,
        /// The model that draws.
        #[schemars(!default, required)]
        base: Choice<RawBase>,
        /// Adapters with their doses (default none).
        adapters: Vec<Field<RawDosedFile>>,
        /// How pictures are drawn (default ddim with 30 steps).
        sampler: Choice<RawSampler>,
        /// Guidance weight (default: what suits the base); 1 is without guidance.
        #[schemars(range(min = 0))]
        guidance_scale: Real,
        /// Share by which guided pictures are brought back to the contrast of unguided ones
        /// (default 0, off).
        #[schemars(range(min = 0, max = 1))]
        guidance_rescale: Real,
        /// What not to draw (default nothing).
        negative: String,
        /// Side of the square pictures (default: what the base was made for).
        side_px: Whole,
        /// Folder of the evaluator (default: the one that ships with the base, if there is one).
        evaluator: PathBuf,
        /// Folder of pictures that the drawn ones are compared with (default none).
        references: PathBuf,
        /// Instructions with slots, such as "a {thing} {place}, {time}", by their names.
        #[schemars(!default, required)]
        templates: Entries<String>,
        /// What may stand in each slot: a list of words, or one.
        slots: Entries<WordOrList>,
        /// The series by their names.
        #[schemars(!default, required)]
        series: Entries<RawSeries>,
    }
}

raw_section! {
    /// An adapter file and its dose.
    RawDosedFile {
        /// An adapter file of this or another program.
        #[schemars(!default, required)]
        file: PathBuf,
        /// Its multiplier, from -4 to 4 (default 1); 0 is the base, 1 the adapter as fitted.
        dose: Real,
    }
}

/// Sampler where a series file does not say it.
const SAMPLER: SamplerSpec =
    SamplerSpec { kind: SamplerKind::Ddim { eta: 0.0 }, steps: 30, spacing: None };

/// Doses that make sense: a probe below 0, some overdose above 1.
const DOSES: std::ops::RangeInclusive<f64> = -4.0..=4.0;

/// Reads and resolves the series file at `path`. Needs no model, no picture and no device.
///
/// Relative paths of the file are looked for in the working directory, then in the file's folder;
/// whether they exist is not checked here.
///
/// # Errors
///
/// [`RecipeError`]: the file cannot be read, is larger than [`MAX_RECIPE_BYTES`] or no text, or has
/// mistakes, all of which are listed (syntax, unknown keys and wrong kinds end the search at the
/// first one).
pub fn load(path: &Path) -> Result<SeriesFile, RecipeError> {
    let text = recipe::read(path)?;
    resolve_text(path, &text)
}

/// Like [`load`], for a file whose text is already here; `name` is its path, for messages and for
/// the relative paths in it.
///
/// # Errors
///
/// As [`load`], but for reading.
pub fn parse(text: &str, name: &str) -> Result<SeriesFile, RecipeError> {
    resolve_text(Path::new(name), text)
}

/// The JSON Schema (draft 7, which YAML editors read) of series files.
pub fn json_schema() -> serde_json::Value {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<RawSeriesFile>().to_value()
}

fn resolve_text(path: &Path, text: &str) -> Result<SeriesFile, RecipeError> {
    if text.len() as u64 > MAX_RECIPE_BYTES {
        return Err(recipe::failed(path, RecipeErrorKind::TooLarge { limit: MAX_RECIPE_BYTES }));
    }
    let title = path.display().to_string();
    let invalid = |problems: Vec<Problem>| recipe::invalid(path, &title, text, problems);
    let raw: Spanned<RawSeriesFile> =
        recipe::parse(text).map_err(|problem| invalid(vec![problem]))?;
    let mut checks = Checks::default();
    let file = raw.value.resolve(raw.referenced, &Places::of(path), &mut checks);
    let problems = checks.into_problems();
    match file {
        Some(file) if problems.is_empty() => Ok(file),
        Some(_) | None => Err(invalid(problems)),
    }
}

impl RawSeriesFile {
    /// Resolves the file whose root is at `root`.
    fn resolve(self, root: Location, places: &Places, checks: &mut Checks) -> Option<SeriesFile> {
        check_schema(self.schema, root, checks);
        let name = self.name.required("name", root, checks);
        let name = name.map(|name| file_name(name, "name", checks));
        let seed = self.seed.number_or(0, "seed", &.., checks);
        let base = base::resolve(self.base, root, places, checks);
        // Only defaults come from the base, so a broken one may be replaced to find more problems.
        let known_base = base.clone().unwrap_or(BaseSpec::Postcards);
        let adapters = adapters(self.adapters, places, checks);
        let sampler = sampler::resolve(self.sampler, SAMPLER, &known_base, "sampler", checks);
        let default = known_base.guidance_scale();
        let key = "guidance_scale";
        let guidance_scale = self.guidance_scale.number_or(default, key, &(0.0..=100.0), checks);
        let negative = negative(self.negative, guidance_scale, checks);
        let key = "guidance_rescale";
        let guidance_rescale = self.guidance_rescale.number_or(0.0, key, &(0.0..=1.0), checks);
        let side_at = self.side_px.location();
        let side = self.side_px.number("side_px", &SIDE_PX, checks);
        let side_px = units::side_px(side, known_base.side_px(), "side_px", side_at, checks);
        let evaluator = self.evaluator.given("evaluator", checks);
        let evaluator = evaluator.map(|path| folder(&path, "evaluator", places, checks));
        let references = self.references.given("references", checks);
        let references = references.map(|path| folder(&path, "references", places, checks));
        let vocabulary = Vocabulary::resolve(self.templates, self.slots, root, checks);
        let series = section::resolve(self.series, &vocabulary, seed, root, checks);
        Some(SeriesFile {
            name: name?,
            seed,
            base: base?,
            adapters,
            sampler,
            guidance_scale,
            guidance_rescale,
            negative,
            side_px,
            evaluator,
            references,
            series: series?,
        })
    }
}

fn check_schema(raw: Field<String>, root: Location, checks: &mut Checks) {
    if let Some(found) = raw.required("schema", root, checks)
        && found.value != SCHEMA
    {
        let message =
            format!("`schema` must be `{SCHEMA}`, found `{}`", found.value.escape_debug());
        checks.problem(found.referenced, message);
    }
}

fn adapters(
    raw: Field<Vec<Field<RawDosedFile>>>,
    places: &Places,
    checks: &mut Checks,
) -> Vec<DosedFile> {
    let Some(list) = raw.given("adapters", checks) else { return Vec::new() };
    let mut adapters = Vec::new();
    for Spanned { value: raw, referenced, .. } in items(list.value, "adapters", checks) {
        let dose = raw.dose.number_or(1.0, "adapters.dose", &DOSES, checks);
        let file = raw.file.required("adapters.file", referenced, checks);
        let file = file.map(|file| folder(&file, "adapters.file", places, checks));
        adapters.extend(file.map(|file| DosedFile { file, dose }));
    }
    adapters
}

/// What not to draw; without guidance nothing is held against it.
fn negative(raw: Field<String>, guidance_scale: f64, checks: &mut Checks) -> String {
    let Some(negative) = raw.given("negative", checks) else { return String::new() };
    if !negative.value.is_empty() && (guidance_scale - 1.0).abs() < f64::EPSILON {
        let message = "`negative` has no meaning with `guidance_scale: 1`, which is no guidance";
        checks.problem(negative.referenced, message);
    }
    negative.value
}

#[cfg(test)]
mod tests;
