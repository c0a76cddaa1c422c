//! What a run directory holds. Every hash is computed again.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::TensorFile;
use checkpoints::manifest::Manifest;
use checkpoints::run_dir::{AttemptRecord, Checkpoint, RunFolder};
use recipes::Loaded;
use serde_json::{Value, json};

use super::{Findings, name};
use crate::adapter_file::counted;
use crate::error::JobError;
use crate::provenance::MANIFEST;
use crate::spending::{Spent, phase_name};
use crate::stage;

/// Reads a run; exit 65 with the list if anything is not what its record says.
pub(super) fn inspect(path: &Path) -> Result<Findings, JobError> {
    let folder = RunFolder::open(path)?;
    let mut damages = Vec::new();
    let checkpoints = checkpoints(path, &mut damages)?;
    let results = results(path, &mut damages)?;
    if !damages.is_empty() {
        let damaged = counted(damages.len(), "damage");
        return Err(JobError::Data {
            message: format!("run `{}` has {damaged}:\n  {}", name(path), damages.join("\n  ")),
            hint: Some(
                "an intact checkpoint, if there is one, is still used by `resume`".to_owned(),
            ),
        });
    }
    let done = folder.done()?;
    let spent = Spent::read(&folder)?;
    let seconds: BTreeMap<&str, f64> =
        spent.seconds.iter().map(|(phase, seconds)| (phase_name(*phase), *seconds)).collect();
    let mut lines =
        vec![format!("{}: run", name(path)), format!("fingerprint {}", folder.fingerprint())];
    // A recipe that is no longer understood has no say in whether the files are intact.
    let settled = match stage::any_recipe_of_run(&folder) {
        Ok(Loaded::Settle(recipe)) => Some(recipe.settled),
        Ok(Loaded::Pretrain(_)) | Err(_) => None,
    };
    let before = settled.as_deref().and_then(stage::settled::words);
    lines.extend(before.map(|before| format!("settled before: {before}")));
    lines.push(format!("{}:", counted(folder.attempts()?.len(), "attempt")));
    lines.extend(folder.attempt_records()?.iter().map(attempt_line));
    lines.push(format!("{}, all intact:", counted(checkpoints.len(), "checkpoint")));
    lines.extend(checkpoints.iter().map(|(folder, step)| format!("  {folder}: step {step}")));
    lines.extend(results.iter().map(|(file, hash)| format!("{file}: tensors {hash}")));
    match &done {
        Some(done) => lines.push(format!("finished: {}", done.result)),
        None => lines.push("not finished".to_owned()),
    }
    let record = json!({
        "event": "inspected", "kind": "run", "path": path, "fingerprint": folder.fingerprint(),
        "attempts": folder.attempt_records()?, "checkpoints": checkpoints, "results": results,
        "done": done, "settled": settled, "seconds": seconds, "energy": spent.energy.report(0, None, None),
        "newest_metrics": folder.metrics()?.pop().unwrap_or(Value::Null),
    });
    Ok(Findings { lines, record })
}

/// Verifies all checkpoints; their steps by folder name.
fn checkpoints(path: &Path, damages: &mut Vec<String>) -> Result<BTreeMap<String, u64>, JobError> {
    let mut steps = BTreeMap::new();
    for dir in checkpoints::fs::list(&path.join("checkpoints"))? {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.filter(|name| name.starts_with("step-")) else { continue };
        match Checkpoint::open(&dir) {
            Ok(checkpoint) => {
                steps.insert(name, checkpoint.step());
            }
            Err(error) => damages.push(error.to_string()),
        }
    }
    Ok(steps)
}

/// Compares the results with the manifest; their hashes by file name.
fn results(path: &Path, damages: &mut Vec<String>) -> Result<BTreeMap<String, String>, JobError> {
    let manifest_path = path.join(MANIFEST);
    if !manifest_path.is_file() {
        return Ok(BTreeMap::new());
    }
    let recorded = Manifest::read(&manifest_path)?.tensors_sha256;
    for (file, expected) in &recorded {
        match TensorFile::open(&path.join(file)) {
            Ok(tensors) if tensors.tensors_sha256() == *expected => {}
            Ok(tensors) => damages.push(format!(
                "`{file}` has tensors with sha256 {}, expected {expected}",
                tensors.tensors_sha256()
            )),
            Err(error) => damages.push(error.to_string()),
        }
    }
    Ok(recorded)
}

fn attempt_line(record: &AttemptRecord) -> String {
    match record {
        AttemptRecord::Start { number, from_step, attempt } => {
            format!("  {number}: from step {from_step} on {}", attempt.device)
        }
        AttemptRecord::End { number, end, .. } => {
            format!(
                "  {number}: ended at step {}, exit {}, {}",
                end.step, end.exit_code, end.reason
            )
        }
    }
}
