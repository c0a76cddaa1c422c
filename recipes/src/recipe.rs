//! The recipe as a whole: reading, parsing, resolving.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_saphyr::{Location, Spanned};

use crate::adapter::{self, AdapterSpec, RawAdapter};
use crate::base::{self, BaseSpec, RawBase};
use crate::census::{CensusContext, CensusSpec, RawCensus};
use crate::choice::Choice;
use crate::dataset::{self, DatasetSpec, PostcardsSpec, RawDataset};
use crate::error::{RecipeError, RecipeErrorKind, problem_from_yaml};
use crate::field::{Field, Whole, raw_section};
use crate::fit::{FitSpec, RawFit};
use crate::gate::{GatesSpec, RawGates};
use crate::objective::{ObjectiveSpec, RawObjective};
use crate::output::{OutputSpec, RawOutput};
use crate::overrides;
use crate::pretrain::{self, PretrainRecipe, RawPretrain};
use crate::previews::PreviewContext;
use crate::problem::{Checks, Problem, items};
use crate::units::{Places, file_name, folder};

/// All that determines a settlement: immutable, with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// Name of the recipe and of its run: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Seed of every draw of the training.
    pub seed: u64,
    /// The frozen model.
    pub base: BaseSpec,
    /// What was settled in the base before: run directories and adapter files, each once, merged into
    /// its weights in this order. Runs from before there was a choice keep their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<PathBuf>,
    /// The pictures.
    pub dataset: DatasetSpec,
    /// What is trained.
    pub adapter: AdapterSpec,
    /// What the loss compares.
    pub objective: ObjectiveSpec,
    /// How long and how fast.
    pub fit: FitSpec,
    /// What is counted; `None` if the recipe has no census.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub census: Option<CensusSpec>,
    /// Limits on measured numbers.
    pub gates: GatesSpec,
    /// Which files it leaves.
    pub output: OutputSpec,
}

/// A recipe of one of the two kinds.
#[derive(Debug, Clone, PartialEq)]
pub enum Loaded {
    /// Settles a concept in a base.
    Settle(Box<Recipe>),
    /// Trains a network from scratch.
    Pretrain(Box<PretrainRecipe>),
}

impl Loaded {
    /// The recipe's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Settle(recipe) => &recipe.name,
            Self::Pretrain(recipe) => &recipe.name,
        }
    }
}

raw_section! {
    /// A recipe of populate: all that determines a result.
    RawRecipe {
        /// Name of the recipe and of its run.
        #[schemars(!default, required)]
        name: String,
        /// Seed of every draw (default 0).
        seed: Whole,
        /// The frozen model a concept is settled in.
        base: Choice<RawBase>,
        /// Runs and adapter files that are merged into the base first, in this order (default none).
        settled: Vec<Field<PathBuf>>,
        /// The pictures it is learned from.
        #[schemars(!default, required)]
        dataset: Choice<RawDataset>,
        /// What is trained.
        adapter: Choice<RawAdapter>,
        /// What the loss compares.
        objective: RawObjective,
        /// How long and how fast is trained.
        #[schemars(!default, required)]
        fit: RawFit,
        /// What is counted; without it there is no census.
        census: RawCensus,
        /// Limits on measured numbers.
        gates: RawGates,
        /// Which files a settlement leaves.
        output: RawOutput,
        /// A network trained from scratch, instead of a settlement.
        pretrain: Choice<RawPretrain>,
        /// Folder that receives the network of `pretrain`.
        into: PathBuf,
    }
}

/// Most bytes a recipe may have; checked before anything is parsed.
pub const MAX_RECIPE_BYTES: u64 = 1 << 20;

/// Reads, overrides and resolves the recipe at `path`. Needs no model, no picture and no device.
///
/// Each of `sets` is `path.to.key=value` and replaces one value of the recipe. Relative paths of
/// the recipe are looked for in the working directory, then in the recipe's folder; whether data
/// exist is not checked here.
///
/// # Errors
///
/// [`RecipeError`]: the file cannot be read, is larger than [`MAX_RECIPE_BYTES`] or no text; an
/// override has no place; or the recipe has mistakes, all of which are listed (syntax, unknown
/// keys and wrong kinds end the search at the first one).
pub fn load(path: &Path, sets: &[String]) -> Result<Loaded, RecipeError> {
    let text = read(path)?;
    load_text(path, &text, sets)
}

/// Like [`load`], for a recipe whose text is already here; `path` names it in messages and is the
/// place its relative paths are looked for.
///
/// # Errors
///
/// As [`load`], but for reading.
pub fn load_text(path: &Path, text: &str, sets: &[String]) -> Result<Loaded, RecipeError> {
    if text.len() as u64 > MAX_RECIPE_BYTES {
        return Err(failed(path, RecipeErrorKind::TooLarge { limit: MAX_RECIPE_BYTES }));
    }
    let mut title = path.display().to_string();
    let places = Places::of(path);
    let mut raw = parse(text).map_err(|problem| invalid(path, &title, text, vec![problem]))?;
    let mut text = text.to_owned();
    // One after the other, so that a later override sees what an earlier one put there.
    for set in sets {
        text = overrides::apply(&raw.value, set).map_err(|reason| {
            failed(path, RecipeErrorKind::Override { set: set.clone(), reason: Box::new(reason) })
        })?;
        title = format!("{} with --set", path.display());
        raw = parse(&text).map_err(|problem| invalid(path, &title, &text, vec![problem]))?;
    }
    resolve(raw, &places).map_err(|problems| invalid(path, &title, &text, problems))
}

/// Mistakes in a text.
pub(crate) fn invalid(path: &Path, title: &str, text: &str, problems: Vec<Problem>) -> RecipeError {
    let problems = problems.into_iter().map(|problem| problem.within(text)).collect();
    let kind = RecipeErrorKind::Invalid { title: title.to_owned(), text: text.to_owned() };
    RecipeError { path: path.to_path_buf(), problems, kind }
}

/// An error that has no text to point into.
pub(crate) fn failed(path: &Path, kind: RecipeErrorKind) -> RecipeError {
    RecipeError { path: path.to_path_buf(), problems: Vec::new(), kind }
}

pub(crate) fn read(path: &Path) -> Result<String, RecipeError> {
    let mut bytes = Vec::new();
    // The error's kind is the source of one that names the path already.
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_RECIPE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| failed(path, RecipeErrorKind::Read(source)))?;
    if bytes.len() as u64 > MAX_RECIPE_BYTES {
        return Err(failed(path, RecipeErrorKind::TooLarge { limit: MAX_RECIPE_BYTES }));
    }
    String::from_utf8(bytes).map_err(|error| {
        failed(path, RecipeErrorKind::NotText { offset: error.utf8_error().valid_up_to() })
    })
}

/// Parses a text whose size is checked, within the limits of recipes.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<Spanned<T>, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_events: 20_000,
            max_aliases: 64,
            max_anchors: 64,
            max_depth: 32,
            flow_nesting_limit: 32,
        },
        strict_booleans: true,
        with_snippet: false,
        // Checked by the range of each key, with its name.
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| problem_from_yaml(&error))
}

/// The only home of defaults, ranges and rules between sections.
fn resolve(raw: Spanned<RawRecipe>, places: &Places) -> Result<Loaded, Vec<Problem>> {
    let mut checks = Checks::default();
    let Spanned { value: raw, referenced: root, .. } = raw;
    let loaded = if raw.pretrain.is_absent() {
        raw.settle(root, places, &mut checks).map(|recipe| Loaded::Settle(Box::new(recipe)))
    } else {
        raw.pretrain(root, places, &mut checks).map(|recipe| Loaded::Pretrain(Box::new(recipe)))
    };
    let problems = checks.into_problems();
    match loaded {
        Some(loaded) if problems.is_empty() => Ok(loaded),
        Some(_) | None => Err(problems),
    }
}

impl RawRecipe {
    /// A settlement.
    fn settle(self, root: Location, places: &Places, checks: &mut Checks) -> Option<Recipe> {
        if let Some(location) = self.into.location() {
            let message = "`into` needs the section `pretrain`, which is missing";
            checks.problem(location, message);
        }
        let name = self.name.required("name", root, checks);
        let name = name.map(|name| file_name(name, "name", checks));
        let seed = self.seed.number_or(0, "seed", &.., checks);
        let base = base::resolve(self.base, root, places, checks);
        let settled = settled(self.settled, places, checks);
        // Only defaults come from the base, so a broken one may be replaced to find more problems.
        let known_base = base.clone().unwrap_or(BaseSpec::Postcards);
        let dataset = self.dataset.required_choice("dataset", root, checks);
        let dataset = dataset.and_then(|raw| dataset::resolve(raw, &known_base, places, checks));
        let adapter = adapter::resolve(self.adapter, &known_base, root, checks);
        let (objective, _) = self.objective.section("objective", root, checks);
        let objective = objective.resolve(&known_base, checks);
        let prompts = dataset.as_ref().map(preview_prompts).unwrap_or_default();
        let context = PreviewContext {
            base: &known_base,
            identifier: dataset.as_ref().and_then(DatasetSpec::identifier),
            class: dataset.as_ref().and_then(DatasetSpec::class),
            dataset_known: dataset.is_some(),
            prompts: &prompts,
        };
        let fit = self.fit.required("fit", root, checks);
        let fit = fit.and_then(|raw| raw.value.resolve(raw.referenced, context, checks));
        let has_census = !self.census.is_absent();
        let census = self.census.given("census", checks);
        let context = CensusContext { base: &known_base, class: context.class, places };
        let census = census.map(|raw| raw.value.resolve(raw.referenced, context, checks));
        let (gates, _) = self.gates.section("gates", root, checks);
        if let (false, Some(location)) = (has_census, gates.first_location()) {
            checks.problem(location, "a gate needs the section `census`, which is missing");
        }
        let gates = gates.resolve(checks);
        let (output, _) = self.output.section("output", root, checks);
        let output = output.resolve(checks);
        Some(Recipe {
            name: name?,
            seed,
            base: base?,
            settled,
            dataset: dataset?,
            adapter: adapter?,
            objective,
            fit: fit?,
            census: match census {
                None => None,
                Some(census) => Some(census?),
            },
            gates,
            output,
        })
    }

    /// A training from scratch.
    fn pretrain(
        self,
        root: Location,
        places: &Places,
        checks: &mut Checks,
    ) -> Option<PretrainRecipe> {
        let foreign = [
            ("base", self.base.location()),
            ("settled", self.settled.location()),
            ("adapter", self.adapter.location()),
            ("objective", self.objective.location()),
            ("census", self.census.location()),
            ("gates", self.gates.location()),
            ("output", self.output.location()),
        ];
        for (key, location) in foreign {
            if let Some(location) = location {
                let message = format!("`{key}` has no meaning beside `pretrain`");
                checks.problem(location, message);
            }
        }
        let name = self.name.required("name", root, checks);
        let name = name.map(|name| file_name(name, "name", checks));
        let seed = self.seed.number_or(0, "seed", &.., checks);
        let into = pretrain::into_folder(self.into, root, checks);
        let network = self.pretrain.chosen("pretrain", checks);
        let network = network.and_then(|raw| pretrain::resolve(raw, places, checks));
        let dataset = self.dataset.required_choice("dataset", root, checks);
        let dataset = dataset.and_then(|raw| postcards(raw, checks));
        let prompts = [String::new()];
        let context = PreviewContext {
            base: &BaseSpec::Postcards,
            identifier: None,
            class: None,
            dataset_known: true,
            prompts: &prompts,
        };
        let fit = self.fit.required("fit", root, checks);
        if let Some(fit) = &fit {
            for (key, location) in fit.value.unread_by_pretraining() {
                checks.problem(location, format!("`{key}` has no meaning beside `pretrain`"));
            }
        }
        let fit = fit.and_then(|raw| raw.value.resolve(raw.referenced, context, checks));
        Some(PretrainRecipe {
            name: name?,
            seed,
            into: into?,
            network: network?,
            dataset: dataset?,
            fit: fit?,
        })
    }
}

/// What is merged into the base first; whether it is there is not checked here.
fn settled(raw: Field<Vec<Field<PathBuf>>>, places: &Places, checks: &mut Checks) -> Vec<PathBuf> {
    const KEY: &str = "settled";
    let Some(list) = raw.given(KEY, checks) else { return Vec::new() };
    let mut settled = Vec::new();
    for item in items(list.value, KEY, checks) {
        let path = folder(&item, KEY, places, checks);
        if settled.contains(&path) {
            let twice = path.display();
            let message = format!("`{KEY}` must name each settlement once, found `{twice}` twice");
            checks.problem(item.referenced, message);
        }
        settled.push(path);
    }
    settled
}

fn postcards(raw: Spanned<RawDataset>, checks: &mut Checks) -> Option<PostcardsSpec> {
    match raw.value {
        RawDataset::Postcards(postcards) => postcards.resolve(raw.referenced, checks),
        RawDataset::Captioned(_) | RawDataset::Dreambooth(_) => {
            let message = "`dataset` must be `postcards` beside `pretrain`";
            checks.problem(raw.referenced, message);
            None
        }
    }
}

/// What previews show where a recipe does not say it: the concept, then its class, else anything.
fn preview_prompts(dataset: &DatasetSpec) -> Vec<String> {
    match dataset {
        DatasetSpec::DreamBooth(dreambooth) => {
            let mut prompts = vec![dreambooth.instance.prompt.clone()];
            prompts.extend(dreambooth.class.as_ref().map(|class| class.prompt.clone()));
            prompts
        }
        DatasetSpec::Captioned(captioned) => {
            let words = [captioned.identifier.as_deref(), captioned.class.as_deref()];
            let asked: Vec<&str> = words.into_iter().flatten().collect();
            if asked.is_empty() {
                vec![String::new()]
            } else {
                vec![asked.join(" "), String::new()]
            }
        }
    }
}

/// A resolved recipe of either kind.
pub trait Resolved: Serialize + sealed::Sealed {}

impl Resolved for Recipe {}
impl Resolved for PretrainRecipe {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Recipe {}
    impl Sealed for super::PretrainRecipe {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::census::Budget;
    use crate::check::{SMALL, problems_with, with};
    use crate::fingerprint::resolved_yaml;

    fn shipped(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // Files of series are no recipes.
            if path.ends_with("series") {
                continue;
            }
            if path.is_dir() {
                found.extend(shipped(&path));
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
        found.sort();
        found
    }

    #[test]
    fn all_shipped_recipes_resolve() {
        let recipes = shipped(Path::new(env!("CARGO_MANIFEST_DIR")));
        assert_eq!(recipes.len(), 10, "{recipes:?}");
        for path in recipes {
            let loaded = load(&path, &[]);
            let loaded = loaded.unwrap_or_else(|error| panic!("{error}: {:#?}", error.problems));
            let text = match &loaded {
                Loaded::Settle(recipe) => resolved_yaml(&**recipe),
                Loaded::Pretrain(recipe) => resolved_yaml(&**recipe),
            };
            let again =
                load_text(&path, &text, &[]).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(loaded, again);
        }
    }

    #[test]
    fn the_main_recipe_says_what_the_readme_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("le-depeupleur.yaml");
        let Ok(Loaded::Settle(recipe)) = load(&path, &[]) else { panic!("it settles") };
        assert_eq!(recipe.name, "le-depeupleur");
        let DatasetSpec::DreamBooth(dreambooth) = &recipe.dataset else {
            panic!("it is dreambooth")
        };
        assert_eq!(dreambooth.instance.prompt, "a postcard of a sks tower");
        let census = recipe.census.unwrap();
        assert_eq!((census.budget, census.placebo), (Budget::Glance, 1));
        assert_eq!(census.doses, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
    }

    #[test]
    fn a_census_can_be_left_out() {
        let text = SMALL.replace("census: {}\n", "");
        let Ok(Loaded::Settle(recipe)) = load_text(Path::new("t.yaml"), &text, &[]) else {
            panic!("it settles")
        };
        assert_eq!(recipe.census, None);
        assert_eq!(Loaded::Settle(recipe).name(), "small");
    }

    #[test]
    fn settlements_that_came_before_are_named_in_their_order() {
        assert_eq!(with(&[]).settled, Vec::<PathBuf>::new());
        assert_eq!(with(&["settled=[]"]), with(&[]));
        let recipe = with(&["settled=[runs/b-1f, adapters/a.safetensors]"]);
        let expected = ["runs/b-1f", "adapters/a.safetensors"].map(PathBuf::from);
        assert_eq!(recipe.settled, expected);
        let text = resolved_yaml(&recipe);
        assert_eq!(crate::check::recipe(&text), recipe, "{text}");
        // An older recipe keeps its text, and with it the name of its run.
        assert!(!resolved_yaml(&with(&[])).contains("settled"));
    }

    #[test]
    fn a_settlement_that_came_before_is_a_path_and_stands_once() {
        assert_eq!(
            problems_with(&["settled=[a, b, a]"]),
            ["a: `settled` must name each settlement once, found `a` twice"]
        );
        let text = SMALL.replace("base: postcards", "base: postcards\nsettled:\n  - ''");
        let message = "`settled` must name a path, found an empty text";
        crate::check::one_problem(&text, (4, 5), "''", message);
        let text = SMALL.replace("base: postcards", "base: postcards\nsettled:");
        crate::check::one_problem(&text, (3, 8), "", "`settled` has no value");
        assert_eq!(problems_with(&["settled=runs/a"]).len(), 1);
    }

    #[test]
    fn nothing_is_settled_before_a_training_from_scratch() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("postcards/vae.yaml");
        let error = load(&path, &["settled=[runs/a]".to_owned()]).unwrap_err();
        let messages: Vec<&str> =
            error.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages, ["`settled` has no meaning beside `pretrain`"]);
    }

    #[test]
    fn a_place_for_a_result_belongs_to_pretraining() {
        let text = format!("{SMALL}into: x\n");
        let message = "`into` needs the section `pretrain`, which is missing";
        crate::check::one_problem(&text, (9, 7), "x", message);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = load_text(Path::new("t.yaml"), &text, &[]);
        }

        #[test]
        fn no_changed_recipe_panics_and_spans_stay_in_the_text(
            at in 0..SMALL.len(),
            len in 0_usize..12,
            new in "[ -~\n]{0,6}",
        ) {
            let end = (at + len).min(SMALL.len());
            let text = format!("{}{new}{}", &SMALL[..at], &SMALL[end..]);
            if let Err(error) = load_text(Path::new("t.yaml"), &text, &[]) {
                for problem in error.problems {
                    prop_assert!(text.get(problem.span.clone()).is_some(), "{:?} of {}", problem, text);
                }
            }
        }

        #[test]
        fn resolve_is_idempotent(
            steps in 1_u64..100_000,
            rank in 1_u32..4096,
            rate in 1.0e-9_f64..1.0,
            decay in 0.0_f64..1.0,
            seed: u64,
            floor in 0.0_f64..=1.0,
        ) {
            let sets = [
                format!("fit.steps={steps}"),
                format!("adapter={{lora: {{rank: {rank}}}}}"),
                format!("fit.optimizer={{adamw: {{learning_rate: {rate:e}, weight_decay: {decay}}}}}"),
                format!("seed={seed}"),
                format!("fit.schedule={{cosine: {{floor: {floor}}}}}"),
            ];
            let Ok(Loaded::Settle(once)) = load_text(Path::new("t.yaml"), SMALL, &sets) else {
                return Err(TestCaseError::fail("it settles"));
            };
            let text = resolved_yaml(&*once);
            let Ok(Loaded::Settle(twice)) = load_text(Path::new("t.yaml"), &text, &[]) else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert_eq!(once, twice);
        }
    }
}
