//! All that can end a command early, with the end and the advice that each deserves.

use std::path::PathBuf;

use trainer::TrainErrorKind;
use trainer::pretrain::PretrainError;

use crate::device::DeviceError;
use crate::exit::{self, Exit};

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// A recipe that means nothing.
    #[error(transparent)]
    Recipe(#[from] recipes::RecipeError),
    /// Pictures or captions that cannot be used.
    #[error(transparent)]
    Dataset(#[from] datasets::DatasetError),
    /// Files of weights, a run directory, or the disk.
    #[error(transparent)]
    Checkpoint(#[from] checkpoints::CheckpointError),
    /// A network or its files.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// A noise schedule or a sampler.
    #[error(transparent)]
    Diffusion(#[from] diffusion::DiffusionError),
    /// The training.
    #[error(transparent)]
    Train(#[from] trainer::TrainError),
    /// A training from scratch.
    #[error(transparent)]
    Pretrain(#[from] PretrainError),
    /// The census or its report.
    #[error(transparent)]
    Eval(#[from] eval::EvalError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Something asked for that makes no sense.
    #[error("{message}")]
    Usage {
        /// Expected and found.
        message: String,
        /// Advice.
        hint: Option<String>,
    },
    /// A file that is not what its record says, or not what it should hold.
    #[error("{message}")]
    Data {
        /// Expected and found.
        message: String,
        /// Advice.
        hint: Option<String>,
    },
    /// A model in the cache of the hub.
    #[error(transparent)]
    Hub(#[from] checkpoints::hub::HubError),
    /// A model that is not on this machine, where it is not fetched.
    #[error("{message}")]
    Absent {
        /// What is missing.
        message: String,
        /// The command that fetches it.
        hint: String,
    },
    /// A model that could not be fetched.
    #[cfg(feature = "download")]
    #[error(transparent)]
    Download(#[from] crate::download::DownloadError),
    /// Attempt after attempt was stopped before its first step.
    #[error("no progress: {attempts} attempts in a row began at step {step} and ended there")]
    Stalled {
        /// How many.
        attempts: usize,
        /// Where.
        step: u64,
        /// The run directory.
        run: PathBuf,
    },
    /// A run that shows no sign of life.
    #[error("run `{}` is not alive: {reason}", run.display())]
    NotAlive {
        /// The run directory.
        run: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A result that could not be printed in full.
    #[error("standard output failed")]
    Output(#[source] std::io::Error),
    /// The signal handlers could not be installed.
    #[error("signal handlers could not be installed")]
    Signals(#[source] std::io::Error),
}

impl JobError {
    /// Something asked for that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// A file that is not what it should be.
    pub(crate) fn data(message: impl Into<String>) -> Self {
        Self::Data { message: message.into(), hint: None }
    }

    /// How the program ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Recipe(_) | Self::Usage { .. } => Exit::Usage,
            Self::Dataset(error) => exit::from_dataset(error),
            Self::Data { .. } | Self::Diffusion(_) => Exit::Data,
            Self::Checkpoint(error) => exit::from_checkpoint(error.kind()),
            Self::Model(error) => exit::from_model(error),
            Self::Hub(error) => exit::from_hub(error),
            Self::Absent { .. } => Exit::Misconfigured,
            #[cfg(feature = "download")]
            Self::Download(error) => error.exit(),
            Self::Train(error) => match error.kind() {
                TrainErrorKind::Recipe => Exit::Usage,
                TrainErrorKind::Data => Exit::Data,
                TrainErrorKind::Device => Exit::Unavailable,
                TrainErrorKind::Locked => Exit::Locked,
                TrainErrorKind::Io => Exit::Io,
                TrainErrorKind::Diverged => Exit::Diverged,
                TrainErrorKind::Bug => Exit::Bug,
            },
            Self::Pretrain(error) => match error {
                PretrainError::Model(error) => exit::from_model(error),
                PretrainError::Checkpoint(error) => exit::from_checkpoint(error.kind()),
                PretrainError::Diverged { .. } => Exit::Diverged,
                // The noise schedule, and what a later version adds: files.
                PretrainError::Schedule { .. } | _ => Exit::Data,
            },
            Self::Eval(error) => exit::from_eval(error),
            Self::Device(DeviceError::Misconfigured { .. }) => Exit::Misconfigured,
            Self::Device(_) | Self::Stalled { .. } | Self::NotAlive { .. } => Exit::Unavailable,
            Self::Output(_) | Self::Signals(_) => Exit::Io,
        }
    }

    /// Advice, where there is some.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Recipe(error) => error.hint(),
            Self::Dataset(error) => error.hint(),
            Self::Checkpoint(error) | Self::Pretrain(PretrainError::Checkpoint(error)) => {
                error.hint()
            }
            Self::Model(error) | Self::Pretrain(PretrainError::Model(error)) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Absent { hint, .. } => Some(hint.clone()),
            #[cfg(feature = "download")]
            Self::Download(error) => error.hint(),
            Self::Diffusion(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Eval(error) => error.hint(),
            Self::Device(error) => Some(error.hint()),
            Self::Usage { hint, .. } | Self::Data { hint, .. } => hint.clone(),
            Self::Stalled { run, .. } => Some(format!(
                "give the job a longer warning before it is stopped, then `populate resume {}`",
                run.display()
            )),
            Self::Pretrain(_) | Self::NotAlive { .. } | Self::Output(_) | Self::Signals(_) => None,
        }
    }
}
