//! `populate thesaurus`: makes thesauri of published vocabularies.

use std::path::Path;

use eval::skos::{self, Selection};
use serde_json::json;

use super::validate::{thesaurus_record, thesaurus_words};
use super::{Job, Outcome};
use crate::args::{ThesaurusArguments, ThesaurusImportArguments, ThesaurusWork};
use crate::diagnostic;
use crate::error::JobError;

/// Does what is asked of a thesaurus.
pub(crate) fn execute(arguments: &ThesaurusArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    match &arguments.work {
        ThesaurusWork::Import(arguments) => import(arguments, job),
    }
}

/// Reads a vocabulary and writes it in our format, which `populate validate` accepts.
fn import(arguments: &ThesaurusImportArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let selection = selection(arguments)?;
    let name = arguments.vocabulary.display().to_string();
    let text = text(&arguments.vocabulary)?;
    let imported = skos::import(&text, &name, &selection)?;
    checkpoints::fs::atomic_write(&arguments.out, imported.yaml.as_bytes())?;
    for line in diagnostic::warnings(&name, &text, &imported.warnings) {
        job.terminal.say_line(&line);
    }
    let mut record = thesaurus_record(&imported.thesaurus);
    record["event"] = json!("imported");
    record["out"] = json!(arguments.out);
    record["warnings"] = json!(diagnostic::problems_json(&imported.warnings));
    let out = arguments.out.display();
    job.give(&format!("wrote {out}: {}", thesaurus_words(&imported.thesaurus)), &record);
    Ok(Outcome::Done)
}

/// What the arguments say, checked as far as that needs no vocabulary.
fn selection(arguments: &ThesaurusImportArguments) -> Result<Selection, JobError> {
    if arguments.out == arguments.vocabulary {
        return Err(JobError::usage("expected a new file as --out, found the vocabulary itself"));
    }
    let is_plain = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    if let Some(facet) = arguments.facet.as_deref().filter(|facet| !is_plain(facet)) {
        let message = format!("expected letters, digits and hyphens as --facet, found `{facet}`");
        return Err(JobError::usage(message));
    }
    let stem = arguments.out.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok(Selection {
        id: stem.unwrap_or_default(),
        schemes: arguments.schemes.clone(),
        facet: arguments.facet.clone(),
        languages: arguments.languages.clone(),
    })
}

/// A Turtle text, which is UTF-8 by its standard.
fn text(path: &Path) -> Result<String, JobError> {
    let too_large = path.metadata().ok().map(|file| file.len()).filter(|n| *n > skos::MAX_BYTES);
    if let Some(bytes) = too_large {
        let (path, limit) = (path.display(), skos::MAX_BYTES);
        let message = format!("`{path}`: expected at most {limit} bytes, found {bytes}");
        return Err(JobError::data(message));
    }
    let bytes = checkpoints::fs::read(path)?;
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let path = path.display();
        JobError::data(format!("`{path}`: expected UTF-8 text, found another byte at {offset}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn arguments(facet: Option<&str>, out: &str) -> ThesaurusImportArguments {
        ThesaurusImportArguments {
            vocabulary: "v.ttl".into(),
            schemes: vec!["http://example.org/s".into()],
            facet: facet.map(str::to_owned),
            languages: Vec::new(),
            out: out.into(),
        }
    }

    #[test]
    fn the_file_names_the_thesaurus() {
        let found = selection(&arguments(Some("style"), "deep/mine.yaml")).unwrap();
        assert_eq!((found.id.as_str(), found.facet.as_deref()), ("mine", Some("style")));
        assert_eq!(found.schemes, ["http://example.org/s"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_read() {
        for (facet, out) in [(Some("a,b"), "x.yaml"), (Some(""), "x.yaml"), (None, "v.ttl")] {
            let error = selection(&arguments(facet, out)).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{facet:?} {out}");
        }
    }

    #[test]
    fn a_file_that_is_no_text_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.ttl");
        checkpoints::fs::atomic_write(&path, b"abc\xff").unwrap();
        let error = text(&path).unwrap_err();
        assert_eq!(error.exit(), Exit::Data);
        assert!(error.to_string().ends_with("found another byte at 3"), "{error}");
        assert!(text(&dir.path().join("nothing.ttl")).is_err());
    }
}
