//! `populate resume`: goes on with a run, from its directory alone.

use std::path::Path;

use checkpoints::run_dir::{AttemptRecord, RunFolder};
use recipes::Loaded;

use super::train::{Goal, Settlement, settle};
use super::{Job, Outcome, pretrain};
use crate::args::{ResumeArguments, ResumeWhen};
use crate::error::JobError;
use crate::stage;

/// Goes on where the last attempt stopped, towards what that attempt was to reach.
pub(crate) fn execute(arguments: &ResumeArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let folder = stage::open_run(&arguments.run)?;
    // `.`, `..` and symbolic links have no file name; the real path does.
    let path = folder.path().canonicalize().unwrap_or_else(|_| folder.path().to_owned());
    let id = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let runs = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let runs = runs.unwrap_or(Path::new("."));
    let recipe = match stage::any_recipe_of_run(&folder)? {
        Loaded::Settle(recipe) => recipe,
        Loaded::Pretrain(recipe) => return pretrain::execute(&recipe, runs, job),
    };
    let settlement = Settlement {
        runs: runs.to_owned(),
        run_id: id,
        when: ResumeWhen::Must,
        goal: last_goal(&folder)?,
    };
    settle(&recipe, &settlement, job)
}

/// What the last attempt was to reach.
fn last_goal(folder: &RunFolder) -> Result<Goal, JobError> {
    let last = folder.attempts()?.into_iter().next_back();
    Ok(match last {
        Some(AttemptRecord::Start { attempt, .. }) => Goal::of_attempt(&attempt),
        Some(AttemptRecord::End { .. }) | None => Goal::Adapter,
    })
}
