//! Provenance: what a result was made from, written beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::CheckpointError;
use crate::hash;

/// Version of the manifest. Raised with every change; the changelog says which readers understand which.
pub const MANIFEST_VERSION: u32 = 1;

/// State of the sources that a binary was built from, as the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// Commit in hex digits.
    pub commit: String,
    /// Whether files differed from that commit.
    pub dirty: bool,
}

/// Everything that one must know to make the same thing again. Hashes are 64 hex digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// The resolved recipe in canonical JSON.
    pub recipe: Value,
    /// Hash over resolved recipe, base and dataset.
    pub fingerprint: String,
    /// Seed of all draws.
    pub seed: u64,
    /// Optimizer steps done.
    pub step: u64,
    /// Pictures seen, repeats included.
    pub images_seen: u64,
    /// The base, all components in one hash.
    pub base_sha256: String,
    /// The dataset's manifest.
    pub dataset_sha256: String,
    /// The evaluator, once something was measured.
    pub evaluator_sha256: Option<String>,
    /// The written adapter or model: [`crate::tensors_sha256`] by file name.
    pub tensors_sha256: BTreeMap<String, String>,
    /// Versions of the program and of what computes, such as `populate` and `burn`.
    pub versions: BTreeMap<String, String>,
    /// Where the binary came from; absent if it was not built from a checkout.
    pub sources: Option<Sources>,
    /// Device in words.
    pub device: String,
    /// What the bits depend on: binary, SIMD level, threads.
    pub numerics: BTreeMap<String, String>,
    /// Whether all attempts ran on equal `numerics`, on a processor.
    pub bit_exact: bool,
    /// Scheme of the random draws, such as `populate/rng/1`.
    pub draws: String,
}

impl Manifest {
    /// The manifest as indented JSON with a final newline; equal manifests give equal bytes.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Json`] if the recipe has no JSON form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        crate::fs::json_bytes(std::path::Path::new("manifest.json"), self)
    }

    /// sha256 of [`Manifest::to_bytes`].
    ///
    /// # Errors
    ///
    /// As [`Manifest::to_bytes`].
    pub fn sha256(&self) -> Result<String, CheckpointError> {
        Ok(hash::bytes_sha256(&self.to_bytes()?))
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Version`] for one of another version; [`CheckpointError::Json`], [`CheckpointError::Io`].
    pub fn read(path: &std::path::Path) -> Result<Self, CheckpointError> {
        let json: Value = crate::fs::read_json(path)?;
        let found = json.get("version").and_then(Value::as_u64).unwrap_or_default();
        if found != u64::from(MANIFEST_VERSION) {
            return Err(CheckpointError::Version {
                path: path.to_owned(),
                expected: MANIFEST_VERSION,
                found,
            });
        }
        serde_json::from_value(json)
            .map_err(|source| CheckpointError::Json { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest() -> Manifest {
        Manifest {
            version: MANIFEST_VERSION,
            recipe: json!({"seed": 7, "fit": {"optimizer": {"adamw": {"learning_rate": 1.0e-3}}}}),
            fingerprint: "f".repeat(64),
            seed: u64::MAX,
            step: 300,
            images_seen: 2400,
            base_sha256: "b".repeat(64),
            dataset_sha256: "d".repeat(64),
            evaluator_sha256: None,
            tensors_sha256: BTreeMap::from([("adapter.safetensors".to_owned(), "t".repeat(64))]),
            versions: BTreeMap::from([("burn".to_owned(), "0.22.1".to_owned())]),
            sources: Some(Sources { commit: "abc".to_owned(), dirty: true }),
            device: "cpu".to_owned(),
            numerics: BTreeMap::new(),
            bit_exact: true,
            draws: "populate/rng/1".to_owned(),
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        crate::fs::atomic_write(&path, &manifest().to_bytes().unwrap()).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), manifest());
        assert_eq!(hash::file_sha256(&path).unwrap().0, manifest().sha256().unwrap());
    }

    #[test]
    fn a_manifest_of_another_version_is_refused_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        crate::fs::atomic_write(&path, b"{\"version\": 2, \"new\": 1}").unwrap();
        let error = Manifest::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("has version 2, expected 1"), "{error}");
    }
}
