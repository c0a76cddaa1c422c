//! Finds the settled concept in a picture. The evaluator does not know the identifier, so a picture is
//! compared with reference pictures: `g(x) = max_r cos(f(x), f(r))`. Works on precomputed cosines.

use recipes::draws;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::calibrate::rogan_gladen;
use statistics::number::{index, real, real_u64};

/// Share of base pictures on which the detector may fire.
pub const FALSE_POSITIVES: f64 = 0.01;
/// Fewest reference pictures for a correction to be believed.
pub const LEAST_REFERENCES: u64 = 5;

/// A threshold on `g`, and how often the detector is right and wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Detector {
    /// The detector fires where `g(x)` is above this cosine.
    pub threshold: f64,
    /// References found when compared with the other references (after VAE encode and decode).
    pub found: u64,
    /// References tried.
    pub references: u64,
    /// Base pictures on which it fires, of seeds the census does not use.
    pub false_alarms: u64,
    /// Base pictures tried.
    pub base_pictures: u64,
}

impl Detector {
    /// Sets the threshold so that at most [`FALSE_POSITIVES`] of `base_scores` lie above it, and
    /// counts how many `reference_scores` (each against the *other* references) do. `None` without
    /// base pictures.
    pub fn fit(base_scores: &[f64], reference_scores: &[f64]) -> Option<Self> {
        let mut sorted = base_scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let threshold = *sorted.get(index(FALSE_POSITIVES * real(sorted.len())))?;
        let above = |scores: &[f64]| count(scores.iter().filter(|&&g| g > threshold).count());
        Some(Self {
            threshold,
            found: above(reference_scores),
            references: count(reference_scores.len()),
            false_alarms: above(base_scores),
            base_pictures: count(base_scores.len()),
        })
    }

    /// The same threshold, with false alarms counted on base pictures that did not set it.
    #[must_use]
    pub fn held_out(self, base_scores: &[f64]) -> Self {
        let false_alarms = count(base_scores.iter().filter(|&&g| self.fires(g)).count());
        Self { false_alarms, base_pictures: count(base_scores.len()), ..self }
    }

    /// Whether the detector fires on a picture of score `g`.
    pub fn fires(&self, g: f64) -> bool {
        g > self.threshold
    }

    /// True-positive rate.
    pub fn tpr(&self) -> f64 {
        real_u64(self.found) / real_u64(self.references.max(1))
    }

    /// False-positive rate.
    pub fn fpr(&self) -> f64 {
        real_u64(self.false_alarms) / real_u64(self.base_pictures.max(1))
    }

    /// The share of concept pictures behind an observed rate `q`.
    ///
    /// # Errors
    ///
    /// The reason for a refusal: fewer than [`LEAST_REFERENCES`] references, or rates too close.
    pub fn correct(&self, q: f64) -> Result<f64, String> {
        if self.references < LEAST_REFERENCES {
            return Err(format!(
                "{} reference pictures, at least {LEAST_REFERENCES} are needed",
                self.references
            ));
        }
        rogan_gladen(q, self.tpr(), self.fpr()).ok_or_else(|| {
            format!(
                "the detector finds {:.2} of the references and {:.2} of the base's pictures, \
                 less than 0.30 apart",
                self.tpr(),
                self.fpr()
            )
        })
    }

    /// The same detector with its rates counted anew on as many resampled pictures, so that their
    /// uncertainty reaches the interval. Half a picture is added on either side (Jeffreys), so that
    /// a count of none, or of all, is uncertain, too.
    #[must_use]
    pub fn resampled(&self, stream: &mut draws::Stream) -> Self {
        let mut binomial = |hits: u64, n: u64| {
            if n == 0 {
                return 0;
            }
            count((0..n).filter(|_| draws::below(stream, 2 * n + 2) < 2 * hits + 1).count())
        };
        Self {
            found: binomial(self.found, self.references),
            false_alarms: binomial(self.false_alarms, self.base_pictures),
            ..*self
        }
    }

    /// [`Self::correct`] without refusals: inside a bootstrap every replicate must yield a number.
    pub fn correct_always(&self, q: f64) -> f64 {
        ((q - self.fpr()) / (self.tpr() - self.fpr()).max(0.05)).clamp(0.0, 1.0)
    }
}

/// `g(x)`: the largest of a picture's cosines with the references; −1 without any.
pub fn score(cosines: &[f64]) -> f64 {
    cosines.iter().copied().fold(-1.0, f64::max)
}

/// Each reference's score against the others, from the square matrix of their cosines
/// (`cosines[i][j]` = cosine of reference `i`, encoded and decoded, with reference `j`).
pub fn leave_one_out(cosines: &[Vec<f64>]) -> Vec<f64> {
    let others = |i: usize, row: &[f64]| -> Vec<f64> {
        row.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, &cosine)| cosine).collect()
    };
    cosines.iter().enumerate().map(|(i, row)| score(&others(i, row))).collect()
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_lets_one_base_picture_in_a_hundred_through() {
        let base: Vec<f64> = (0..200).map(|i| f64::from(i) / 200.0).collect();
        let detector = Detector::fit(&base, &[0.995, 0.999, 0.5, 1.0]).unwrap();
        assert_eq!((detector.false_alarms, detector.base_pictures), (2, 200));
        assert_eq!((detector.found, detector.references), (3, 4));
        assert!(!detector.fires(detector.threshold));
        assert!(detector.correct(0.5).unwrap_err().contains("4 reference pictures"));
        assert_eq!(Detector::fit(&[], &[1.0]), None);
    }

    #[test]
    fn false_alarms_are_counted_where_they_did_not_set_the_threshold() {
        let base: Vec<f64> = (0..200).map(|i| f64::from(i) / 200.0).collect();
        let detector = Detector::fit(&base, &[1.0; 8]).unwrap().held_out(&[0.1, 0.2, 0.999, 0.3]);
        assert_eq!((detector.false_alarms, detector.base_pictures), (1, 4));
        // All 8 references were found, which does not show that the next one would be.
        let mut stream = draws::stream(1, 0, 0, draws::Purpose::Bootstrap);
        assert!((0..100).any(|_| detector.resampled(&mut stream).tpr() < 1.0));
    }

    #[test]
    fn a_reference_is_never_compared_with_itself() {
        let cosines = vec![vec![1.0, 0.2, 0.4], vec![0.2, 1.0, 0.3], vec![0.4, 0.3, 1.0]];
        assert_eq!(leave_one_out(&cosines), vec![0.4, 0.3, 0.4]);
    }

    /// KAT `detector`: tpr .92, fpr .01.
    #[test]
    fn known_rates_correct_known_shares() {
        let detector = Detector {
            threshold: 0.8,
            found: 92,
            references: 100,
            false_alarms: 10,
            base_pictures: 1000,
        };
        assert!((detector.correct(0.02).unwrap() - 0.010_989).abs() < 1e-6);
        assert!((detector.correct(0.10).unwrap() - 0.098_901).abs() < 1e-6);
        let blind = Detector { found: 20, ..detector };
        assert!(blind.correct(0.1).is_err());
    }

    #[test]
    fn resampled_rates_scatter_around_the_rates() {
        let detector = Detector {
            threshold: 0.8,
            found: 18,
            references: 20,
            false_alarms: 10,
            base_pictures: 1000,
        };
        let mut stream = draws::stream(1, 0, 0, draws::Purpose::Bootstrap);
        let rates: Vec<f64> = (0..400).map(|_| detector.resampled(&mut stream).tpr()).collect();
        let mean = rates.iter().sum::<f64>() / 400.0;
        assert!((mean - 18.5 / 21.0).abs() < 0.02, "{mean}");
        assert!(rates.iter().any(|r| (r - 0.9).abs() > 0.04));
    }
}
