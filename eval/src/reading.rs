//! Reads a finished census with the pictures that its report shows.

use crate::error::EvalError;
use crate::json::CensusReport;
use crate::manifest::CensusManifest;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The pictures that a report may show.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    /// PNG files by their path within the census.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Paths of the reference pictures that the concept was settled from.
    pub references: Vec<String>,
}

/// Reads the finished census of a run directory, with the pictures that its report shows.
///
/// # Errors
///
/// A file that is missing, damaged or of another version.
pub fn read(run: &Path) -> Result<(CensusReport, Pictures, CensusManifest), EvalError> {
    let dir = run.join("census");
    let text = checkpoints::fs::read(&dir.join("census.json"))?;
    let report = CensusReport::from_json(&String::from_utf8_lossy(&text))?;
    let manifest = CensusManifest::read(&dir.join("manifest.json"))?;
    let mut pictures = Pictures::default();
    let mut paths = BTreeSet::new();
    collect(&serde_json::to_value(&report)?, &mut paths);
    for path in paths {
        if dir.join(&path).is_file() {
            let bytes = checkpoints::fs::read(&dir.join(&path))?;
            pictures.files.insert(path, bytes);
        }
    }
    for file in checkpoints::fs::list(&dir.join("pictures/references"))? {
        let path = file.strip_prefix(&dir).unwrap_or(&file).to_string_lossy().into_owned();
        pictures.files.insert(path.clone(), checkpoints::fs::read(&file)?);
        pictures.references.push(path);
    }
    Ok((report, pictures, manifest))
}

/// Every text of the report that names a picture.
fn collect(value: &Value, paths: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            if Path::new(text).extension().is_some_and(|ending| ending == "png") {
                paths.insert(text.clone());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, paths)),
        Value::Object(map) => map.values().for_each(|item| collect(item, paths)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
