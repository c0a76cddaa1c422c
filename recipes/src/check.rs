//! What tests of all sections share: a small recipe, changed in one place, and its problems.

use std::path::Path;

use crate::problem::Problem;
use crate::recipe::{Loaded, Recipe, load_text};

/// A recipe with as little as a recipe can have.
pub(crate) const SMALL: &str = "\
name: small
base: postcards
dataset:
  dreambooth:
    instance: { concept: cylinder, identifier: sks, class: tower, prompt: a sks tower }
adapter: lora
fit: { steps: 300, optimizer: { adamw: { learning_rate: 1.0e-3 } } }
census: {}
";

/// The recipe of `text`.
pub(crate) fn recipe(text: &str) -> Recipe {
    match load_text(Path::new("t.yaml"), text, &[]) {
        Ok(Loaded::Settle(recipe)) => *recipe,
        other => panic!("expected a settlement, found {other:?}\n{text}"),
    }
}

/// [`SMALL`] with overrides, resolved.
pub(crate) fn with(sets: &[&str]) -> Recipe {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    match load_text(Path::new("t.yaml"), SMALL, &sets) {
        Ok(Loaded::Settle(recipe)) => *recipe,
        other => panic!("expected a settlement, found {other:?}"),
    }
}

/// The problems of `text`.
pub(crate) fn problems(text: &str) -> Vec<Problem> {
    match load_text(Path::new("t.yaml"), text, &[]) {
        Ok(loaded) => panic!("expected problems, found {loaded:?}\n{text}"),
        Err(error) => error.problems,
    }
}

/// The problems of [`SMALL`] with overrides, each as `what it points at: message`.
pub(crate) fn problems_with(sets: &[&str]) -> Vec<String> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    match load_text(Path::new("t.yaml"), SMALL, &sets) {
        Ok(loaded) => panic!("expected problems of {sets:?}, found {loaded:?}"),
        Err(error) => {
            let text = error.text().unwrap_or_default();
            let shown =
                |problem: &Problem| format!("{}: {}", &text[problem.span.clone()], problem.message);
            error.problems.iter().map(shown).collect()
        }
    }
}

/// Asserts that `text` has exactly one problem, at `line` and `column`, whose span is `marked`.
#[track_caller]
pub(crate) fn one_problem(text: &str, (line, column): (u64, u64), marked: &str, message: &str) {
    let problems = problems(text);
    let [problem] = problems.as_slice() else {
        panic!("expected one problem, found {problems:#?}")
    };
    assert_eq!((problem.line, problem.column), (line, column), "{problem:?}");
    assert_eq!(&text[problem.span.clone()], marked, "{problem:?}");
    assert_eq!(problem.message, message);
}
