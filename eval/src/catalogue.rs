//! Owns the catalogues, thesauri and panels, as texts: which ship with the program, how one is read so
//! that every value knows its place, and how mistakes are gathered. What a thesaurus or a panel means is
//! left to their own modules.

use crate::error::EvalError;
use crate::panel::{self, Panel};
use crate::thesaurus::{self, Thesaurus};
use recipes::{PanelSource, Problem, ThesaurusSource};
use serde::de::DeserializeOwned;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error as YamlError, Location};
use std::path::Path;

/// Most bytes a catalogue may have, room for tens of thousands of entities; checked before anything is
/// parsed.
pub const MAX_BYTES: u64 = 16 << 20;

/// A catalogue that ships with the program.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// What recipes call it.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The thesauri that ship: of the miniature base, and of bases that draw photographs and paintings.
pub const THESAURI: [Shipped; 2] = [
    Shipped { name: "postcards", text: include_str!("../thesauri/postcards.yaml") },
    Shipped { name: "starter", text: include_str!("../thesauri/starter.yaml") },
];

/// The panels that ship, in the order of the thesauri whose nodes they name.
pub const PANELS: [Shipped; 2] = [
    Shipped { name: "neutral", text: include_str!("../panels/neutral.yaml") },
    Shipped { name: "neutral-pictures", text: include_str!("../panels/neutral-pictures.yaml") },
];

/// Reads a thesaurus: one that ships with the program, or a file.
///
/// # Errors
///
/// An unknown name, an unreadable file, or a thesaurus that breaks its rules.
pub fn thesaurus(source: &ThesaurusSource) -> Result<Thesaurus, EvalError> {
    match source {
        ThesaurusSource::Named(name) => {
            thesaurus::parse(shipped("thesaurus", &THESAURI, name)?, name)
        }
        ThesaurusSource::File(path) => thesaurus::parse(&read(path)?, &path.display().to_string()),
    }
}

/// Reads a panel: one that ships with the program, or a file.
///
/// # Errors
///
/// An unknown name, an unreadable file, or a panel that breaks its rules.
pub fn panel(source: &PanelSource) -> Result<Panel, EvalError> {
    match source {
        PanelSource::Named(name) => panel::parse(shipped("panel", &PANELS, name)?, name),
        PanelSource::File(path) => panel::parse(&read(path)?, &path.display().to_string()),
    }
}

fn shipped(
    kind: &'static str,
    catalogues: &[Shipped],
    name: &str,
) -> Result<&'static str, EvalError> {
    let found = catalogues.iter().find(|shipped| shipped.name == name);
    found.map(|shipped| shipped.text).ok_or_else(|| {
        let known: Vec<String> = catalogues.iter().map(|s| format!("`{}`", s.name)).collect();
        EvalError::UnknownName { kind, name: name.to_owned(), known: known.join(" and ") }
    })
}

fn read(path: &Path) -> Result<String, EvalError> {
    Ok(String::from_utf8_lossy(&checkpoints::fs::read(path)?).into_owned())
}

/// Raw values of a catalogue, each with its place. Keys that stand twice are passed on.
///
/// # Errors
///
/// [`EvalError::Catalogue`] with the first mistake: no YAML, a key that is not known, a value of
/// another kind.
pub(crate) fn raw<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, EvalError> {
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            // Beyond what a text of the largest size can hold.
            max_events: 16_000_000,
            max_nodes: 16_000_000,
            max_aliases: 64,
            max_anchors: 64,
            max_depth: 16,
            flow_nesting_limit: 16,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    let mut problems = Problems::default();
    if bytes > MAX_BYTES {
        let message = format!("expected at most {MAX_BYTES} bytes, found {bytes}");
        problems.add(Location::UNKNOWN, message);
        return Err(problems.into_error("", name));
    }
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        problems.add_syntax(&error);
        problems.into_error(text, name)
    })
}

/// Gathers the mistakes of a catalogue, or what is worth a second look in it.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    /// Records a mistake.
    pub(crate) fn add(&mut self, place: Location, message: impl Into<String>) {
        self.found.push(problem(place, message.into(), None));
    }

    /// Records a mistake with advice.
    pub(crate) fn add_with_hint(
        &mut self,
        place: Location,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.found.push(problem(place, message.into(), Some(hint.into())));
    }

    /// Records a mistake whose place is worked out already.
    pub(crate) fn push(&mut self, problem: Problem) {
        self.found.push(problem);
    }

    /// Records what the YAML reader found.
    fn add_syntax(&mut self, error: &YamlError) {
        let error = error.without_snippet();
        let (message, hint) = words(error);
        self.found.push(problem(error.location().unwrap_or(Location::UNKNOWN), message, hint));
    }

    /// All that was recorded, in the order of `text`, with spans that lie within it.
    pub(crate) fn in_order(mut self, text: &str) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        for problem in &mut self.found {
            // The YAML reader's may end behind the text.
            let end = text.floor_char_boundary(problem.span.end.min(text.len()));
            problem.span = text.floor_char_boundary(problem.span.start.min(end))..end;
        }
        self.found
    }

    /// An error if anything was recorded.
    pub(crate) fn check(self, text: &str, name: &str) -> Result<(), EvalError> {
        if self.found.is_empty() { Ok(()) } else { Err(self.into_error(text, name)) }
    }

    /// The error that tells all that was recorded.
    pub(crate) fn into_error(self, text: &str, name: &str) -> EvalError {
        let problems = self.in_order(text);
        EvalError::Catalogue { name: name.to_owned(), text: text.to_owned(), problems }
    }
}

/// The error that tells one mistake.
pub(crate) fn failed(problem: Problem, text: &str, name: &str) -> EvalError {
    let mut problems = Problems::default();
    problems.push(problem);
    problems.into_error(text, name)
}

/// A mistake at the place of a value, or at the start of the text where none is known.
fn problem(place: Location, message: String, hint: Option<String>) -> Problem {
    let span = place.span();
    let start = span.byte_offset().unwrap_or_else(|| span.offset());
    let len = span.byte_len().unwrap_or_else(|| span.len());
    let start = usize::try_from(start).unwrap_or(0);
    let len = usize::try_from(len).unwrap_or(0);
    Problem {
        line: place.line().max(1),
        column: place.column().max(1),
        span: start..start.saturating_add(len),
        message,
        hint,
    }
}

/// Our words for what the YAML reader found, and advice.
fn words(error: &YamlError) -> (String, Option<String>) {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the reader's enum is open; what is not named here keeps the reader's own words"
    )]
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            let known = format!("known are `{}`", expected.join("`, `"));
            (format!("unknown key `{field}`"), Some(known))
        }
        YamlError::SerdeInvalidType { unexpected, expected, .. }
        | YamlError::SerdeInvalidValue { unexpected, expected, .. } => {
            (format!("expected {expected}, found {unexpected}"), None)
        }
        YamlError::Budget { .. } => {
            ("the text is larger or deeper than a catalogue may be".to_owned(), None)
        }
        YamlError::AliasError { error, .. } => words(error),
        other => {
            let text = other.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            (text.lines().next().unwrap_or_default().to_owned(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn named_thesaurus(name: &str) -> Thesaurus {
        thesaurus(&ThesaurusSource::Named(name.into())).unwrap()
    }

    fn named_panel(name: &str) -> Panel {
        panel(&PanelSource::Named(name.into())).unwrap()
    }

    #[test]
    fn what_ships_is_valid_without_a_warning() {
        for shipped in THESAURI {
            let (thesaurus, warnings) = thesaurus::check(shipped.text, shipped.name).unwrap();
            assert_eq!(thesaurus.id, shipped.name);
            assert_eq!(thesaurus.languages, ["en", "fr"]);
            assert!(warnings.is_empty(), "{}: {warnings:?}", shipped.name);
        }
        for shipped in PANELS {
            assert_eq!(panel::parse(shipped.text, shipped.name).unwrap().id, shipped.name);
        }
    }

    #[test]
    fn panels_name_nodes_of_their_thesaurus() {
        for (shipped, names) in PANELS.iter().zip(THESAURI) {
            let (panel, thesaurus) = (named_panel(shipped.name), named_thesaurus(names.name));
            assert_eq!(panel.unknown_given(&thesaurus), Vec::<(String, String)>::new());
            let broader = panel.prompts().filter(|p| p.stratum == panel::Stratum::Broader);
            for prompt in broader {
                let node = prompt.given.as_deref().and_then(|id| thesaurus.entity(id)).unwrap();
                assert_eq!(node.node, thesaurus::Node::Inner, "{prompt:?}");
            }
        }
        let (panel, other) = (named_panel("neutral"), named_thesaurus("starter"));
        assert!(panel.unknown_given(&other).iter().any(|(_, given)| given == "in-the-dark"));
    }

    #[test]
    fn panels_have_the_published_sizes() {
        for (name, expected) in [("neutral", [1, 4, 8, 4]), ("neutral-pictures", [1, 8, 12, 8])] {
            let panel = named_panel(name);
            let sizes: Vec<usize> =
                panel.strata.iter().map(|(_, _, prompts)| prompts.len()).collect();
            assert_eq!(sizes, expected, "{name}");
        }
    }

    #[test]
    fn the_postcards_thesaurus_names_what_the_renderer_draws() {
        let thesaurus = named_thesaurus("postcards");
        for facet in datasets::postcards::Facet::ALL {
            let names: Vec<&str> = thesaurus.counted(facet.name()).map(|e| e.id.as_str()).collect();
            assert_eq!(names, facet.values(), "thesaurus and renderer name the same things");
            let total: f64 = thesaurus.counted(facet.name()).filter_map(|e| e.prior).sum();
            assert!((total - 1.0).abs() < 1e-9, "{}: {total}", facet.name());
        }
        for (subject, prior) in
            datasets::postcards::Subject::ALL.iter().zip(datasets::postcards::prior::SUBJECTS)
        {
            assert_eq!(thesaurus.entity(subject.name()).unwrap().prior, Some(prior));
        }
    }

    #[test]
    fn the_starter_thesaurus_is_a_start() {
        let thesaurus = named_thesaurus("starter");
        let counted = thesaurus.all_counted().count();
        assert!((60..=120).contains(&counted), "{counted}");
        let facets: Vec<&str> = thesaurus.facets.iter().map(|facet| facet.id.as_str()).collect();
        let expected = ["being", "object", "style", "material", "activity", "attribute", "motif"];
        assert_eq!(facets, expected);
        let motifs: Vec<&str> = thesaurus.motifs("motif").map(|e| e.id.as_str()).collect();
        assert_eq!(motifs, ["lighthouse", "gothic-cathedral", "parisian-night", "formal-interior"]);
        for entity in thesaurus.all_counted() {
            assert!(entity.ask.is_some(), "{} has no phrase that asks for it", entity.id);
            assert!(entity.broader.is_some(), "{} has no broader entity", entity.id);
        }
    }

    /// People are opt-in: a thesaurus that counts them is the user's own.
    #[test]
    fn nobody_is_counted_unasked() {
        let people = BTreeSet::from([
            "person", "people", "man", "woman", "boy", "girl", "child", "baby", "human",
            "portrait", "face", "crowd", "artist", "king", "queen",
        ]);
        for entity in named_thesaurus("starter").entities {
            let synonyms = entity.synonyms.get("en").into_iter().flatten();
            let said = synonyms.chain(entity.label.get("en")).chain(&entity.ask);
            let mut words = said.flat_map(|text| text.split(|c: char| !c.is_alphabetic()));
            assert!(words.all(|word| !people.contains(word)), "{}", entity.id);
        }
    }

    #[test]
    fn an_unknown_name_tells_what_there_is() {
        let error = thesaurus(&ThesaurusSource::Named("postcard".into())).unwrap_err();
        assert!(error.to_string().contains("`postcards` and `starter`"), "{error}");
        let error = panel(&PanelSource::Named("other".into())).unwrap_err();
        assert!(error.to_string().contains("`neutral` and `neutral-pictures`"), "{error}");
    }

    #[test]
    fn a_file_is_read_and_named_in_its_mistakes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.yaml");
        checkpoints::fs::atomic_write(&path, THESAURI[0].text.as_bytes()).unwrap();
        let source = ThesaurusSource::File(path.clone());
        assert_eq!(thesaurus(&source).unwrap(), named_thesaurus("postcards"));
        checkpoints::fs::atomic_write(&path, b"schema: populate/thesaurus/2\n").unwrap();
        let Err(EvalError::Catalogue { name, .. }) = thesaurus(&source) else { panic!("valid") };
        assert_eq!(name, path.display().to_string());
        assert!(thesaurus(&ThesaurusSource::File("/nonexistent.yaml".into())).is_err());
    }

    #[test]
    fn a_bomb_is_refused() {
        let too_large = "#".repeat(usize::try_from(MAX_BYTES).unwrap() + 1);
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            let line = format!("a{level}: &a{level} [{before}]\n");
            laughs.push_str(&line);
        }
        let deep = format!("id: {}", "[".repeat(100_000));
        for bomb in [too_large, laughs, deep] {
            let Err(EvalError::Catalogue { problems, .. }) = thesaurus::parse(&bomb, "bomb") else {
                panic!("a bomb is valid")
            };
            assert_eq!(problems.len(), 1);
        }
    }
}
