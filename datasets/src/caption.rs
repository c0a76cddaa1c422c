//! Captions: where they stand and what becomes of them.
//!
//! Order: trim → first line that holds text → `{identifier}`, `{class}` and `[trigger]` replaced →
//! identifier added if absent. Dropping a whole caption is left to [`crate::Batches`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use recipes::{CaptionSource, CaptionedSpec, IdentifierAt, MissingCaption};
use serde::Deserialize;

use crate::index::{CaptionFile, Index, text};
use crate::problem::{Problem, ProblemKind};
use crate::warning::Warning;

/// Captions by position in [`Index::pictures`], and what was found wrong or odd.
pub(crate) struct Captions {
    pub(crate) texts: Vec<String>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Warning>,
}

/// Reads the captions of all pictures of a folder.
pub(crate) fn captions(index: &Index, spec: &CaptionedSpec) -> Captions {
    let mut captions = Captions { texts: Vec::new(), problems: Vec::new(), warnings: Vec::new() };
    let found = match spec.captions {
        CaptionSource::Sidecar => captions.sidecars(index),
        CaptionSource::Jsonl => captions.table(index),
    };
    for (picture, found) in index.pictures.iter().zip(found) {
        let raw = match (found, spec.missing_caption) {
            (Found::Text(raw), _) => raw,
            (Found::Broken, _) | (Found::Nothing, MissingCaption::Empty) => String::new(),
            (Found::Nothing, MissingCaption::Class) => class_caption(spec),
            (Found::Nothing, MissingCaption::Error) => {
                captions.problem(&picture.path, ProblemKind::CaptionMissing);
                String::new()
            }
        };
        captions.note_markup(&picture.path, &raw, spec);
        captions.texts.push(completed(&raw, spec));
    }
    captions.note_absent_identifier(index, spec);
    captions
}

/// What was found for one picture.
enum Found {
    Text(String),
    Nothing,
    /// Something, but unusable: already reported.
    Broken,
}

/// A caption file with its text, or what is wrong with it.
type Read<'a> = (&'a CaptionFile, Result<String, ProblemKind>);

#[derive(Deserialize)]
struct Row {
    file_name: String,
    text: String,
}

impl Captions {
    fn problem(&mut self, path: &Path, kind: ProblemKind) {
        self.problems.push(Problem { path: path.to_owned(), kind });
    }

    /// `<stem>.txt` and `<stem>.caption` beside each picture, whatever the case of the ending.
    fn sidecars(&mut self, index: &Index) -> Vec<Found> {
        let stems: BTreeSet<&str> =
            index.pictures.iter().map(|picture| picture.stem.as_str()).collect();
        // Many small files, each of which may lie far away, are read together.
        let read: Vec<Read<'_>> = index
            .captions
            .par_iter()
            .filter(|file| stems.contains(file.stem.as_str()))
            .map(|file| (file, content(&file.path)))
            .collect();
        let mut files: BTreeMap<&str, Vec<&Read<'_>>> = BTreeMap::new();
        for read in &read {
            files.entry(&read.0.stem).or_default().push(read);
        }
        let mut found = Vec::new();
        for picture in &index.pictures {
            found.push(match files.get(picture.stem.as_str()) {
                None => Found::Nothing,
                Some(files) => self.sidecar(files),
            });
        }
        for orphan in index.captions.iter().filter(|file| !stems.contains(file.stem.as_str())) {
            self.problem(&orphan.path, ProblemKind::OrphanCaption);
        }
        if let Some(table) = &index.table {
            let (folder, first) = (index.folder.clone(), text(table.file_name()));
            self.warnings.push(Warning::Unread { folder, count: 1, first });
        }
        found
    }

    /// The caption of one picture from its files, which must agree.
    fn sidecar(&mut self, files: &[&Read<'_>]) -> Found {
        let mut caption: Option<String> = None;
        for (file, content) in files {
            let content = match content {
                Ok(content) => content,
                Err(kind) => {
                    self.problem(&file.path, kind.clone());
                    return Found::Broken;
                }
            };
            let Some(line) = self.first_line(content, &file.path) else { continue };
            if caption.as_ref().is_some_and(|other| *other != line) {
                let other = text(files[0].0.path.file_name());
                self.problem(&file.path, ProblemKind::CaptionConflict { other });
                return Found::Broken;
            }
            caption = Some(line);
        }
        // A file without text is no caption: it is far more often a slip than a wish.
        caption.map_or(Found::Nothing, Found::Text)
    }

    /// The rows of `metadata.jsonl`.
    fn table(&mut self, index: &Index) -> Vec<Found> {
        let mut rows = BTreeMap::new();
        if let Some(path) = &index.table {
            match content(path) {
                Ok(content) => self.rows(&content, path, index, &mut rows),
                Err(kind) => self.problem(path, kind),
            }
        }
        if let Some(first) = index.captions.first() {
            let first = text(first.path.file_name());
            let (folder, count) = (index.folder.clone(), index.captions.len());
            self.warnings.push(Warning::Unread { folder, count, first });
        }
        let mut found = |path: &PathBuf| rows.remove(&text(path.file_name()));
        let texts: Vec<_> = index.pictures.iter().map(|picture| found(&picture.path)).collect();
        let line = |(found, picture): (Option<String>, &PathBuf)| {
            found
                .and_then(|content| self.first_line(&content, picture))
                .map_or(Found::Nothing, Found::Text)
        };
        let paths = index.pictures.iter().map(|picture| &picture.path);
        texts.into_iter().zip(paths).map(line).collect()
    }

    fn rows(
        &mut self,
        content: &str,
        path: &Path,
        index: &Index,
        rows: &mut BTreeMap<String, String>,
    ) {
        let names: BTreeSet<String> =
            index.pictures.iter().map(|picture| text(picture.path.file_name())).collect();
        for (position, line) in content.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let reason = match serde_json::from_str::<Row>(line) {
                Err(error) => format!("expected `file_name` and `text`, found {error}"),
                Ok(row) if !names.contains(&row.file_name) => {
                    format!("expected a picture of the folder, found `{}`", row.file_name)
                }
                Ok(row) if rows.contains_key(&row.file_name) => {
                    format!("expected one row per picture, found `{}` again", row.file_name)
                }
                Ok(row) => {
                    rows.insert(row.file_name, row.text);
                    continue;
                }
            };
            self.problem(path, ProblemKind::Table { line: position + 1, reason });
        }
    }

    /// The first line that holds text; others are noted.
    fn first_line(&mut self, content: &str, path: &Path) -> Option<String> {
        let lines: Vec<&str> =
            content.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.len() > 1 {
            let warning = Warning::FirstLineOnly { path: path.to_owned(), lines: lines.len() };
            self.warnings.push(warning);
        }
        lines.first().map(|line| (*line).to_owned())
    }

    /// Notes an identifier that no caption holds.
    fn note_absent_identifier(&mut self, index: &Index, spec: &CaptionedSpec) {
        let Some(identifier) = &spec.identifier else { return };
        if self.texts.is_empty() || self.texts.iter().any(|text| holds(text, identifier)) {
            return;
        }
        self.warnings.push(Warning::IdentifierAbsent {
            folder: index.folder.clone(),
            identifier: identifier.clone(),
            count: self.texts.len(),
        });
    }

    /// Notes what other programs would read as weights, alternatives or a placeholder.
    fn note_markup(&mut self, path: &Path, caption: &str, spec: &CaptionedSpec) {
        let between = |open: char, close: char, mark: char| {
            let inner = &caption[caption.find(open)?..];
            let inner = &inner[..=inner.find(close)?];
            inner.contains(mark).then(|| inner.to_owned())
        };
        let unfilled = |placeholder: &str, value: &Option<String>| {
            (value.is_none() && caption.contains(placeholder)).then(|| placeholder.to_owned())
        };
        let found = between('(', ')', ':')
            .or_else(|| between('{', '}', '|'))
            .or_else(|| unfilled("{identifier}", &spec.identifier))
            .or_else(|| unfilled("[trigger]", &spec.identifier))
            .or_else(|| unfilled("{class}", &spec.class));
        if let Some(found) = found {
            self.warnings.push(Warning::LiteralMarkup { path: path.to_owned(), found });
        }
    }
}

/// The content of a text file that is not too large, without a byte order mark.
fn content(path: &Path) -> Result<String, ProblemKind> {
    const LIMIT: u64 = 16 << 20;
    let unreadable = |error: std::io::Error| ProblemKind::Unreadable { reason: error.to_string() };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > LIMIT {
        return Err(ProblemKind::TooManyBytes { bytes, limit: LIMIT });
    }
    let content = String::from_utf8(std::fs::read(path).map_err(unreadable)?)
        .map_err(|error| ProblemKind::NotUtf8 { offset: error.utf8_error().valid_up_to() })?;
    Ok(content.strip_prefix('\u{feff}').unwrap_or(&content).to_owned())
}

/// The class, with the identifier before it.
fn class_caption(spec: &CaptionedSpec) -> String {
    let words = [spec.identifier.as_deref(), spec.class.as_deref()];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// A caption with its placeholders replaced and the identifier in place.
fn completed(raw: &str, spec: &CaptionedSpec) -> String {
    let mut caption = raw.to_owned();
    if let Some(class) = &spec.class {
        caption = caption.replace("{class}", class);
    }
    let Some(identifier) = &spec.identifier else { return caption };
    caption = caption.replace("{identifier}", identifier).replace("[trigger]", identifier);
    if holds(&caption, identifier) {
        return caption;
    }
    match (spec.identifier_at, caption.is_empty()) {
        (IdentifierAt::Never, _) => caption,
        (IdentifierAt::Front | IdentifierAt::End, true) => identifier.clone(),
        (IdentifierAt::Front, false) => format!("{identifier}, {caption}"),
        (IdentifierAt::End, false) => format!("{caption}, {identifier}"),
    }
}

/// Whether `words` stand in `caption` as whole words, whatever their case.
fn holds(caption: &str, words: &str) -> bool {
    let split = |text: &str| -> Vec<String> {
        let lower = text.to_lowercase();
        let parts = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        parts.map(str::to_owned).collect()
    };
    let (caption, words) = (split(caption), split(words));
    !words.is_empty() && caption.windows(words.len()).any(|window| window == words)
}

#[cfg(test)]
mod tests {
    use recipes::{AlphaPolicy, Flip, VaeSample};
    use tempfile::TempDir;

    use super::*;
    use crate::index::index;

    fn spec(folder: &Path) -> CaptionedSpec {
        CaptionedSpec {
            images: folder.to_owned(),
            captions: CaptionSource::Sidecar,
            missing_caption: MissingCaption::Error,
            identifier: Some("sks".to_owned()),
            class: Some("cylinder".to_owned()),
            identifier_at: IdentifierAt::Never,
            caption_dropout: 0.0,
            side_px: 64,
            alpha: AlphaPolicy::Error,
            flip: Flip::Never,
            repeats: 1,
            vae_sample: VaeSample::Random,
        }
    }

    /// A folder with these files; pictures need no content here.
    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs_err::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn read(folder: &TempDir, change: impl Fn(&mut CaptionedSpec)) -> Captions {
        let mut spec = spec(folder.path());
        change(&mut spec);
        captions(&index(folder.path()).unwrap(), &spec)
    }

    fn kinds(captions: &Captions) -> Vec<&ProblemKind> {
        captions.problems.iter().map(|problem| &problem.kind).collect()
    }

    #[test]
    fn sidecars_are_read_with_and_without_mark_and_in_any_case() {
        let folder = folder(&[
            ("a.png", b""),
            ("a.txt", b"  a red boat \n"),
            ("b.jpg", b""),
            ("b.CAPTION", b"\xEF\xBB\xBFa house"),
            ("c.webp", b""),
            ("c.txt", b"same"),
            ("c.caption", b"same\n"),
        ]);
        let found = read(&folder, |_| ());
        assert_eq!(found.texts, ["a red boat", "a house", "same"]);
        assert!(found.problems.is_empty());
    }

    #[test]
    fn conflict_orphan_encoding_and_absence_are_all_reported() {
        let folder = folder(&[
            ("a.png", b""),
            ("a.txt", b"one"),
            ("a.caption", b"two"),
            ("b.png", b""),
            ("b.txt", b"caf\xE9"),
            ("c.png", b""),
            ("d.png", b""),
            ("d.txt", b" \n"),
            ("e.txt", b"of nothing"),
        ]);
        let found = read(&folder, |_| ());
        assert_eq!(found.problems.len(), 5, "{:?}", found.problems);
        let kinds = kinds(&found);
        assert!(kinds.contains(&&ProblemKind::OrphanCaption));
        assert!(kinds.contains(&&ProblemKind::NotUtf8 { offset: 3 }));
        assert!(kinds.iter().any(|kind| matches!(kind, ProblemKind::CaptionConflict { .. })));
        assert_eq!(kinds.iter().filter(|kind| ***kind == ProblemKind::CaptionMissing).count(), 2);
    }

    #[test]
    fn a_missing_caption_becomes_what_the_recipe_says() {
        let folder = folder(&[("a.png", b"")]);
        let found = read(&folder, |spec| spec.missing_caption = MissingCaption::Class);
        assert_eq!(found.texts, ["sks cylinder"]);
        let found = read(&folder, |spec| spec.missing_caption = MissingCaption::Empty);
        assert_eq!(found.texts, [""]);
        assert!(found.problems.is_empty());
    }

    #[test]
    fn a_table_is_read_row_by_row() {
        let rows = b"{\"file_name\": \"a.png\", \"text\": \"a boat\", \"more\": 1}\n\n{\"file_name\": \"b.png\", \"text\": \"a house\"}\n";
        let folder = folder(&[("a.png", b""), ("b.png", b""), ("metadata.jsonl", rows)]);
        let found = read(&folder, |spec| spec.captions = CaptionSource::Jsonl);
        assert_eq!(found.texts, ["a boat", "a house"]);
        assert!(found.problems.is_empty());
    }

    #[test]
    fn a_table_with_bad_rows_names_the_lines() {
        let rows = b"{\"file_name\": \"../a.png\", \"text\": \"x\"}\nnonsense\n{\"file_name\": \"a.png\", \"text\": \"x\"}\n{\"file_name\": \"a.png\", \"text\": \"y\"}\n";
        let folder = folder(&[("a.png", b""), ("metadata.jsonl", rows)]);
        let found = read(&folder, |spec| spec.captions = CaptionSource::Jsonl);
        let lines: Vec<usize> = kinds(&found)
            .into_iter()
            .filter_map(
                |kind| if let ProblemKind::Table { line, .. } = kind { Some(*line) } else { None },
            )
            .collect();
        assert_eq!(lines, [1, 2, 4]);
    }

    #[test]
    fn captions_that_are_not_asked_for_are_warned_about() {
        let folder = folder(&[("a.png", b""), ("a.txt", b"x, sks"), ("metadata.jsonl", b"")]);
        let found = read(&folder, |_| ());
        assert!(
            matches!(&found.warnings[..], [Warning::Unread { count: 1, .. }]),
            "{:?}",
            found.warnings
        );
    }

    #[test]
    fn identifier_is_added_once_and_where_the_recipe_says() {
        let check = |raw: &str, at: IdentifierAt, expected: &str| {
            let spec = CaptionedSpec { identifier_at: at, ..spec(Path::new("x")) };
            assert_eq!(completed(raw, &spec), expected);
        };
        check("a boat", IdentifierAt::Front, "sks, a boat");
        check("a boat", IdentifierAt::End, "a boat, sks");
        check("a boat", IdentifierAt::Never, "a boat");
        check("a SKS boat", IdentifierAt::Front, "a SKS boat");
        check("a sksy boat", IdentifierAt::Front, "sks, a sksy boat");
        check("a {identifier} {class}", IdentifierAt::Front, "a sks cylinder");
        check("[trigger] by day", IdentifierAt::End, "sks by day");
        check("", IdentifierAt::Front, "sks");
    }

    #[test]
    fn an_identifier_that_no_caption_holds_is_warned_about() {
        let folder =
            folder(&[("a.png", b""), ("a.txt", b"a boat"), ("b.png", b""), ("b.txt", b"a house")]);
        let absent = |change: &dyn Fn(&mut CaptionedSpec)| {
            let warnings = read(&folder, change).warnings;
            warnings.iter().any(|w| matches!(w, Warning::IdentifierAbsent { count: 2, .. }))
        };
        assert!(absent(&|_| ()));
        assert!(!absent(&|spec| spec.identifier_at = IdentifierAt::Front));
        assert!(!absent(&|spec| spec.identifier = Some("HOUSE".to_owned())));
        assert!(!absent(&|spec| spec.identifier = None));
    }

    #[test]
    fn identifiers_of_several_words_are_found_as_a_whole() {
        let spec = CaptionedSpec {
            identifier: Some("inkwsh style".to_owned()),
            identifier_at: IdentifierAt::End,
            ..spec(Path::new("x"))
        };
        assert_eq!(completed("a boat, Inkwsh Style", &spec), "a boat, Inkwsh Style");
        assert_eq!(completed("a style of inkwsh", &spec), "a style of inkwsh, inkwsh style");
    }

    #[test]
    fn markup_and_further_lines_are_warned_about() {
        let folder = folder(&[
            ("a.png", b""),
            ("a.txt", b"a (red:1.2) sks boat"),
            ("b.png", b""),
            ("b.txt", b"a {red|blue} boat\nsecond"),
        ]);
        let found = read(&folder, |_| ());
        assert_eq!(found.texts[1], "a {red|blue} boat");
        assert_eq!(found.warnings.len(), 3, "{:?}", found.warnings);
    }
}
