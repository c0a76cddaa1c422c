//! What a census was taken of and with, and what it left: `census/manifest.json`.

use crate::error::EvalError;
use crate::plan::CensusPlan;
use crate::take::{CensusJob, DRAWING};
use checkpoints::hash::bytes_sha256;
use models::base::Precision;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The schema that `census/manifest.json` names.
pub const SCHEMA: &str = "populate/census-manifest/1";

/// Provenance of a census. Without clock, host or energy: those stand in the run's journals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CensusManifest {
    /// Always `populate/census-manifest/1`.
    pub schema: String,
    /// Program and version.
    pub tool: String,
    /// SHA-256 of all that determines the pictures and figures; the shards of an interrupted census
    /// are taken up again only under the same one.
    pub identity_sha256: String,
    /// SHA-256 by name: base, adapter, dataset, evaluator, thesaurus, panel.
    pub hashes: BTreeMap<String, String>,
    /// The resolved `census` section of the recipe.
    pub census: Value,
    /// Scheme of the noise.
    pub noise: String,
    /// What stands for the empty prompt, if not its text encoded like any other: `zeros`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_prompt: Option<String>,
    /// Text of every prompt by its identifier.
    pub prompts: BTreeMap<String, String>,
    /// Pictures drawn.
    pub pictures: u64,
    /// Forward passes of the denoiser.
    pub forwards: u64,
    /// Every file but the pictures: size and SHA-256.
    pub files: BTreeMap<String, FileEntry>,
}

/// Identity of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Size.
    pub bytes: u64,
    /// 64 hex digits.
    pub sha256: String,
}

/// SHA-256 of a thesaurus or panel as it was understood.
pub(crate) fn described(value: &impl std::fmt::Debug) -> String {
    bytes_sha256(format!("{value:?}").as_bytes())
}

impl CensusManifest {
    pub(crate) fn new(job: &CensusJob<'_>, plan: &CensusPlan) -> Result<Self, EvalError> {
        let mut hashes = job.hashes.clone();
        hashes.insert("evaluator".into(), job.evaluator.sha256().to_owned());
        if let Some(second) = job.second_evaluator {
            hashes.insert("second_evaluator".into(), second.sha256().to_owned());
        }
        hashes.insert("thesaurus".into(), described(&plan.thesaurus));
        hashes.insert("panel".into(), described(&plan.panel));
        let census = serde_json::to_value(job.spec)?;
        let empty_prompt = job.base.force_zeros_for_empty_prompt.then(|| "zeros".to_owned());
        let mut identity = json!({
            "tool": job.tool,
            "drawing": DRAWING,
            "numerics": job.numerics,
            "hashes": hashes,
            "census": census,
            "drawings": format!("{:?}", plan.drawings),
            "concept": plan.concept,
            // Both pictures of a pair come from one kind of arithmetic.
            "device": job.base.device_kind(),
        });
        // Said only where it is so, so that a census of any other base keeps its identity.
        if let Some(stands) = &empty_prompt {
            identity["empty_prompt"] = json!(stands);
        }
        if job.base.precision != Precision::F32 {
            identity["precision"] = json!(job.base.precision.name());
        }
        Ok(Self {
            schema: SCHEMA.to_owned(),
            tool: job.tool.to_owned(),
            identity_sha256: bytes_sha256(identity.to_string().as_bytes()),
            hashes,
            census,
            noise: "populate/rng/1, keyed by census seed, prompt, seed, step and purpose"
                .to_owned(),
            empty_prompt,
            prompts: plan
                .drawings
                .iter()
                .map(|d| (d.prompt.id.clone(), d.prompt.text.clone()))
                .collect(),
            pictures: plan.pictures(),
            forwards: plan.forwards(job.spec),
            files: BTreeMap::new(),
        })
    }

    /// What the report says of the empty prompt where it is not encoded like any other.
    pub(crate) fn note_on_the_empty_prompt(&self) -> Option<String> {
        let stands = self.empty_prompt.as_ref()?;
        Some(format!(
            "{stands} stand for the empty prompt, as the base asks for; programs that encode an empty \
             text draw it otherwise"
        ))
    }

    pub(crate) fn add(&mut self, path: &str, bytes: &[u8]) {
        let entry = FileEntry {
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            sha256: bytes_sha256(bytes),
        };
        self.files.insert(path.to_owned(), entry);
    }

    /// Refuses rows that are not those that the census of `run` wrote.
    ///
    /// # Errors
    ///
    /// [`EvalError::Altered`] for other rows; a file that cannot be read.
    pub(crate) fn check_rows(&self, run: &Path) -> Result<(), EvalError> {
        let name = "census/rows.csv";
        let found = bytes_sha256(&checkpoints::fs::read(&run.join(name))?);
        match self.files.get(name) {
            Some(entry) if entry.sha256 == found => Ok(()),
            Some(_) | None => Err(EvalError::Altered { path: run.join(name) }),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// A missing or malformed file; [`EvalError::Schema`] for another version.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let value: Value = checkpoints::fs::read_json(path)?;
        let found = value.get("schema").and_then(Value::as_str).unwrap_or_default();
        if found != SCHEMA {
            return Err(EvalError::Schema { found: found.to_owned(), expected: SCHEMA });
        }
        Ok(serde_json::from_value(value)?)
    }
}
