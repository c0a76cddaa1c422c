//! `populate run`: the whole job, from a recipe to a report.

use super::train::{Goal, begin};
use super::{Job, Outcome};
use crate::args::TrainArguments;
use crate::error::JobError;

/// Fits, counts and reports one recipe. What earlier stages committed stays valid if a later one
/// fails.
pub(crate) fn execute(arguments: &TrainArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    begin(arguments, Goal::Report, job)
}
