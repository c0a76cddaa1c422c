//! `populate validate`: everything about a recipe that can be known without a model.

use std::path::Path;

use checkpoints::CheckpointError;
use eval::plan::{CensusPlan, Divisible};
use recipes::{Loaded, Recipe};
use serde_json::json;

use super::{Job, Outcome};
use crate::args::RecipeArguments;
use crate::error::JobError;
use crate::stage;

/// Checks the recipe, its thesaurus and panel, and every picture; or a thesaurus or panel itself.
pub(crate) fn execute(arguments: &RecipeArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    if let Some(found) = catalogue(&arguments.recipe)? {
        let text = format!("`{}` is a valid {found}", arguments.recipe.display());
        job.give(&text, &json!({ "event": "valid", "kind": found, "path": arguments.recipe }));
        return Ok(Outcome::Done);
    }
    match recipes::load(&arguments.recipe, &arguments.sets)? {
        Loaded::Settle(recipe) => settlement(&recipe, arguments, job),
        Loaded::Pretrain(recipe) => {
            let text = format!(
                "`{}` is valid: trains `{}` from scratch in {} steps",
                arguments.recipe.display(),
                recipe.name,
                recipe.fit.steps
            );
            let record = json!({ "event": "valid", "kind": "pretrain", "name": recipe.name });
            job.give(&text, &record);
            Ok(Outcome::Done)
        }
    }
}

fn settlement(
    recipe: &Recipe,
    arguments: &RecipeArguments,
    job: &Job<'_>,
) -> Result<Outcome, JobError> {
    let dataset = datasets::open(&recipe.dataset)?;
    stage::warn_of(&dataset, job.terminal);
    if let Some(census) = &recipe.census {
        // Reads thesaurus and panel, and looks the concept up in them.
        CensusPlan::new(census, &recipe.dataset, &dataset, Divisible::Yes)?;
    }
    let n_pictures = dataset.examples.len();
    let counted = if recipe.census.is_some() { ", then counts" } else { "" };
    let text = format!(
        "`{}` is valid: settles `{}` from {n_pictures} pictures in {} steps{counted}",
        arguments.recipe.display(),
        recipe.name,
        recipe.fit.steps,
    );
    let record = json!({
        "event": "valid", "kind": "recipe", "name": recipe.name, "pictures": n_pictures,
        "dataset_sha256": dataset.sha256, "warnings": dataset.warnings.len(),
    });
    job.give(&text, &record);
    Ok(Outcome::Done)
}

/// What kind of catalogue a file is, after checking it; `None` for a recipe, or for a file that
/// cannot be read, of which the recipe's reader knows more to say.
fn catalogue(path: &Path) -> Result<Option<&'static str>, JobError> {
    if path.metadata().is_ok_and(|file| file.len() > recipes::MAX_RECIPE_BYTES) {
        return Ok(None);
    }
    let bytes = match checkpoints::fs::read(path) {
        Ok(bytes) => bytes,
        Err(CheckpointError::Io(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    let name = path.display().to_string();
    let names = |schema: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix("schema:"));
        value.is_some_and(|value| value.trim().trim_matches(['"', '\'']).starts_with(schema))
    };
    if names("populate/thesaurus/") {
        eval::thesaurus::parse(&text, &name)?;
        return Ok(Some("thesaurus"));
    }
    if names("populate/panel/") {
        eval::panel::parse(&text, &name)?;
        return Ok(Some("panel"));
    }
    Ok(None)
}
