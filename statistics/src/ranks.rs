//! Order alone: ranks, rank correlation, and how well a score tells two groups apart.

use crate::number::real;

/// Ranks from 1, equal values sharing the mean of theirs. Values are numbers, not NaN.
///
/// Agrees with scipy `rankdata(method="average")`.
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let least = values[order[from]];
        let ties = order[from..].iter().take_while(|&&i| values[i] <= least).count().max(1);
        for &i in &order[from..from + ties] {
            ranks[i] = real(from) + f64::midpoint(real(ties), 1.0);
        }
        from += ties;
    }
    ranks
}

/// Pearson's correlation of two lists of equal length; `None` if either does not vary.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = real(a.len());
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut both, mut own, mut other) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        both += (x - mean_a) * (y - mean_b);
        own += (x - mean_a) * (x - mean_a);
        other += (y - mean_b) * (y - mean_b);
    }
    let spread = libm::sqrt(own * other);
    (spread > 0.0).then(|| (both / spread).clamp(-1.0, 1.0))
}

/// Spearman's rank correlation, with average ranks for equal values; `None` if either list does not
/// vary.
///
/// Agrees with scipy `spearmanr`.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    pearson(&average_ranks(a), &average_ranks(b))
}

/// Area under the ROC curve: the probability that a score of `with` exceeds one of `without`, ties
/// counted half; `None` if either is empty.
///
/// Agrees with scikit-learn `roc_auc_score`.
pub fn auc(with: &[f64], without: &[f64]) -> Option<f64> {
    if with.is_empty() || without.is_empty() {
        return None;
    }
    let all: Vec<f64> = with.iter().chain(without).copied().collect();
    let sum: f64 = average_ranks(&all)[..with.len()].iter().sum();
    let (n, m) = (real(with.len()), real(without.len()));
    Some((sum - n * (n + 1.0) / 2.0) / (n * m))
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f64; 10] = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0];
    const Y: [f64; 10] = [2.0, 7.0, 1.0, 8.0, 2.0, 8.0, 1.0, 8.0, 2.0, 8.0];

    #[test]
    fn ranks_and_correlations_agree_with_scipy() {
        assert_eq!(average_ranks(&X), vec![4.5, 1.5, 6.0, 1.5, 7.5, 10.0, 3.0, 9.0, 7.5, 4.5]);
        assert_eq!(average_ranks(&Y), vec![4.0, 6.0, 1.5, 8.5, 4.0, 8.5, 1.5, 8.5, 4.0, 8.5]);
        assert!((spearman(&X, &Y).unwrap() - 0.134_715_062_810_912_67).abs() < 1e-12);
        assert!((pearson(&X, &Y).unwrap() - 0.104_922_842_877_358_81).abs() < 1e-12);
    }

    #[test]
    fn a_zero_of_either_sign_is_one_value() {
        assert_eq!(average_ranks(&[0.0, -0.0, 1.0]), vec![1.5, 1.5, 3.0]);
        assert!(average_ranks(&[]).is_empty());
    }

    #[test]
    fn what_does_not_vary_has_no_correlation() {
        assert_eq!(spearman(&[2.0, 2.0, 2.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(pearson(&[], &[]), None);
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 90.0]), Some(1.0));
    }

    #[test]
    fn auc_agrees_with_scikit_learn_and_counts_ties_half() {
        let found = auc(&[0.9, 0.5, 0.5, 0.2], &[0.5, 0.1, 0.2, 0.8, 0.3]).unwrap();
        assert!((found - 0.675).abs() < 1e-12, "{found}");
        assert_eq!(auc(&[1.0, 2.0], &[1.0, 0.0]), Some(0.875));
        assert_eq!(auc(&[1.0], &[]), None);
    }
}
