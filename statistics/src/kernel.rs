//! How many things there are in effect, and how unevenly one draws on them: Vendi scores of a table of
//! similarities, and the Gini coefficient of counts.

use crate::algebra::{cosine, eigenvalues};
use crate::number::{real, real_u64};

/// Cosines between all rows; rows of length 0 are similar to nothing but themselves.
pub fn cosines(rows: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let wide: Vec<Vec<f64>> =
        rows.iter().map(|row| row.iter().copied().map(f64::from).collect()).collect();
    let between = |i: usize, j: usize| {
        if i == j { 1.0 } else { cosine(&wide[i], &wide[j]).unwrap_or(0.0) }
    };
    (0..rows.len()).map(|i| (0..rows.len()).map(|j| between(i, j)).collect()).collect()
}

/// Vendi scores of order 1, 2 and ∞ of a table of similarities whose diagonal is 1: the Hill numbers
/// of the eigenvalues of K/n, from 1 (all alike) to n (all unlike). `None` of nothing.
///
/// Source: Friedman & Dieng 2023, arXiv:2210.02410, and Pasarkar & Dieng 2023, arXiv:2310.12952;
/// agrees with vendi-score `score_K`.
pub fn vendi(similarities: &[Vec<f64>]) -> Option<[f64; 3]> {
    let n = real(similarities.len());
    if similarities.is_empty() {
        return None;
    }
    // Rounding leaves eigenvalues a little below 0.
    let shares: Vec<f64> = eigenvalues(similarities).iter().map(|x| (x / n).max(0.0)).collect();
    let entropy: f64 = shares.iter().filter(|&&x| x > 0.0).map(|&x| -x * libm::log(x)).sum::<f64>();
    let squares: f64 = shares.iter().map(|x| x * x).sum();
    let most = shares.iter().copied().fold(0.0, f64::max);
    (most > 0.0).then(|| [libm::exp(entropy), 1.0 / squares, 1.0 / most])
}

/// Gini coefficient `Σ_ij|c_i − c_j|/(2n·Σc)`: 0 if all counts are equal, 1 − 1/n if one has them all.
/// `None` if nothing was counted.
pub fn gini(counts: &[u64]) -> Option<f64> {
    let sum: u64 = counts.iter().sum();
    if sum == 0 {
        return None;
    }
    let apart: u64 =
        counts.iter().map(|a| counts.iter().map(|b| a.abs_diff(*b)).sum::<u64>()).sum();
    Some(real_u64(apart) / (2.0 * real(counts.len()) * real_u64(sum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_agree_with_vendi_score() {
        let rows = [[1.0_f32, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 1.0]];
        let rows: Vec<Vec<f32>> = rows.iter().map(|row| row.to_vec()).collect();
        let [first, second, last] = vendi(&cosines(&rows)).unwrap();
        assert!((first - 2.663_592_136_721_669).abs() < 1e-6, "{first}");
        assert!((second - 2.476_473_501_733_530_6).abs() < 1e-6, "{second}");
        // 4 / numpy.linalg.eigvalsh(K)[-1]; vendi-score itself returns nan here.
        assert!((last - 2.0).abs() < 1e-6, "{last}");
    }

    #[test]
    fn copies_count_once_whatever_their_length() {
        let rows = vec![vec![2.0_f32, 0.0], vec![5.0, 0.0], vec![0.0, 1.0], vec![0.0, 3.0]];
        for score in vendi(&cosines(&rows)).unwrap() {
            assert!((score - 2.0).abs() < 1e-12, "{score}");
        }
        assert_eq!(vendi(&[]), None);
    }

    #[test]
    fn gini_of_uneven_counts() {
        // numpy: abs(c[:, None] - c).sum() / (2 * 4 * c.sum())
        assert!((gini(&[5, 0, 3, 2]).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(gini(&[0, 0]), None);
    }
}
