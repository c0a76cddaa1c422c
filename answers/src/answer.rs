//! Owns the form of a known answer: what was found beside what is known, and what went in.

use serde::Serialize;
use serde_json::{Value, json};

/// One number that is known beforehand, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What is compared, in words.
    pub what: String,
    /// What was found.
    pub found: f64,
    /// The known value; `None` where only a bound is known.
    pub expected: Option<f64>,
    /// Largest distance from `expected`; 0 asks for the value itself.
    pub tolerance: Option<f64>,
    /// Least value that passes; `None` for none.
    pub low: Option<f64>,
    /// Largest value that passes; `None` for none.
    pub high: Option<f64>,
}

impl Check {
    /// A value known up to `tolerance`: |found − expected| ≤ tolerance.
    pub fn new(what: impl Into<String>, found: f64, expected: f64, tolerance: f64) -> Self {
        Self {
            what: what.into(),
            found,
            expected: Some(expected),
            tolerance: Some(tolerance),
            low: Some(expected - tolerance),
            high: Some(expected + tolerance),
        }
    }

    /// A value that is known to reach `bound`.
    pub fn at_least(what: impl Into<String>, found: f64, bound: f64) -> Self {
        Self::within(what.into(), found, Some(bound), None)
    }

    /// A value that is known not to exceed `bound`.
    pub fn at_most(what: impl Into<String>, found: f64, bound: f64) -> Self {
        Self::within(what.into(), found, None, Some(bound))
    }

    /// A value that is known to lie between two bounds, both included.
    pub fn between(what: impl Into<String>, found: f64, low: f64, high: f64) -> Self {
        Self::within(what.into(), found, Some(low), Some(high))
    }

    fn within(what: String, found: f64, low: Option<f64>, high: Option<f64>) -> Self {
        Self { what, found, expected: None, tolerance: None, low, high }
    }

    /// Whether what was found is what is known. A value that is not a number never is.
    pub fn holds(&self) -> bool {
        if let (Some(expected), Some(tolerance)) = (self.expected, self.tolerance) {
            return (self.found - expected).abs() <= tolerance;
        }
        let high_enough = self.low.is_none_or(|low| self.found >= low);
        let low_enough = self.high.is_none_or(|high| self.found <= high);
        high_enough && low_enough && !self.found.is_nan()
    }

    /// The check as JSON, with the verdict.
    pub fn to_json(&self) -> Value {
        json!({
            "what": self.what, "found": self.found, "expected": self.expected,
            "tolerance": self.tolerance, "low": self.low, "high": self.high,
            "holds": self.holds(),
        })
    }
}

/// All checks of one known answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Name of the known answer.
    pub name: &'static str,
    /// What was compared.
    pub checks: Vec<Check>,
    /// What went in and what came between, so that a second program can compute the same.
    pub inputs: Value,
}

impl Answer {
    /// Whether every check holds. An answer without checks proves nothing and does not hold.
    pub fn holds(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(Check::holds)
    }

    /// The answer as JSON: `{name, holds, checks, inputs}`.
    pub fn to_json(&self) -> Value {
        let checks: Vec<Value> = self.checks.iter().map(Check::to_json).collect();
        json!({
            "name": self.name, "holds": self.holds(), "checks": checks, "inputs": self.inputs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_within_its_tolerance_and_not_beyond() {
        assert!(Check::new("x", 1.25, 1.0, 0.25).holds());
        assert!(!Check::new("x", 1.251, 1.0, 0.25).holds());
        assert!(!Check::new("x", 0.749, 1.0, 0.25).holds());
        assert!(Check::new("x", 3.0, 3.0, 0.0).holds());
        assert!(!Check::new("x", 3.0 + f64::EPSILON * 4.0, 3.0, 0.0).holds());
    }

    #[test]
    fn bounds_are_included_and_bind_on_their_own_side_only() {
        assert!(Check::at_least("x", 0.5, 0.5).holds() && Check::at_least("x", 9.0, 0.5).holds());
        assert!(!Check::at_least("x", 0.4, 0.5).holds());
        assert!(Check::at_most("x", 0.5, 0.5).holds() && Check::at_most("x", -9.0, 0.5).holds());
        assert!(!Check::at_most("x", 0.6, 0.5).holds());
        assert!(Check::between("x", 0.5, 0.0, 0.5).holds());
        assert!(!Check::between("x", 0.51, 0.0, 0.5).holds());
        assert!(!Check::between("x", -0.01, 0.0, 0.5).holds());
    }

    #[test]
    fn what_is_not_a_number_never_holds() {
        for check in [
            Check::new("x", f64::NAN, 0.0, f64::INFINITY),
            Check::at_least("x", f64::NAN, 0.0),
            Check::at_most("x", f64::NAN, 0.0),
            Check::between("x", f64::NAN, 0.0, 1.0),
        ] {
            assert!(!check.holds(), "{check:?}");
        }
    }

    #[test]
    fn an_answer_holds_if_all_of_it_does_and_there_is_something() {
        let answer = |checks| Answer { name: "x", checks, inputs: Value::Null };
        let (good, bad) = (Check::new("a", 1.0, 1.0, 0.0), Check::at_most("b", 2.0, 1.0));
        assert!(answer(vec![good.clone()]).holds());
        assert!(!answer(vec![good, bad]).holds());
        assert!(!answer(Vec::new()).holds());
    }

    #[test]
    fn the_json_form_says_what_is_open_and_what_holds() {
        let answer = Answer {
            name: "x",
            checks: vec![Check::new("a", 1.0, 1.5, 0.25), Check::at_least("b", 2.0, 1.0)],
            inputs: json!({ "n": 3 }),
        };
        let expected = json!({
            "name": "x", "holds": false, "inputs": { "n": 3 },
            "checks": [
                { "what": "a", "found": 1.0, "expected": 1.5, "tolerance": 0.25,
                  "low": 1.25, "high": 1.75, "holds": false },
                { "what": "b", "found": 2.0, "expected": null, "tolerance": null,
                  "low": 1.0, "high": null, "holds": true },
            ],
        });
        assert_eq!(answer.to_json(), expected);
    }
}
