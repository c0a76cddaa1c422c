//! What goes wrong before a recipe is a [`Recipe`](crate::Recipe).

use std::path::PathBuf;

use serde_saphyr::{Error as YamlError, Location};

use crate::problem::Problem;
use crate::suggest;

/// A recipe that could not be read or does not mean anything.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.message())]
#[non_exhaustive]
pub struct RecipeError {
    /// The file.
    pub path: PathBuf,
    /// All mistakes, in the order of the text; empty unless `kind` is
    /// [`RecipeErrorKind::Invalid`].
    pub problems: Vec<Problem>,
    /// What went wrong.
    #[source]
    pub kind: RecipeErrorKind,
}

/// The kinds of [`RecipeError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeErrorKind {
    /// The file could not be read.
    #[error(transparent)]
    Read(std::io::Error),
    /// The file is larger than a recipe may be.
    #[error("expected at most {limit} bytes, found more")]
    TooLarge {
        /// Bytes a recipe may have.
        limit: u64,
    },
    /// The file is no UTF-8 text.
    #[error("expected UTF-8 text, found another byte at offset {offset}")]
    NotText {
        /// First byte that is not text, counted from 0.
        offset: usize,
    },
    /// An override could not be applied.
    #[error("override `{set}`: {reason}")]
    Override {
        /// The override as given.
        set: String,
        /// Why.
        reason: Box<OverrideError>,
    },
    /// The recipe has mistakes; they are in [`RecipeError::problems`].
    #[error("the text has mistakes")]
    Invalid {
        /// What `text` is: the file's path, or the path followed by "with --set".
        title: String,
        /// The text that the problems point into: the file, or what it reads like after `--set`.
        text: String,
    },
}

impl RecipeError {
    /// What the problems' text is called: the path, or the path followed by "with --set".
    pub fn title(&self) -> String {
        match &self.kind {
            RecipeErrorKind::Invalid { title, .. } => title.clone(),
            RecipeErrorKind::Read(_)
            | RecipeErrorKind::TooLarge { .. }
            | RecipeErrorKind::NotText { .. }
            | RecipeErrorKind::Override { .. } => self.path.display().to_string(),
        }
    }

    /// The text that the problems' lines, columns and spans point into, if there are problems.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            RecipeErrorKind::Invalid { text, .. } => Some(text),
            RecipeErrorKind::Read(_)
            | RecipeErrorKind::TooLarge { .. }
            | RecipeErrorKind::NotText { .. }
            | RecipeErrorKind::Override { .. } => None,
        }
    }

    /// Advice, where there is any.
    pub fn hint(&self) -> Option<String> {
        match &self.kind {
            RecipeErrorKind::Invalid { .. } => Some(format!(
                "`populate validate {}` checks a recipe without loading a model",
                self.path.display()
            )),
            RecipeErrorKind::Override { .. } => {
                Some("an override is written `--set path.to.key=value`".to_owned())
            }
            RecipeErrorKind::Read(_)
            | RecipeErrorKind::TooLarge { .. }
            | RecipeErrorKind::NotText { .. } => None,
        }
    }

    /// One line that names the recipe; what stands in `kind` is its source, not repeated here.
    fn message(&self) -> String {
        match &self.kind {
            RecipeErrorKind::Invalid { title, .. } => {
                format!("recipe `{title}` has {}", counted(self.problems.len()))
            }
            RecipeErrorKind::Override { .. } => {
                format!("recipe `{}` could not be overridden", self.path.display())
            }
            RecipeErrorKind::Read(_)
            | RecipeErrorKind::TooLarge { .. }
            | RecipeErrorKind::NotText { .. } => {
                format!("recipe `{}` could not be read", self.path.display())
            }
        }
    }
}

fn counted(n_problems: usize) -> String {
    if n_problems == 1 { "1 problem".to_owned() } else { format!("{n_problems} problems") }
}

/// Why an override could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// There is no `=`.
    #[error("expected `path.to.key=value`, found no `=`")]
    NoEquals,
    /// The path is empty or has an empty part.
    #[error("expected a path of keys joined by dots, found `{path}`")]
    Path {
        /// The path as given.
        path: String,
    },
    /// The value has a line break or another control character.
    #[error("expected a value on one line, found a control character")]
    Value,
    /// A part of the path is no section.
    #[error("`{path}` is no section that could hold `{key}`")]
    NoSection {
        /// The path so far.
        path: String,
        /// The key that was looked for below it.
        key: String,
    },
}

/// Our words for a mistake that the YAML reader found.
pub(crate) fn problem_from_yaml(error: &YamlError) -> Problem {
    let error = error.without_snippet();
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let (message, hint) = words(error);
    Problem { hint, ..Problem::at(location, message) }
}

fn words(error: &YamlError) -> (String, Option<String>) {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the reader's enum is open; what is not named here keeps the reader's own words"
    )]
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), Some(did_you_mean(field, expected)))
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown value `{variant}`"), Some(did_you_mean(variant, expected)))
        }
        YamlError::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("?");
            let hint = "remove one of the two".to_owned();
            (format!("key `{key}` is given twice"), Some(hint))
        }
        YamlError::SerdeInvalidType { unexpected, expected, .. }
        | YamlError::SerdeInvalidValue { unexpected, expected, .. } => {
            if expected == "enum" {
                return ("expected one alternative, found none".to_owned(), None);
            }
            (format!("expected {expected}, found {}", plain(unexpected)), None)
        }
        YamlError::Unexpected { expected, .. } => (format!("expected {}", kind(expected)), None),
        YamlError::ExpectedMappingEndAfterEnumVariantValue { .. } => {
            ("expected exactly one alternative, found a second".to_owned(), None)
        }
        YamlError::MultipleDocuments { .. } => {
            ("expected one recipe, found a second document".to_owned(), None)
        }
        YamlError::Budget { .. } => {
            ("the text is larger or deeper than a recipe may be".to_owned(), None)
        }
        YamlError::AliasError { error, .. } => words(error),
        other => (without_place(&other.to_string()), None),
    }
}

/// The reader's text without the place it appends; the place is shown apart.
fn without_place(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    message.lines().next().unwrap_or(message).to_owned()
}

fn kind(expected: &str) -> String {
    match expected {
        "mapping start" => "keys with values".to_owned(),
        "sequence start" => "a list".to_owned(),
        "string scalar" => "a text".to_owned(),
        other => other.to_owned(),
    }
}

/// serde's description of what was found, in the words of recipes.
fn plain(unexpected: &str) -> String {
    match unexpected {
        "map" => "keys with values".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit value" => "no value".to_owned(),
        other => match other.strip_prefix("string ") {
            Some(text) => format!("the text `{}`", text.trim_matches('"')),
            None => other.to_owned(),
        },
    }
}

fn did_you_mean(found: &str, expected: &[&'static str]) -> String {
    match suggest::nearest(found, expected) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known are `{}`", expected.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::check::{SMALL, one_problem, problems};
    use crate::recipe::{MAX_RECIPE_BYTES, load, load_text};

    #[test]
    fn a_typo_is_shown_where_it_stands_with_a_suggestion() {
        let text = SMALL.replace("steps: 300", "stpes: 300");
        one_problem(&text, (7, 8), "stpes", "unknown key `stpes`");
        assert_eq!(problems(&text)[0].hint.as_deref(), Some("did you mean `steps`?"));
    }

    #[test]
    fn a_key_without_any_likeness_lists_what_is_known() {
        let text = SMALL.replace("adapter: lora", "adapter: { lora: { zzz: 1 } }");
        one_problem(&text, (6, 20), "zzz", "unknown key `zzz`");
        let hint = problems(&text)[0].hint.clone().unwrap();
        assert!(hint.starts_with("known are `rank`, `alpha`"), "{hint}");
    }

    #[test]
    fn unknown_alternatives_are_suggested_too() {
        let text = SMALL.replace("adamw:", "adam:");
        one_problem(&text, (7, 33), "adam", "unknown value `adam`");
        assert_eq!(problems(&text)[0].hint.as_deref(), Some("did you mean `adamw`?"));
    }

    #[test]
    fn a_key_given_twice_is_shown() {
        let text = format!("{SMALL}seed: 1\nseed: 2\n");
        one_problem(&text, (10, 1), "seed", "key `seed` is given twice");
    }

    #[test]
    fn values_of_another_kind_are_shown_with_what_was_wanted() {
        let text = SMALL.replace("fit: {", "fit: 3 # {");
        one_problem(&text, (7, 6), "3", "expected keys with values");
        let text = SMALL.replace("steps: 300", "steps: '300'");
        let wanted = "`fit.steps` must be a whole number not below 0, found the text `300`";
        one_problem(&text, (7, 15), "'300'", wanted);
        let hint = problems(&text)[0].hint.clone();
        assert_eq!(hint.as_deref(), Some("numbers, `true` and `false` stand without quotes"));
        let text = SMALL.replace("steps: 300", "steps: 3.5");
        let wanted = "`fit.steps` must be a whole number not below 0, found `3.5`";
        one_problem(&text, (7, 15), "3.5", wanted);
        let text = SMALL.replace("steps: 300", "steps: [300]");
        let wanted = "`fit.steps` must be a whole number not below 0, found a list";
        one_problem(&text, (7, 15), "[", wanted);
    }

    #[test]
    fn an_empty_value_is_no_default() {
        let text = SMALL.replace("base: postcards", "base: postcards\nseed:");
        one_problem(&text, (3, 5), "", "`seed` has no value");
        let text = SMALL.replace("steps: 300", "steps: ");
        one_problem(&text, (7, 13), "", "`fit.steps` has no value");
        let text = SMALL.replace("steps: 300", "steps: ~");
        one_problem(&text, (7, 15), "~", "`fit.steps` has no value");
    }

    #[test]
    fn spans_are_bytes_also_behind_other_letters() {
        let text = SMALL.replace("name: small", "# café Œuvre\nname: é");
        let problems = problems(&text);
        assert_eq!(&text[problems[0].span.clone()], "é");
        assert_eq!((problems[0].line, problems[0].column), (2, 7));
    }

    #[test]
    fn a_span_never_leaves_the_text() {
        let text = SMALL.replace("census: {}", "census: '");
        let problem = problems(&text).remove(0);
        assert!(problem.span.end <= text.len(), "{problem:?}");
    }

    #[test]
    fn all_problems_come_at_once_in_the_order_of_the_text() {
        let text = SMALL
            .replace("name: small", "name: a/b")
            .replace("concept: cylinder, ", "")
            .replace("adapter: lora", "adapter: { lora: { rank: 0 } }")
            .replace("steps: 300", "steps: 0, save_every: 0");
        let lines: Vec<_> = problems(&text).iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 5, 6, 7, 7]);
    }

    #[test]
    fn broken_yaml_is_one_problem() {
        for text in
            ["a: [", "\t- x: y: z", "name: 'x", "- a\n- b\n", "&a [*a]", "x", "{", "? ]", "%FOO"]
        {
            assert_eq!(problems(text).len(), 1, "{text}");
        }
        let text = format!("{SMALL}---\n{SMALL}");
        assert_eq!(problems(&text).len(), 1);
    }

    #[test]
    fn an_empty_file_says_what_is_missing() {
        for text in ["", "# nothing\n", "{}"] {
            let messages: Vec<_> = problems(text).into_iter().map(|p| p.message).collect();
            let missing = ["name", "base", "dataset", "adapter", "fit"];
            assert_eq!(messages, missing.map(|key| format!("`{key}` is missing")), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = load(Path::new("no/such.yaml"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "recipe `no/such.yaml` could not be read");
        assert!(matches!(error.kind, RecipeErrorKind::Read(_)));
        assert_eq!(error.text(), None);
        let error = load(Path::new(env!("CARGO_MANIFEST_DIR")), &[]).unwrap_err();
        assert!(matches!(error.kind, RecipeErrorKind::Read(_)));
    }

    #[test]
    fn a_bomb_is_refused_before_it_grows() {
        let too_large = "#".repeat(usize::try_from(MAX_RECIPE_BYTES).unwrap() + 1);
        let error = load_text(Path::new("t.yaml"), &too_large, &[]).unwrap_err();
        assert!(matches!(error.kind, RecipeErrorKind::TooLarge { .. }));
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            let line = format!("a{level}: &a{level} [{before}]\n");
            laughs.push_str(&line);
        }
        for bomb in [
            laughs,
            format!("name: {}", "[".repeat(100_000)),
            format!("name: {}{}", "{a: ".repeat(50_000), "}".repeat(50_000)),
            "a: 1\n".repeat(100_000),
            format!("fit: {{ previews: {{ prompts: [{}] }} }}", "x, ".repeat(100_000)),
            format!("fit: {{ previews: {{ prompts: &p [x] }} }}\n{}", "a: *p\n".repeat(100)),
        ] {
            assert_eq!(problems(&bomb).len(), 1);
        }
    }

    #[test]
    fn the_hint_names_the_command_that_checks() {
        let error = load_text(Path::new("r/x.yaml"), "name: a/b", &[]).unwrap_err();
        let hint = "`populate validate r/x.yaml` checks a recipe without loading a model";
        assert_eq!(error.hint().as_deref(), Some(hint));
        assert_eq!(error.title(), "r/x.yaml");
        assert_eq!(error.to_string(), "recipe `r/x.yaml` has 5 problems");
    }
}
