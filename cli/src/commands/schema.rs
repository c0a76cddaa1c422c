//! `populate schema`: the JSON Schema of a file that people write or programs read.

use super::{Job, Outcome};
use crate::args::{SchemaArguments, SchemaOf};

/// Prints the schema: indented, or on one line with `--json`.
pub(crate) fn execute(arguments: &SchemaArguments, job: &Job<'_>) -> Outcome {
    let schema = match arguments.of {
        SchemaOf::Recipe => recipes::json_schema(),
        SchemaOf::Census => eval::json::json_schema(),
        SchemaOf::Comparison => eval::compare::json_schema(),
        SchemaOf::Series => recipes::series::json_schema(),
    };
    job.give(&format!("{schema:#}"), &schema);
    Outcome::Done
}
