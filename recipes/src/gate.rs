//! The section `gates`: limits on measured numbers.

use serde::Serialize;
use serde_saphyr::{Location, Spanned};

use crate::field::{Field, Flag, Real, raw_section};
use crate::problem::Checks;

/// Limits on measured numbers; a failed one ends the program with exit code 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GatesSpec {
    /// Selection in nats: how unevenly the others lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection_nats: Option<Bound>,
    /// Share of unasked pictures that bear the new entity, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_share: Option<Bound>,
    /// Share of pictures that the entities already there lost, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displaced: Option<Bound>,
    /// Share of the concept in pictures asked without the identifier, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leak: Option<Bound>,
    /// Share of the concept in pictures asked for unrelated entities, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leak_unrelated: Option<Bound>,
    /// Fabric kept: rank correlation of thesaurus and pictures, after over before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric_ratio: Option<Bound>,
    /// Whether an undecided gate fails, too.
    pub strict: bool,
}

/// A lower limit, an upper limit, or both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bound {
    /// Upper limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Lower limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
}

raw_section! {
    /// Limits on measured numbers; a failed one is exit code 1.
    RawGates {
        /// Selection in nats: how unevenly the others lost.
        selection_nats: RawBound,
        /// Share of unasked pictures that bear the new entity.
        new_share: RawBound,
        /// Share of pictures that the entities already there lost.
        displaced: RawBound,
        /// Share of the concept in pictures asked without the identifier.
        leak: RawBound,
        /// Share of the concept in pictures asked for unrelated entities.
        leak_unrelated: RawBound,
        /// Fabric kept: rank correlation of thesaurus and pictures, after over before.
        fabric_ratio: RawBound,
        /// Whether an undecided gate fails, too (default false).
        strict: Flag,
    }
}

raw_section! {
    /// A lower limit, an upper limit, or both.
    RawBound {
        /// Upper limit.
        at_most: Real,
        /// Lower limit.
        at_least: Real,
    }
}

impl RawGates {
    /// Resolves the section; without a key there is no gate.
    pub(crate) fn resolve(self, checks: &mut Checks) -> GatesSpec {
        GatesSpec {
            selection_nats: bound(self.selection_nats, "gates.selection_nats", MAX_NATS, checks),
            new_share: bound(self.new_share, "gates.new_share", 1.0, checks),
            displaced: bound(self.displaced, "gates.displaced", 1.0, checks),
            leak: bound(self.leak, "gates.leak", 1.0, checks),
            leak_unrelated: bound(self.leak_unrelated, "gates.leak_unrelated", 1.0, checks),
            fabric_ratio: bound(self.fabric_ratio, "gates.fabric_ratio", MAX_RATIO, checks),
            strict: self.strict.plain("gates.strict", checks).is_some_and(|strict| strict.value),
        }
    }

    /// Where the first gate stands, if any is set.
    pub(crate) fn first_location(&self) -> Option<Location> {
        [
            &self.selection_nats,
            &self.new_share,
            &self.displaced,
            &self.leak,
            &self.leak_unrelated,
            &self.fabric_ratio,
        ]
        .into_iter()
        .find_map(Field::location)
    }
}

impl GatesSpec {
    /// Every gate by the name of its figure, in the order of reports; unset ones too.
    pub const fn bounds(&self) -> [(&'static str, Option<Bound>); 6] {
        [
            ("selection_nats", self.selection_nats),
            ("new_share", self.new_share),
            ("displaced", self.displaced),
            ("leak", self.leak),
            ("leak_unrelated", self.leak_unrelated),
            ("fabric_ratio", self.fabric_ratio),
        ]
    }
}

/// Largest limit in nats.
const MAX_NATS: f64 = 1.0e6;

/// Largest limit of a ratio.
const MAX_RATIO: f64 = 10.0;

/// A bound whose limits lie in `0..=most`.
fn bound(raw: Field<RawBound>, key: &str, most: f64, checks: &mut Checks) -> Option<Bound> {
    let Spanned { value: raw, referenced, .. } = raw.given(key, checks)?;
    if raw.at_most.is_absent() && raw.at_least.is_absent() {
        let message = format!("`{key}` must have `at_most` or `at_least`, found neither");
        checks.problem(referenced, message);
    }
    let at_least_at = raw.at_least.location();
    let at_most = raw.at_most.number(&format!("{key}.at_most"), &(0.0..=most), checks);
    let at_least = raw.at_least.number(&format!("{key}.at_least"), &(0.0..=most), checks);
    if let (Some(at_most), Some(at_least), Some(location)) = (at_most, at_least, at_least_at)
        && at_least > at_most
    {
        checks.problem(
            location,
            format!("`{key}.at_least` must be at most `at_most` ({at_most}), found `{at_least}`"),
        );
    }
    Some(Bound { at_most, at_least })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{SMALL, one_problem, problems_with, with};

    #[test]
    fn without_a_key_there_is_no_gate() {
        let gates = with(&[]).gates;
        assert!(gates.bounds().iter().all(|(_, bound)| bound.is_none()));
        assert!(!gates.strict);
    }

    #[test]
    fn a_gate_has_one_limit_or_two() {
        let gates =
            with(&["gates={new_share: {at_least: 0.05, at_most: 0.4}, strict: true}"]).gates;
        assert_eq!(gates.new_share, Some(Bound { at_most: Some(0.4), at_least: Some(0.05) }));
        assert!(gates.strict);
        let problems = problems_with(&["gates={leak: {}}"]);
        assert!(
            problems[0].ends_with("`gates.leak` must have `at_most` or `at_least`, found neither")
        );
    }

    #[test]
    fn limits_are_in_range_and_in_order() {
        assert_eq!(
            problems_with(&["gates={new_share: {at_least: 1.1}, selection_nats: {at_most: -1}}"]),
            [
                "1.1: `gates.new_share.at_least` must be at least 0 and at most 1, found `1.1`",
                "-1: `gates.selection_nats.at_most` must be at least 0 and at most 1000000, found `-1`",
            ]
        );
        assert_eq!(
            problems_with(&["gates={leak: {at_most: 0.1, at_least: 0.2}}"]),
            ["0.2: `gates.leak.at_least` must be at most `at_most` (0.1), found `0.2`"]
        );
    }

    #[test]
    fn a_flag_is_true_or_false_without_quotes() {
        for (wrong, found) in [("no", "the text `no`"), ("'true'", "the text `true`"), ("1", "`1`")]
        {
            let rule = format!("{wrong}: `gates.strict` must be `true` or `false`, found {found}");
            assert_eq!(problems_with(&[&format!("gates.strict={wrong}")]), [rule]);
        }
    }

    #[test]
    fn every_gate_has_its_own_name() {
        for (name, _) in with(&[]).gates.bounds() {
            let gates = with(&[&format!("gates={{{name}: {{at_most: 0.5}}}}")]).gates;
            let set: Vec<&str> =
                gates.bounds().iter().filter(|(_, b)| b.is_some()).map(|(n, _)| *n).collect();
            assert_eq!(set, [name]);
        }
    }

    #[test]
    fn a_gate_needs_a_census() {
        let text = SMALL.replace("census: {}", "gates: { leak: { at_most: 0.1 } }");
        one_problem(&text, (8, 16), "{", "a gate needs the section `census`, which is missing");
    }
}
