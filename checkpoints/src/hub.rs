//! Models in the cache of the Hugging Face tools, found without a network.
//!
//! ```text
//! models--org--name/refs/main              the commit that a branch or tag stood for when it was fetched
//! models--org--name/blobs/<etag>           the bytes of a file
//! models--org--name/snapshots/<commit>/…   the names of the files: links into `blobs/`
//! ```
//!
//! Owns that layout, for reading and for writing. Who asks the hub lives elsewhere and hands its bytes over.

mod error;
mod names;
mod selection;
mod writer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use error::{HubError, HubErrorKind};
pub use names::{is_commit, is_sha256};
pub use selection::walk_base;
pub use writer::{Blob, GrowingBlob};

/// The revision that is meant where none is named.
pub const MAIN: &str = "main";

const REFS: &str = "refs";
const BLOBS: &str = "blobs";
const SNAPSHOTS: &str = "snapshots";
const INCOMPLETE: &str = "incomplete";

/// The folder in which the Hugging Face tools keep what they fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache {
    /// Holds one folder `models--org--name` for each model.
    pub dir: PathBuf,
}

/// One commit of a model, as far as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder of its files.
    pub dir: PathBuf,
    /// 40 hex digits.
    pub commit: String,
}

impl HubCache {
    /// The snapshot of `repo` (`org/name`) at a branch, a tag, a commit, or the first 7 or more digits of one; `None` is
    /// [`MAIN`]. Whether its files are all there is asked of the snapshot.
    ///
    /// Source: `_hf_hub_download_to_cache_dir` of `huggingface_hub`, but for the beginnings of commits, which it looks
    /// up on the network.
    ///
    /// # Errors
    ///
    /// [`HubError::Name`]; what the cache lacks; [`HubError::Ambiguous`].
    pub fn resolve(&self, repo: &str, revision: Option<&str>) -> Result<Snapshot, HubError> {
        let folder = self.folder(repo)?;
        let revision = revision.unwrap_or(MAIN);
        names::check_revision(revision)?;
        if !folder.is_dir() {
            return Err(HubError::NoRepository { repo: repo.to_owned(), cache: self.dir.clone() });
        }
        let commit = match commit_of_ref(&folder, revision)? {
            Some(commit) => commit,
            None => self.commit_beginning(repo, &folder, revision)?,
        };
        let snapshot = self.snapshot(repo, &commit)?;
        if snapshot.dir.is_dir() {
            Ok(snapshot)
        } else {
            Err(HubError::NoSnapshot { repo: repo.to_owned(), path: snapshot.dir })
        }
    }

    /// Where the snapshot of a commit lies, or would lie.
    ///
    /// # Errors
    ///
    /// [`HubError::Name`].
    pub fn snapshot(&self, repo: &str, commit: &str) -> Result<Snapshot, HubError> {
        names::check_commit(commit)?;
        let commit = commit.to_ascii_lowercase();
        Ok(Snapshot { dir: self.folder(repo)?.join(SNAPSHOTS).join(&commit), commit })
    }

    /// The folder of a model, which need not exist.
    fn folder(&self, repo: &str) -> Result<PathBuf, HubError> {
        Ok(self.dir.join(names::folder_name(repo)?))
    }

    fn commit_beginning(
        &self,
        repo: &str,
        folder: &Path,
        digits: &str,
    ) -> Result<String, HubError> {
        let mut commits = Vec::new();
        if names::begins_commit(digits) {
            let digits = digits.to_ascii_lowercase();
            let paths = crate::fs::list(&folder.join(SNAPSHOTS))?;
            commits = paths.iter().filter_map(|path| name_of(path)).map(str::to_owned).collect();
            commits.retain(|commit| is_commit(commit) && commit.starts_with(&digits));
        }
        if commits.len() > 1 {
            return Err(HubError::Ambiguous {
                repo: repo.to_owned(),
                digits: digits.to_owned(),
                commits: commits.join(", "),
            });
        }
        match commits.pop() {
            Some(commit) => Ok(commit),
            None => Err(HubError::NoRevision {
                repo: repo.to_owned(),
                revision: digits.to_owned(),
                cache: self.dir.clone(),
                found: known_refs(folder)?,
            }),
        }
    }
}

impl Snapshot {
    /// Where a file lies, named by its path in the repository.
    ///
    /// # Errors
    ///
    /// [`HubError::Name`]; [`HubError::NoFile`]; [`HubError::BrokenLink`] if its bytes are missing or not yet complete.
    pub fn file(&self, name: &str) -> Result<PathBuf, HubError> {
        names::check_file(name)?;
        let path = self.dir.join(name);
        // Not a link where the system knows none.
        let target = fs_err::read_link(&path).ok();
        let is_partial = target.as_deref().is_some_and(is_incomplete);
        if path.is_file() && !is_partial {
            return Ok(path);
        }
        let (file, snapshot) = (name.to_owned(), self.dir.clone());
        Err(match target {
            Some(target) => {
                let blob = crate::fs::folder_of(&path).join(target);
                let found = if is_partial || is_being_fetched(&blob)? {
                    "is not complete"
                } else {
                    "is not there"
                };
                HubError::BrokenLink { file, snapshot, blob, found }
            }
            None => HubError::NoFile { file, snapshot },
        })
    }

    /// Checks that all files of a base in the diffusers layout are there: those that [`walk_base`] names.
    ///
    /// # Errors
    ///
    /// The first file that is missing; a component without weights that can be read.
    pub fn check_base(&self, variant: Option<&str>) -> Result<(), HubError> {
        let names = self.names()?;
        walk_base::<HubError>(&names, variant, &mut |name| self.file(name))
    }

    /// The files of the snapshot and of its folders, also those whose bytes are missing.
    fn names(&self) -> Result<BTreeSet<String>, HubError> {
        let mut names = BTreeSet::new();
        for path in crate::fs::list(&self.dir)? {
            let Some(name) = name_of(&path) else { continue };
            if path.is_dir() {
                let inside = crate::fs::list(&path)?;
                let inside = inside.iter().filter_map(|path| name_of(path));
                names.extend(inside.map(|inner| format!("{name}/{inner}")));
            } else {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }
}

/// The commit that a full commit or a name below `refs/` stands for; `None` if there is no such name.
fn commit_of_ref(folder: &Path, revision: &str) -> Result<Option<String>, HubError> {
    if is_commit(revision) {
        return Ok(Some(revision.to_ascii_lowercase()));
    }
    let path = folder.join(REFS).join(revision);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = crate::fs::read(&path)?;
    let commit = String::from_utf8_lossy(&bytes).trim().to_owned();
    if is_commit(&commit) {
        Ok(Some(commit.to_ascii_lowercase()))
    } else {
        Err(HubError::DamagedRef { path, found: commit.chars().take(60).collect() })
    }
}

/// The branches and tags that were fetched, for messages.
fn known_refs(folder: &Path) -> Result<String, HubError> {
    let mut found = Vec::new();
    collect_refs(&folder.join(REFS), "", &mut found)?;
    Ok(error::listed(&found))
}

fn collect_refs(dir: &Path, above: &str, found: &mut Vec<String>) -> Result<(), HubError> {
    for path in crate::fs::list(dir)? {
        let Some(name) = name_of(&path) else { continue };
        let name = format!("{above}{name}");
        if path.is_dir() {
            collect_refs(&path, &format!("{name}/"), found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn is_incomplete(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == INCOMPLETE)
}

/// Whether a part of the blob lies beside its place: as `<etag>.incomplete`, or with a mark of one process in between.
fn is_being_fetched(blob: &Path) -> Result<bool, HubError> {
    let Some(etag) = name_of(blob) else { return Ok(false) };
    let start = format!("{etag}.");
    let beside = crate::fs::list(crate::fs::folder_of(blob))?;
    let is_part = |path: &Path| {
        is_incomplete(path) && name_of(path).is_some_and(|name| name.starts_with(&start))
    };
    Ok(beside.iter().any(|path| is_part(path)))
}

#[cfg(test)]
mod tests;
