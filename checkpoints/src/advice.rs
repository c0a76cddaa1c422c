//! What an error means to the person at the terminal: which exit code it deserves, and what to do about it.

use crate::error::CheckpointError;

/// What an error means to whoever started the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Weights or model files are invalid (exit 65).
    Data,
    /// Input or output failed, the disk is full, or no commit verifies (exit 74).
    Io,
    /// A live run holds the lock (exit 73).
    Locked,
    /// Another recipe under the same run id (exit 64).
    Recipe,
}

impl CheckpointError {
    /// What the error means to whoever started the program.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) | Self::NoneVerifies { .. } | Self::DamagedCheckpoint { .. } => {
                ErrorKind::Io
            }
            Self::Locked { .. } => ErrorKind::Locked,
            Self::OtherFingerprint { .. } | Self::PathEscapes { .. } | Self::NotARun { .. } => {
                ErrorKind::Recipe
            }
            Self::Weights { .. }
            | Self::Json { .. }
            | Self::ModelFolder { .. }
            | Self::Model { .. }
            | Self::Prediction { .. }
            | Self::NoEmbeddedBase
            | Self::Hash { .. }
            | Self::Version { .. }
            | Self::Key { .. } => ErrorKind::Data,
        }
    }

    /// Advice, where there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Weights { problem, .. } => problem.hint(),
            Self::ModelFolder { .. } => Some(
                "a model folder holds `model_index.json` and one folder for each component"
                    .to_owned(),
            ),
            Self::Model { advice, .. } => advice.clone(),
            Self::Prediction { .. } => Some(
                "write `prediction: epsilon` (the 512 px bases of SD 2.x) or `prediction: v` (768 px) below \
                 `weights` of the base"
                    .to_owned(),
            ),
            Self::NoEmbeddedBase => Some(
                "name a folder of weights instead: `base: { folder: { weights: DIR } }`".to_owned(),
            ),
            Self::Locked { .. } => Some(
                "wait for that run to end, or stop it; the lock ends with its process".to_owned(),
            ),
            Self::OtherFingerprint { .. } => {
                Some("name the run differently, or move the directory away".to_owned())
            }
            Self::NoneVerifies { .. } => Some(
                "nothing was deleted; move the damaged checkpoints away to start from step 0"
                    .to_owned(),
            ),
            Self::Io(_)
            | Self::DamagedCheckpoint { .. }
            | Self::NotARun { .. }
            | Self::Json { .. }
            | Self::Hash { .. }
            | Self::PathEscapes { .. }
            | Self::Version { .. }
            | Self::Key { .. } => None,
        }
    }
}
