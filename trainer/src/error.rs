//! What can end a training early.

use std::path::PathBuf;

use checkpoints::{CheckpointError, ErrorKind};
use datasets::DatasetError;
use diffusion::DiffusionError;
use models::ModelError;

use crate::divergence::Divergence;

/// An error of this crate. [`TrainError::kind`] says which exit code it deserves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A network could not be built or run, or an adapter does not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A picture or a caption cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The base's noise schedule is not supported.
    #[error(transparent)]
    Schedule(#[from] DiffusionError),
    /// Loss or gradient became infinite or undefined.
    #[error("{0}")]
    Diverged(Box<Divergence>),
    /// A pattern of full training names no parameter.
    #[error("target `{pattern}` matches no parameter of the base")]
    NoSuchParameter {
        /// The pattern.
        pattern: String,
    },
    /// The weights themselves are to be trained in a base that holds them rounded.
    #[error("full training needs a base in `f32`, found one in `{found}`")]
    Rounded {
        /// The precision of its denoiser.
        found: &'static str,
    },
    /// The recipe asks for timesteps that the base's schedule does not have.
    #[error(
        "`objective.timesteps` ends at {found}, expected at most {limit}, the length of the base's schedule"
    )]
    Timesteps {
        /// The recipe's end.
        found: usize,
        /// Length of the schedule.
        limit: usize,
    },
    /// A picture's latents are infinite or undefined.
    #[error("`{}` was encoded to values that are infinite or undefined", path.display())]
    Latents {
        /// The picture.
        path: PathBuf,
    },
    /// There is nothing to train on.
    #[error("the dataset has no picture of the concept")]
    NoPictures,
    /// A caption does not fit the text encoder.
    #[error("caption of `{}`: {problem}", path.display())]
    Caption {
        /// The first picture that has it.
        path: PathBuf,
        /// Its length and the limit.
        problem: Box<ModelError>,
    },
    /// A class picture could not be drawn or read.
    #[error("class picture `{}`: {reason}", path.display())]
    ClassImage {
        /// The picture.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// A checkpoint does not hold the state that this recipe needs.
    #[error("checkpoint `{}`: {reason}", path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// The result failed a check after training.
    #[error("check {check} of the result failed: {}", findings.join("; "))]
    Postflight {
        /// Name of the check: `finite`, `alive`, `layout`, `readers`, `same`.
        check: &'static str,
        /// What was expected and found.
        findings: Vec<String>,
    },
}

/// What an error means to whoever started the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainErrorKind {
    /// The recipe does not fit the base (exit 64).
    Recipe,
    /// Pictures, captions or weights are invalid (exit 65).
    Data,
    /// The device failed or has too little memory (exit 69).
    Device,
    /// The run directory is locked (exit 73).
    Locked,
    /// Input or output failed (exit 74).
    Io,
    /// The training diverged; checkpoints committed before it are kept (exit 76).
    Diverged,
    /// The program is wrong (exit 101).
    Bug,
}

impl TrainError {
    /// What the error means to whoever started the program.
    pub fn kind(&self) -> TrainErrorKind {
        match self {
            Self::Model(error) => kind_of_model(error),
            Self::Checkpoint(error) => kind_of_checkpoint(error),
            Self::NoSuchParameter { .. } | Self::Rounded { .. } | Self::Timesteps { .. } => {
                TrainErrorKind::Recipe
            }
            Self::Dataset(_)
            | Self::Schedule(_)
            | Self::Latents { .. }
            | Self::NoPictures
            | Self::Caption { .. }
            | Self::ClassImage { .. } => TrainErrorKind::Data,
            Self::Resume { .. } => TrainErrorKind::Io,
            // A result that learned nothing says more about the settings than about the program.
            Self::Diverged(_) | Self::Postflight { check: "finite" | "alive", .. } => {
                TrainErrorKind::Diverged
            }
            Self::Postflight { .. } => TrainErrorKind::Bug,
        }
    }

    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Caption { problem, .. } => problem.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Schedule(error) => error.hint(),
            Self::Diverged(_) => Some(
                "checkpoints committed before it are kept; lower the learning rate, or look at the pictures named above"
                    .to_owned(),
            ),
            Self::NoSuchParameter { .. } => {
                Some("parameters are named as in the weights file, e.g. `unet.mid_block.**`".to_owned())
            }
            Self::ClassImage { .. } => Some("remove the file; it will be drawn again".to_owned()),
            Self::Dataset(error) => error.hint(),
            Self::Rounded { .. } => Some("load the base in f32".to_owned()),
            Self::Timesteps { .. }
            | Self::Latents { .. }
            | Self::NoPictures
            | Self::Resume { .. }
            | Self::Postflight { .. } => None,
        }
    }
}

fn kind_of_model(error: &ModelError) -> TrainErrorKind {
    match error {
        ModelError::Checkpoint(error) => kind_of_checkpoint(error),
        ModelError::NoSuchLayer { .. } | ModelError::Adapter { .. } | ModelError::Size { .. } => {
            TrainErrorKind::Recipe
        }
        ModelError::Device(_) => TrainErrorKind::Device,
        ModelError::Tensors { .. }
        | ModelError::Config { .. }
        | ModelError::Tokenizer { .. }
        | ModelError::PromptTooLong { .. }
        | _ => TrainErrorKind::Data,
    }
}

fn kind_of_checkpoint(error: &CheckpointError) -> TrainErrorKind {
    match error.kind() {
        ErrorKind::Data => TrainErrorKind::Data,
        ErrorKind::Io => TrainErrorKind::Io,
        ErrorKind::Locked => TrainErrorKind::Locked,
        ErrorKind::Recipe => TrainErrorKind::Recipe,
    }
}
