//! `populate census A B C`: several settlements in one table, compared seed by seed.

use std::path::{Path, PathBuf};

use checkpoints::hash::bytes_sha256;
use checkpoints::run_dir::RunFolder;
use eval::compare::{Candidate, ComparedState, Comparison, compare};
use eval::record::Refusal;
use recipes::{CensusSpec, PanelSource, Recipe, ThesaurusSource};
use report::Language;
use serde_json::json;
use statistics::interval::Estimate;

use super::census::{Counting, count_into};
use super::train::attempt;
use super::{Job, Outcome};
use crate::args::CensusArguments;
use crate::environment;
use crate::error::JobError;
use crate::stage::{self, Opened};

/// One of the words on the command line: a run, perhaps an earlier checkpoint of it or another dose.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    path: PathBuf,
    step: Option<u64>,
    dose: f64,
}

impl Item {
    /// `RUN`, `RUN@STEP`, `RUN:DOSE` or `RUN@STEP:DOSE`. A path that exists as it is written is one.
    fn parse(word: &str) -> Self {
        let whole = Self { path: PathBuf::from(word), step: None, dose: 1.0 };
        if whole.path.exists() {
            return whole;
        }
        let (rest, dose) = match word.rsplit_once(':').map(|(rest, dose)| (rest, dose.parse())) {
            Some((rest, Ok(dose))) => (rest, dose),
            Some((_, Err(_))) | None => (word, 1.0),
        };
        match rest.rsplit_once('@').map(|(path, step)| (path, step.parse())) {
            Some((path, Ok(step))) => Self { path: PathBuf::from(path), step: Some(step), dose },
            Some((_, Err(_))) | None => Self { path: PathBuf::from(rest), step: None, dose },
        }
    }
}

/// A settlement whose census is there.
struct Counted {
    name: String,
    folder: PathBuf,
    of: PathBuf,
    dose: f64,
    spec: CensusSpec,
}

/// Counts what was not yet, and compares all.
pub(crate) fn execute(arguments: &CensusArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let here = environment::working_dir();
    let mut counted = Vec::new();
    for word in &arguments.items {
        let settled = settle(word, arguments, job)?;
        // A run is opened in the folder in which it was started; the next word counts from ours.
        if let Some(here) = here.as_deref().filter(|here| !environment::enter(here)) {
            return Err(JobError::usage(format!("could not go back to `{}`", here.display())));
        }
        let Some(one) = settled else {
            return Ok(Outcome::Requeue { go_on: environment::own_command() });
        };
        counted.push(one);
    }
    let candidates: Vec<Candidate<'_>> = counted
        .iter()
        .map(|one| Candidate {
            name: &one.name,
            run: &one.folder,
            of: &one.of,
            dose: one.dose,
            spec: &one.spec,
        })
        .collect();
    let comparison = compare(&candidates)?;
    let text = comparison.to_json()?;
    let digits: String = bytes_sha256(text.as_bytes()).chars().take(8).collect();
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| job.place.runs.join(format!("comparison-{digits}")));
    checkpoints::fs::atomic_write(&out.join("comparison.json"), text.as_bytes())?;
    for language in Language::ALL {
        let page = report::comparison::page(&comparison, language);
        checkpoints::fs::atomic_write(&out.join(language.file()), page.as_bytes())?;
    }
    let record = json!({ "event": "compared", "out": out, "comparison": comparison });
    job.give(&table(&comparison, &out), &record);
    Ok(Outcome::Done)
}

/// The census of one item, taken where it is not there; nothing if a stop was requested.
fn settle(
    word: &str,
    arguments: &CensusArguments,
    job: &Job<'_>,
) -> Result<Option<Counted>, JobError> {
    let item = Item::parse(word);
    let run = stage::run_folder(&item.path, &arguments.sets, &job.place.runs)?;
    let recipe = stage::recipe_of_run(&run)?;
    let Some(mut spec) = recipe.census.clone() else {
        return Err(JobError::Usage {
            message: format!("recipe `{}` has no section `census`", recipe.name),
            hint: Some("add one, and train again under its new name".to_owned()),
        });
    };
    if !spec.doses.iter().any(|dose| (dose - item.dose).abs() < 1e-9) {
        return Err(JobError::Usage {
            message: format!(
                "`{word}` asks for dose {}, expected one of {:?}, which its census draws",
                item.dose, spec.doses
            ),
            hint: Some("`census.doses` lists the doses of a recipe".to_owned()),
        });
    }
    let folder = match item.step {
        Some(step) if step != recipe.fit.steps => {
            run.path().join("censuses").join(format!("step-{step:08}"))
        }
        Some(_) | None => run.path().to_owned(),
    };
    if !folder.join("census/manifest.json").is_file() && !count(&recipe, &run, &item, &folder, job)?
    {
        return Ok(None);
    }
    if let ThesaurusSource::File(path) = &mut spec.thesaurus {
        *path = absolute(path);
    }
    if let PanelSource::File(path) = &mut spec.panel {
        *path = absolute(path);
    }
    Ok(Some(Counted {
        name: word.to_owned(),
        folder: absolute(&folder),
        of: absolute(run.path()),
        dose: item.dose,
        spec,
    }))
}

/// The same place, whatever folder is entered next.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Takes one census; false if a stop was requested.
fn count(
    recipe: &Recipe,
    run: &RunFolder,
    item: &Item,
    folder: &Path,
    job: &Job<'_>,
) -> Result<bool, JobError> {
    let opened = Opened::of(recipe)?;
    if opened.fingerprint != run.fingerprint() {
        return Err(JobError::data(format!(
            "the base or the pictures of run `{}` are no longer what it was trained on",
            run.path().display()
        )));
    }
    let device = job.device()?;
    // An earlier checkpoint's census lies beside a training that may still go on.
    let in_run = folder == run.path();
    let _hold = in_run.then(|| run.hold(&attempt(&device, "census"))).transpose()?;
    let counting = Counting { recipe, opened: &opened, run, device: &device, alive: None };
    count_into(&counting, item.step, folder, job)
}

/// The table for people: one line per settlement, then who differs from whom.
fn table(comparison: &Comparison, out: &Path) -> String {
    let mut lines = vec![format!(
        "{:<28} {:>16} {:>20} {:>20} {:>20}",
        "settlement", "unasked of 100", "displaced of 100", "selection, nats", "without identifier"
    )];
    lines.extend(comparison.states.iter().map(line));
    for pair in &comparison.pairs {
        let apart: Vec<String> = pair
            .entities
            .iter()
            .filter(|entity| entity.delta.ci.is_some_and(|ci| ci[0] > 0.0 || ci[1] < 0.0))
            .map(|entity| format!("{} {:+.1}", entity.id, 100.0 * entity.delta.value))
            .collect();
        let apart = if apart.is_empty() {
            "no entity differs demonstrably".to_owned()
        } else {
            apart.join(", ")
        };
        lines.push(format!(
            "{} → {}: total variation {:.1} of 100 (floor {:.1}, p {:.3}); {apart}",
            pair.from,
            pair.to,
            100.0 * pair.tv.value,
            100.0 * pair.tv_floor,
            pair.tv_p
        ));
    }
    lines.extend(successive(comparison));
    lines.push(format!("comparison: {}", out.join(Language::English.file()).display()));
    lines.join("\n")
}

/// Settlements that follow each other: how far each lies from where they began, and whether their
/// order shows; or why that is not told.
fn successive(comparison: &Comparison) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(record) = &comparison.settlements {
        lines.push(format!("one after another: {}", record.states.join(" → ")));
        let begun = record.states.first().map_or("", String::as_str);
        for (step, far) in record.steps.iter().zip(record.distance_to_base.iter().skip(1)) {
            lines.push(format!(
                "{}: total variation to {begun} {} of 100, displaced so far {:.1}",
                step.to,
                figure(*far, 100.0, 1),
                100.0 * step.displaced_so_far
            ));
        }
        if let (Some(effect), Some(floor)) = (record.order_effect, record.order_floor) {
            lines.push(format!(
                "order effect against {}: total variation {} of 100 (floor {:.1})",
                comparison.reversed.join(" → "),
                figure(effect, 100.0, 1),
                100.0 * floor
            ));
        }
    }
    let untold = |refusal: &Refusal| format!("no {}: {}", refusal.what, refusal.reason);
    lines.extend(comparison.refused.iter().map(untold));
    lines
}

fn line(state: &ComparedState) -> String {
    let share =
        |estimate: Option<Estimate>| estimate.map_or("–".to_owned(), |e| figure(e, 100.0, 1));
    format!(
        "{:<28} {:>16} {:>20} {:>20} {:>20}",
        state.name,
        share(state.new_share),
        figure(state.displaced, 100.0, 1),
        figure(state.selection, 1.0, 3),
        share(state.leak)
    )
}

fn figure(estimate: Estimate, scale: f64, digits: usize) -> String {
    let value = format!("{:.digits$}", scale * estimate.value);
    estimate.ci.map_or(value.clone(), |[low, high]| {
        format!("{value} [{:.digits$}, {:.digits$}]", scale * low, scale * high)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_a_run_a_step_and_a_dose() {
        let item = |path: &str, step, dose| Item { path: PathBuf::from(path), step, dose };
        assert_eq!(Item::parse("runs/a"), item("runs/a", None, 1.0));
        assert_eq!(Item::parse("runs/a@200"), item("runs/a", Some(200), 1.0));
        assert_eq!(Item::parse("runs/a:0.5"), item("runs/a", None, 0.5));
        assert_eq!(Item::parse("runs/a@200:0.5"), item("runs/a", Some(200), 0.5));
        assert_eq!(Item::parse("c:/runs/a"), item("c:/runs/a", None, 1.0));
        assert_eq!(Item::parse("runs/a@b"), item("runs/a@b", None, 1.0));
    }
}
