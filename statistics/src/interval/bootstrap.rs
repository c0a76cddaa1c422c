//! Paired bootstrap: seeds are drawn with replacement, jointly over all models, within each prompt.

use super::{CiKind, Estimate};
use crate::number::{index, real};
use recipes::draws;

/// Draws seeds with replacement. Draw number `k` is the same for every facet and every model, so
/// that all figures of one replicate belong to one imagined census.
#[derive(Clone, Copy, Debug)]
pub struct Resampler {
    /// Seed of the census.
    pub seed: u64,
    /// Number of replicates; 2000 unless a recipe says otherwise.
    pub draws: u32,
}

impl Resampler {
    /// Positions drawn for replicate `draw`, one list per prompt; list `j` has `lengths[j]` of them.
    pub fn positions(&self, draw: u32, lengths: &[usize]) -> Vec<Vec<usize>> {
        let mut stream = draws::stream(self.seed, u64::from(draw), 0, draws::Purpose::Bootstrap);
        lengths
            .iter()
            .map(|&n| {
                let bound = u64::try_from(n).unwrap_or(u64::MAX).max(1);
                let mut one = || usize::try_from(draws::below(&mut stream, bound)).unwrap_or(0);
                (0..n).map(|_| one()).collect()
            })
            .collect()
    }
}

/// One bootstrap replicate of several estimates.
#[derive(Clone, Debug, PartialEq)]
pub struct Replicate {
    /// The estimates.
    pub values: Vec<f64>,
    /// Their standard errors *within this replicate*.
    pub errors: Vec<f64>,
}

/// Simultaneous intervals: estimate ± q·error, q the `level` quantile over the replicates of
/// `max_i |value*_i − estimate_i| / error*_i`.
///
/// An estimate whose replicate has error 0 takes part only where it moved, with its own error.
pub fn max_t(
    estimate: &[f64],
    errors: &[f64],
    replicates: &[Replicate],
    level: f64,
) -> Vec<[f64; 2]> {
    let mut largest: Vec<f64> = replicates
        .iter()
        .map(|replicate| {
            let deviations = replicate.values.iter().zip(&replicate.errors).enumerate();
            deviations.fold(0.0_f64, |most, (i, (value, error))| {
                let error = if *error > 0.0 { *error } else { errors[i] };
                if error > 0.0 { most.max((value - estimate[i]).abs() / error) } else { most }
            })
        })
        .collect();
    let q = quantile(&mut largest, level);
    estimate
        .iter()
        .zip(errors)
        .map(|(value, error)| [value - q * error, value + q * error])
        .collect()
}

/// Simultaneous intervals for estimates without a formula for their error: each is studentised by
/// the standard deviation of its replicates. An estimate that never moves gets an interval of width 0.
pub fn max_t_by_spread(estimate: &[f64], replicates: &[Vec<f64>], level: f64) -> Vec<[f64; 2]> {
    let n = real(replicates.len()).max(1.0);
    let spread: Vec<f64> = (0..estimate.len())
        .map(|i| {
            let mean = replicates.iter().map(|values| values[i]).sum::<f64>() / n;
            let square = replicates.iter().map(|values| (values[i] - mean).powi(2)).sum::<f64>();
            libm::sqrt(square / (n - 1.0).max(1.0))
        })
        .collect();
    let studentised: Vec<Replicate> = replicates
        .iter()
        .map(|values| Replicate { values: values.clone(), errors: spread.clone() })
        .collect();
    max_t(estimate, &spread, &studentised, level)
}

/// Ends of the middle `level` of the replicates; `None` of no replicates.
pub fn percentile(replicates: &[f64], level: f64) -> Option<[f64; 2]> {
    if replicates.is_empty() {
        return None;
    }
    let mut sorted = replicates.to_vec();
    let tail = (1.0 - level) / 2.0;
    Some([quantile(&mut sorted, tail), quantile(&mut sorted, 1.0 - tail)])
}

/// 95 % interval of a distance by reflected percentiles: twice the estimate minus the percentile ends.
///
/// A distance between samples is biased upward, and its replicates are so twice; reflecting them
/// takes the bias out again. The interval is widened to hold the estimate and cut at `least`.
pub fn basic(value: f64, replicates: &[f64], least: f64) -> Estimate {
    match percentile(replicates, 0.95) {
        None => Estimate::bare(value),
        Some([low, high]) => Estimate::with(
            value,
            [(2.0 * value - high).min(value).max(least), (2.0 * value - low).max(value)],
            CiKind::Basic,
        ),
    }
}

/// The `level` quantile, linearly interpolated between order statistics (numpy's default).
fn quantile(values: &mut [f64], level: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let place = level * real(values.len() - 1);
    let below = index(place).min(values.len() - 1);
    let above = (below + 1).min(values.len() - 1);
    values[below] + (place - real(below)) * (values[above] - values[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_interpolates_as_numpy_does() {
        assert!((quantile(&mut [4.0, 1.0, 3.0, 2.0], 0.5) - 2.5).abs() < 1e-12);
        let [low, high] = percentile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.9).unwrap();
        assert!((low - 0.2).abs() < 1e-12 && (high - 3.8).abs() < 1e-12);
    }

    #[test]
    fn reflected_percentiles_hold_the_estimate() {
        let upward: Vec<f64> = (0..=100).map(|i| 0.10 + f64::from(i) / 1000.0).collect();
        let estimate = basic(0.08, &upward, 0.0);
        let [low, high] = estimate.ci.unwrap();
        assert!(low.abs() < 1e-12 && (high - 0.08).abs() < 1e-12, "{estimate:?}");
        let [low, _] = basic(0.15, &upward, 0.0).ci.unwrap();
        assert!((low - 0.1025).abs() < 1e-9);
    }

    #[test]
    fn a_replicate_depends_on_its_number_only() {
        let resampler = Resampler { seed: 3, draws: 10 };
        assert_eq!(resampler.positions(4, &[50, 7]), resampler.positions(4, &[50, 7]));
        assert_ne!(resampler.positions(4, &[50]), resampler.positions(5, &[50]));
        let all = resampler.positions(1, &[50, 7]);
        assert_eq!((all[0].len(), all[1].len()), (50, 7));
        assert!(all[1].iter().all(|&i| i < 7));
    }

    #[test]
    fn max_t_is_wider_than_one_interval_alone() {
        let replicates: Vec<Vec<f64>> = (0..400).map(|k| recipes_normals(k, 8)).collect();
        let joint = max_t_by_spread(&[0.0; 8], &replicates, 0.95);
        let alone: Vec<Vec<f64>> = replicates.iter().map(|values| vec![values[0]]).collect();
        let single = max_t_by_spread(&[0.0], &alone, 0.95);
        assert!(joint[0][1] > 1.2 * single[0][1], "{joint:?} {single:?}");
    }

    fn recipes_normals(k: u64, n: usize) -> Vec<f64> {
        let mut stream = draws::stream(1, k, 9, draws::Purpose::Bootstrap);
        draws::normals(&mut stream, n).into_iter().map(f64::from).collect()
    }
}
