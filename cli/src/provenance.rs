//! What a result was made from: `manifest.json` of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use checkpoints::TensorFile;
use checkpoints::manifest::{MANIFEST_VERSION, Manifest, Sources};
use checkpoints::run_dir::{Attempt, AttemptRecord, RunDir, RunFolder};
use eval::manifest::CensusManifest;
use recipes::{Recipe, draws};

use crate::error::JobError;
use crate::stage::Opened;
use crate::terminal::Terminal;

/// File name of the manifest in a run directory.
pub(crate) const MANIFEST: &str = "manifest.json";

/// Writes the manifest of a finished training.
///
/// # Errors
///
/// A result that cannot be read back, or a disk that is full.
pub(crate) fn write(
    recipe: &Recipe,
    opened: &Opened,
    run: &RunDir,
    files: &[PathBuf],
) -> Result<(), JobError> {
    let attempts = attempts(run.folder())?;
    let last = attempts.last();
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        recipe: recipes::canonical_json(recipe),
        fingerprint: opened.fingerprint.clone(),
        seed: recipe.seed,
        step: recipe.fit.steps,
        images_seen: images_seen(run.folder())?,
        base_sha256: opened.base_sha256.clone(),
        dataset_sha256: opened.dataset.sha256.clone(),
        evaluator_sha256: None,
        tensors_sha256: tensors_sha256(files)?,
        versions: versions(),
        sources: sources(),
        device: last.map(|attempt| attempt.device.clone()).unwrap_or_default(),
        numerics: last.map(|attempt| attempt.numerics.clone()).unwrap_or_default(),
        bit_exact: is_bit_exact(&attempts),
        draws: format!("populate/rng/{}", draws::SCHEME),
    };
    run.write(MANIFEST, &manifest.to_bytes()?)?;
    Ok(())
}

/// Adds the evaluator to the manifest, once something was measured.
///
/// # Errors
///
/// Either manifest cannot be read, or the disk is full.
pub(crate) fn note_evaluator(run: &RunDir) -> Result<(), JobError> {
    let census = CensusManifest::read(&run.path().join("census/manifest.json"))?;
    let mut manifest = Manifest::read(&run.path().join(MANIFEST))?;
    manifest.evaluator_sha256 = census.hashes.get("evaluator").cloned();
    run.write(MANIFEST, &manifest.to_bytes()?)?;
    Ok(())
}

/// Hash of the tensors of each result, by file name.
pub(crate) fn tensors_sha256(files: &[PathBuf]) -> Result<BTreeMap<String, String>, JobError> {
    let tensors = files.iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let hash = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok((name.unwrap_or_default(), TensorFile::open(path)?.tensors_sha256()))
    };
    tensors.map(hash).collect()
}

/// Says once that a resumed run cannot be compared bit for bit any more.
///
/// # Errors
///
/// [`JobError::Usage`] if the UNet was computed in another precision: what follows would not be the
/// same training.
pub(crate) fn check_other_numerics(
    folder: &RunFolder,
    attempt: &Attempt,
    terminal: &Terminal,
) -> Result<(), JobError> {
    let Some(last) = attempts(folder)?.pop() else { return Ok(()) };
    // Attempts of programs that knew no other were in f32.
    let precision = |attempt: &Attempt| {
        attempt.numerics.get("precision").cloned().unwrap_or_else(|| "f32".to_owned())
    };
    let [before, now] = [&last, attempt].map(precision);
    if before != now {
        return Err(JobError::Usage {
            message: format!("the run was computed in {before} so far, and would go on in {now}"),
            hint: Some(format!(
                "go on where it was begun, or set `precision: {now}` in the base of the recipe: \
                 that is another run"
            )),
        });
    }
    let differs = |key: &&String| last.numerics.get(*key) != attempt.numerics.get(*key);
    let keys: Vec<&str> = attempt.numerics.keys().filter(differs).map(String::as_str).collect();
    if !keys.is_empty() {
        terminal.warn(&format!(
            "the last attempt ran with another {}: the result may differ in its last bits from an \
             uninterrupted run",
            keys.join(", ")
        ));
    }
    Ok(())
}

fn attempts(folder: &RunFolder) -> Result<Vec<Attempt>, JobError> {
    let starts = folder.attempts()?.into_iter().filter_map(|record| match record {
        AttemptRecord::Start { attempt, .. } => Some(attempt),
        AttemptRecord::End { .. } => None,
    });
    Ok(starts.collect())
}

/// Whether all attempts computed alike, on a processor: a card picks its kernels by timing.
fn is_bit_exact(attempts: &[Attempt]) -> bool {
    let Some(first) = attempts.first() else { return false };
    let on_processor = |attempt: &Attempt| attempt.device.starts_with("processor");
    attempts.iter().all(|attempt| attempt.numerics == first.numerics && on_processor(attempt))
}

fn images_seen(folder: &RunFolder) -> Result<u64, JobError> {
    let last = folder.metrics()?.pop();
    Ok(last.and_then(|record| record.get("images_seen")?.as_u64()).unwrap_or(0))
}

/// Versions of what computes.
pub(crate) fn versions() -> BTreeMap<String, String> {
    let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    BTreeMap::from([pair("populate", env!("CARGO_PKG_VERSION")), pair("burn", BURN_VERSION)])
}

/// The version of burn that the workspace pins.
pub(crate) const BURN_VERSION: &str = "0.22.1";

/// The commit that the program was built from; nothing outside a checkout.
pub(crate) fn sources() -> Option<Sources> {
    let commit = env!("POPULATE_COMMIT");
    let sources = Sources { commit: commit.to_owned(), dirty: env!("POPULATE_DIRTY") == "true" };
    (!commit.is_empty()).then_some(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(device: &str, simd: &str) -> Attempt {
        Attempt {
            id: "7f3a".to_owned(),
            host: "h".to_owned(),
            pid: 1,
            started_at: 0.0,
            device: device.to_owned(),
            engine: BTreeMap::new(),
            numerics: BTreeMap::from([("simd".to_owned(), simd.to_owned())]),
        }
    }

    #[test]
    fn bits_are_claimed_only_for_equal_attempts_on_a_processor() {
        let (v3, v4) = (attempt("processor", "v3"), attempt("processor", "v4"));
        assert!(is_bit_exact(&[v3.clone(), v3.clone()]));
        assert!(!is_bit_exact(&[v3, v4]));
        assert!(!is_bit_exact(&[attempt("cuda:0", "v3")]));
        assert!(!is_bit_exact(&[]));
    }
}
