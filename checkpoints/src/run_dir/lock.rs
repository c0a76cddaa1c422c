//! One writer per run directory.

use std::fs::TryLockError;
use std::path::Path;

use super::attempts::{Attempt, Heartbeat};
use crate::error::CheckpointError;
use crate::fs::{open_kept, overwrite, with_path};

const LOCK: &str = "run.lock";

/// The lock on `run.lock`. The file is never removed: two processes could then lock two files of one name. What it
/// holds is only for the message to those who come later.
#[derive(Debug)]
pub(super) struct RunLock {
    _file: fs_err::File,
}

impl RunLock {
    pub(super) fn acquire(dir: &Path, attempt: &Attempt) -> Result<Self, CheckpointError> {
        let path = dir.join(LOCK);
        let mut file = open_kept(&path)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = describe_holder(dir, &path, attempt.started_at);
                return Err(CheckpointError::Locked { path: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(with_path(&error, "lock", &path).into()),
        }
        let line = format!("host {}, pid {}, attempt {}\n", attempt.host, attempt.pid, attempt.id);
        overwrite(&mut file, line.as_bytes())?;
        Ok(Self { _file: file })
    }
}

fn describe_holder(dir: &Path, lock: &Path, now: f64) -> String {
    let holder = fs_err::read_to_string(lock).unwrap_or_default();
    let holder = if holder.trim().is_empty() { "holder unknown" } else { holder.trim() };
    let heartbeat = crate::fs::read_json::<Heartbeat>(&dir.join("heartbeat.json"));
    let age = heartbeat.map_or_else(
        |_| "no heartbeat yet".to_owned(),
        |heartbeat| format!("heartbeat {:.0} s ago", (now - heartbeat.written_at).max(0.0)),
    );
    format!("{holder}, {age}")
}
