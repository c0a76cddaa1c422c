//! Known answer of series: variance between groups of pictures.

use crate::answer::{Answer, Check};
use eval::EvalError;
use serde_json::json;
use statistics::permanova::Permanova;

/// Squared distances split by groups.
type Split<'a> = &'a dyn Fn(&[Vec<f64>], &[usize]) -> Option<Permanova>;

/// Two groups of three points on a line.
const POINTS: [f64; 6] = [0.0, 1.0, 2.0, 4.0, 5.0, 6.0];
/// Their groups.
const GROUPS: [usize; 6] = [0, 0, 0, 1, 1, 1];

/// KAT `permanova`: two groups on a line, and things that are all equally far apart, for which F is 1
/// and ω² is 0 although R² is not.
///
/// Source: Anderson 2001; scikit-bio `permanova` gives F = 24.
///
/// # Errors
///
/// None.
pub fn permanova(_seed: u64) -> Result<Answer, EvalError> {
    Ok(permanova_with(&statistics::permanova::permanova))
}

fn permanova_with(split: Split<'_>) -> Answer {
    let line: Vec<Vec<f64>> =
        POINTS.iter().map(|a| POINTS.iter().map(|b| (a - b).abs()).collect()).collect();
    let apart = |i: usize, j: usize| if i == j { 0.0 } else { 2.5 };
    let equal: Vec<Vec<f64>> = (0..6).map(|i| (0..6).map(|j| apart(i, j)).collect()).collect();
    let nothing = [f64::NAN; 5];
    let figures = |distances: &[Vec<f64>]| {
        split(distances, &GROUPS).map_or(nothing, |s| [s.sst, s.ssw, s.f, s.r2, s.omega2])
    };
    let mut checks = Vec::new();
    let names = ["SST", "SSW", "F", "R²", "ω²"];
    let known = [28.0, 4.0, 24.0, 6.0 / 7.0, 23.0 / 29.0];
    for ((name, found), expected) in names.into_iter().zip(figures(&line)).zip(known) {
        checks.push(Check::new(format!("{name} of two groups on a line"), found, expected, 1e-9));
    }
    let [_, _, f, r2, omega2] = figures(&equal);
    checks.extend([
        Check::new("F of equal distances", f, 1.0, 1e-9),
        Check::new("R² of equal distances", r2, 0.2, 1e-9),
        Check::new("ω² of equal distances", omega2, 0.0, 1e-9),
    ]);
    let inputs = json!({ "points": POINTS, "groups": GROUPS, "line": line, "equal": equal });
    Answer { name: "permanova", checks, inputs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permanova_is_known() {
        let answer = permanova(1).unwrap();
        assert!(answer.holds(), "{answer:?}");
    }

    #[test]
    fn distances_that_are_not_squared_fail() {
        let mutant = |distances: &[Vec<f64>], groups: &[usize]| {
            let roots: Vec<Vec<f64>> =
                distances.iter().map(|row| row.iter().map(|d| libm::sqrt(*d)).collect()).collect();
            statistics::permanova::permanova(&roots, groups)
        };
        assert!(!permanova_with(&mutant).holds());
    }

    #[test]
    fn groups_that_are_mixed_up_fail() {
        let mutant = |distances: &[Vec<f64>], _: &[usize]| {
            statistics::permanova::permanova(distances, &[0, 1, 0, 1, 0, 1])
        };
        assert!(!permanova_with(&mutant).holds());
    }
}
