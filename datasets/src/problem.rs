//! What can be wrong with a file of a dataset.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

/// One thing that is wrong, with the file it is wrong in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.kind)
    }
}

/// What is wrong with a file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The folder is absent or is a file.
    #[error("expected a folder of pictures, found {found}")]
    NoFolder {
        /// What is there instead.
        found: &'static str,
    },
    /// The folder has no picture.
    #[error("expected PNG, JPEG, WebP or BMP pictures in the folder, found none")]
    NoPictures,
    /// A picture in a format that is not read.
    #[error("expected a PNG, JPEG, WebP or BMP picture, found {found}")]
    Format {
        /// The format, or what is known of it.
        found: String,
    },
    /// A file that the system does not let be read.
    #[error("the file cannot be read: {reason}")]
    Unreadable {
        /// The system's own words.
        reason: String,
    },
    /// A picture that cannot be decoded to its end.
    #[error("the picture cannot be decoded: {reason}")]
    Undecodable {
        /// The decoder's own words.
        reason: String,
    },
    /// A picture of more pixels than is sensible.
    #[error("expected at most {limit} pixels, found {width} × {height}")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit in words.
        limit: &'static str,
    },
    /// A file of more bytes than is sensible.
    #[error("expected at most {limit} bytes, found {bytes}")]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Transparent places, and no color to lay them over.
    #[error("expected an opaque picture, found transparent places")]
    Transparent,
    /// A picture without caption.
    #[error("expected a caption, found none")]
    CaptionMissing,
    /// A `.txt` and a `.caption` that differ.
    #[error("expected one caption, found another in `{other}`")]
    CaptionConflict {
        /// Name of the other file.
        other: String,
    },
    /// A caption that belongs to no picture.
    #[error("expected a picture of the same name, found none")]
    OrphanCaption,
    /// A caption or table that is not UTF-8.
    #[error("expected UTF-8 text, found an invalid byte at offset {offset}")]
    NotUtf8 {
        /// Position of the first invalid byte.
        offset: usize,
    },
    /// A line of `metadata.jsonl` that cannot be used.
    #[error("line {line}: {reason}")]
    Table {
        /// Number of the line, from 1.
        line: usize,
        /// What was expected and found.
        reason: String,
    },
    /// Two pictures whose names differ in their ending only.
    #[error("expected one picture of that name, found `{other}` too")]
    SameStem {
        /// Name of the other picture.
        other: String,
    },
    /// The file is no longer the one that was opened.
    #[error("expected the file as it was when the dataset was opened, found another content")]
    Changed,
}

impl ProblemKind {
    /// What the user can do about it, if that can be said.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Transparent => {
                "say `alpha: { flatten: \"#ffffff\" }` to lay pictures over a color"
            }
            Self::CaptionMissing => {
                "write the caption beside the picture (`name.txt`), or say `missing_caption: class` or `empty`"
            }
            Self::NoPictures => {
                "pictures in subfolders are not read; name the folder that holds them"
            }
            Self::Format { .. } => "convert the file to PNG, or move it out of the folder",
            Self::OrphanCaption => {
                "rename the caption after its picture, or move it out of the folder"
            }
            Self::NoFolder { .. }
            | Self::Unreadable { .. }
            | Self::Undecodable { .. }
            | Self::TooLarge { .. }
            | Self::TooManyBytes { .. }
            | Self::CaptionConflict { .. }
            | Self::NotUtf8 { .. }
            | Self::Table { .. }
            | Self::SameStem { .. }
            | Self::Changed => return None,
        };
        Some(hint.to_owned())
    }
}
