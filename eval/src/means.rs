//! Means over pictures with intervals that hold for all of them at once.

use rayon::prelude::*;
use statistics::interval::{CiKind, Estimate, Replicate, Resampler, max_t};
use statistics::number::real;

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Mean {
    /// The mean; 0 of nothing.
    pub(crate) value: f64,
    /// s/√n with n − 1 degrees of freedom; 0 of fewer than two values.
    pub(crate) error: f64,
}

impl Mean {
    /// Over all values.
    pub(crate) fn of(values: &[f64]) -> Self {
        Self::over(values.iter().copied())
    }

    /// Over the values at the drawn `positions`.
    pub(crate) fn drawn(values: &[f64], positions: &[usize]) -> Self {
        Self::over(positions.iter().map(|&i| values[i]))
    }

    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let n = real(values.clone().count());
        if n < 1.0 {
            return Self::default();
        }
        let value = values.clone().sum::<f64>() / n;
        if n < 2.0 {
            return Self { value, error: 0.0 };
        }
        let square: f64 = values.map(|x| (x - value) * (x - value)).sum();
        Self { value, error: libm::sqrt(square / (n - 1.0) / n) }
    }
}

/// One replicate of the means of several lists, resampled list by list; list `j` is drawn as
/// [`Resampler::positions`] says.
pub(crate) fn replicates(lists: &[Vec<f64>], resampler: Resampler) -> Vec<Vec<Mean>> {
    let lengths: Vec<usize> = lists.iter().map(Vec::len).collect();
    let one = |draw: u32| -> Vec<Mean> {
        let positions = resampler.positions(draw, &lengths);
        lists.iter().zip(&positions).map(|(values, drawn)| Mean::drawn(values, drawn)).collect()
    };
    (0..resampler.draws).into_par_iter().map(one).collect()
}

/// Fewest values behind an interval: resampling two or three of them covers half the time.
pub(crate) const LEAST_VALUES: usize = 5;

/// Means with simultaneous 95 % intervals (max-t), from their replicates. A mean without an error,
/// because it is of one value, has no interval.
pub(crate) fn simultaneous(means: &[Mean], replicates: &[Vec<Mean>]) -> Vec<Estimate> {
    let split = |means: &[Mean]| -> (Vec<f64>, Vec<f64>) {
        means.iter().map(|mean| (mean.value, mean.error)).unzip()
    };
    let (values, errors) = split(means);
    let replicates: Vec<Replicate> = replicates
        .iter()
        .map(|drawn| {
            let (values, errors) = split(drawn);
            Replicate { values, errors }
        })
        .collect();
    let intervals = max_t(&values, &errors, &replicates, 0.95);
    let estimate = |(mean, ci): (&Mean, [f64; 2])| {
        if mean.error > 0.0 {
            Estimate::with(mean.value, ci, CiKind::MaxT)
        } else {
            Estimate::bare(mean.value)
        }
    };
    means.iter().zip(intervals).map(estimate).collect()
}

/// The means of several lists with simultaneous 95 % intervals over the lists.
pub(crate) fn estimates(lists: &[Vec<f64>], resampler: Resampler) -> Vec<Estimate> {
    let means: Vec<Mean> = lists.iter().map(|values| Mean::of(values)).collect();
    let estimates = simultaneous(&means, &replicates(lists, resampler));
    let enough = |(estimate, values): (Estimate, &Vec<f64>)| {
        if values.len() < LEAST_VALUES { Estimate::bare(estimate.value) } else { estimate }
    };
    estimates.into_iter().zip(lists).map(enough).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipes::draws::{self, Purpose};

    const RESAMPLER: Resampler = Resampler { seed: 4, draws: 400 };

    #[test]
    fn the_error_of_a_mean_is_known() {
        let mean = Mean::of(&[1.0, 2.0, 3.0, 6.0]);
        // Squares of the deviations: 4 + 1 + 0 + 9 = 14; 14/3/4.
        assert!((mean.value - 3.0).abs() < 1e-12);
        assert!((mean.error - (14.0_f64 / 12.0).sqrt()).abs() < 1e-12);
        assert_eq!(Mean::drawn(&[1.0, 2.0, 3.0, 6.0], &[2, 2]), Mean { value: 3.0, error: 0.0 });
        assert_eq!(Mean::of(&[]), Mean::default());
    }

    #[test]
    fn intervals_widen_with_the_number_of_questions_and_hold_the_mean() {
        let list = |k: u64| -> Vec<f64> {
            let mut stream = draws::stream(8, k, 0, Purpose::Bootstrap);
            draws::normals(&mut stream, 60).into_iter().map(f64::from).collect()
        };
        let lists: Vec<Vec<f64>> = (0..10).map(list).collect();
        let many = estimates(&lists, RESAMPLER);
        let one = estimates(&lists[..1], RESAMPLER);
        let width = |estimate: &Estimate| estimate.ci.map_or(0.0, |[low, high]| high - low);
        assert!(width(&many[0]) > 1.2 * width(&one[0]), "{many:?} {one:?}");
        // Two standard errors either way are about the interval of one mean alone.
        let expected = 4.0 * Mean::of(&lists[0]).error;
        assert!((width(&one[0]) / expected - 1.0).abs() < 0.2, "{one:?}");
        assert!(
            (f64::midpoint(one[0].ci.unwrap()[0], one[0].ci.unwrap()[1]) - one[0].value).abs()
                < 1e-12
        );
    }

    #[test]
    fn fewer_than_five_values_have_no_interval() {
        let few = vec![1.0, 3.0, 2.0, 5.0];
        let enough = vec![1.0, 3.0, 2.0, 5.0, 4.0];
        let estimates = estimates(&[vec![2.0], few, enough], RESAMPLER);
        assert_eq!(estimates[0], Estimate::bare(2.0));
        assert_eq!(estimates[1], Estimate::bare(2.75));
        assert!(estimates[2].ci.is_some());
    }
}
