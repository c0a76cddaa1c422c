//! The section `census`: what is counted, with how many pictures.

mod name_or_file;

use std::path::PathBuf;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_saphyr::{Location, Spanned};

use crate::base::BaseSpec;
use crate::choice::Choice;
use crate::field::{Field, Real, Whole, raw_section, words};
use crate::problem::{Checks, check_range, plain_items};
use crate::sampler::{self, RawSampler, SamplerKind, SamplerSpec};
use crate::units::{Places, folder, text};
use name_or_file::NameOrFile;

/// What is counted, with how many pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct CensusSpec {
    /// Size of the census; [`Budget::Custom`] where the recipe gives the numbers itself.
    pub budget: Budget,
    /// The entities that are counted.
    pub thesaurus: ThesaurusSource,
    /// The neutral prompts.
    pub panel: PanelSource,
    /// Seeds of the empty prompt, per model.
    pub seeds_empty: u32,
    /// Seeds of all other prompts together, per model, shared evenly among the prompts of the
    /// budget's strata: `glance` asks only the stratum `medium`.
    pub seeds_other: u32,
    /// How pictures are drawn.
    pub sampler: SamplerSpec,
    /// Guidance weight w; the empty prompt has none.
    pub guidance_scale: f64,
    /// Share φ, in [0, 1], by which guided outputs get back the contrast of unguided ones; 0 is off.
    pub guidance_rescale: f64,
    /// Multipliers of the adapter, rising; 0 is the base and 1 the adapter as fitted. Holds both.
    pub doses: Vec<f64>,
    /// Random adapters of equal spectrum that are counted beside.
    pub placebo: u32,
    /// Where in the thesaurus the concept belongs.
    pub concept: ConceptSpec,
    /// Seed of all noise of the census.
    pub seed: u64,
    /// Folder of the evaluator; `None`: the one that ships with the base.
    pub evaluator: Option<PathBuf>,
    /// Folder of an evaluator of another family, whose agreement is reported; `None`: there is none.
    pub second_evaluator: Option<PathBuf>,
    /// Whether nats are measured of models whose score may be of no density.
    pub likelihood: LikelihoodWish,
    /// The census ends early once the widest interval of the concept's facet reaches no farther than
    /// this to either side; `None`: it draws all that it planned.
    pub stop_at_half_width: Option<f64>,
}

words! {
    /// Whether nats are measured.
    LikelihoodWish {
        /// Of models that predict the score of a density; distilled ones are refused.
        Auto,
        /// Of every model; what a distilled one gives is labelled as a gap between scores.
        Force,
        /// Of none.
        Off,
    }
}

words! {
    /// Size of a census.
    Budget {
        /// Did anything big move (±0.05)?
        Glance,
        /// Sees changes of 0.02.
        Survey,
        /// For publication.
        Census,
        /// The recipe gives the numbers.
        Custom,
    }
}

/// The numbers behind a budget.
struct Numbers {
    seeds_empty: u32,
    seeds_other: u32,
    steps: u32,
    placebo: u32,
}

impl std::fmt::Display for Budget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Glance => "glance",
            Self::Survey => "survey",
            Self::Census => "census",
            Self::Custom => "custom",
        })
    }
}

impl Budget {
    /// The numbers of this budget for `base`; a custom one has none.
    fn numbers(self, base: &BaseSpec) -> Option<Numbers> {
        let in_miniature = *base == BaseSpec::Postcards;
        let (seeds_empty, seeds_other, steps, placebo) = match (in_miniature, self) {
            (_, Self::Custom) => return None,
            (true, Self::Glance) => (512, 128, 12, 0),
            (true, Self::Survey) => (1024, 1024, 20, 1),
            (true, Self::Census) => (8192, 8192, 50, 3),
            (false, Self::Glance) => (256, 256, 12, 0),
            (false, Self::Survey) => (768, 1280, 20, 1),
            (false, Self::Census) => (3072, 5120, 30, 3),
        };
        Some(Numbers { seeds_empty, seeds_other, steps, placebo })
    }
}

/// The entities that are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThesaurusSource {
    /// One that ships with the project.
    Named(String),
    /// A file.
    File(PathBuf),
}

/// The neutral prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PanelSource {
    /// One that ships with the project.
    Named(String),
    /// A file.
    File(PathBuf),
}

/// Where in the thesaurus the concept belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConceptSpec {
    /// The axis it enters, such as `subject` or `style`.
    pub facet: String,
    /// The entity it is a kind of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

impl Serialize for CensusSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("budget", &self.budget)?;
        match &self.thesaurus {
            ThesaurusSource::Named(name) => map.serialize_entry("thesaurus", name)?,
            ThesaurusSource::File(path) => {
                map.serialize_entry("thesaurus", &serde_json::json!({ "file": path }))?;
            }
        }
        match &self.panel {
            PanelSource::Named(name) => map.serialize_entry("panel", name)?,
            PanelSource::File(path) => {
                map.serialize_entry("panel", &serde_json::json!({ "file": path }))?;
            }
        }
        let seeds = serde_json::json!({ "empty": self.seeds_empty, "other": self.seeds_other });
        map.serialize_entry("seeds", &seeds)?;
        map.serialize_entry("sampler", &self.sampler)?;
        map.serialize_entry("guidance_scale", &self.guidance_scale)?;
        // Left out where it is off, so that older recipes keep their fingerprints.
        if self.guidance_rescale > 0.0 {
            map.serialize_entry("guidance_rescale", &self.guidance_rescale)?;
        }
        map.serialize_entry("doses", &self.doses)?;
        map.serialize_entry("placebo", &self.placebo)?;
        map.serialize_entry("concept", &self.concept)?;
        map.serialize_entry("seed", &self.seed)?;
        if let Some(evaluator) = &self.evaluator {
            map.serialize_entry("evaluator", evaluator)?;
        }
        if let Some(evaluator) = &self.second_evaluator {
            map.serialize_entry("second_evaluator", evaluator)?;
        }
        if self.likelihood != LikelihoodWish::Auto {
            map.serialize_entry("likelihood", &self.likelihood)?;
        }
        if let Some(half_width) = &self.stop_at_half_width {
            map.serialize_entry("stop_at_half_width", half_width)?;
        }
        map.end()
    }
}

raw_section! {
    /// What is counted, with how many pictures.
    RawCensus {
        /// Size: glance (default), survey, census, or custom with `seeds`.
        budget: Choice<Budget>,
        /// Name of a shipped thesaurus or { file: PATH } (default: the one of the base).
        thesaurus: NameOrFile,
        /// Name of a shipped panel of neutral prompts or { file: PATH } (default neutral).
        panel: NameOrFile,
        /// Pictures per model, for `budget: custom`.
        seeds: RawSeeds,
        /// How pictures are drawn (default ddim with eta 1 and the budget's steps).
        sampler: Choice<RawSampler>,
        /// Guidance weight (default: what suits the base).
        #[schemars(range(min = 0))]
        guidance_scale: Real,
        /// Share by which guided pictures are brought back to the contrast of unguided ones
        /// (default 0, off).
        #[schemars(range(min = 0, max = 1))]
        guidance_rescale: Real,
        /// Multipliers of the adapter, rising, with 0 and 1 among them (default [0, 0.5, 1]).
        doses: Vec<Field<Real>>,
        /// Random adapters counted beside (default: glance and custom 0, survey 1, census 3).
        placebo: Whole,
        /// Where in the thesaurus the concept belongs.
        concept: RawConcept,
        /// Seed of all noise of the census (default 0).
        seed: Whole,
        /// Folder of the evaluator (default: the one that ships with the base).
        evaluator: PathBuf,
        /// Folder of an evaluator of another family, whose agreement is reported (default none).
        second_evaluator: PathBuf,
        /// Whether nats are measured: auto (default), force for distilled models, too, or off.
        likelihood: Choice<LikelihoodWish>,
        /// End early once every interval of the concept's facet is at most so wide to either side
        /// (default: draw all).
        #[schemars(range(min = 0.001, max = 0.5))]
        stop_at_half_width: Real,
    }
}

raw_section! {
    /// Pictures per model.
    RawSeeds {
        /// Seeds of the empty prompt.
        #[schemars(!default, required, range(min = 2))]
        empty: Whole,
        /// Seeds of all other prompts together.
        #[schemars(!default, required)]
        other: Whole,
    }
}

raw_section! {
    /// Where in the thesaurus the concept belongs.
    RawConcept {
        /// The axis it enters (default subject).
        facet: String,
        /// The entity it is a kind of (default: the dataset's class).
        class: String,
    }
}

/// Doses counted where a recipe does not say it.
const DEFAULT_DOSES: [f64; 3] = [0.0, 0.5, 1.0];

/// Doses that make sense: a probe below 0, some overdose above 1.
const DOSES: std::ops::RangeInclusive<f64> = -4.0..=4.0;

/// Steps of a custom census where a recipe does not say it.
const CUSTOM_STEPS: u32 = 12;

/// What the census takes from other sections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CensusContext<'a> {
    /// Gives sizes, thesaurus and guidance weight.
    pub(crate) base: &'a BaseSpec,
    /// The dataset's class.
    pub(crate) class: Option<&'a str>,
    /// Where files lie.
    pub(crate) places: &'a Places,
}

impl RawCensus {
    /// Resolves the section at `section`.
    pub(crate) fn resolve(
        self,
        section: Location,
        context: CensusContext<'_>,
        checks: &mut Checks,
    ) -> Option<CensusSpec> {
        let CensusContext { base, class, places } = context;
        let default_budget = if self.seeds.is_absent() { Budget::Glance } else { Budget::Custom };
        let budget_at = self.budget.location().unwrap_or(section);
        let budget = self.budget.choice_or(default_budget, "census.budget", checks);
        let numbers = budget.numbers(base);
        let seeds = seeds(self.seeds, budget, numbers.as_ref(), budget_at, checks);
        let (concept, _) = self.concept.section("census.concept", section, checks);
        let thesaurus = name_or_file(self.thesaurus, "census.thesaurus", places, checks);
        let panel = name_or_file(self.panel, "census.panel", places, checks);
        let evaluator = self.evaluator.given("census.evaluator", checks);
        let second = self.second_evaluator.given("census.second_evaluator", checks);
        let key = "census.stop_at_half_width";
        let stop_at_half_width = self.stop_at_half_width.number(key, &(0.001..=0.5), checks);
        let likelihood =
            self.likelihood.choice_or(LikelihoodWish::Auto, "census.likelihood", checks);
        let key = "census.guidance_rescale";
        let guidance_rescale = self.guidance_rescale.number_or(0.0, key, &(0.0..=1.0), checks);
        let default_placebo = numbers.as_ref().map_or(0, |numbers| numbers.placebo);
        let (seeds_empty, seeds_other) = seeds?;
        let thesaurus = match thesaurus {
            None => ThesaurusSource::Named(base.thesaurus().to_owned()),
            Some(Source::Name(name)) => ThesaurusSource::Named(name),
            Some(Source::File(path)) => ThesaurusSource::File(path),
        };
        Some(CensusSpec {
            budget,
            panel: match panel {
                None => PanelSource::Named(default_panel(&thesaurus, base).to_owned()),
                Some(Source::Name(name)) => PanelSource::Named(name),
                Some(Source::File(path)) => PanelSource::File(path),
            },
            thesaurus,
            seeds_empty,
            seeds_other,
            sampler: census_sampler(self.sampler, (budget, numbers.as_ref()), base, checks),
            guidance_scale: self.guidance_scale.number_or(
                base.guidance_scale(),
                "census.guidance_scale",
                &(0.0..=100.0),
                checks,
            ),
            guidance_rescale,
            doses: doses(self.doses, checks),
            placebo: self.placebo.count_or(default_placebo, "census.placebo", &(0..=64), checks),
            concept: concept.resolve(class, checks),
            seed: self.seed.number_or(0, "census.seed", &.., checks),
            evaluator: evaluator.map(|path| folder(&path, "census.evaluator", places, checks)),
            second_evaluator: second
                .map(|path| folder(&path, "census.second_evaluator", places, checks)),
            likelihood,
            stop_at_half_width,
        })
    }
}

/// The neutral prompts whose broader nodes a thesaurus has.
fn default_panel(thesaurus: &ThesaurusSource, base: &BaseSpec) -> &'static str {
    match thesaurus {
        ThesaurusSource::Named(name) if name == "postcards" => "neutral",
        ThesaurusSource::Named(name) if name == "starter" => "neutral-pictures",
        ThesaurusSource::Named(_) | ThesaurusSource::File(_) if *base == BaseSpec::Postcards => {
            "neutral"
        }
        ThesaurusSource::Named(_) | ThesaurusSource::File(_) => "neutral-pictures",
    }
}

/// Seeds of the empty and of the other prompts; a named budget fixes both.
fn seeds(
    raw: Field<RawSeeds>,
    budget: Budget,
    numbers: Option<&Numbers>,
    budget_at: Location,
    checks: &mut Checks,
) -> Option<(u32, u32)> {
    let Some(Spanned { value: raw, referenced, .. }) = raw.given("census.seeds", checks) else {
        let Some(numbers) = numbers else {
            let message = "`census.seeds` is missing, which `budget: custom` needs";
            checks.problem(budget_at, message);
            return None;
        };
        return Some((numbers.seeds_empty, numbers.seeds_other));
    };
    let range = 2..=10_000_000;
    let empty = raw.empty.required_number("census.seeds.empty", referenced, &range, checks);
    let range = 0..=10_000_000;
    let other = raw.other.required_number("census.seeds.other", referenced, &range, checks);
    let (empty, other) = (u32::try_from(empty?).ok()?, u32::try_from(other?).ok()?);
    if let Some(numbers) = numbers
        && (numbers.seeds_empty, numbers.seeds_other) != (empty, other)
    {
        checks.problem_with_hint(
            referenced,
            format!(
                "`census.seeds` must be {} and {} for this `budget`, found `{empty}` and `{other}`",
                numbers.seeds_empty, numbers.seeds_other
            ),
            "a census with its own numbers is `budget: custom`",
        );
    }
    debug_assert!(numbers.is_some() || budget == Budget::Custom, "only custom has no numbers");
    Some((empty, other))
}

fn census_sampler(
    raw: Field<Choice<RawSampler>>,
    (budget, numbers): (Budget, Option<&Numbers>),
    base: &BaseSpec,
    checks: &mut Checks,
) -> SamplerSpec {
    let location = raw.location();
    let steps = numbers.map_or(CUSTOM_STEPS, |numbers| numbers.steps);
    let default = SamplerSpec { kind: SamplerKind::Ddim { eta: 1.0 }, steps, spacing: None };
    let sampler = sampler::resolve(raw, default, base, "census.sampler", checks);
    if let Some(location) = location
        && budget != Budget::Custom
        && sampler.steps != steps
    {
        checks.problem_with_hint(
            location,
            format!(
                "`census.sampler` must have {steps} steps for this `budget`, found `{}`",
                sampler.steps
            ),
            "a census with its own numbers is `budget: custom`",
        );
    }
    sampler
}

fn doses(raw: Field<Vec<Field<Real>>>, checks: &mut Checks) -> Vec<f64> {
    const KEY: &str = "census.doses";
    let Some(Spanned { value, referenced, .. }) = raw.given(KEY, checks) else {
        return DEFAULT_DOSES.to_vec();
    };
    let items = plain_items(value, KEY, checks);
    for item in &items {
        check_range(item.value, KEY, &DOSES, item.referenced, checks);
    }
    for (before, after) in items.iter().zip(items.iter().skip(1)) {
        if before.value >= after.value {
            checks.problem(
                after.referenced,
                format!("`{KEY}` must rise, found `{}` after `{}`", after.value, before.value),
            );
        }
    }
    let doses: Vec<f64> = items.iter().map(|item| item.value).collect();
    for (needed, name) in [(0.0, "the base"), (1.0, "the adapter as fitted")] {
        if !doses.contains(&needed) {
            checks.problem(
                referenced,
                format!("`{KEY}` must hold {needed} ({name}), found `{doses:?}`"),
            );
        }
    }
    doses
}

impl RawConcept {
    fn resolve(self, class: Option<&str>, checks: &mut Checks) -> ConceptSpec {
        let facet = self.facet.given("census.concept.facet", checks);
        let given_class = self.class.given("census.concept.class", checks);
        ConceptSpec {
            facet: facet.map_or_else(
                || "subject".to_owned(),
                |facet| text(facet, "census.concept.facet", checks),
            ),
            class: given_class
                .map(|class| text(class, "census.concept.class", checks))
                .or_else(|| class.map(str::to_owned)),
        }
    }
}

/// A shipped thing by name, or a file.
enum Source {
    Name(String),
    File(PathBuf),
}

fn name_or_file(
    raw: Field<NameOrFile>,
    key: &str,
    places: &Places,
    checks: &mut Checks,
) -> Option<Source> {
    let Spanned { value, referenced, defined } = raw.given(key, checks)?;
    match value {
        NameOrFile::Name(name) => {
            let name = Spanned { value: name, referenced, defined };
            Some(Source::Name(crate::units::file_name(name, key, checks)))
        }
        NameOrFile::File(raw) => {
            let key = format!("{key}.file");
            let file = raw.file.required(&key, referenced, checks)?;
            Some(Source::File(folder(&file, &key, places, checks)))
        }
    }
}

#[cfg(test)]
mod tests;
