//! `populate inspect`: what is in a file of tensors, a base, or a run directory.

mod adapter;
mod base;
mod run;

use std::path::Path;

use checkpoints::TensorFile;
use serde_json::{Value, json};

use adapter::Privacy;

use super::{Job, Outcome};
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
        let file = TensorFile::open(path)?;
        return if adapter::is_adapter(&file) {
            let asked = arguments.privacy;
            let privacy = if asked { Privacy::Asked } else { Privacy::NotAsked };
            adapter::inspect(&file, privacy)
        } else {
            Ok(tensors(&file))
        };
    }
    if arguments.privacy {
        return Err(JobError::usage("`--privacy` needs the file of an adapter"));
    }
    if path.join("recipe.resolved.yaml").is_file() {
        run::inspect(path)
    } else if path.join("model_index.json").is_file() {
        base::inspect(path)
    } else if path.join("config.json").is_file() {
        base::inspect_component(path)
    } else if path.join("adapter_model.safetensors").is_file() {
        let file = TensorFile::open(&path.join("adapter_model.safetensors"))?;
        adapter::inspect(&file, Privacy::NotAsked)
    } else {
        Err(JobError::Data {
            message: format!("`{}` holds nothing that is known here", path.display()),
            hint: Some(
                "expected `recipe.resolved.yaml` (a run), `model_index.json` (a base), \
                 `config.json` (a component), or a safetensors file"
                    .to_owned(),
            ),
        })
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

/// A count with its noun: `1 module`, `2 modules`.
fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
