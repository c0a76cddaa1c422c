//! What can be wrong with a model in the cache of the hub.

use std::io;
use std::path::PathBuf;

use crate::advice::ErrorKind;
use crate::error::CheckpointError;
use crate::problem::WeightsProblem;

/// An error about a model in the cache. [`HubError::kind`] says what it means.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that the hub gives to nothing.
    #[error("`{name}` is no {what}: expected {expected}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
        /// How such a name looks.
        expected: &'static str,
    },
    /// Nothing of the model was fetched.
    #[error("model `{repo}` is not in the cache `{}`", cache.display())]
    NoRepository {
        /// `org/name`.
        repo: String,
        /// The folder of all models.
        cache: PathBuf,
    },
    /// The revision was not fetched.
    #[error("revision `{revision}` of model `{repo}` is not in the cache `{}`: found {found}", cache.display())]
    NoRevision {
        /// `org/name`.
        repo: String,
        /// The revision asked for.
        revision: String,
        /// The folder of all models.
        cache: PathBuf,
        /// The branches and tags that are there.
        found: String,
    },
    /// Several commits begin with the digits.
    #[error("several commits of model `{repo}` begin with `{digits}`: {commits}")]
    Ambiguous {
        /// `org/name`.
        repo: String,
        /// The digits asked for.
        digits: String,
        /// The commits.
        commits: String,
    },
    /// A file below `refs/` holds no commit.
    #[error("`{}` is damaged: expected a commit of 40 hex digits, found `{found}`", path.display())]
    DamagedRef {
        /// The file.
        path: PathBuf,
        /// Its beginning.
        found: String,
    },
    /// The commit of a branch or tag was not fetched.
    #[error("model `{repo}` has no files in the cache: expected the folder `{}`, found none", path.display())]
    NoSnapshot {
        /// `org/name`.
        repo: String,
        /// Where its files would lie.
        path: PathBuf,
    },
    /// A file was not fetched.
    #[error("`{file}` is missing from the snapshot `{}`", snapshot.display())]
    NoFile {
        /// Its path in the repository.
        file: String,
        /// The folder in which it was looked for.
        snapshot: PathBuf,
    },
    /// The name of a file is there, its bytes are not.
    #[error("`{file}` of the snapshot `{}` links to `{}`, which {found}", snapshot.display(), blob.display())]
    BrokenLink {
        /// Its path in the repository.
        file: String,
        /// The folder in which it was looked for.
        snapshot: PathBuf,
        /// Where its bytes should lie.
        blob: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// A network has no weights that can be read.
    #[error(
        "component `{component}` has no weights in safetensors: expected {expected}, found {found}"
    )]
    NoWeights {
        /// The component of `model_index.json`.
        component: String,
        /// Names of files that would do.
        expected: String,
        /// Files of weights that are there.
        found: String,
    },
    /// No component has weights of the variant.
    #[error("no component has weights of the variant `{variant}`: found {found}")]
    NoVariant {
        /// The variant asked for.
        variant: String,
        /// The weights that are there.
        found: String,
    },
    /// More or fewer bytes were fetched than the file has.
    #[error("fetched {found} bytes for `{}`, expected {expected}", blob.display())]
    Size {
        /// The blob.
        blob: PathBuf,
        /// Bytes of the file.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// Other bytes were fetched than the file has.
    #[error("fetched bytes with sha256 {found} for `{}`, expected the hash of its name", blob.display())]
    Hash {
        /// The blob.
        blob: PathBuf,
        /// 64 hex digits of what came.
        found: String,
    },
    /// A file operation, or a file that is not what it should be.
    #[error(transparent)]
    Files(CheckpointError),
}

/// What an error about a model in the cache means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubErrorKind {
    /// The name is no name of the hub.
    Name,
    /// Something was not fetched, or not wholly; fetching helps.
    Absent,
    /// Weights that can be read, or those of the variant, are neither here nor, if all was fetched, on the hub.
    Weights,
    /// What was fetched is not what the hub announced.
    Damaged,
    /// The disk, or a file that is not what it should be.
    Files(ErrorKind),
}

impl HubError {
    /// What the error means to whoever asked.
    pub const fn kind(&self) -> HubErrorKind {
        match self {
            Self::Name { .. } | Self::Ambiguous { .. } => HubErrorKind::Name,
            Self::NoRepository { .. }
            | Self::NoRevision { .. }
            | Self::DamagedRef { .. }
            | Self::NoSnapshot { .. }
            | Self::NoFile { .. }
            | Self::BrokenLink { .. } => HubErrorKind::Absent,
            Self::NoWeights { .. } | Self::NoVariant { .. } => HubErrorKind::Weights,
            Self::Size { .. } | Self::Hash { .. } => HubErrorKind::Damaged,
            Self::Files(error) => HubErrorKind::Files(error.kind()),
        }
    }

    /// Advice, where there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Ambiguous { .. } => Some("write more digits of the commit".to_owned()),
            Self::NoWeights { .. } => WeightsProblem::Pickle.hint(),
            Self::NoVariant { .. } => {
                Some("leave `variant` out, or name one that is there".to_owned())
            }
            Self::Size { .. } | Self::Hash { .. } => Some(
                "fetch it again; if it comes so again, whoever serves it changes the files"
                    .to_owned(),
            ),
            Self::Files(error) => error.hint(),
            Self::Name { .. }
            | Self::NoRepository { .. }
            | Self::NoRevision { .. }
            | Self::DamagedRef { .. }
            | Self::NoSnapshot { .. }
            | Self::NoFile { .. }
            | Self::BrokenLink { .. } => None,
        }
    }
}

impl From<CheckpointError> for HubError {
    fn from(error: CheckpointError) -> Self {
        Self::Files(error)
    }
}

impl From<io::Error> for HubError {
    fn from(error: io::Error) -> Self {
        Self::Files(error.into())
    }
}

/// Names in backticks, or `none`.
pub(super) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    names.join(", ")
}
