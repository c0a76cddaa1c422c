//! How errors look: one sentence, the places in the text, the causes, the advice.
//!
//! ```text
//! error: recipe `recipes/inkwash.yaml` has 1 problem
//!   --> recipes/inkwash.yaml:17:15
//! 17 |   save_every: 2000
//!    |               ^^^^ no checkpoint would be written: `fit.steps` is 1500
//! hint: `populate validate recipes/inkwash.yaml` checks a recipe without loading a model
//! ```

use std::error::Error;

use eval::EvalError;
use recipes::Problem;
use serde_json::{Value, json};

use crate::error::JobError;
use crate::exit::Exit;
use crate::terminal::{Line, Paint};

/// Widest part of a source line that is shown, in characters.
const MAX_LINE: usize = 160;
/// Most warnings about one text that people are shown; an imported vocabulary may have thousands.
const MAX_WARNINGS: usize = 20;

/// Mistakes in a text: of a recipe, a thesaurus or a panel.
struct Marked<'a> {
    /// What the text is called.
    title: String,
    /// What the mistakes point into.
    text: &'a str,
    /// The mistakes, in the order of the text.
    problems: &'a [Problem],
}

/// The mistakes that an error is about, if it is about a text.
fn marked(error: &JobError) -> Option<Marked<'_>> {
    if let JobError::Recipe(recipe) = error {
        let (title, text) = (recipe.title(), recipe.text()?);
        return Some(Marked { title, text, problems: &recipe.problems });
    }
    if let JobError::Eval(EvalError::Catalogue { name, text, problems }) = error {
        return Some(Marked { title: name.clone(), text, problems });
    }
    None
}

/// The lines of an error, for people.
pub(crate) fn lines(error: &JobError) -> Vec<Line> {
    let mut lines = headline(&error.to_string());
    if let Some(marked) = marked(error) {
        for problem in marked.problems {
            lines.extend(place(&marked, problem, Paint::Error));
        }
    } else {
        for cause in causes(error) {
            lines.push(vec![(Paint::Plain, format!("  cause: {cause}"))]);
        }
    }
    lines.extend(error.hint().as_deref().map(hint));
    lines
}

/// What is worth a second look in a text that has no mistakes, for people; nothing of nothing.
pub(crate) fn warnings(title: &str, text: &str, problems: &[Problem]) -> Vec<Line> {
    let message = match problems.len() {
        0 => return Vec::new(),
        1 => format!(": `{title}` has 1 place worth a second look"),
        n => format!(": `{title}` has {n} places worth a second look"),
    };
    let mut lines = vec![vec![(Paint::Warning, "warning".to_owned()), (Paint::Plain, message)]];
    let marked = Marked { title: title.to_owned(), text, problems };
    for problem in problems.iter().take(MAX_WARNINGS) {
        lines.extend(place(&marked, problem, Paint::Warning));
    }
    if problems.len() > MAX_WARNINGS {
        let rest =
            format!("and {} more, all of which `--json` tells", problems.len() - MAX_WARNINGS);
        lines.push(vec![(Paint::Plain, rest)]);
    }
    lines
}

/// The same error, for programs.
pub(crate) fn json(error: &JobError) -> Value {
    let problems = marked(error).map(|marked| problems_json(marked.problems));
    json!({
        "event": "error",
        "exit_code": error.exit().code(),
        "message": error.to_string(),
        "causes": causes(error),
        "problems": problems.unwrap_or_default(),
        "hint": error.hint(),
    })
}

/// The record of an end that no [`JobError`] describes.
pub(crate) fn plain_json(exit: Exit, message: &str) -> Value {
    json!({ "event": "error", "exit_code": exit.code(), "message": message })
}

/// `error: …`, further lines of the message as they are.
pub(crate) fn headline(message: &str) -> Vec<Line> {
    let mut rest = message.lines();
    let first = rest.next().unwrap_or_default();
    let mut lines =
        vec![vec![(Paint::Error, "error".to_owned()), (Paint::Strong, format!(": {first}"))]];
    lines.extend(rest.map(|line| vec![(Paint::Plain, line.to_owned())]));
    lines
}

/// `hint: …`.
pub(crate) fn hint(text: &str) -> Line {
    vec![(Paint::Hint, "hint".to_owned()), (Paint::Plain, format!(": {text}"))]
}

/// The chain of sources, outermost first. Mistakes in a text are shown in it instead.
fn causes(error: &JobError) -> Vec<String> {
    if marked(error).is_some() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes
}

/// Mistakes or warnings, for programs.
pub(crate) fn problems_json(problems: &[Problem]) -> Vec<Value> {
    let one = |problem: &Problem| {
        json!({
            "line": problem.line,
            "column": problem.column,
            "message": problem.message,
            "hint": problem.hint,
        })
    };
    problems.iter().map(one).collect()
}

/// Where a mistake stands: position, line, carets, message, advice.
fn place(marked: &Marked<'_>, problem: &Problem, paint: Paint) -> Vec<Line> {
    let text = marked.text;
    let position = format!("{}:{}:{}", marked.title, problem.line, problem.column);
    let mut lines = vec![vec![(Paint::Plain, "  --> ".to_owned()), (Paint::Place, position)]];
    let number = problem.line.to_string();
    let index = usize::try_from(problem.line).unwrap_or(0).wrapping_sub(1);
    let Some(source) = text.lines().nth(index) else {
        lines.push(vec![(Paint::Plain, format!("  {}", problem.message))]);
        lines.extend(problem.hint.as_deref().map(hint));
        return lines;
    };
    let (indent, marks) = (caret_column(source, problem), caret_count(text, source, problem));
    let gutter = " ".repeat(number.len());
    let bar = |left: &str| (Paint::Place, format!("{left} | "));
    lines.push(vec![bar(&number), (Paint::Plain, shown(source))]);
    lines.push(vec![
        bar(&gutter),
        (paint, format!("{}{}", " ".repeat(indent), "^".repeat(marks))),
        (Paint::Plain, format!(" {}", problem.message)),
    ]);
    if let Some(advice) = &problem.hint {
        lines.push(vec![
            bar(&gutter),
            (Paint::Hint, format!("{}hint", " ".repeat(indent))),
            (Paint::Plain, format!(": {advice}")),
        ]);
    }
    lines
}

/// A source line as it is shown: tabs as single blanks, so that carets stand below their place.
fn shown(source: &str) -> String {
    let line: String = source.chars().take(MAX_LINE).collect();
    line.replace('\t', " ")
}

fn caret_column(source: &str, problem: &Problem) -> usize {
    let column = usize::try_from(problem.column).unwrap_or(1).saturating_sub(1);
    column.min(source.chars().count()).min(MAX_LINE)
}

/// Characters of the span within its first line, at least one.
fn caret_count(text: &str, source: &str, problem: &Problem) -> usize {
    let spanned = text.get(problem.span.clone()).unwrap_or_default();
    let first = spanned.lines().next().unwrap_or_default().trim_end();
    let rest = source.chars().count().saturating_sub(caret_column(source, problem));
    first.chars().count().clamp(1, rest.clamp(1, MAX_LINE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn text_of(error: &JobError) -> String {
        let line = |line: Line| line.into_iter().map(|(_, text)| text).collect::<String>();
        lines(error).into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_problem_is_shown_in_its_line() {
        let text = "name: a\nfit:\n  stpes: 3\n";
        let error = recipes::load_text(Path::new("a.yaml"), text, &[]).unwrap_err();
        let shown = text_of(&JobError::Recipe(error));
        assert!(
            shown.starts_with("error: recipe `a.yaml` has 1 problem\n  --> a.yaml:3:3\n"),
            "{shown}"
        );
        assert!(shown.contains("3 |   stpes: 3\n  |   ^"), "{shown}");
        assert!(shown.contains("did you mean `steps`?"), "{shown}");
        assert!(shown.ends_with("checks a recipe without loading a model"), "{shown}");
    }

    #[test]
    fn all_problems_of_a_recipe_are_shown_at_once() {
        let text = "name: \"/\"\nseed: -1\n";
        let error = recipes::load_text(Path::new("a.yaml"), text, &[]).unwrap_err();
        let n_problems = error.problems.len();
        assert!(n_problems >= 3, "{n_problems}");
        assert_eq!(text_of(&JobError::Recipe(error)).matches("  --> ").count(), n_problems);
    }

    #[test]
    fn mistakes_of_a_thesaurus_are_shown_in_their_lines() {
        let text = "schema: populate/thesaurus/1\nid: t\nlanguages: [en]\nfacets: { subject: {} }\n\
                    entities:\n  tower: { facet: subject, broader: castle, label: { en: tower } }\n  \
                    house: { facet: subject }\n";
        let error = JobError::Eval(eval::thesaurus::parse(text, "t.yaml").unwrap_err());
        let shown = text_of(&error);
        assert!(
            shown.starts_with(
                "error: `t.yaml` has 2 problems\n  --> t.yaml:6:37\n\
                 6 |   tower: { facet: subject, broader: castle, label: { en: tower } }\n"
            ),
            "{shown}"
        );
        assert!(shown.contains("^^^^^^ `tower` has the unknown broader `castle`"), "{shown}");
        assert!(shown.contains("  --> t.yaml:7:3\n"), "{shown}");
        assert!(!shown.contains("cause:"), "{shown}");
        let record = json(&error);
        assert_eq!(record["exit_code"], 65);
        assert_eq!(record["problems"][0]["line"], 6);
        assert_eq!(record["problems"][1]["message"], "`house` has no label in `en`");
    }

    #[test]
    fn warnings_are_shown_in_their_lines() {
        let problem =
            Problem { line: 2, column: 4, span: 5..7, message: "twice".to_owned(), hint: None };
        let lines = warnings("t.yaml", "a\nb: cc\n", std::slice::from_ref(&problem));
        let text = |line: &Line| line.iter().map(|(_, text)| text.as_str()).collect::<String>();
        let shown: Vec<String> = lines.iter().map(text).collect();
        assert_eq!(
            shown,
            [
                "warning: `t.yaml` has 1 place worth a second look",
                "  --> t.yaml:2:4",
                "2 | b: cc",
                "  |    ^^ twice"
            ]
        );
        assert!(warnings("t.yaml", "", &[]).is_empty());
        let many = vec![problem; MAX_WARNINGS + 3];
        let lines = warnings("t.yaml", "a\nb: cc\n", &many);
        assert_eq!(lines.len(), 1 + 3 * MAX_WARNINGS + 1);
        assert_eq!(text(&lines[lines.len() - 1]), "and 3 more, all of which `--json` tells");
    }

    #[test]
    fn causes_follow_without_being_repeated() {
        let error = recipes::load(Path::new("/nonexistent.yaml"), &[]).unwrap_err();
        let error = JobError::Recipe(error);
        let shown = text_of(&error);
        assert!(
            shown.starts_with("error: recipe `/nonexistent.yaml` could not be read\n  cause: ")
        );
        assert_eq!(json(&error)["exit_code"], 64);
    }

    #[test]
    fn hostile_positions_do_not_break_the_layout() {
        let problem =
            Problem { line: 1, column: 999, span: 3..9999, message: "m".to_owned(), hint: None };
        assert_eq!(caret_column("abc", &problem), 3);
        assert_eq!(caret_count("abc", "abc", &problem), 1);
    }
}
