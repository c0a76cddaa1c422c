//! How many entities there are in effect: entropy and its corrections, Hill numbers, coverage.

use crate::number::{real, real_u64};

/// H = −Σ p ln p, in nats.
pub fn entropy(p: &[f64]) -> f64 {
    -p.iter().filter(|&&share| share > 0.0).map(|&share| share * libm::log(share)).sum::<f64>()
}

/// Hill number ^qD = (Σ p^q)^{1/(1−q)} of order 0, 1 or any other `q`; ^1D = e^H.
pub fn hill(p: &[f64], q: f64) -> f64 {
    if (q - 1.0).abs() < 1e-12 {
        return libm::exp(entropy(p));
    }
    let sum: f64 = p.iter().filter(|&&share| share > 0.0).map(|&share| libm::pow(share, q)).sum();
    libm::pow(sum, 1.0 / (1.0 - q))
}

/// Plug-in entropy of counts.
pub fn plug_in_entropy(counts: &[u64]) -> f64 {
    let n = real_u64(counts.iter().sum::<u64>()).max(1.0);
    entropy(&counts.iter().map(|&count| real_u64(count) / n).collect::<Vec<_>>())
}

/// Miller–Madow: H + (`K_seen` − 1)/2N.
pub fn miller_madow(counts: &[u64]) -> f64 {
    let n = real_u64(counts.iter().sum::<u64>()).max(1.0);
    let seen = counts.iter().filter(|&&count| count > 0).count();
    plug_in_entropy(counts) + (real(seen) - 1.0).max(0.0) / (2.0 * n)
}

/// Chao–Shen: −Σ C·p ln(C·p)/(1 − (1 − C·p)ᴺ) with Good–Turing coverage C.
///
/// Source: Chao & Shen 2003.
pub fn chao_shen(counts: &[u64]) -> f64 {
    let n = real_u64(counts.iter().sum::<u64>()).max(1.0);
    let coverage = good_turing(counts);
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = coverage * real_u64(count) / n;
            if share <= 0.0 {
                return 0.0;
            }
            -share * libm::log(share) / (1.0 - libm::pow(1.0 - share, n))
        })
        .sum()
}

/// Good–Turing coverage 1 − f₁/N: the mass of what has been seen. All singletons count as N − 1, so
/// that the result stays above 0.
pub fn good_turing(counts: &[u64]) -> f64 {
    let n = counts.iter().sum::<u64>();
    if n == 0 {
        return 0.0;
    }
    let singletons = u64::try_from(counts.iter().filter(|&&count| count == 1).count()).unwrap_or(n);
    let singletons = if singletons == n { n - 1 } else { singletons };
    1.0 - real_u64(singletons) / real_u64(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn::{categorical, zipf};
    use recipes::draws;

    /// KAT `entropy`: three estimators at two sample sizes, mean of 200 repetitions.
    #[test]
    fn entropy_estimators_under_zipf() {
        let p = zipf(200);
        assert!((entropy(&p) - 4.148_975).abs() < 1e-6);
        for (n, expected) in [(500, [3.937, 4.062, 4.195]), (2000, [4.095, 4.142, 4.169])] {
            let mut mean = [0.0; 3];
            for repetition in 0..200 {
                let mut stream = draws::stream(11, repetition, n, draws::Purpose::Bootstrap);
                let mut counts = vec![0_u64; 200];
                for _ in 0..n {
                    counts[categorical(&p, &mut stream)] += 1;
                }
                let found = [plug_in_entropy(&counts), miller_madow(&counts), chao_shen(&counts)];
                for (sum, value) in mean.iter_mut().zip(found) {
                    *sum += value / 200.0;
                }
            }
            for (found, expected) in mean.iter().zip(expected) {
                assert!((found - expected).abs() < 0.02, "N = {n}: {mean:?}");
            }
        }
    }

    #[test]
    fn hill_numbers_of_equal_shares_count_them() {
        for q in [0.0, 1.0, 2.0] {
            assert!((hill(&[0.25; 4], q) - 4.0).abs() < 1e-12);
        }
        // KAT `split`, before: 5, 4.350338, 4.0
        let p = [0.35, 0.25, 0.20, 0.15, 0.05];
        assert!((hill(&p, 0.0) - 5.0).abs() < 1e-12);
        assert!((hill(&p, 1.0) - 4.350_338).abs() < 1e-6);
        assert!((hill(&p, 2.0) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn coverage_falls_with_singletons() {
        assert!((good_turing(&[5, 4, 1]) - 0.9).abs() < 1e-12);
        assert!((good_turing(&[1, 1, 1]) - 1.0 / 3.0).abs() < 1e-12);
        assert!(good_turing(&[]).abs() < 1e-12);
    }
}
