//! A committed checkpoint: files that are all there, with the record that proves it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::TEMPORARY;
use crate::error::CheckpointError;
use crate::fs::{Fs, StdFs, create_dir_durably, durable_write, json_bytes};
use crate::hash;
use crate::problem::WeightsProblem;
use crate::safetensors::{TensorFile, write_tensors_into};
use crate::tensors::TensorMap;

/// Version of the layout of a checkpoint.
pub const COMMIT_VERSION: u32 = 1;
pub(super) const COMMIT: &str = "COMMIT.json";

/// `COMMIT.json`, written last: a folder without it is no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// [`COMMIT_VERSION`].
    pub version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Four hex digits of the attempt that wrote it.
    pub attempt: String,
    /// Fingerprint of the run.
    pub fingerprint: String,
    /// Every other file of the folder.
    pub files: BTreeMap<String, FileRecord>,
}

/// Identity of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Size.
    pub bytes: u64,
    /// 64 hex digits.
    pub sha256: String,
}

/// What a file of a checkpoint holds.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Tensors, as safetensors.
    Tensors(&'a TensorMap, &'a BTreeMap<String, String>),
    /// Anything else, such as JSON.
    Bytes(&'a [u8]),
}

/// An intact checkpoint. While this value lives, retention leaves the folder alone.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    commit: Commit,
    damaged: Vec<String>,
    _shared: fs_err::File,
}

impl Checkpoint {
    /// Opens the checkpoint in a folder and compares sizes and hashes with its record.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], [`CheckpointError::Json`], or [`CheckpointError::Hash`] and
    /// [`CheckpointError::DamagedCheckpoint`] for what does not fit.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let damaged =
            |reason: String| CheckpointError::DamagedCheckpoint { path: dir.to_owned(), reason };
        let commit_path = dir.join(COMMIT);
        let shared = fs_err::File::open(&commit_path)?;
        // A file system without locks still has readable checkpoints.
        let _ = shared.file().try_lock_shared();
        let commit: Commit = crate::fs::read_json(&commit_path)?;
        if commit.version != COMMIT_VERSION {
            return Err(damaged(format!(
                "expected version {COMMIT_VERSION}, found {}",
                commit.version
            )));
        }
        for (name, record) in &commit.files {
            let found = fs_err::metadata(dir.join(super::folder::relative(name)?))?.len();
            if found != record.bytes {
                return Err(damaged(format!(
                    "expected {} bytes in `{name}`, found {found}",
                    record.bytes
                )));
            }
        }
        for (name, record) in &commit.files {
            let path = dir.join(name);
            let (found, _) = hash::file_sha256(&path)?;
            if found != record.sha256 {
                return Err(CheckpointError::Hash { path, expected: record.sha256.clone(), found });
            }
        }
        Ok(Self { dir: dir.to_owned(), commit, damaged: Vec::new(), _shared: shared })
    }

    /// Optimizer steps done.
    pub const fn step(&self) -> u64 {
        self.commit.step
    }

    /// The record of the checkpoint.
    pub const fn commit(&self) -> &Commit {
        &self.commit
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// One sentence for each newer checkpoint that was skipped because it is damaged.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Whether the checkpoint has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.commit.files.contains_key(name)
    }

    /// Where a file of the checkpoint lies.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Opens a file of tensors.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::open`].
    pub fn tensors(&self, name: &str) -> Result<TensorFile, CheckpointError> {
        TensorFile::open(&self.file(name))
    }

    /// Reads a JSON file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`] or [`CheckpointError::Json`].
    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, CheckpointError> {
        crate::fs::read_json(&self.file(name))
    }
}

/// A checkpoint about to be written.
pub(super) struct Draft<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) checkpoints: &'a Path,
    pub(super) step: u64,
    pub(super) attempt: &'a str,
    pub(super) fingerprint: &'a str,
}

impl Draft<'_> {
    pub(super) fn commit(
        &self,
        files: &[(&str, Content<'_>)],
    ) -> Result<Checkpoint, CheckpointError> {
        let dir = self.checkpoints.join(format!("step-{:08}-{}", self.step, self.attempt));
        if dir.join(COMMIT).is_file() {
            return Checkpoint::open(&dir);
        }
        let temporary =
            self.checkpoints.join(format!("{TEMPORARY}{}-{:08}", self.attempt, self.step));
        if let Err(error) = self.write(files, &temporary, &dir) {
            // The first error is the one to report; leftovers are removed when the run is next opened.
            let _ = self.fs.remove_dir_all(&temporary);
            return Err(error);
        }
        self.fs.fsync_dir(self.checkpoints)?;
        Checkpoint::open(&dir)
    }

    fn write(
        &self,
        files: &[(&str, Content<'_>)],
        temporary: &Path,
        dir: &Path,
    ) -> Result<(), CheckpointError> {
        create_dir_durably(self.fs, self.checkpoints)?;
        self.fs.create_dir_all(temporary)?;
        let mut records = BTreeMap::new();
        for (name, content) in files {
            let path = temporary.join(super::folder::relative(name)?);
            records.insert((*name).to_owned(), self.write_file(&path, content)?);
        }
        let commit = Commit {
            version: COMMIT_VERSION,
            step: self.step,
            attempt: self.attempt.to_owned(),
            fingerprint: self.fingerprint.to_owned(),
            files: records,
        };
        let path = temporary.join(COMMIT);
        let bytes = json_bytes(&path, &commit)?;
        durable_write(self.fs, &path, &mut |file: &mut dyn Write| Ok(file.write_all(&bytes)?))?;
        self.fs.fsync_dir(temporary)?;
        Ok(self.fs.rename(temporary, dir)?)
    }

    fn write_file(
        &self,
        path: &Path,
        content: &Content<'_>,
    ) -> Result<FileRecord, CheckpointError> {
        match content {
            Content::Tensors(tensors, metadata) => {
                if let Some((tensor, _)) = tensors.iter().find(|(_, tensor)| !tensor.all_finite()) {
                    let problem = WeightsProblem::NotFinite { tensor: tensor.clone() };
                    return Err(CheckpointError::weights(path, problem));
                }
                let (sha256, bytes) = write_tensors_into(self.fs, path, tensors, metadata)?;
                Ok(FileRecord { bytes, sha256 })
            }
            Content::Bytes(bytes) => {
                durable_write(self.fs, path, &mut |file: &mut dyn Write| {
                    Ok(file.write_all(bytes)?)
                })?;
                Ok(FileRecord { bytes: bytes.len() as u64, sha256: hash::bytes_sha256(bytes) })
            }
        }
    }
}

/// Step and folder of everything that has a COMMIT record, highest step first, then newest.
pub(super) fn committed(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let mut found = Vec::new();
    for dir in StdFs.list(checkpoints)? {
        let commit_path = dir.join(COMMIT);
        let Some(step) = step_of(&dir).filter(|_| commit_path.is_file()) else {
            continue;
        };
        let written = fs_err::metadata(&commit_path)?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        found.push((step, written, dir));
    }
    found.sort_by_key(|(step, written, _)| Reverse((*step, *written)));
    Ok(found.into_iter().map(|(step, _, dir)| (step, dir)).collect())
}

/// The step in the name `step-00001200-7f3a`.
pub(super) fn step_of(dir: &Path) -> Option<u64> {
    let name = dir.file_name()?.to_str()?;
    name.strip_prefix("step-")?.split_once('-')?.0.parse().ok()
}

fn open_of_run(dir: &Path, fingerprint: &str) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = Checkpoint::open(dir)?;
    if checkpoint.commit.fingerprint == fingerprint {
        return Ok(checkpoint);
    }
    let reason =
        format!("expected fingerprint {fingerprint}, found {}", checkpoint.commit.fingerprint);
    Err(CheckpointError::DamagedCheckpoint { path: dir.to_owned(), reason })
}

pub(super) fn newest(
    checkpoints: &Path,
    fingerprint: &str,
) -> Result<Option<Checkpoint>, CheckpointError> {
    first_intact(checkpoints, fingerprint, committed(checkpoints)?)
}

pub(super) fn at_step(
    checkpoints: &Path,
    fingerprint: &str,
    step: u64,
) -> Result<Option<Checkpoint>, CheckpointError> {
    let mut candidates = committed(checkpoints)?;
    candidates.retain(|(found, _)| *found == step);
    first_intact(checkpoints, fingerprint, candidates)
}

fn first_intact(
    checkpoints: &Path,
    fingerprint: &str,
    candidates: Vec<(u64, PathBuf)>,
) -> Result<Option<Checkpoint>, CheckpointError> {
    let mut damages = Vec::new();
    for (_, dir) in candidates {
        match open_of_run(&dir, fingerprint) {
            Ok(checkpoint) => {
                return Ok(Some(Checkpoint { damaged: damages, ..checkpoint }));
            }
            Err(error) => damages.push(error.to_string()),
        }
    }
    if damages.is_empty() {
        return Ok(None);
    }
    Err(CheckpointError::NoneVerifies { path: checkpoints.to_owned(), damages })
}
