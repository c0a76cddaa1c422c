//! Append-only files of JSON lines that survive a torn end.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::error::CheckpointError;
use crate::fs::{DurableFile, Fs, create_dir_durably, folder_of};

/// A file of JSON lines, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Box<dyn DurableFile>,
}

impl Journal {
    /// Opens or creates the file; ends a torn last line, so that the next record starts on its own.
    pub(super) fn open(fs: &dyn Fs, path: &Path) -> Result<Self, CheckpointError> {
        create_dir_durably(fs, folder_of(path))?;
        let torn = last_byte(path)?.is_some_and(|byte| byte != b'\n');
        let mut file = fs.append(path)?;
        if torn {
            file.write_all(b"\n")?;
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one record as one line, in one write.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; [`CheckpointError::Json`] if the record has no JSON form.
    pub fn append<T: Serialize + ?Sized>(&mut self, record: &T) -> Result<(), CheckpointError> {
        let mut line = serde_json::to_vec(record)
            .map_err(|source| CheckpointError::Json { path: self.path.clone(), source })?;
        line.push(b'\n');
        Ok(self.file.write_all(&line)?)
    }

    /// Makes all records durable.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn sync(&mut self) -> Result<(), CheckpointError> {
        Ok(self.file.fsync()?)
    }
}

fn last_byte(path: &Path) -> Result<Option<u8>, CheckpointError> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match fs_err::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(Some(byte[0]))
}

/// All whole records of a file, in order; none if there is no file. Torn lines are left out.
pub(super) fn records(path: &Path) -> Result<Vec<Value>, CheckpointError> {
    let bytes = match fs_err::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    Ok(bytes
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}
