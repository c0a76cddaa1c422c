//! What can go wrong between a folder of weights and a network.

use std::fmt::Write as _;

use checkpoints::CheckpointError;

/// A tensor whose shape is not the one the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshaped {
    /// Full name.
    pub name: String,
    /// Shape that the configuration implies.
    pub expected: Vec<usize>,
    /// Shape in the file.
    pub found: Vec<usize>,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tensors of a file are not those of the configuration.
    #[error(
        "`{file}` does not hold the tensors of its configuration:{}",
        account(missing, unexpected, misshaped)
    )]
    Tensors {
        /// The weights file.
        file: String,
        /// Names that the network needs and the file lacks.
        missing: Vec<String>,
        /// Names that the file holds and the network does not know.
        unexpected: Vec<String>,
        /// Names whose shapes differ.
        misshaped: Vec<Misshaped>,
    },
    /// A field of a configuration is absent, of the wrong kind or not supported.
    #[error("`{file}`: field `{field}` is {found}, expected {expected}")]
    Config {
        /// The configuration file.
        file: String,
        /// Name of the field.
        field: String,
        /// What stands there.
        found: String,
        /// What is supported.
        expected: String,
    },
    /// A tokenizer's files cannot be used.
    #[error("tokenizer `{path}`: {reason}")]
    Tokenizer {
        /// Folder or file.
        path: String,
        /// What was expected and found.
        reason: String,
    },
    /// A prompt is longer than the text encoder reads.
    #[error("prompt `{prompt}` has {found} tokens, the text encoder reads at most {limit}")]
    PromptTooLong {
        /// The prompt.
        prompt: String,
        /// Tokens with begin and end marks.
        found: usize,
        /// Positions of the text encoder.
        limit: usize,
    },
    /// A pattern of the recipe names no layer of the network.
    #[error("target `{pattern}` matches no layer, the nearest are {nearest}")]
    NoSuchLayer {
        /// The pattern.
        pattern: String,
        /// Some layers of the network.
        nearest: String,
    },
    /// An adapter does not fit the network.
    #[error("adapter module `{module}`: {reason}")]
    Adapter {
        /// Path of the layer.
        module: String,
        /// What was expected and found.
        reason: String,
    },
    /// A size that the network cannot process.
    #[error(
        "sides of {found:?} (height, width) cannot be processed, both must be multiples of \
         {multiple} and not 0"
    )]
    Size {
        /// Height and width.
        found: [usize; 2],
        /// What both must be multiples of: in pixels the factor of the VAE, in latents 1.
        multiple: usize,
    },
    /// The device refused or failed.
    #[error("device failed: {0}")]
    Device(String),
}

impl ModelError {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tensors { missing, .. } if !missing.is_empty() => Some(
                "the file may be truncated, of another family, or saved without one of its parts"
                    .to_owned(),
            ),
            Self::PromptTooLong { .. } => Some("shorten the prompt".to_owned()),
            Self::Checkpoint(error) => error.hint(),
            Self::Tensors { .. }
            | Self::Config { .. }
            | Self::Tokenizer { .. }
            | Self::NoSuchLayer { .. }
            | Self::Adapter { .. }
            | Self::Size { .. }
            | Self::Device(_) => None,
        }
    }
}

fn account(missing: &[String], unexpected: &[String], misshaped: &[Misshaped]) -> String {
    let mut text = String::new();
    for (title, names) in [("missing", missing), ("unexpected", unexpected)] {
        if !names.is_empty() {
            let _ = write!(text, "\n  {} {title}: {}", names.len(), names.join(", "));
        }
    }
    for tensor in misshaped {
        let _ = write!(
            text,
            "\n  shape of {}: expected {:?}, found {:?}",
            tensor.name, tensor.expected, tensor.found
        );
    }
    text
}
