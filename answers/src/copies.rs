//! Known answers of collapse, copying and leaking.

use crate::answer::{Answer, Check};
use eval::EvalError;
use eval::detector::Detector;
use serde_json::json;
use statistics::kernel::{cosines, gini, vendi};
use statistics::ranks::auc;

/// Vendi scores of order 1, 2 and ∞ of a table of similarities.
type Scores<'a> = &'a dyn Fn(&[Vec<f64>]) -> Option<[f64; 3]>;

/// KAT `collapse`: eight pictures that have nothing in common, that are one and the same, and that are
/// two kinds of four; counts that are even, and that one has all of.
///
/// Source: Friedman & Dieng 2023, arXiv:2210.02410.
///
/// # Errors
///
/// None.
pub fn collapse(_seed: u64) -> Result<Answer, EvalError> {
    Ok(collapse_with(&vendi))
}

fn collapse_with(scores: Scores<'_>) -> Answer {
    let pictures = |kinds: usize| -> Vec<Vec<f32>> {
        let one = |i: usize| -> Vec<f32> {
            (0..8).map(|j| if i % kinds == j { 1.0 } else { 0.0 }).collect()
        };
        (0..8).map(one).collect()
    };
    let mut checks = Vec::new();
    for (kinds, expected) in [(8, 8.0), (1, 1.0), (2, 2.0)] {
        let found = scores(&cosines(&pictures(kinds))).unwrap_or([f64::NAN; 3]);
        for (order, value) in ["1", "2", "∞"].into_iter().zip(found) {
            let what = format!("Vendi score of order {order}, {kinds} kinds among 8");
            checks.push(Check::new(what, value, expected, 1e-9));
        }
    }
    for n in [4_u32, 10] {
        let even: Vec<u64> = (0..n).map(|_| 3).collect();
        let one: Vec<u64> = (0..n).map(|i| if i == 1 { 12 } else { 0 }).collect();
        let of = |counts: &[u64]| gini(counts).unwrap_or(f64::NAN);
        let all_on_one = 1.0 - 1.0 / f64::from(n);
        checks.push(Check::new(format!("Gini of {n} equal counts"), of(&even), 0.0, 1e-9));
        checks.push(Check::new(format!("Gini, all on one of {n}"), of(&one), all_on_one, 1e-9));
    }
    let inputs = json!({ "pictures": 8, "kinds": [8, 1, 2], "references": [4, 10] });
    Answer { name: "collapse", checks, inputs }
}

/// A share behind a detector's rate.
type Correction<'a> = &'a dyn Fn(&Detector, f64) -> Result<f64, String>;

/// KAT `bleed`: a detector that finds 92 of 100 and errs on 1 of 100, on prompts with and without the
/// identifier; the area under the curve of its yes and no.
///
/// Source: Rogan & Gladen 1978.
///
/// # Errors
///
/// None.
pub fn bleed(_seed: u64) -> Result<Answer, EvalError> {
    Ok(bleed_with(&|detector, rate| detector.correct(rate)))
}

fn bleed_with(correction: Correction<'_>) -> Answer {
    let detector = Detector {
        threshold: 0.8,
        found: 92,
        references: 100,
        false_alarms: 10,
        base_pictures: 1000,
    };
    let observed = |share: f64| share * detector.tpr() + (1.0 - share) * detector.fpr();
    let (with, without) = (observed(0.9), observed(0.1));
    let corrected = |rate: f64| correction(&detector, rate).unwrap_or(f64::NAN);
    // A thousand prompts each; the detector says yes or no.
    let answers = |rate: f64| -> Vec<f64> {
        (0..1000_u32).map(|i| f64::from(u8::from(f64::from(i) + 0.5 < 1000.0 * rate))).collect()
    };
    let selectivity = auc(&answers(with), &answers(without)).unwrap_or(f64::NAN);
    Answer {
        name: "bleed",
        checks: vec![
            Check::new("observed rate with the identifier", with, 0.829, 1e-9),
            Check::new("observed rate without it", without, 0.101, 1e-9),
            Check::new("share with the identifier", corrected(with), 0.9, 1e-9),
            Check::new("share without it", corrected(without), 0.1, 1e-9),
            Check::new("selectivity", selectivity, 0.864, 1e-9),
        ],
        inputs: json!({
            "found": 92, "references": 100, "false_alarms": 10, "base_pictures": 1000,
            "shares": [0.9, 0.1],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use statistics::algebra::eigenvalues;

    #[test]
    fn collapse_is_known() {
        let answer = collapse(1).unwrap();
        assert!(answer.holds(), "{answer:?}");
    }

    #[test]
    fn scores_that_are_not_divided_by_the_number_of_pictures_fail() {
        let mutant = |similarities: &[Vec<f64>]| {
            let values = eigenvalues(similarities);
            let entropy: f64 =
                values.iter().filter(|&&x| x > 1e-12).map(|&x| -x * libm::log(x)).sum();
            Some([libm::exp(entropy); 3])
        };
        assert!(!collapse_with(&mutant).holds());
    }

    #[test]
    fn bleed_is_known() {
        let answer = bleed(1).unwrap();
        assert!(answer.holds(), "{answer:?}");
    }

    #[test]
    fn raw_rates_are_not_shares() {
        assert!(!bleed_with(&|_, rate| Ok(rate)).holds());
        // Nor is it enough to take out the false alarms alone.
        let half = |detector: &Detector, rate: f64| -> Result<f64, String> {
            Ok((rate - detector.fpr()).max(0.0))
        };
        assert!(!bleed_with(&half).holds());
    }
}
