//! Why a dataset cannot be used.

use std::path::{Path, PathBuf};

use crate::problem::Problem;

/// Why a dataset cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// Every problem found in the folders, each with its file.
    #[error("{}", listed(folder, problems))]
    Invalid {
        /// The first folder of the dataset.
        folder: PathBuf,
        /// What is wrong, in the order of the files.
        problems: Vec<Problem>,
    },
    /// A file or folder that cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl DatasetError {
    /// What the user can do about it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid { problems, .. } => {
                problems.iter().find_map(|problem| problem.kind.hint())
            }
            Self::Io(_) => None,
        }
    }
}

fn listed(folder: &Path, problems: &[Problem]) -> String {
    let noun = if problems.len() == 1 { "problem" } else { "problems" };
    let mut text = format!("dataset `{}` has {} {noun}", folder.display(), problems.len());
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}
