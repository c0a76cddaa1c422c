//! Owns the words of the page: every string in every language, from the files of `labels/`, set as the
//! language's typography asks. No figure and no markup.

use eval::record::{EntityRecord, Refusal};
use eval::thesaurus::{BLOCKED, NONE};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A language of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English, American.
    English,
    /// French.
    French,
}

impl Language {
    /// All of them, the first page first.
    pub const ALL: [Self; 2] = [Self::English, Self::French];

    /// Its code in `lang` attributes (BCP 47).
    pub fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
        }
    }

    /// The name of its page within `report/`.
    pub fn file(self) -> &'static str {
        match self {
            Self::English => "index.html",
            Self::French => "index.fr.html",
        }
    }

    /// What it calls itself.
    pub(crate) fn own_name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::French => "Français",
        }
    }

    /// Marks that no line may begin with: the space before them is narrow and does not break.
    fn bound_marks(self) -> &'static [char] {
        match self {
            Self::English => &['%'],
            Self::French => &['%', ':', ';', '?', '!', '»'],
        }
    }
}

/// A space that is narrow and does not break.
pub(crate) const NARROW: char = '\u{202f}';
/// What stands where a label is missing; a test looks for it in both pages.
const MISSING: &str = "⟦?⟧";
/// Between the forms of one and of many.
const FORMS: &str = " | ";

/// All labels, one file per panel or topic.
const SOURCES: [&str; 18] = [
    include_str!("../labels/page.yaml"),
    include_str!("../labels/finding.yaml"),
    include_str!("../labels/arrival.yaml"),
    include_str!("../labels/map.yaml"),
    include_str!("../labels/cylinder.yaml"),
    include_str!("../labels/bars.yaml"),
    include_str!("../labels/corrected.yaml"),
    include_str!("../labels/places.yaml"),
    include_str!("../labels/limits.yaml"),
    include_str!("../labels/reasons.yaml"),
    include_str!("../labels/similarity.yaml"),
    include_str!("../labels/dose.yaml"),
    include_str!("../labels/non_seekers.yaml"),
    include_str!("../labels/series.yaml"),
    include_str!("../labels/leak.yaml"),
    include_str!("../labels/deja_vu.yaml"),
    include_str!("../labels/census_taker.yaml"),
    include_str!("../labels/comparison.yaml"),
];

/// One string in every language.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    en: String,
    fr: String,
}

/// The words of one language, and why figures of this census were refused.
#[derive(Debug)]
pub(crate) struct Words {
    language: Language,
    entries: BTreeMap<String, String>,
    /// What the census says in English, as a pattern, and the same in this language.
    told: Vec<(String, String)>,
    refusals: BTreeMap<String, String>,
}

impl Words {
    /// The words of a language.
    pub(crate) fn new(language: Language) -> Self {
        let mut entries = BTreeMap::new();
        let mut told = Vec::new();
        for (key, label) in SOURCES.iter().flat_map(|source| labels(source)) {
            let text = typeset(
                match language {
                    Language::English => &label.en,
                    Language::French => &label.fr,
                },
                language,
            );
            if key.starts_with("reason.") {
                told.push((label.en, text.clone()));
            }
            entries.insert(key, text);
        }
        Self { language, entries, told, refusals: BTreeMap::new() }
    }

    /// The same, knowing what was refused.
    #[must_use]
    pub(crate) fn with_refusals(mut self, refusals: &[Refusal]) -> Self {
        self.refusals = refusals
            .iter()
            .map(|refusal| (refusal.what.clone(), self.tell(&refusal.reason)))
            .collect();
        self
    }

    /// The language.
    pub(crate) fn language(&self) -> Language {
        self.language
    }

    /// The string of a key.
    pub(crate) fn say(&self, key: &str) -> &str {
        self.entries.get(key).map_or(MISSING, String::as_str)
    }

    /// The string of a key, or `otherwise` where there is none: for what a thesaurus or a recipe named.
    pub(crate) fn known<'a>(&'a self, key: &str, otherwise: &'a str) -> &'a str {
        self.entries.get(key).map_or(otherwise, String::as_str)
    }

    /// The string of a key with every `{name}` replaced by its value.
    pub(crate) fn fill(&self, key: &str, values: &[(&str, &str)]) -> String {
        filled(self.say(key), values)
    }

    /// The form of a key for `n` things, `one | many`, with `{n}` replaced. French counts 0 as one.
    pub(crate) fn count(&self, key: &str, n: u64) -> String {
        let (one, many) = self.say(key).split_once(FORMS).unwrap_or((self.say(key), self.say(key)));
        let single = n == 1 || (n == 0 && self.language == Language::French);
        filled(if single { one } else { many }, &[("n", &self.thousands(n))])
    }

    /// Names in a row: `a, b and c`.
    pub(crate) fn row(&self, names: &[String]) -> String {
        match names {
            [] => String::new(),
            [only] => only.clone(),
            [first @ .., last] => format!("{} {} {last}", first.join(", "), self.say("page.and")),
        }
    }

    /// A name within quotation marks.
    pub(crate) fn quoted(&self, name: &str) -> String {
        match self.language {
            Language::English => format!("“{name}”"),
            Language::French => format!("«{NARROW}{name}{NARROW}»"),
        }
    }

    /// A name within a sentence. French sets it in guillemets, since its article is not known.
    pub(crate) fn mention(&self, name: &str) -> String {
        match self.language {
            Language::English => name.to_owned(),
            Language::French => self.quoted(name),
        }
    }

    /// What to call an entity: its label in this language, else its name.
    pub(crate) fn label(&self, entity: &EntityRecord) -> String {
        match entity.id.as_str() {
            NONE => self.say("page.none_of_these").to_owned(),
            BLOCKED => self.say("page.withheld").to_owned(),
            _ => entity.label.get(self.language.code()).unwrap_or(&entity.name).clone(),
        }
    }

    /// The reason why the census gives no figure of `what`.
    pub(crate) fn refused(&self, what: &str) -> Option<String> {
        self.refusals.get(what).cloned()
    }

    /// A sentence of the census in this language, where it is known; else as it stands.
    pub(crate) fn tell(&self, sentence: &str) -> String {
        let known = self.told.iter().find_map(|(pattern, text)| {
            let values = matched(pattern, sentence)?;
            Some(filled(text, &values))
        });
        known.unwrap_or_else(|| sentence.to_owned())
    }
}

/// The labels of one file.
#[expect(clippy::expect_used, reason = "the files are part of the program, and a test reads them")]
fn labels(source: &str) -> BTreeMap<String, Label> {
    serde_saphyr::from_str(source).expect("labels are valid YAML")
}

/// `text` with narrow spaces that do not break before its language's marks and within guillemets.
fn typeset(text: &str, language: Language) -> String {
    let marks = language.bound_marks();
    let mut set = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let before_mark = characters.peek().is_some_and(|next| marks.contains(next));
        let bound = character == ' ' && (before_mark || set.ends_with('«'));
        set.push(if bound { NARROW } else { character });
    }
    set
}

/// `pattern` with every `{name}` replaced once; a name without a value stays as it stands.
fn filled(pattern: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, later)) = after.split_once('}') else { break };
        text.push_str(before);
        match values.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => text.push_str(value),
            None => text.extend(["{", name, "}"]),
        }
        rest = later;
    }
    text.push_str(rest);
    text
}

/// What stands in `text` for each `{name}` of `pattern`; `None` if they do not agree.
fn matched<'a>(pattern: &'a str, text: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut values = Vec::new();
    let (before, mut pattern) = pattern.split_once('{').unwrap_or((pattern, ""));
    let mut rest = text.strip_prefix(before)?;
    while let Some((name, after)) = pattern.split_once('}') {
        let (literal, next) = after.split_once('{').unwrap_or((after, ""));
        let end = if literal.is_empty() { rest.len() } else { rest.find(literal)? };
        values.push((name, &rest[..end]));
        rest = &rest[end + literal.len()..];
        pattern = next;
    }
    rest.is_empty().then_some(values)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    /// What marks a missing label, for the tests of the page.
    pub(crate) const MISSING: &str = super::MISSING;

    fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|found| found == extension) {
                    found.push(path);
                }
            }
        }
        found
    }

    fn text(path: &Path) -> String {
        String::from_utf8(std::fs::read(path).unwrap()).unwrap()
    }

    fn placeholders(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect()
    }

    #[test]
    fn every_label_file_is_embedded() {
        let found = files("labels", "yaml");
        assert_eq!(found.len(), SOURCES.len());
        for path in found {
            assert!(SOURCES.contains(&text(&path).as_str()), "{}", path.display());
        }
    }

    #[test]
    fn every_label_says_the_same_in_both_languages() {
        let mut known = BTreeSet::new();
        for (key, label) in SOURCES.iter().flat_map(|source| labels(source)) {
            assert!(!label.en.trim().is_empty() && !label.fr.trim().is_empty(), "{key}");
            assert_eq!(placeholders(&label.en), placeholders(&label.fr), "{key}");
            assert_eq!(label.en.contains(FORMS), label.fr.contains(FORMS), "{key}");
            assert!(!label.fr.contains('\''), "{key}: a typewriter's apostrophe");
            assert!(!label.en.to_lowercase().contains("significant"), "{key}");
            assert!(!label.fr.to_lowercase().contains("significati"), "{key}");
            assert!(known.insert(key.clone()), "{key} stands twice");
        }
        assert!(known.len() > 200, "{}", known.len());
    }

    #[test]
    fn every_key_that_the_sources_use_exists() {
        let words = Words::new(Language::English);
        let mut used = 0;
        for path in files("src", "rs") {
            let source = text(&path);
            for call in ["say", "fill", "count"].map(|name| format!(".{name}(")) {
                for rest in source.split(&call).skip(1) {
                    let Some(key) = rest.trim_start().strip_prefix('"') else { continue };
                    let key = key.split('"').next().unwrap();
                    assert!(words.entries.contains_key(key), "{key} in {}", path.display());
                    used += 1;
                }
            }
        }
        assert!(used > 100, "{used}");
    }

    #[test]
    fn french_marks_are_bound_to_their_words() {
        let set = typeset("de quoi : « ceci » ; 5 % ?", Language::French);
        assert_eq!(set, "de quoi\u{202f}: «\u{202f}ceci\u{202f}»\u{202f}; 5\u{202f}%\u{202f}?");
        assert_eq!(typeset("95 % of it: so", Language::English), "95\u{202f}% of it: so");
    }

    #[test]
    fn values_are_filled_in_once() {
        let values = [("a", "{b}"), ("b", "2")];
        assert_eq!(filled("{a} and {b}, {c}", &values), "{b} and 2, {c}");
        assert_eq!(filled("open { brace", &values), "open { brace");
    }

    #[test]
    fn sentences_of_the_census_are_told_in_both_languages() {
        let english = "subject: the total variation does not exceed its floor";
        let words = Words::new(Language::French);
        let told = words.tell(english);
        assert!(told.starts_with("subject") && told.contains("bruit de fond"), "{told}");
        assert_eq!(Words::new(Language::English).tell(english), english);
        assert_eq!(words.tell("nobody knows this"), "nobody knows this");
        let refusals = [Refusal { what: "path".into(), reason: "nobody knows".into() }];
        let words = words.with_refusals(&refusals);
        assert_eq!(words.refused("path").as_deref(), Some("nobody knows"));
        assert_eq!(words.refused("fabric"), None);
    }

    #[test]
    fn patterns_give_back_what_stands_in_them() {
        assert_eq!(matched("{n} of {m}.", "3 of 4."), Some(vec![("n", "3"), ("m", "4")]));
        assert_eq!(matched("all {x}", "all of it"), Some(vec![("x", "of it")]));
        assert_eq!(matched("plain", "plain"), Some(Vec::new()));
        assert_eq!(matched("plain", "plainer"), None);
        assert_eq!(matched("{n} of", "none"), None);
    }

    #[test]
    fn one_and_many_are_told_apart() {
        let (english, french) = (Words::new(Language::English), Words::new(Language::French));
        assert_eq!(english.count("page.pictures", 0), "0 pictures");
        assert_eq!(english.count("page.pictures", 1), "1 picture");
        assert_eq!(french.count("page.pictures", 0), "0 image");
        assert_eq!(french.count("page.pictures", 2), "2 images");
    }

    #[test]
    fn names_stand_in_a_row() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(Words::new(Language::French).row(&names), "a, b et c");
        assert_eq!(Words::new(Language::English).row(&names[..1]), "a");
    }
}
