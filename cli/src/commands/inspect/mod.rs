//! `populate inspect`: what is in a file of tensors, a base, or a run directory.

mod adapter;
mod base;
mod readers;
mod run;

use std::path::Path;

use checkpoints::TensorFile;
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::adapter_file;
use crate::args::InspectArguments;
use crate::error::JobError;

/// What was found out: text for people, a record for programs.
pub(crate) struct Findings {
    lines: Vec<String>,
    record: Value,
}

/// Looks into a file or folder. Hashes are computed again; what does not fit its record is exit 65.
pub(crate) fn execute(arguments: &InspectArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let findings = inspect(arguments)?;
    job.give(&findings.lines.join("\n"), &findings.record);
    Ok(Outcome::Done)
}

fn inspect(arguments: &InspectArguments) -> Result<Findings, JobError> {
    let path = &arguments.path;
    if !path.is_dir() {
        return of_file(path, arguments);
    }
    let peft_file = adapter_file::file_of(path);
    if path.join("recipe.resolved.yaml").is_file() {
        refuse_flags(arguments)?;
        run::inspect(path)
    } else if path.join("model_index.json").is_file() {
        refuse_flags(arguments)?;
        base::inspect(path)
    } else if path.join("config.json").is_file() {
        refuse_flags(arguments)?;
        base::inspect_component(path)
    } else if peft_file.is_file() {
        of_file(&peft_file, arguments)
    } else {
        Err(JobError::Data {
            message: format!("`{}` holds nothing that is known here", path.display()),
            hint: Some(
                "expected `recipe.resolved.yaml` (a run), `model_index.json` (a base), \
                 `config.json` (a component), `adapter_model.safetensors` (PEFT), or a \
                 safetensors file"
                    .to_owned(),
            ),
        })
    }
}

fn of_file(path: &Path, arguments: &InspectArguments) -> Result<Findings, JobError> {
    let file = TensorFile::open(path)?;
    if adapter::is_adapter(&file) {
        return of_adapter(&file, arguments);
    }
    refuse_flags(arguments)?;
    if base::is_single_file(&file) { base::inspect(path) } else { Ok(tensors(&file)) }
}

fn of_adapter(file: &TensorFile, arguments: &InspectArguments) -> Result<Findings, JobError> {
    let mut findings = adapter::inspect(file)?;
    if arguments.privacy {
        adapter::privacy(file, &mut findings);
    }
    if arguments.readers.readers {
        readers::inspect(file, arguments.readers.base.as_ref(), &mut findings)?;
    }
    Ok(findings)
}

/// Flags that mean something for adapters alone.
fn refuse_flags(arguments: &InspectArguments) -> Result<(), JobError> {
    let flags = [("--privacy", arguments.privacy), ("--readers", arguments.readers.readers)];
    match flags.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(JobError::usage(format!("`{flag}` needs the file of an adapter"))),
    }
}

/// A file of tensors that is no adapter.
fn tensors(file: &TensorFile) -> Findings {
    let mut lines = vec![format!("{}: {} tensors", name(file.path()), file.len())];
    let mut record = serde_json::Map::new();
    for name in file.names() {
        if let Some(info) = file.info(name) {
            lines.push(format!("  {name}  {} {:?}", info.dtype.name(), info.shape));
            record.insert(
                name.to_owned(),
                json!({ "dtype": info.dtype.name(), "shape": info.shape }),
            );
        }
    }
    let (file_sha256, tensors_sha256) = (file.file_sha256(), file.tensors_sha256());
    lines.push(format!("sha256 of the file:    {file_sha256}"));
    lines.push(format!("sha256 of the tensors: {tensors_sha256}"));
    let record = json!({
        "event": "inspected", "kind": "tensors", "path": file.path(), "tensors": record,
        "metadata": file.metadata(), "file_sha256": file_sha256, "tensors_sha256": tensors_sha256,
    });
    Findings { lines, record }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
