//! What several verbs open: the base, the pictures, the run that a recipe names.

pub(crate) mod settled;

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::path::{Path, PathBuf};

use checkpoints::run_dir::{AttemptRecord, Checkpoint, RunFolder, run_id};
use checkpoints::{Family, ModelFiles, ModelOptions, Predicts, WhichWeights};
use datasets::{Dataset, Warning};
use models::Base;
use models::adapter::{self, Exchanged};
use models::base::Precision;
use recipes::{
    AdapterSpec, BasePrecision, BasePrediction, BaseSpec, Loaded, ModelSpec, PredictionSpec,
    Recipe, WeightingSpec, WeightsSet, WeightsSource, ZeroTerminalSnr,
};

use crate::device::ChosenDevice;
use crate::environment;
use crate::error::JobError;
use crate::hub;
use crate::terminal::Terminal;
use settled::Settled;

/// A recipe with what it names, opened and hashed; no weight is on a device yet.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The base's files.
    pub(crate) base_files: ModelFiles,
    /// One hash of the base that is trained on: with what was settled in it before.
    pub(crate) base_sha256: String,
    /// Hashes of the base's files.
    file_hashes: BTreeMap<String, String>,
    /// What was settled in it before, in this order.
    settled: Vec<Settled>,
    /// The pictures.
    pub(crate) dataset: Dataset,
    /// Hash over recipe, base and pictures.
    pub(crate) fingerprint: String,
}

impl Opened {
    /// Opens what `recipe` names.
    ///
    /// # Errors
    ///
    /// Every problem of the pictures; a base that is not there; an earlier settlement that is not
    /// there, not finished or not for this base.
    pub(crate) fn of(recipe: &Recipe) -> Result<Self, JobError> {
        let base_files = base_files(&recipe.base)?;
        // Hashing a large base takes a while: what may be wrong with the pictures is said before.
        let dataset = datasets::open(&recipe.dataset)?;
        let settled = settled::open(&recipe.settled)?;
        settled::check(&settled, &base_files)?;
        let file_hashes = base_files.hashes()?;
        let base_sha256 = settled::base_sha256(&file_hashes, &settled);
        let fingerprint = recipes::fingerprint(recipe, &base_sha256, &dataset.sha256);
        Ok(Self { base_files, base_sha256, file_hashes, settled, dataset, fingerprint })
    }

    /// Hashes that tell a census what it counts; `root` and `settled` where something was settled
    /// before.
    pub(crate) fn hashes(&self) -> BTreeMap<String, String> {
        let mut hashes = BTreeMap::from([
            ("base".to_owned(), self.base_sha256.clone()),
            ("dataset".to_owned(), self.dataset.sha256.clone()),
        ]);
        if !self.settled.is_empty() {
            hashes.insert("root".to_owned(), settled::base_sha256(&self.file_hashes, &[]));
            hashes.insert("settled".to_owned(), settled::identities(&self.settled));
        }
        hashes
    }

    /// Says what is odd about the pictures, and about what was settled before.
    pub(crate) fn warn(&self, terminal: &Terminal) {
        warn_of(&self.dataset, terminal);
        settled::warn(&self.settled, &self.file_hashes, terminal);
    }

    /// Name of the run directory, unless the user gives one.
    pub(crate) fn run_id(&self, recipe: &Recipe, given: Option<&str>) -> String {
        given.map_or_else(|| run_id(&recipe.name, &self.fingerprint), str::to_owned)
    }
}

/// The files of a base; the embedded one is unpacked into the user's cache.
///
/// # Errors
///
/// Files that are missing or are no base; a base of another family than the recipe says.
pub(crate) fn base_files(spec: &BaseSpec) -> Result<ModelFiles, JobError> {
    let (model, expected) = match spec {
        BaseSpec::Postcards => {
            return Ok(checkpoints::postcards::folder(&environment::cache_dir())?.into());
        }
        BaseSpec::Folder { weights } => {
            return Ok(ModelFiles::open(weights, &ModelOptions::default())?);
        }
        BaseSpec::Sd1(model) => (model, Family::Sd1),
        BaseSpec::Sd2(model) => (model, Family::Sd2),
        BaseSpec::Sdxl(model) => (model, Family::Sdxl),
    };
    let files = open_weights(&model.weights, model_options(model))?;
    check_family(expected, &files)?;
    // A single file may not say what it predicts: that is said before it is hashed.
    files.scheduler()?;
    Ok(files)
}

/// Opens weights that lie at a path or in the cache of the Hugging Face hub.
///
/// # Errors
///
/// Files that are missing or are no base.
pub(crate) fn open_weights(
    source: &WeightsSource,
    options: ModelOptions,
) -> Result<ModelFiles, JobError> {
    match source {
        WeightsSource::Path(path) => Ok(ModelFiles::open(path, &options)?),
        WeightsSource::Hub(model) => {
            // A snapshot lies in a folder that is named by its commit, which tells a reader nothing.
            let name = options.name.or_else(|| model.repo.rsplit('/').next().map(str::to_owned));
            let path = hub::local_path(model, options.variant.as_deref())?;
            Ok(ModelFiles::open(&path, &ModelOptions { name, ..options })?)
        }
    }
}

fn model_options(model: &ModelSpec) -> ModelOptions {
    ModelOptions {
        variant: model.variant.clone(),
        vae: model.vae.clone(),
        which: match model.weights_set {
            WeightsSet::Plain => WhichWeights::Plain,
            WeightsSet::Average => WhichWeights::Average,
        },
        prediction: match model.prediction {
            BasePrediction::Auto => None,
            BasePrediction::Epsilon => Some(Predicts::Epsilon),
            BasePrediction::V => Some(Predicts::V),
            BasePrediction::Sample => Some(Predicts::Sample),
        },
        zero_terminal_snr: match model.zero_terminal_snr {
            ZeroTerminalSnr::Auto => None,
            ZeroTerminalSnr::On => Some(true),
            ZeroTerminalSnr::Off => Some(false),
        },
        name: None,
    }
}

fn check_family(expected: Family, files: &ModelFiles) -> Result<(), JobError> {
    let found = files.family();
    if found == expected {
        return Ok(());
    }
    let advice = match found {
        Family::Postcards => "it has the structure of none of the released families".to_owned(),
        Family::Sd1 | Family::Sd2 | Family::Sdxl => {
            format!("write `base: {{ {}: {{ weights: … }} }}`, or name other weights", found.name())
        }
    };
    Err(JobError::Data {
        message: format!(
            "`{}` is {}, expected {} (`base.{}`)",
            files.path().display(),
            found.title(),
            expected.title(),
            expected.name()
        ),
        hint: Some(advice),
    })
}

/// The folder of the evaluator: the recipe's own, or the one beside the base.
pub(crate) fn evaluator_folder(recipe: &Recipe, base_files: &ModelFiles) -> PathBuf {
    let named = recipe.census.as_ref().and_then(|census| census.evaluator.clone());
    named.unwrap_or_else(|| base_files.evaluator_dir())
}

/// In which number format the UNet of a recipe's base is computed on a device.
///
/// # Errors
///
/// As [`precision_on`].
pub(crate) fn precision(recipe: &Recipe, device: &ChosenDevice) -> Result<Precision, JobError> {
    let asked = match (recipe.base.model(), &recipe.adapter) {
        (None, _) => BasePrecision::F32,
        // Updates of the weights themselves would be lost in the rounding, and so would what is merged
        // into them.
        (Some(model), adapter)
            if model.precision == BasePrecision::Auto
                && (matches!(adapter, AdapterSpec::Full(_)) || !recipe.settled.is_empty()) =>
        {
            BasePrecision::F32
        }
        (Some(model), AdapterSpec::Full(_) | AdapterSpec::Lora(_)) => model.precision,
    };
    precision_on(device, asked)
}

/// What is asked for, on a device: `auto` is bf16 on an NVIDIA card that computes in it, else f32.
///
/// # Errors
///
/// [`JobError::Usage`] for bf16 on a card that does not compute in it.
pub(crate) fn precision_on(
    device: &ChosenDevice,
    asked: BasePrecision,
) -> Result<Precision, JobError> {
    let is_wanted = match asked {
        BasePrecision::Auto => device.cuda_index.is_some(),
        BasePrecision::F32 => false,
        BasePrecision::Bf16 => true,
    };
    if is_wanted && Precision::Bf16.is_supported(&device.device) {
        return Ok(Precision::Bf16);
    }
    if asked == BasePrecision::Bf16 {
        return Err(JobError::Usage {
            message: format!("precision is `bf16`, which device `{}` cannot compute", device.name),
            hint: Some("leave it at `auto`, which takes f32 there".to_owned()),
        });
    }
    Ok(Precision::F32)
}

/// Whether what a recipe trains is an adapter of the denoiser and of nothing else.
pub(crate) fn trains_unet_alone(recipe: &Recipe) -> bool {
    match &recipe.adapter {
        AdapterSpec::Lora(spec) => spec.targets.iter().all(|target| target.starts_with("unet.")),
        AdapterSpec::Full(_) => false,
    }
}

/// Loads the base of a recipe in the precision that it has on this device, and merges into it what was
/// settled before.
pub(crate) fn load_base(
    recipe: &Recipe,
    opened: &Opened,
    device: &ChosenDevice,
) -> Result<Base, JobError> {
    let precision = precision(recipe, device)?;
    let mut base = models::base::load_with(&opened.base_files, &device.device, precision)?;
    base.clip_skip = recipe.base.model().map_or(1, |model| model.clip_skip as usize);
    settled::merge(&opened.settled, &mut base)?;
    Ok(base)
}

/// The recipe of a settlement; a training from scratch has neither adapter nor census.
pub(crate) fn settlement(loaded: Loaded, verb: &str) -> Result<Box<Recipe>, JobError> {
    match loaded {
        Loaded::Settle(recipe) => Ok(recipe),
        Loaded::Pretrain(recipe) => Err(JobError::Usage {
            message: format!(
                "recipe `{}` trains a network from scratch, expected one that settles a concept",
                recipe.name
            ),
            hint: Some(format!("`populate train` runs it; `{verb}` needs an adapter")),
        }),
    }
}

/// Entry of an attempt's record: the folder from which the relative paths of its recipe count.
pub(crate) const STARTED_IN: &str = "started_in";

/// Opens a run and goes to where its last attempt was started, if that folder is there: from it
/// the relative paths of the recipe count.
///
/// # Errors
///
/// [`JobError::Checkpoint`] if the folder is no run.
pub(crate) fn open_run(path: &Path) -> Result<RunFolder, JobError> {
    let folder = RunFolder::open(path)?;
    let started_in = folder.attempts()?.into_iter().rev().find_map(|record| match record {
        AttemptRecord::Start { mut attempt, .. } => attempt.engine.remove(STARTED_IN),
        AttemptRecord::End { .. } => None,
    });
    let here = environment::working_dir();
    let elsewhere = started_in.map(PathBuf::from).filter(|dir| here.as_ref() != Some(dir));
    match (elsewhere, path.canonicalize()) {
        (Some(dir), Ok(real)) if environment::enter(&dir) => Ok(RunFolder::open(&real)?),
        _ => Ok(folder),
    }
}

/// The recipe that a run directory holds.
///
/// # Errors
///
/// [`JobError::Checkpoint`] if the folder is no run, [`JobError::Recipe`] if its recipe was damaged.
pub(crate) fn recipe_of_run(folder: &RunFolder) -> Result<Box<Recipe>, JobError> {
    settlement(any_recipe_of_run(folder)?, "census")
}

/// The same, also of a training from scratch.
pub(crate) fn any_recipe_of_run(folder: &RunFolder) -> Result<Loaded, JobError> {
    let path = folder.path().join("recipe.resolved.yaml");
    Ok(recipes::load_text(&path, folder.recipe_yaml(), &[])?)
}

/// The last checkpoint of a training that is complete.
///
/// # Errors
///
/// [`JobError::Usage`] for one that is not; [`JobError::Checkpoint`] for what cannot be read.
pub(crate) fn finished(recipe: &Recipe, run: &RunFolder) -> Result<Checkpoint, JobError> {
    let newest = run.newest()?;
    let step = newest.as_ref().map_or(0, Checkpoint::step);
    match newest {
        Some(checkpoint) if step == recipe.fit.steps => Ok(checkpoint),
        Some(_) | None => Err(JobError::Usage {
            message: format!(
                "run `{}` is at step {step}, expected {}",
                run.path().display(),
                recipe.fit.steps
            ),
            hint: Some(format!(
                "finish it first: `populate resume {}`",
                shell_word(&run.path().display().to_string())
            )),
        }),
    }
}

/// The run that a path means: the run directory itself, or that of the recipe in a file.
pub(crate) fn run_folder(path: &Path, sets: &[String], runs: &Path) -> Result<RunFolder, JobError> {
    if path.is_dir() {
        if !sets.is_empty() {
            return Err(JobError::Usage {
                message: "`--set` changes a recipe, found a run directory".to_owned(),
                hint: Some("a run keeps the recipe that it was trained with".to_owned()),
            });
        }
        return open_run(path);
    }
    let recipe = settlement(recipes::load(path, sets)?, "census")?;
    let opened = Opened::of(&recipe)?;
    let dir = runs.join(opened.run_id(&recipe, None));
    if !dir.is_dir() {
        return Err(JobError::Usage {
            message: format!("recipe `{}` has no run at `{}`", path.display(), dir.display()),
            hint: Some(format!("`populate train {}` makes one", path.display())),
        });
    }
    Ok(RunFolder::open(&dir)?)
}

/// Reads an adapter file in any of the exchanged forms.
pub(crate) fn read_adapter(path: &Path, base: &Base) -> Result<Exchanged, JobError> {
    let layers = adapter::base_layers(base);
    let map = adapter::key_map(&layers, base.unet.config())?;
    Ok(adapter::adapter_from_file(path, &layers, &map)?)
}

/// Says what is odd about pictures: each kind of oddness a few times, then how often more.
pub(crate) fn warn_of(dataset: &Dataset, terminal: &Terminal) {
    const SHOWN: usize = 3;
    let mut counts: Vec<(Discriminant<Warning>, usize)> = Vec::new();
    for warning in &dataset.warnings {
        let kind = discriminant(warning);
        let place = counts.iter().position(|(other, _)| *other == kind).unwrap_or_else(|| {
            counts.push((kind, 0));
            counts.len() - 1
        });
        counts[place].1 += 1;
        if counts[place].1 <= SHOWN {
            terminal.warn(&warning.to_string());
        }
    }
    let n_more: usize = counts.iter().map(|(_, count)| count.saturating_sub(SHOWN)).sum();
    if n_more > 0 {
        terminal.warn(&format!("{n_more} more of the same kinds"));
    }
}

/// Refuses to train a network for another kind of output than its scheduler will sample with.
///
/// # Errors
///
/// [`JobError::Usage`] with both kinds.
pub(crate) fn check_prediction(recipe: &Recipe, base: &Base) -> Result<(), JobError> {
    let given = base.scheduler.get("prediction_type").and_then(serde_json::Value::as_str);
    let (of_base, asked) = (given.unwrap_or("epsilon"), recipe.objective.prediction);
    let fits = match asked {
        PredictionSpec::Auto => true,
        PredictionSpec::Epsilon => of_base == "epsilon",
        PredictionSpec::V => of_base == "v_prediction",
    };
    if fits {
        return Ok(());
    }
    Err(JobError::Usage {
        message: format!(
            "`objective.prediction` is `{}`, but the base's scheduler says `{of_base}`",
            if asked == PredictionSpec::V { "v" } else { "epsilon" }
        ),
        hint: Some("leave it at `auto`, which asks the base".to_owned()),
    })
}

/// Says if noise levels are weighed so that the noisiest one, which the base knows, is not trained.
pub(crate) fn warn_of_weighting(recipe: &Recipe, base: &Base, terminal: &Terminal) {
    let is_zero = base.scheduler.get("rescale_betas_zero_snr") == Some(&true.into());
    if is_zero && matches!(recipe.objective.weighting, WeightingSpec::MinSnr { .. }) {
        terminal.warn(
            "nothing of the picture is left in the base's last noise level, and min-SNR gives that \
             level no weight; `objective: { weighting: uniform }` trains it",
        );
    }
}

/// Says if the pictures are prepared at another side than the base was made for.
pub(crate) fn warn_of_side(recipe: &Recipe, base: &Base, terminal: &Terminal) {
    let (side_px, made_for) = (recipe.dataset.image_options().side_px, base.nominal_side_px());
    if side_px as usize != made_for {
        terminal.warn(&format!(
            "pictures are prepared at {side_px} px, the base was made for {made_for} px; \
             set `side_px` of the dataset to change that"
        ));
    }
}

/// Says if the UNet is computed in a number format that only cards are fast in.
pub(crate) fn warn_of_precision(base: &Base, terminal: &Terminal) {
    if base.precision == Precision::Bf16 && base.device_kind() == "cpu" {
        terminal.warn(
            "bf16 on a processor is slower than f32, since every operation converts its numbers; \
             leave the precision at `auto`",
        );
    }
}

/// A word as a shell reads it back.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use models::Device;

    use super::*;

    fn device(cuda_index: Option<usize>) -> ChosenDevice {
        ChosenDevice { device: Device::flex(), cuda_index, name: "a device".to_owned() }
    }

    fn recipe(base: &str, adapter: &str) -> Box<Recipe> {
        let text = format!(
            "name: small\nbase: {base}\ndataset:\n  dreambooth:\n    instance: {{ concept: \
             cylinder, identifier: sks, class: tower, prompt: a sks tower }}\nadapter: {adapter}\n\
             fit: {{ steps: 3, optimizer: {{ adamw: {{ learning_rate: 1.0e-3 }} }} }}\n"
        );
        settlement(recipes::load_text(Path::new("t.yaml"), &text, &[]).unwrap(), "train").unwrap()
    }

    #[test]
    fn auto_is_bf16_on_a_card_and_f32_on_the_processor() {
        for (asked, on_card, on_processor) in [
            (BasePrecision::Auto, Precision::Bf16, Precision::F32),
            (BasePrecision::F32, Precision::F32, Precision::F32),
            (BasePrecision::Bf16, Precision::Bf16, Precision::Bf16),
        ] {
            assert_eq!(precision_on(&device(Some(0)), asked).unwrap(), on_card, "{asked:?}");
            assert_eq!(precision_on(&device(None), asked).unwrap(), on_processor, "{asked:?}");
        }
    }

    #[test]
    fn only_a_frozen_base_of_a_released_family_is_computed_in_bf16() {
        let full = "{ full: { targets: ['unet.**'] } }";
        for (base, adapter, expected) in [
            ("{ sd1: { weights: w } }", "lora", Precision::Bf16),
            ("{ sdxl: { weights: w, precision: f32 } }", "lora", Precision::F32),
            ("{ sd2: { weights: w } }", full, Precision::F32),
            ("{ folder: { weights: w } }", "lora", Precision::F32),
            ("postcards", "lora", Precision::F32),
        ] {
            let recipe = recipe(base, adapter);
            assert_eq!(precision(&recipe, &device(Some(0))).unwrap(), expected, "{base} {adapter}");
        }
    }

    #[test]
    fn words_come_back_from_a_shell_as_they_were() {
        assert_eq!(shell_word("runs/a-1f"), "runs/a-1f");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
