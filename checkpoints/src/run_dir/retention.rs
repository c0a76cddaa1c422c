//! Deleting old checkpoints, never the last good one.

use std::path::Path;

use super::checkpoint::{COMMIT, committed, step_of};
use super::{CHECKPOINTS, RunFolder};
use crate::error::CheckpointError;
use crate::fs::Fs;

/// Keeps the newest `keep` (at least one) and the pinned steps. The record goes first, so that a folder that is half
/// deleted is no checkpoint.
pub(super) fn retain(
    fs: &dyn Fs,
    folder: &RunFolder,
    keep: usize,
    pinned: &[u64],
) -> Result<Vec<u64>, CheckpointError> {
    let checkpoints = folder.path().join(CHECKPOINTS);
    // Reading the newest back comes before any deletion; a damaged newest one forbids it.
    let Some(newest) = folder.newest()? else {
        return Ok(Vec::new());
    };
    if !newest.damaged().is_empty() {
        return Ok(Vec::new());
    }
    remove_half_deleted(fs, &checkpoints)?;
    let mut deleted = Vec::new();
    for (step, dir) in committed(&checkpoints)?.into_iter().skip(keep.max(1)) {
        if pinned.contains(&step) || dir == newest.path() {
            continue;
        }
        let record = dir.join(COMMIT);
        let file = fs_err::File::open(&record)?;
        if file.file().try_lock().is_err() {
            continue;
        }
        fs.unlink(&record)?;
        fs.fsync_dir(&dir)?;
        fs.remove_dir_all(&dir)?;
        deleted.push(step);
    }
    if !deleted.is_empty() {
        fs.fsync_dir(&checkpoints)?;
    }
    Ok(deleted)
}

fn remove_half_deleted(fs: &dyn Fs, checkpoints: &Path) -> Result<(), CheckpointError> {
    for dir in fs.list(checkpoints)? {
        if step_of(&dir).is_some() && !dir.join(COMMIT).exists() {
            fs.remove_dir_all(&dir)?;
        }
    }
    Ok(())
}
