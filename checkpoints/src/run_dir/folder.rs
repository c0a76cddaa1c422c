//! A run directory as readers see it: no lock, no writing.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::attempts::{self, Attempt, AttemptRecord, Done, Heartbeat};
use super::checkpoint::{self, Checkpoint};
use super::journal;
use super::lock::RunLock;
use super::{CHECKPOINTS, RECIPE};
use crate::error::CheckpointError;

pub(super) const FINGERPRINT_LINE: &str = "# fingerprint: ";

/// A run directory that nobody else writes to while this lives.
#[derive(Debug)]
pub struct RunHold {
    _lock: RunLock,
}

/// A run directory that belongs to a known recipe.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    fingerprint: String,
    recipe: String,
}

impl RunFolder {
    /// Reads `recipe.resolved.yaml`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotARun`] if it is absent or does not name the fingerprint; [`CheckpointError::Io`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let recipe_path = path.join(RECIPE);
        if !recipe_path.is_file() {
            return Err(CheckpointError::NotARun {
                path: path.to_owned(),
                found: format!("no `{RECIPE}`"),
            });
        }
        let text = fs_err::read_to_string(&recipe_path)?;
        let parts = text
            .split_once('\n')
            .and_then(|(first, recipe)| Some((first.strip_prefix(FINGERPRINT_LINE)?, recipe)));
        let Some((fingerprint, recipe)) = parts else {
            return Err(CheckpointError::NotARun {
                path: path.to_owned(),
                found: format!("a `{RECIPE}` without a first line `{FINGERPRINT_LINE}…`"),
            });
        };
        Ok(Self {
            path: path.to_owned(),
            fingerprint: fingerprint.trim().to_owned(),
            recipe: recipe.to_owned(),
        })
    }

    /// Where the run lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Holds the run for somebody who adds to it without going on with it, as long as the value lives.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Locked`] with the holder's own words; [`CheckpointError::Io`].
    pub fn hold(&self, attempt: &Attempt) -> Result<RunHold, CheckpointError> {
        RunLock::acquire(&self.path, attempt).map(|lock| RunHold { _lock: lock })
    }

    /// 64 hex digits over resolved recipe, base and dataset.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The resolved recipe.
    pub fn recipe_yaml(&self) -> &str {
        &self.recipe
    }

    /// The newest checkpoint that is intact: highest step, then newest; sizes are compared first, then hashes.
    /// What was skipped is told in [`Checkpoint::damaged`]. `None` if none was ever committed.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NoneVerifies`] if checkpoints were committed and all are damaged; [`CheckpointError::Io`].
    pub fn newest(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        checkpoint::newest(&self.path.join(CHECKPOINTS), &self.fingerprint)
    }

    /// The checkpoint of one step, verified.
    ///
    /// # Errors
    ///
    /// As [`RunFolder::newest`]; `None` if no checkpoint of that step is intact.
    pub fn at_step(&self, step: u64) -> Result<Option<Checkpoint>, CheckpointError> {
        checkpoint::at_step(&self.path.join(CHECKPOINTS), &self.fingerprint, step)
    }

    /// Steps of all committed checkpoints, ascending, without verification.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut steps: Vec<u64> = checkpoint::committed(&self.path.join(CHECKPOINTS))?
            .into_iter()
            .map(|(step, _)| step)
            .collect();
        steps.sort_unstable();
        steps.dedup();
        Ok(steps)
    }

    /// Start records of all attempts, in order.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn attempts(&self) -> Result<Vec<AttemptRecord>, CheckpointError> {
        let records = self.attempt_records()?;
        Ok(records
            .into_iter()
            .filter(|record| matches!(record, AttemptRecord::Start { .. }))
            .collect())
    }

    /// Start and end records of all attempts, in order.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn attempt_records(&self) -> Result<Vec<AttemptRecord>, CheckpointError> {
        let records = journal::records(&self.path.join("attempts.jsonl"))?;
        Ok(records.into_iter().filter_map(|record| serde_json::from_value(record).ok()).collect())
    }

    /// How many of the latest attempts in a row began at `from_step` and so made no progress, killed ones included.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn n_stalled_attempts(&self, from_step: u64) -> Result<usize, CheckpointError> {
        Ok(attempts::n_stalled(&self.attempt_records()?, from_step))
    }

    /// Records of `metrics.jsonl` by ascending `step`; where two attempts measured one step, the later line counts.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn metrics(&self) -> Result<Vec<Value>, CheckpointError> {
        let mut by_step = BTreeMap::new();
        for record in journal::records(&self.path.join("metrics.jsonl"))? {
            if let Some(step) = record.get("step").and_then(Value::as_u64) {
                by_step.insert(step, record);
            }
        }
        Ok(by_step.into_values().collect())
    }

    /// All whole records of a journal, in order.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], [`CheckpointError::PathEscapes`].
    pub fn journal(&self, name: &str) -> Result<Vec<Value>, CheckpointError> {
        journal::records(&self.path.join(relative(name)?))
    }

    /// The result of a finished run.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], [`CheckpointError::Json`].
    pub fn done(&self) -> Result<Option<Done>, CheckpointError> {
        optional(&self.path.join("DONE.json"))
    }

    /// The last sign of life.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], [`CheckpointError::Json`].
    pub fn heartbeat(&self) -> Result<Option<Heartbeat>, CheckpointError> {
        optional(&self.path.join("heartbeat.json"))
    }
}

fn optional<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, CheckpointError> {
    if path.exists() { crate::fs::read_json(path).map(Some) } else { Ok(None) }
}

/// A name as a path that stays below the folder it is joined to.
pub(super) fn relative(name: &str) -> Result<&Path, CheckpointError> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !name.is_empty() && !name.contains('\\') {
        Ok(path)
    } else {
        Err(CheckpointError::PathEscapes { name: name.to_owned() })
    }
}
