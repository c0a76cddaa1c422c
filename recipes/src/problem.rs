//! A mistake in a recipe with its place in the text, and the collector that finds all of them.

use std::fmt::Display;
use std::ops::{Bound, Range, RangeBounds};

use serde_saphyr::{Location, Spanned};

use crate::choice::{Choice, UnknownWord};
use crate::field::{Field, Found, Leaf, Whole};
use crate::suggest;

/// One mistake in a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line of the text, counted from 1.
    pub line: u64,
    /// Column in characters, counted from 1.
    pub column: u64,
    /// Bytes of the text that the message is about; empty where only a position is known.
    pub span: Range<usize>,
    /// What was expected and what was found: a lowercase fragment without final period.
    pub message: String,
    /// Advice, where there is any.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at `location`.
    pub(crate) fn at(location: Location, message: impl Into<String>) -> Self {
        let span = location.span();
        let start = span.byte_offset().unwrap_or_else(|| span.offset());
        let len = span.byte_len().unwrap_or_else(|| span.len());
        let start = usize::try_from(start).unwrap_or(0);
        let len = usize::try_from(len).unwrap_or(0);
        Self {
            line: location.line(),
            column: location.column(),
            span: start..start.saturating_add(len),
            message: message.into(),
            hint: None,
        }
    }

    /// The problem with a span that lies within `text`; the YAML reader's may end behind it.
    pub(crate) fn within(self, text: &str) -> Self {
        let end = text.floor_char_boundary(self.span.end.min(text.len()));
        let start = text.floor_char_boundary(self.span.start.min(end));
        Self { span: start..end, ..self }
    }
}

/// Collects the problems of a recipe while its sections are resolved.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    problems: Vec<Problem>,
}

impl Checks {
    /// Records a mistake at `location`.
    pub(crate) fn problem(&mut self, location: Location, message: impl Into<String>) {
        self.problems.push(Problem::at(location, message));
    }

    /// Records a mistake with advice.
    pub(crate) fn problem_with_hint(
        &mut self,
        location: Location,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.push(Problem { hint: Some(hint.into()), ..Problem::at(location, message) });
    }

    /// All problems, in the order of the text.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems;
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }

    /// Records that `key` is missing from the section at `section`.
    fn missing(&mut self, section: Location, key: &str) {
        self.problem(section, format!("`{key}` is missing"));
    }

    fn empty(&mut self, location: Location, key: &str) {
        self.problem_with_hint(
            location,
            format!("`{key}` has no value"),
            format!("give `{}` a value or remove the key", last_part(key)),
        );
    }
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

impl<T> Field<T> {
    /// The value, if given; a key without value is recorded.
    pub(crate) fn given(self, key: &str, checks: &mut Checks) -> Option<Spanned<T>> {
        match self {
            Self::Absent => None,
            Self::Empty(location) => {
                checks.empty(location, key);
                None
            }
            Self::Given(spanned) => Some(spanned),
        }
    }

    /// The value, if given; a missing key is recorded at `section`, an empty one where it stands.
    pub(crate) fn required(
        self,
        key: &str,
        section: Location,
        checks: &mut Checks,
    ) -> Option<Spanned<T>> {
        if self.is_absent() {
            checks.missing(section, key);
        }
        self.given(key, checks)
    }
}

impl<T: Default> Field<T> {
    /// The section with its location; an absent one is all defaults, at the place of `parent`.
    pub(crate) fn section(self, key: &str, parent: Location, checks: &mut Checks) -> (T, Location) {
        self.given(key, checks)
            .map_or_else(|| (T::default(), parent), |spanned| (spanned.value, spanned.referenced))
    }
}

impl<T> Field<Choice<T>> {
    /// The alternative, if given; an unknown word is recorded.
    pub(crate) fn chosen(self, key: &str, checks: &mut Checks) -> Option<Spanned<T>> {
        let Spanned { value, referenced, defined } = self.given(key, checks)?;
        match value {
            Choice::Known(value) => Some(Spanned { value, referenced, defined }),
            Choice::Unknown(UnknownWord { word, expected }) => {
                let message = format!(
                    "`{key}` must be one of `{}`, found `{}`",
                    expected.join("`, `"),
                    word.escape_debug()
                );
                let hint = suggest::nearest(&word, expected);
                let hint = hint.map(|word| format!("did you mean `{word}`?"));
                checks.problems.push(Problem { hint, ..Problem::at(referenced, message) });
                None
            }
        }
    }

    /// The alternative or `default`.
    pub(crate) fn choice_or(self, default: T, key: &str, checks: &mut Checks) -> T {
        self.chosen(key, checks).map_or(default, |chosen| chosen.value)
    }

    /// The alternative, which must be given; a missing key is recorded at `section`.
    pub(crate) fn required_choice(
        self,
        key: &str,
        section: Location,
        checks: &mut Checks,
    ) -> Option<Spanned<T>> {
        if self.is_absent() {
            checks.missing(section, key);
        }
        self.chosen(key, checks)
    }
}

/// The plain value of a leaf; a value of another kind is recorded.
pub(crate) fn plain<T: Leaf>(
    leaf: Spanned<T>,
    key: &str,
    checks: &mut Checks,
) -> Option<Spanned<T::Plain>> {
    let Spanned { value, referenced, defined } = leaf;
    match value.plain() {
        Ok(value) => Some(Spanned { value, referenced, defined }),
        Err(found) => {
            let message = format!("`{key}` must be {}, found {found}", T::EXPECTED);
            let hint = looks_plain(&found)
                .then(|| "numbers, `true` and `false` stand without quotes".to_owned());
            checks.problems.push(Problem { hint, ..Problem::at(referenced, message) });
            None
        }
    }
}

/// True for a text that would be a number or a flag without its quotes.
fn looks_plain(found: &Found) -> bool {
    matches!(found, Found::Text(text)
        if text.parse::<f64>().is_ok() || text.to_lowercase().parse::<bool>().is_ok())
}

impl<T: Leaf> Field<T> {
    /// The plain value, if given; one of another kind is recorded.
    pub(crate) fn plain(self, key: &str, checks: &mut Checks) -> Option<Spanned<T::Plain>> {
        let leaf = self.given(key, checks)?;
        plain(leaf, key, checks)
    }
}

impl<T: Leaf<Plain: Display>> Field<T> {
    /// The number if given, checked against `range`.
    pub(crate) fn number(
        self,
        key: &str,
        range: &impl RangeBounds<T::Plain>,
        checks: &mut Checks,
    ) -> Option<T::Plain> {
        let Spanned { value, referenced, .. } = self.plain(key, checks)?;
        check_range(value, key, range, referenced, checks);
        Some(value)
    }

    /// The number or `default`, checked against `range`.
    pub(crate) fn number_or(
        self,
        default: T::Plain,
        key: &str,
        range: &impl RangeBounds<T::Plain>,
        checks: &mut Checks,
    ) -> T::Plain {
        self.number(key, range, checks).unwrap_or(default)
    }

    /// The number, which must be given, checked against `range`.
    pub(crate) fn required_number(
        self,
        key: &str,
        section: Location,
        range: &impl RangeBounds<T::Plain>,
        checks: &mut Checks,
    ) -> Option<T::Plain> {
        if self.is_absent() {
            checks.missing(section, key);
        }
        self.number(key, range, checks)
    }
}

impl Field<Whole> {
    /// A count that fits `u32`, or `default`.
    pub(crate) fn count_or(
        self,
        default: u32,
        key: &str,
        range: &impl RangeBounds<u64>,
        checks: &mut Checks,
    ) -> u32 {
        // A value outside its range is recorded already, so what stands in for it is never seen.
        let count = self.number(key, range, checks);
        count.map_or(default, |count| u32::try_from(count).unwrap_or(u32::MAX))
    }
}

/// Records a value outside `range`, in words: "`x` must be above 0 and at most 1, found `2`".
pub(crate) fn check_range<N: PartialOrd + Display + Copy>(
    value: N,
    key: &str,
    range: &impl RangeBounds<N>,
    location: Location,
    checks: &mut Checks,
) {
    // No range contains NaN; the bounds of ranges are finite, so none contains an infinity.
    if range.contains(&value) {
        return;
    }
    let low = match range.start_bound() {
        Bound::Included(low) => Some(format!("at least {low}")),
        Bound::Excluded(low) => Some(format!("above {low}")),
        Bound::Unbounded => None,
    };
    let high = match range.end_bound() {
        Bound::Included(high) => Some(format!("at most {high}")),
        Bound::Excluded(high) => Some(format!("below {high}")),
        Bound::Unbounded => None,
    };
    let rule = match (low, high) {
        (Some(low), Some(high)) => format!("{low} and {high}"),
        (Some(rule), None) | (None, Some(rule)) => rule,
        (None, None) => "a finite number".to_owned(),
    };
    checks.problem(location, format!("`{key}` must be {rule}, found `{value}`"));
}

/// Above `low`, up to and including `high`.
pub(crate) fn above(low: f64, high: f64) -> (Bound<f64>, Bound<f64>) {
    (Bound::Excluded(low), Bound::Included(high))
}

/// The items of a list; an item without value is recorded.
pub(crate) fn items<T>(list: Vec<Field<T>>, key: &str, checks: &mut Checks) -> Vec<Spanned<T>> {
    list.into_iter().filter_map(|item| item.given(key, checks)).collect()
}

/// The plain items of a list; items without value or of another kind are recorded.
pub(crate) fn plain_items<T: Leaf>(
    list: Vec<Field<T>>,
    key: &str,
    checks: &mut Checks,
) -> Vec<Spanned<T::Plain>> {
    list.into_iter().filter_map(|item| item.plain(key, checks)).collect()
}
