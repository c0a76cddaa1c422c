//! `populate convert`: an adapter under the names that another program expects.

use serde_json::json;

use super::{Job, Outcome};
use crate::adapter_file::{self, NewFile, Table, counted};
use crate::args::ConvertArguments;
use crate::error::JobError;

/// Reads an adapter in any form and writes it in the one asked for.
pub(crate) fn execute(arguments: &ConvertArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let path = adapter_file::file_of(&arguments.adapter);
    let table = Table::of(&path, arguments.base.as_ref())?;
    let read = table.read(&path)?;
    let dtype = adapter_file::dtype(arguments.dtype, &[&path])?;
    let form = adapter_file::form(arguments.to);
    let n_modules = read.adapter.modules.len();
    let file = NewFile {
        table: &table,
        adapter: &read.adapter,
        form,
        dtype,
        source: read.metadata,
        merged_from: None,
    };
    let written = file.write(&arguments.out)?;
    for warning in &written.warnings {
        job.terminal.warn(warning);
    }
    let (from, to) = (read.form.name(), form.name());
    let dtype = adapter_file::dtype_name(dtype);
    let text = format!(
        "wrote {}: {} of an adapter for {}, {from} to {to} names, {dtype}\nsha256 of the tensors: {}",
        arguments.out.display(),
        counted(n_modules, "module"),
        table.title(),
        written.hashes.tensors_sha256
    );
    let record = json!({
        "event": "converted", "out": arguments.out, "from": from, "to": to, "dtype": dtype,
        "family": table.title(), "modules": n_modules, "warnings": written.warnings,
        "source_sha256": read.tensors_sha256, "tensors_sha256": written.hashes.tensors_sha256,
    });
    job.give(&text, &record);
    Ok(Outcome::Done)
}
