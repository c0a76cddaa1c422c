//! Reads a finished census with the pictures that its report shows.

use crate::error::EvalError;
use crate::json::CensusReport;
use crate::manifest::CensusManifest;
use std::collections::BTreeMap;
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
    let shown = report.atlas.pairs.iter().chain(&report.atlas.asked);
    let shown = shown.chain(report.transitions.iter().flat_map(|t| &t.pairs));
    let paths = shown.flat_map(|pair| [&pair.before.picture, &pair.after.picture]);
    let strip = report.atlas.strip.iter().flatten().map(|seen| &seen.picture);
    for path in paths.chain(strip) {
        if !pictures.files.contains_key(path) && dir.join(path).is_file() {
            pictures.files.insert(path.clone(), checkpoints::fs::read(&dir.join(path))?);
        }
    }
    for file in checkpoints::fs::list(&dir.join("pictures/references"))? {
        let path = file.strip_prefix(&dir).unwrap_or(&file).to_string_lossy().into_owned();
        pictures.files.insert(path.clone(), checkpoints::fs::read(&file)?);
        pictures.references.push(path);
    }
    Ok((report, pictures, manifest))
}
