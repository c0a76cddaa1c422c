//! Where the weights of a base lie: at a path, or under an id of the Hugging Face hub.
//!
//! Ids are only read and written here; finding what they name is left to others.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Begins an id of the hub.
const SCHEME: &str = "hf:";

/// Most characters of one part of a repository's name, as the hub has it.
const PART_MAX: usize = 96;

/// Where the weights of a base lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightsSource {
    /// A folder in the diffusers layout, or one safetensors file.
    Path(PathBuf),
    /// A model of the Hugging Face hub.
    Hub(HubModel),
}

impl WeightsSource {
    /// True for one file, false for a folder, `None` where only the disk can tell.
    pub(crate) fn is_one_file(&self) -> Option<bool> {
        match self {
            Self::Path(path) => is_safetensors(path).then_some(true),
            Self::Hub(model) => Some(model.file.is_some()),
        }
    }
}

impl fmt::Display for WeightsSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(formatter, "{}", path.display()),
            Self::Hub(model) => write!(formatter, "{model}"),
        }
    }
}

impl Serialize for WeightsSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Path(path) => path.serialize(serializer),
            Self::Hub(model) => serializer.collect_str(model),
        }
    }
}

/// An id of the hub if the text begins with `hf:`, else a path as it stands.
impl FromStr for WeightsSource {
    type Err = HubModelError;

    fn from_str(text: &str) -> Result<Self, HubModelError> {
        if text.starts_with(SCHEME) {
            text.parse().map(Self::Hub)
        } else {
            Ok(Self::Path(PathBuf::from(text)))
        }
    }
}

/// A model of the Hugging Face hub, written `hf:org/name[/file.safetensors][@revision]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// `org/name`.
    pub repo: String,
    /// One safetensors file of the repository, with `/` between folders; `None`: the repository is
    /// a folder in the diffusers layout.
    pub file: Option<String>,
    /// Branch, tag or commit; `None`: the repository's main branch.
    pub revision: Option<String>,
}

/// Why a text is no [`HubModel`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HubModelError {
    /// It does not name a repository.
    #[error("expected `hf:org/name`, found `{found}`")]
    Repo {
        /// The text.
        found: String,
    },
    /// What stands behind the repository is no safetensors file inside of it.
    #[error("expected a file of the repository that ends in `.safetensors`, found `{found}`")]
    File {
        /// What stands there.
        found: String,
    },
    /// What stands behind `@` is no name.
    #[error("expected a branch, tag or commit behind `@`, found `{found}`")]
    Revision {
        /// What stands there.
        found: String,
    },
}

impl fmt::Display for HubModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}", self.repo)?;
        if let Some(file) = &self.file {
            write!(formatter, "/{file}")?;
        }
        if let Some(revision) = &self.revision {
            write!(formatter, "@{revision}")?;
        }
        Ok(())
    }
}

impl FromStr for HubModel {
    type Err = HubModelError;

    fn from_str(text: &str) -> Result<Self, HubModelError> {
        let no_repo = || HubModelError::Repo { found: text.escape_debug().to_string() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(no_repo)?;
        let (path, revision) = match rest.split_once('@') {
            Some((path, revision)) => (path, Some(revision)),
            None => (rest, None),
        };
        let (org, path) = path.split_once('/').ok_or_else(no_repo)?;
        let (name, file) = match path.split_once('/') {
            Some((name, file)) => (name, Some(file)),
            None => (path, None),
        };
        if !is_repo_part(org) || !is_repo_part(name) {
            return Err(no_repo());
        }
        if let Some(file) = file
            && !(stays_inside(file) && is_safetensors(Path::new(file)))
        {
            return Err(HubModelError::File { found: file.escape_debug().to_string() });
        }
        if let Some(revision) = revision
            && !stays_inside(revision)
        {
            return Err(HubModelError::Revision { found: revision.escape_debug().to_string() });
        }
        Ok(Self {
            repo: format!("{org}/{name}"),
            file: file.map(str::to_owned),
            revision: revision.map(str::to_owned),
        })
    }
}

fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"))
}

/// Whether the hub takes this as one part of a repository's name: letters, digits, `_`, `-`, `.`,
/// neither `--` nor `..`, and neither `-` nor `.` at an end.
///
/// Source: `huggingface_hub` `validate_repo_id`.
fn is_repo_part(part: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = part.as_bytes();
    bytes.len() <= PART_MAX
        && bytes.first().copied().is_some_and(letter)
        && bytes.last().copied().is_some_and(letter)
        && bytes.iter().all(|&byte| letter(byte) || matches!(byte, b'-' | b'.'))
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether names joined by `/` lead nowhere but down: both kinds of name become paths in a cache.
fn stays_inside(path: &str) -> bool {
    let is_name = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.chars().any(|c| c.is_control() || c == '\\')
    };
    path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hub(text: &str) -> HubModel {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn an_id_names_a_repository_a_file_and_a_revision() {
        let model = hub("hf:org/a.model");
        assert_eq!((model.repo.as_str(), model.file, model.revision), ("org/a.model", None, None));
        let model = hub("hf:org/name/v1/x.safetensors@refs/pr/3");
        assert_eq!(model.repo, "org/name");
        assert_eq!(model.file.as_deref(), Some("v1/x.safetensors"));
        assert_eq!(model.revision.as_deref(), Some("refs/pr/3"));
        assert_eq!(hub("hf:org/name@fp16").revision.as_deref(), Some("fp16"));
    }

    #[test]
    fn an_id_is_written_as_it_was_read() {
        for text in [
            "hf:org/name",
            "hf:org/name@main",
            "hf:org/name/x.safetensors",
            "hf:org/name/v1/x.safetensors@0f1e2d",
        ] {
            assert_eq!(hub(text).to_string(), text);
            let source: WeightsSource = text.parse().unwrap();
            assert_eq!(source, WeightsSource::Hub(hub(text)));
            assert_eq!(serde_json::to_value(&source).unwrap(), text);
        }
    }

    #[test]
    fn what_names_no_repository_is_refused() {
        for text in [
            "org/name",
            "hf:",
            "hf:name",
            "hf:/name",
            "hf:org/",
            "hf:../name",
            "hf:org/..",
            "hf:or g/name",
            "hf:org/-name",
            "hf:org/name.",
            "hf:org/a--b",
            "hf:@main",
        ] {
            let error = text.parse::<HubModel>().unwrap_err();
            assert_eq!(error, HubModelError::Repo { found: text.to_owned() });
        }
    }

    #[test]
    fn a_file_and_a_revision_stay_inside_the_cache() {
        for file in
            ["x.ckpt", "sub", "", "../x.safetensors", "a//x.safetensors", "a\\x.safetensors"]
        {
            let error = format!("hf:org/name/{file}").parse::<HubModel>().unwrap_err();
            assert!(matches!(error, HubModelError::File { .. }), "{error}");
        }
        for revision in ["", "..", "a/../b", "/a", "a\nb"] {
            let error = format!("hf:org/name@{revision}").parse::<HubModel>().unwrap_err();
            assert!(matches!(error, HubModelError::Revision { .. }), "{error}");
        }
    }

    #[test]
    fn anything_else_is_a_path() {
        let source: WeightsSource = "weights/x.SafeTensors".parse().unwrap();
        assert_eq!(source, WeightsSource::Path("weights/x.SafeTensors".into()));
        assert_eq!(source.to_string(), "weights/x.SafeTensors");
        let one_file = |text: &str| text.parse::<WeightsSource>().unwrap().is_one_file();
        assert_eq!(one_file("weights/x.SafeTensors"), Some(true));
        assert_eq!(one_file("weights/sd15"), None);
        assert_eq!(one_file("hf:org/name"), Some(false));
        assert_eq!(one_file("hf:org/name/x.safetensors"), Some(true));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written(text in "hf:[ -~]{0,40}") {
            if let Ok(model) = text.parse::<HubModel>() {
                prop_assert_eq!(model.to_string(), text);
            }
        }
    }
}
