//! The directory of a run: one lock, one recipe, checkpoints that are complete or absent, journals that survive tearing.
//!
//! ```text
//! RUN/
//!   run.lock  recipe.resolved.yaml  attempts.jsonl  heartbeat.json  metrics.jsonl  energy.jsonl  log.jsonl  DONE.json
//!   events/events.out.tfevents.*
//!   checkpoints/step-00001200-7f3a/   adapter.safetensors … COMMIT.json
//! ```
//!
//! Owns the formats and their durability. Clock, host name and process come from the caller, who alone may ask for them.

mod attempts;
mod checkpoint;
mod difference;
pub mod energy;
pub mod event_file;
mod event_proto;
mod folder;
mod journal;
mod lock;
mod retention;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

pub use attempts::{Attempt, AttemptEnd, AttemptRecord, Done, Heartbeat};
pub use checkpoint::{COMMIT_VERSION, Checkpoint, Commit, Content, FileRecord};
pub use folder::{RunFolder, RunHold};
pub use journal::Journal;

use crate::error::CheckpointError;
use crate::fs::{Fs, StdFs, atomic_write_on, create_dir_durably};

const RECIPE: &str = "recipe.resolved.yaml";
const CHECKPOINTS: &str = "checkpoints";
const EVENTS: &str = "events";
const TEMPORARY: &str = ".tmp-";

/// What makes a run this run.
#[derive(Debug, Clone, Copy)]
pub struct RunIdentity<'a> {
    /// Name of the directory below the folder of all runs; see [`run_id`].
    pub id: &'a str,
    /// 64 hex digits over resolved recipe, base and dataset.
    pub fingerprint: &'a str,
    /// The resolved recipe as YAML.
    pub resolved_recipe: &'a str,
}

/// `<recipe name>-<first 8 digits of the fingerprint>`.
pub fn run_id(name: &str, fingerprint: &str) -> String {
    let digits: String = fingerprint.chars().take(8).collect();
    format!("{name}-{digits}")
}

/// A run directory that this process holds. The lock ends with the value, or with the process.
#[derive(Debug)]
pub struct RunDir {
    fs: Arc<dyn Fs>,
    folder: RunFolder,
    attempt: Attempt,
    number: u64,
    _lock: lock::RunLock,
}

impl RunDir {
    /// Opens and locks the directory `runs/id`, or creates it; removes what an interrupted writer left behind.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Locked`] with the holder's own words; [`CheckpointError::OtherFingerprint`] with the lines in
    /// which the two resolved recipes differ; [`CheckpointError::PathEscapes`] for an id that is no plain name.
    pub fn open(
        runs: &Path,
        identity: &RunIdentity<'_>,
        attempt: Attempt,
    ) -> Result<Self, CheckpointError> {
        Self::open_on(Arc::new(StdFs), runs, identity, attempt)
    }

    pub(crate) fn open_on(
        fs: Arc<dyn Fs>,
        runs: &Path,
        identity: &RunIdentity<'_>,
        attempt: Attempt,
    ) -> Result<Self, CheckpointError> {
        if identity.id.contains(['/', '\\']) {
            return Err(CheckpointError::PathEscapes { name: identity.id.to_owned() });
        }
        let path = runs.join(folder::relative(identity.id)?);
        create_dir_durably(fs.as_ref(), &path)?;
        let lock = lock::RunLock::acquire(&path, &attempt)?;
        claim(fs.as_ref(), &path, identity)?;
        remove_leftovers(fs.as_ref(), &path)?;
        let folder = RunFolder::open(&path)?;
        let number = folder.attempts()?.len() as u64 + 1;
        Ok(Self { fs, folder, attempt, number, _lock: lock })
    }

    /// The same directory, as readers see it.
    pub const fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// Where the run lies.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Number of this attempt, counted from 1.
    pub const fn attempt_number(&self) -> u64 {
        self.number
    }

    /// The newest checkpoint that is intact; see [`RunFolder::newest`].
    ///
    /// # Errors
    ///
    /// As [`RunFolder::newest`].
    pub fn newest(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        self.folder.newest()
    }

    /// Records in `attempts.jsonl` that this attempt begins at `from_step`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn begin(&self, from_step: u64) -> Result<(), CheckpointError> {
        self.append("attempts.jsonl", &AttemptRecord::start(&self.attempt, self.number, from_step))
    }

    /// Records in `attempts.jsonl` how this attempt ended.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn end(&self, end: &AttemptEnd) -> Result<(), CheckpointError> {
        self.append("attempts.jsonl", &AttemptRecord::end(&self.attempt, self.number, end))
    }

    /// Opens a journal of the run, such as `metrics.jsonl`, for appending; mends a torn last line.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], [`CheckpointError::PathEscapes`].
    pub fn journal(&self, name: &str) -> Result<Journal, CheckpointError> {
        Journal::open(self.fs.as_ref(), &self.inside(name)?)
    }

    fn append<T: Serialize>(&self, name: &str, record: &T) -> Result<(), CheckpointError> {
        let mut journal = self.journal(name)?;
        journal.append(record)?;
        journal.sync()
    }

    /// Replaces `heartbeat.json`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), CheckpointError> {
        self.write_json("heartbeat.json", heartbeat)
    }

    /// Writes `DONE.json`: from now on the run is finished.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn finish(&self, done: &Done) -> Result<(), CheckpointError> {
        self.write_json("DONE.json", done)
    }

    /// Writes an artefact below the run directory, atomically; `name` may hold folders, such as `previews/0001.png`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::PathEscapes`] for absolute names or `..`; [`CheckpointError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, CheckpointError> {
        let path = self.inside(name)?;
        atomic_write_on(self.fs.as_ref(), &path, bytes)?;
        Ok(path)
    }

    /// [`RunDir::write`] for a value as indented JSON.
    ///
    /// # Errors
    ///
    /// As [`RunDir::write`].
    pub fn write_json<T: Serialize + ?Sized>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<(), CheckpointError> {
        let path = self.inside(name)?;
        atomic_write_on(self.fs.as_ref(), &path, &crate::fs::json_bytes(&path, value)?)
    }

    /// The path of an artefact, for writers that need one (such as [`crate::write_tensors`]).
    ///
    /// # Errors
    ///
    /// [`CheckpointError::PathEscapes`].
    pub fn inside(&self, name: &str) -> Result<PathBuf, CheckpointError> {
        Ok(self.path().join(folder::relative(name)?))
    }

    /// Commits a checkpoint of `step`: all of `files`, durable, then `COMMIT.json`, then the name.
    ///
    /// A step that this attempt has already committed is not written again.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`] (disk full and the like: earlier checkpoints are untouched);
    /// [`crate::WeightsProblem::NotFinite`] if a tensor holds an infinite or undefined value.
    pub fn commit_checkpoint(
        &self,
        step: u64,
        files: &[(&str, Content<'_>)],
    ) -> Result<Checkpoint, CheckpointError> {
        let draft = checkpoint::Draft {
            fs: self.fs.as_ref(),
            checkpoints: &self.path().join(CHECKPOINTS),
            step,
            attempt: &self.attempt.id,
            fingerprint: self.folder.fingerprint(),
        };
        draft.commit(files)
    }

    /// Deletes all but the newest `keep` checkpoints and those of `pinned` steps, after reading the newest back.
    /// Checkpoints that a reader holds are skipped. Gives the steps that were deleted.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; nothing is deleted if the newest does not verify.
    pub fn retain(&self, keep: usize, pinned: &[u64]) -> Result<Vec<u64>, CheckpointError> {
        retention::retain(self.fs.as_ref(), &self.folder, keep, pinned)
    }

    /// Creates the TensorBoard file of this attempt. `wall_time` is in Unix seconds; `resumed_after` is the last
    /// committed step, if there is one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn event_file(
        &self,
        wall_time: f64,
        resumed_after: Option<u64>,
    ) -> Result<event_file::EventFile, CheckpointError> {
        let origin = event_file::Origin {
            wall_time,
            host: &self.attempt.host,
            pid: self.attempt.pid,
            attempt: &self.attempt.id,
        };
        event_file::EventFile::create(
            self.fs.as_ref(),
            &self.path().join(EVENTS),
            &origin,
            resumed_after,
        )
    }
}

/// Writes the recipe with the fingerprint above it, or compares with what is there.
fn claim(fs: &dyn Fs, path: &Path, identity: &RunIdentity<'_>) -> Result<(), CheckpointError> {
    let recipe_path = path.join(RECIPE);
    if !recipe_path.exists() {
        let text = format!(
            "{}{}\n{}",
            folder::FINGERPRINT_LINE,
            identity.fingerprint,
            identity.resolved_recipe
        );
        return atomic_write_on(fs, &recipe_path, text.as_bytes());
    }
    let found = RunFolder::open(path)?;
    if found.fingerprint() == identity.fingerprint {
        return Ok(());
    }
    Err(CheckpointError::OtherFingerprint {
        path: path.to_owned(),
        expected: identity.fingerprint.to_owned(),
        found: found.fingerprint().to_owned(),
        difference: difference::difference(found.recipe_yaml(), identity.resolved_recipe),
    })
}

/// Under the lock, every temporary name belongs to a writer that is dead.
fn remove_leftovers(fs: &dyn Fs, path: &Path) -> Result<(), CheckpointError> {
    for dir in [path.to_owned(), path.join(CHECKPOINTS)] {
        for entry in fs.list(&dir)? {
            let temporary =
                entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY));
            match (temporary, entry.is_dir()) {
                (true, true) => fs.remove_dir_all(&entry)?,
                (true, false) => fs.unlink(&entry)?,
                (false, _) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
