//! What several verbs open: the base, the pictures, the run that a recipe names.

use std::mem::{Discriminant, discriminant};
use std::path::{Path, PathBuf};

use checkpoints::folder::ModelFolder;
use checkpoints::run_dir::{AttemptRecord, RunFolder, run_id};
use datasets::{Dataset, Warning};
use models::adapter::{self, Exchanged};
use models::{Base, Device};
use recipes::{BaseSpec, Loaded, PredictionSpec, Recipe};

use crate::environment;
use crate::error::JobError;
use crate::terminal::Terminal;

/// A recipe with what it names, opened and hashed; no weight is on a device yet.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The base's folder.
    pub(crate) base_folder: ModelFolder,
    /// One hash of the base.
    pub(crate) base_sha256: String,
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
    /// Every problem of the pictures; a base that is not there.
    pub(crate) fn of(recipe: &Recipe) -> Result<Self, JobError> {
        let base_folder = base_folder(&recipe.base)?;
        let base_sha256 = base_folder.sha256()?;
        let dataset = datasets::open(&recipe.dataset)?;
        let fingerprint = recipes::fingerprint(recipe, &base_sha256, &dataset.sha256);
        Ok(Self { base_folder, base_sha256, dataset, fingerprint })
    }

    /// Name of the run directory, unless the user gives one.
    pub(crate) fn run_id(&self, recipe: &Recipe, given: Option<&str>) -> String {
        given.map_or_else(|| run_id(&recipe.name, &self.fingerprint), str::to_owned)
    }
}

/// The folder of a base; the embedded one is unpacked into the user's cache.
pub(crate) fn base_folder(spec: &BaseSpec) -> Result<ModelFolder, JobError> {
    Ok(match spec {
        BaseSpec::Postcards => checkpoints::postcards::folder(&environment::cache_dir())?,
        BaseSpec::Folder { weights } => ModelFolder::open(weights)?,
    })
}

/// The folder of the evaluator: the recipe's own, or the one beside the base.
pub(crate) fn evaluator_folder(recipe: &Recipe, base_folder: &ModelFolder) -> PathBuf {
    let named = recipe.census.as_ref().and_then(|census| census.evaluator.clone());
    named.unwrap_or_else(|| base_folder.dir("evaluator"))
}

/// Loads the base of a folder.
pub(crate) fn load_base(folder: &ModelFolder, device: &Device) -> Result<Base, JobError> {
    Ok(models::load(folder, device)?)
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
    use super::*;

    #[test]
    fn words_come_back_from_a_shell_as_they_were() {
        assert_eq!(shell_word("runs/a-1f"), "runs/a-1f");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
