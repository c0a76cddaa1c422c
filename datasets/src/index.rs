//! What lies in a folder of pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::DatasetError;
use crate::problem::{Problem, ProblemKind};
use crate::warning::Warning;

/// The table of captions that some folders have.
pub(crate) const TABLE: &str = "metadata.jsonl";

/// The files of one folder, each list sorted by name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) folder: PathBuf,
    /// Pictures that are read.
    pub(crate) pictures: Vec<Picture>,
    /// Caption files.
    pub(crate) captions: Vec<CaptionFile>,
    /// The caption table, if there is one.
    pub(crate) table: Option<PathBuf>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Warning>,
}

/// A picture file.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    /// Name without its ending.
    pub(crate) stem: String,
    pub(crate) path: PathBuf,
}

/// A caption file.
#[derive(Debug, Clone)]
pub(crate) struct CaptionFile {
    /// Name without its ending.
    pub(crate) stem: String,
    pub(crate) path: PathBuf,
}

/// What a folder holds under one name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: PathBuf,
    is_dir: bool,
}

/// Lists a folder; what is in its subfolders is not read.
///
/// # Errors
///
/// The folder exists and cannot be listed.
pub(crate) fn index(folder: &Path) -> Result<Index, DatasetError> {
    let mut index = Index { folder: folder.to_owned(), ..Index::default() };
    let found = match fs_err::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some("a file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("nothing"),
        Err(error) => return Err(error.into()),
    };
    if let Some(found) = found {
        index
            .problems
            .push(Problem { path: folder.to_owned(), kind: ProblemKind::NoFolder { found } });
        return Ok(index);
    }
    let mut entries = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // The listing itself tells folders from files, so that only links have to be asked.
        let is_dir = match entry.file_type() {
            Ok(kind) if !kind.is_symlink() => kind.is_dir(),
            Ok(_) | Err(_) => path.is_dir(),
        };
        entries.push(Entry { path, is_dir });
    }
    entries.sort();
    let mut unread = Vec::new();
    for entry in entries {
        index.entry(entry, &mut unread);
    }
    index.check(&unread);
    Ok(index)
}

impl Index {
    /// Sorts one file into its list.
    fn entry(&mut self, Entry { path, is_dir }: Entry, unread: &mut Vec<String>) {
        let name = text(path.file_name());
        if name.starts_with('.') {
            return;
        }
        let stem = text(path.file_stem());
        let ending = text(path.extension()).to_lowercase();
        if is_dir {
            unread.push(format!("{name}/"));
        } else if name.eq_ignore_ascii_case(TABLE) {
            self.table = Some(path);
        } else {
            match ending.as_str() {
                "png" | "jpg" | "jpeg" | "webp" | "bmp" => {
                    self.pictures.push(Picture { stem, path });
                }
                "txt" | "caption" => self.captions.push(CaptionFile { stem, path }),
                "gif" | "tif" | "tiff" | "avif" | "heic" | "heif" | "jxl" | "jfif" | "psd"
                | "svg" => {
                    let kind =
                        ProblemKind::Format { found: format!("a file ending in `.{ending}`") };
                    self.problems.push(Problem { path, kind });
                }
                _ => unread.push(name),
            }
        }
    }

    /// Notes what concerns the folder as a whole.
    fn check(&mut self, unread: &[String]) {
        if self.pictures.is_empty() && self.problems.is_empty() {
            self.problems
                .push(Problem { path: self.folder.clone(), kind: ProblemKind::NoPictures });
        }
        let mut stems: BTreeMap<String, &Path> = BTreeMap::new();
        for picture in &self.pictures {
            if let Some(other) = stems.insert(picture.stem.to_lowercase(), &picture.path) {
                let kind = ProblemKind::SameStem { other: text(other.file_name()) };
                self.problems.push(Problem { path: picture.path.clone(), kind });
            }
        }
        if let Some(first) = unread.first() {
            self.warnings.push(Warning::Unread {
                folder: self.folder.clone(),
                count: unread.len(),
                first: first.clone(),
            });
        }
        let name = text(self.folder.file_name());
        if let Some((number, _)) = name.split_once('_')
            && let Ok(repeats) = number.parse()
        {
            self.warnings.push(Warning::RepeatsInName { name, repeats });
        }
    }
}

/// A file name for people; what is not Unicode in it is replaced.
pub(crate) fn text(name: Option<&std::ffi::OsStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
