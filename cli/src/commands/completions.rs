//! `populate completions`: a script that completes verbs and flags in a shell.

use clap::CommandFactory;

use super::{Job, Outcome};
use crate::args::{Arguments, CompletionsArguments};

/// Prints the script.
pub(crate) fn execute(arguments: &CompletionsArguments, job: &Job<'_>) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "populate", &mut script);
    job.terminal.print(String::from_utf8_lossy(&script).trim_end());
    Outcome::Done
}
