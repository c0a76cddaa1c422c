//! `populate validate`: everything about a recipe that can be known without a model.

use std::path::Path;

use checkpoints::CheckpointError;
use eval::panel::Panel;
use eval::plan::{CensusPlan, Divisible};
use eval::thesaurus::Thesaurus;
use recipes::{Loaded, Recipe};
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::args::RecipeArguments;
use crate::diagnostic;
use crate::error::JobError;
use crate::stage;

/// Checks the recipe, its thesaurus and panel, and every picture; or a thesaurus or panel itself.
pub(crate) fn execute(arguments: &RecipeArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    if let Some((kind, text)) = catalogue(&arguments.recipe)? {
        return match kind {
            Catalogue::Thesaurus => thesaurus(&arguments.recipe, &text, job),
            Catalogue::Panel => panel(&arguments.recipe, &text, job),
            Catalogue::Series => series(&arguments.recipe, &text, job),
        };
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
    stage::settled::open(&recipe.settled)?;
    let before = stage::settled::words(&recipe.settled);
    let before = before.map(|before| format!(" on top of {before}")).unwrap_or_default();
    let n_pictures = dataset.examples.len();
    let counted = if recipe.census.is_some() { ", then counts" } else { "" };
    let text = format!(
        "`{}` is valid: settles `{}` from {n_pictures} pictures in {} steps{before}{counted}",
        arguments.recipe.display(),
        recipe.name,
        recipe.fit.steps,
    );
    let record = json!({
        "event": "valid", "kind": "recipe", "name": recipe.name, "pictures": n_pictures,
        "dataset_sha256": dataset.sha256, "warnings": dataset.warnings.len(),
        "settled": recipe.settled,
    });
    job.give(&text, &record);
    Ok(Outcome::Done)
}

/// Kinds of catalogues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Catalogue {
    Thesaurus,
    Panel,
    Series,
}

/// What kind of catalogue a file is, and its text; `None` for a recipe, or for a file that cannot be
/// read, of which the recipe's reader knows more to say.
fn catalogue(path: &Path) -> Result<Option<(Catalogue, String)>, JobError> {
    if path.metadata().is_ok_and(|file| file.len() > eval::catalogue::MAX_BYTES) {
        return Ok(None);
    }
    let bytes = match checkpoints::fs::read(path) {
        Ok(bytes) => bytes,
        Err(CheckpointError::Io(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    Ok(kind(&text).map(|kind| (kind, text)))
}

/// The kind of catalogue whose schema a text names.
fn kind(text: &str) -> Option<Catalogue> {
    let value = text.lines().find_map(|line| line.strip_prefix("schema:"))?;
    let value = value.trim().trim_matches(['"', '\'']);
    if value.starts_with("populate/thesaurus/") {
        Some(Catalogue::Thesaurus)
    } else if value.starts_with("populate/panel/") {
        Some(Catalogue::Panel)
    } else if value.starts_with("populate/series/") {
        Some(Catalogue::Series)
    } else {
        None
    }
}

fn series(path: &Path, text: &str, job: &Job<'_>) -> Result<Outcome, JobError> {
    let file = recipes::series::parse(text, &path.display().to_string())?;
    let n_pictures: usize = file.series.iter().map(|series| series.pictures.len()).sum();
    let n_series = file.series.len();
    let shown =
        format!("`{}` is valid: {n_pictures} pictures of {n_series} series", path.display());
    let record = json!({
        "event": "valid", "kind": "series", "name": file.name, "path": path, "series": n_series,
        "pictures": n_pictures,
    });
    job.give(&shown, &record);
    Ok(Outcome::Done)
}

fn thesaurus(path: &Path, text: &str, job: &Job<'_>) -> Result<Outcome, JobError> {
    let name = path.display().to_string();
    let (thesaurus, warnings) = eval::thesaurus::check(text, &name)?;
    for line in diagnostic::warnings(&name, text, &warnings) {
        job.terminal.say_line(&line);
    }
    let mut record = thesaurus_record(&thesaurus);
    record["event"] = json!("valid");
    record["path"] = json!(path);
    record["warnings"] = json!(diagnostic::problems_json(&warnings));
    job.give(&format!("`{name}` is a valid thesaurus: {}", thesaurus_words(&thesaurus)), &record);
    Ok(Outcome::Done)
}

/// The sizes of a thesaurus, for people.
pub(super) fn thesaurus_words(thesaurus: &Thesaurus) -> String {
    let counted = thesaurus.all_counted().count();
    let inner = thesaurus.entities.len() - counted;
    let motifs = thesaurus.entities.iter().filter(|entity| entity.motif).count();
    format!(
        "{}, {} and {}, {} ({}), {}, {}",
        several(thesaurus.facets.len(), "facet", "facets"),
        several(counted, "counted entity", "counted entities"),
        several(inner, "inner node", "inner nodes"),
        several(thesaurus.languages.len(), "language", "languages"),
        thesaurus.languages.join(", "),
        several(motifs, "stock motif", "stock motifs"),
        several(thesaurus.depth(), "level", "levels"),
    )
}

/// The sizes of a thesaurus, for programs.
pub(super) fn thesaurus_record(thesaurus: &Thesaurus) -> Value {
    let facets: Vec<Value> = thesaurus
        .facets
        .iter()
        .map(|facet| {
            let counted = thesaurus.counted(&facet.id).count();
            json!({ "id": facet.id, "none": facet.none, "counted": counted })
        })
        .collect();
    let counted = thesaurus.all_counted().count();
    let motifs = thesaurus.entities.iter().filter(|entity| entity.motif);
    json!({
        "kind": "thesaurus",
        "id": thesaurus.id,
        "facets": facets,
        "counted": counted,
        "inner": thesaurus.entities.len() - counted,
        "languages": thesaurus.languages,
        "motifs": motifs.map(|entity| entity.id.as_str()).collect::<Vec<_>>(),
        "depth": thesaurus.depth(),
    })
}

fn panel(path: &Path, text: &str, job: &Job<'_>) -> Result<Outcome, JobError> {
    let name = path.display().to_string();
    let panel = eval::panel::parse(text, &name)?;
    let mut record = panel_record(&panel);
    record["event"] = json!("valid");
    record["path"] = json!(path);
    job.give(&format!("`{name}` is a valid panel: {}", panel_words(&panel)), &record);
    Ok(Outcome::Done)
}

/// The sizes of a panel, for people.
fn panel_words(panel: &Panel) -> String {
    let strata = panel.strata.iter();
    let sizes: Vec<String> =
        strata.map(|(stratum, _, prompts)| format!("{} {}", stratum.id(), prompts.len())).collect();
    let n_prompts = several(panel.prompts().count(), "prompt", "prompts");
    format!("{n_prompts} ({})", sizes.join(", "))
}

/// The sizes of a panel, for programs.
fn panel_record(panel: &Panel) -> Value {
    let strata: Vec<Value> = panel
        .strata
        .iter()
        .map(|(stratum, weight, prompts)| {
            json!({ "id": stratum.id(), "weight": weight, "prompts": prompts.len() })
        })
        .collect();
    let n_prompts = panel.prompts().count();
    json!({ "kind": "panel", "id": panel.id, "strata": strata, "prompts": n_prompts })
}

fn several(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogue_is_known_by_its_schema() {
        assert_eq!(kind("# x\nschema: populate/thesaurus/1\n"), Some(Catalogue::Thesaurus));
        assert_eq!(kind("schema: 'populate/panel/7'\n"), Some(Catalogue::Panel));
        assert_eq!(kind("name: schema\nschemas: populate/panel/1\n"), None);
        assert_eq!(kind(""), None);
    }

    #[test]
    fn the_sizes_of_what_ships_are_told() {
        let shipped = eval::catalogue::THESAURI[0];
        let thesaurus = eval::thesaurus::parse(shipped.text, shipped.name).unwrap();
        assert_eq!(
            thesaurus_words(&thesaurus),
            "4 facets, 27 counted entities and 11 inner nodes, 2 languages (en, fr), \
             1 stock motif, 2 levels"
        );
        let record = thesaurus_record(&thesaurus);
        assert_eq!(record["facets"][0]["counted"], 12);
        assert_eq!(record["motifs"][0], "lighthouse");
        let shipped = eval::catalogue::PANELS[0];
        let panel = eval::panel::parse(shipped.text, shipped.name).unwrap();
        assert_eq!(panel_words(&panel), "17 prompts (empty 1, medium 4, broader 8, scene 4)");
        assert_eq!(panel_record(&panel)["strata"][1]["prompts"], 4);
    }

    #[test]
    fn a_planted_mistake_ends_with_65() {
        let shipped = eval::catalogue::THESAURI[0].text;
        for (from, to) in [
            ("building: { facet: subject,", "building: { facet: subject, broader: house,"),
            ("  house: {", "  boat: {"),
            ("broader: plant", "broader: garden"),
            ("broader: warm-color", "broader: plant"),
            ("fr: maison", "fr: bateau"),
        ] {
            let planted = shipped.replacen(from, to, 1);
            assert_ne!(planted, shipped, "{from}");
            let error = JobError::Eval(eval::thesaurus::parse(&planted, "planted").unwrap_err());
            assert_eq!(error.exit().code(), 65, "{to}");
        }
    }
}
