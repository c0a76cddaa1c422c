//! Many pictures judged by a machine and few by a person as well: an estimate with the machine's small
//! spread and without its bias.

use crate::interval::normal_quantile;
use crate::number::{mean, real};

/// A prediction-powered mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Powered {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}

impl Powered {
    /// value ± z·error, at `level` such as 0.95.
    pub fn interval(self, level: f64) -> [f64; 2] {
        let half = normal_quantile(f64::midpoint(1.0, level)) * self.error;
        [self.value - half, self.value + half]
    }
}

/// mean(f) + mean over the labelled of (y − f), with se² = var(f)/N + var(y − f)/n.
///
/// `predicted` holds f, what the machine says of each of N pairs (for a change: its indicator in the
/// adapted picture less that in the base's); `labelled` holds (f, y) of the n pairs that a person
/// judged, too. `None` with fewer than two of either.
///
/// Source: Angelopoulos et al. 2023, arXiv:2301.09633, algorithm 1 with the normal interval.
pub fn prediction_powered(predicted: &[f64], labelled: &[(f64, f64)]) -> Option<Powered> {
    let residuals: Vec<f64> = labelled.iter().map(|(machine, person)| person - machine).collect();
    let squared_error = variance(predicted)? / real(predicted.len())
        + variance(&residuals)? / real(residuals.len());
    let value = mean(predicted)? + mean(&residuals)?;
    Some(Powered { value, error: libm::sqrt(squared_error) })
}

/// Sample variance; `None` of fewer than two values.
fn variance(values: &[f64]) -> Option<f64> {
    let middle = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|x| (x - middle) * (x - middle)).sum();
    Some(squares / real(values.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipes::draws;

    /// numpy: `f.mean() + (y − f[:4]).mean()`, `var` with `ddof=1`.
    #[test]
    fn estimate_and_error_of_a_small_table() {
        let predicted = [1.0, 0.0, -1.0, 0.0, 1.0, 1.0, 0.0, 0.0];
        let labelled = [(1.0, 1.0), (0.0, 1.0), (-1.0, -1.0), (0.0, -1.0)];
        let found = prediction_powered(&predicted, &labelled).unwrap();
        assert!((found.value - 0.25).abs() < 1e-12, "{found:?}");
        assert!((found.error - 0.478_713_553_878_169_05).abs() < 1e-12, "{found:?}");
        let [low, high] = found.interval(0.95);
        assert!((high - low - 2.0 * 1.959_963_984_540_054 * found.error).abs() < 1e-10);
    }

    /// KAT `ppi`, 2000 repetitions: share .10, a machine that finds .8 and raises .06 false alarms.
    #[test]
    fn labels_remove_the_bias_and_the_error_is_told() {
        let (mut sum, mut square, mut error, mut raw) = (0.0, 0.0, 0.0, 0.0);
        for repetition in 0..2000 {
            let mut stream = draws::stream(1, repetition, 0, draws::Purpose::Bootstrap);
            let pairs: Vec<(f64, f64)> = (0..4000)
                .map(|_| {
                    let truth = draws::uniform(&mut stream) < 0.10;
                    let rate = if truth { 0.8 } else { 0.06 };
                    let machine = draws::uniform(&mut stream) < rate;
                    (f64::from(u8::from(machine)), f64::from(u8::from(truth)))
                })
                .collect();
            let predicted: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
            let found = prediction_powered(&predicted, &pairs[..150]).unwrap();
            sum += found.value / 2000.0;
            square += found.value * found.value / 2000.0;
            error += found.error / 2000.0;
            raw += mean(&predicted).unwrap() / 2000.0;
        }
        let spread = libm::sqrt(square - sum * sum);
        assert!((raw - 0.134).abs() < 0.001 && (sum - 0.1002).abs() < 0.003, "{raw} {sum}");
        assert!((spread - 0.022).abs() < 0.002, "{spread}");
        assert!((error / spread - 1.0).abs() < 0.08, "the error {error} tells the spread {spread}");
    }

    #[test]
    fn one_label_is_not_enough() {
        assert_eq!(prediction_powered(&[1.0, 0.0, 1.0], &[(1.0, 1.0)]), None);
        assert_eq!(prediction_powered(&[], &[]), None);
    }
}
