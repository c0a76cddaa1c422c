//! What can go wrong with files of weights, model folders and run directories.

use std::io;
use std::path::{Path, PathBuf};

use crate::problem::WeightsProblem;

/// An error of this crate. [`CheckpointError::kind`] says which exit code it deserves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file operation failed; the text names the path.
    #[error("{0}")]
    Io(io::Error),
    /// A file of tensors is not what it should be.
    #[error("`{}` {problem}", path.display())]
    Weights {
        /// The file, or the index of shards.
        path: PathBuf,
        /// What was expected and what was found.
        problem: WeightsProblem,
    },
    /// A JSON file could not be understood.
    #[error("could not read `{}` as JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A folder lacks something that a model folder has.
    #[error("`{}` is not a model folder: expected {expected}, found {found}", path.display())]
    ModelFolder {
        /// The folder.
        path: PathBuf,
        /// What a model folder holds there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file or folder is no base that can be used, or not all of one.
    #[error("`{}` is no base that can be used: expected {expected}, found {found}", path.display())]
    Model {
        /// The file or folder.
        path: PathBuf,
        /// What a base holds there.
        expected: String,
        /// What is there.
        found: String,
        /// What to do about it, where that is known.
        advice: Option<String>,
    },
    /// Weights alone do not say what their network predicts.
    #[error("`{}` does not say what it predicts: expected epsilon or v to be stated, found weights that look the same either way", path.display())]
    Prediction {
        /// The file.
        path: PathBuf,
    },
    /// This build was made without the base that it should carry.
    #[error("this build carries no base: the list of embedded files is empty")]
    NoEmbeddedBase,
    /// A file has other bytes than its record says.
    #[error("`{}` has sha256 {found}, expected {expected}", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// 64 hex digits of the record.
        expected: String,
        /// 64 hex digits of the file.
        found: String,
    },
    /// Another process holds the run directory.
    #[error("run directory `{}` is locked by a live run ({holder})", path.display())]
    Locked {
        /// The run directory.
        path: PathBuf,
        /// Host, process, attempt as the holder wrote them.
        holder: String,
    },
    /// The directory belongs to another recipe, base or dataset.
    #[error("run directory `{}` has fingerprint {found}, expected {expected}\n{difference}", path.display())]
    OtherFingerprint {
        /// The run directory.
        path: PathBuf,
        /// The fingerprint asked for.
        expected: String,
        /// The fingerprint on disk.
        found: String,
        /// Lines of the resolved recipes that differ: `-` on disk, `+` asked for.
        difference: String,
    },
    /// Checkpoints were committed, but none is intact.
    #[error("no checkpoint below `{}` is intact: {}", path.display(), damages.join("; "))]
    NoneVerifies {
        /// The directory of checkpoints.
        path: PathBuf,
        /// One sentence for each damaged checkpoint.
        damages: Vec<String>,
    },
    /// A checkpoint does not fit its record.
    #[error("checkpoint `{}` is damaged: {reason}", path.display())]
    DamagedCheckpoint {
        /// The folder of the checkpoint.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A file has a version that this program does not know.
    #[error("`{}` has version {found}, expected {expected}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that is read and written here.
        expected: u32,
        /// The version of the file; 0 if it states none.
        found: u64,
    },
    /// A folder is no run directory.
    #[error("`{}` is no run directory: found {found}", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A name cannot be a file below the run directory.
    #[error("`{name}` is not a relative path without `..`")]
    PathEscapes {
        /// The name as given.
        name: String,
    },
    /// An embedded layer path or key is not known.
    #[error("key `{key}` {reason}")]
    Key {
        /// The key of the file.
        key: String,
        /// Why it has no counterpart.
        reason: String,
    },
}

impl CheckpointError {
    pub(crate) fn weights(path: &Path, problem: WeightsProblem) -> Self {
        Self::Weights { path: path.to_owned(), problem }
    }

    pub(crate) fn model(path: &Path, expected: &str, found: &str, advice: Option<&str>) -> Self {
        Self::Model {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
            advice: advice.map(str::to_owned),
        }
    }
}

impl From<io::Error> for CheckpointError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}
