//! Intervals of figures that resampling biases.
//!
//! Where a picture is drawn twice, the sample is less diverse and its series hold together better, so
//! that percentiles of the replicates lie beside the estimate, and reflected ones beside it on the
//! other side. Their scatter, though, is that of the estimate.

use statistics::interval::{CiKind, Estimate, normal_quantile};
use statistics::number::{mean, real};

/// Estimate ± 1.96 standard deviations of its replicates, cut at `least` and `most`; without an
/// interval where there are fewer than two replicates.
pub(crate) fn scattered(value: f64, replicates: &[f64], least: f64, most: f64) -> Estimate {
    let Some(middle) = mean(replicates).filter(|_| replicates.len() > 1) else {
        return Estimate::bare(value);
    };
    let squares: f64 = replicates.iter().map(|x| (x - middle) * (x - middle)).sum();
    let half = normal_quantile(0.975) * libm::sqrt(squares / real(replicates.len() - 1));
    let ends = [(value - half).max(least).min(value), (value + half).min(most).max(value)];
    Estimate::with(value, ends, CiKind::Normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_as_wide_as_the_replicates_scatter_wherever_they_lie() {
        // Sample variance of 1, 2, 3, 4 is 5/3.
        let half = 1.959_963_984_540_054 * libm::sqrt(5.0 / 3.0);
        for shift in [0.0, 10.0] {
            let replicates = [1.0, 2.0, 3.0, 4.0].map(|x| x + shift);
            let [low, high] = scattered(20.0, &replicates, 0.0, 100.0).ci.unwrap();
            assert!((low - (20.0 - half)).abs() < 1e-9 && (high - (20.0 + half)).abs() < 1e-9);
        }
    }

    #[test]
    fn ends_stay_within_what_is_possible_and_hold_the_estimate() {
        let estimate = scattered(1.5, &[1.0, 5.0], 1.0, 4.0);
        assert_eq!(estimate.ci, Some([1.0, 4.0]));
        assert_eq!(scattered(2.0, &[2.0, 2.0, 2.0], 0.0, 9.0).ci, Some([2.0, 2.0]));
        assert_eq!(scattered(2.0, &[2.0], 0.0, 9.0), Estimate::bare(2.0));
    }
}
