//! `populate plan`: what a recipe will do and cost, before anything is run.

mod arithmetic;
mod timing;

use datasets::Role;
use recipes::{Loaded, PretrainRecipe, Recipe};
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::args::RecipeArguments;
use crate::error::JobError;
use crate::progress::duration;
use crate::stage::{self, Opened};
use arithmetic::{Census, Training, detectable_shift};
use timing::Timing;

/// Prints the resolved recipe, the arithmetic of steps, forward passes, time and memory.
pub(crate) fn execute(arguments: &RecipeArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    match recipes::load(&arguments.recipe, &arguments.sets)? {
        Loaded::Settle(recipe) => settlement(&recipe, job),
        Loaded::Pretrain(recipe) => {
            scratch(&recipe, job);
            Ok(Outcome::Done)
        }
    }
}

fn settlement(recipe: &Recipe, job: &Job<'_>) -> Result<Outcome, JobError> {
    let opened = Opened::of(recipe)?;
    opened.warn(job.terminal);
    let device = job.device()?;
    let precision = stage::precision(recipe, &device)?.name();
    let n_pictures = opened.dataset.of_role(Role::Instance).len() as u64;
    let training = Training::of(recipe, n_pictures);
    let census = match &recipe.census {
        Some(spec) => Some(Census::of(recipe, spec, &opened.dataset)?),
        None => None,
    };
    job.terminal.say("timing three forward passes and one training step …");
    let timing = timing::measure(recipe, &opened, &device, job)?;
    let mut lines = vec!["# every value, defaults included".to_owned()];
    lines.push(recipes::resolved_yaml(recipe).trim_end().to_owned());
    lines.push(String::new());
    let (base, family) = (opened.base_files.name(), opened.base_files.family());
    lines.push(format!("base: {base} ({})", family.title()));
    let before = stage::settled::words(&recipe.settled);
    lines.extend(before.map(|before| format!("settled before: {before}")));
    lines.push(format!("run: {}", opened.run_id(recipe, None)));
    lines.push(format!("device: {}", device.name));
    lines.push(format!("precision: {precision} in the UNet"));
    lines.extend(training.lines());
    lines.extend(census.iter().flat_map(Census::lines));
    lines.extend(estimate(&training, census.as_ref(), &timing));
    let mut record = record(recipe, &opened, (&training, census.as_ref()), &timing);
    record["precision"] = json!(precision);
    job.give(&lines.join("\n"), &record);
    Ok(Outcome::Done)
}

fn seconds(training: &Training, census: Option<&Census>, timing: &Timing) -> (f64, f64) {
    let forwards = training.preview_forwards + training.class_forwards;
    let train = training.steps_secs(timing.step_secs) + real(forwards) * timing.forward_secs;
    let count = census.map_or(0.0, |census| real(census.forwards) * timing.forward_secs);
    (train, count)
}

fn estimate(training: &Training, census: Option<&Census>, timing: &Timing) -> Vec<String> {
    let (train, count) = seconds(training, census, timing);
    let mut lines = vec![
        format!(
            "measured: {:.1} ms per picture and forward pass, {:.2} s per training step",
            1000.0 * timing.forward_secs,
            timing.step_secs
        ),
        format!("estimate: training and previews {}", duration(train)),
    ];
    if census.is_some() {
        lines.push(format!("estimate: census {}", duration(count)));
        lines.push(format!("estimate: in all {}", duration(train + count)));
    }
    lines.push(match &timing.watts {
        Ok(watts) => format!(
            "energy: {:.1} Wh at {watts:.0} W, as drawn during the timed forward passes",
            watt_hours(*watts, train + count)
        ),
        Err(reason) => format!("energy: not known: {reason}"),
    });
    lines.push(match timing.peak_bytes {
        Some(bytes) => format!("memory: {} MiB at most so far, step included", bytes >> 20),
        None => "memory: not known on this system".to_owned(),
    });
    lines
}

fn watt_hours(watts: f64, seconds: f64) -> f64 {
    watts * seconds / 3600.0
}

fn record(
    recipe: &Recipe,
    opened: &Opened,
    (training, census): (&Training, Option<&Census>),
    timing: &Timing,
) -> Value {
    let (train_secs, census_secs) = seconds(training, census, timing);
    json!({
        "event": "plan",
        "run": opened.run_id(recipe, None),
        "base": { "name": opened.base_files.name(), "family": opened.base_files.family().name() },
        "recipe": recipes::canonical_json(recipe),
        "training": {
            "pictures": training.n_pictures, "steps": training.steps,
            "images_per_step": training.images_per_step, "epochs": training.epochs,
            "forwards": training.forwards, "class_forwards": training.class_forwards,
            "preview_forwards": training.preview_forwards,
        },
        "census": census.map(|census| json!({
            "pictures": census.n_pictures, "forwards": census.forwards,
            "pairs": census.n_pairs, "min_delta": detectable_shift(census.n_pairs),
        })),
        "watts": timing.watts.as_ref().ok(),
        "watt_hours": timing.watts.as_ref().ok().map(|watts| watt_hours(*watts, train_secs + census_secs)),
        "forward_secs": timing.forward_secs,
        "step_secs": timing.step_secs,
        "train_secs": train_secs,
        "census_secs": census.map(|_| census_secs),
        "peak_bytes": timing.peak_bytes,
    })
}

/// A training from scratch: arithmetic only, since its network does not exist yet.
fn scratch(recipe: &PretrainRecipe, job: &Job<'_>) {
    let per_step = u64::from(recipe.fit.batch.images);
    let seen = recipe.fit.steps.saturating_mul(per_step);
    let lines = [
        recipes::resolved_yaml(recipe).trim_end().to_owned(),
        String::new(),
        format!(
            "training: {} steps × {per_step} pictures = {seen} pictures drawn from {}",
            recipe.fit.steps, recipe.dataset.images
        ),
        format!("writes: {}", recipe.into.display()),
    ];
    let record = json!({
        "event": "plan", "recipe": recipes::canonical_json(recipe), "steps": recipe.fit.steps,
        "images_per_step": per_step, "images_seen": seen,
    });
    job.give(&lines.join("\n"), &record);
}

#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 53 bits")]
const fn real(n: u64) -> f64 {
    n as f64
}
