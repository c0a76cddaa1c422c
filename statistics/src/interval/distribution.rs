//! The few distribution functions that the tests need, in `f64` with the `libm` crate, so that a
//! result does not follow the platform's own mathematics library.

use crate::number::{real, real_u64};

/// Quantile of the standard normal law: the `z` with Φ(z) = `p`, for `p` in (0, 1).
///
/// Found by bisection of Φ(z) = erfc(−z/√2)/2 on [−40, 40]; absolute error below 1e-12.
pub fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0_f64, 40.0_f64);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if libm::erfc(-middle / std::f64::consts::SQRT_2) / 2.0 < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Wilson's 95 % score interval of `hits` out of `n`.
///
/// Source: Wilson 1927; agrees with statsmodels `proportion_confint(method="wilson")`.
pub fn wilson(hits: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let (n, share) = (real(n), real(hits) / real(n));
    let z = normal_quantile(0.975);
    let center = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half =
        z / (1.0 + z * z / n) * libm::sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n));
    [(center - half).max(0.0), (center + half).min(1.0)]
}

/// P(X > `x`) of a chi-square variable with `df` degrees of freedom: Q(df/2, x/2).
pub fn chi_square_survival(x: f64, df: usize) -> f64 {
    if x <= 0.0 || df == 0 {
        return 1.0;
    }
    let (a, x) = (real(df) / 2.0, x / 2.0);
    let scale = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    if x < a + 1.0 { 1.0 - scale * lower_series(a, x) } else { scale * upper_fraction(a, x) }
}

/// Σ xⁿ/(a(a+1)…(a+n)), the series of the lower incomplete gamma function.
fn lower_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum) = (1.0 / a, 1.0 / a);
    for n in 1..1000 {
        term *= x / (a + real(n));
        sum += term;
        if term < sum * 1e-16 {
            break;
        }
    }
    sum
}

/// The continued fraction of the upper incomplete gamma function, by Lentz's method.
fn upper_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for n in 1..1000 {
        let factor = -real(n) * (real(n) - a);
        b += 2.0;
        d = 1.0 / keep_from_zero(factor * d + b, TINY);
        c = keep_from_zero(b + factor / c, TINY);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-16 {
            break;
        }
    }
    fraction
}

fn keep_from_zero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// ln of the probability of `k` heads in `n` fair throws.
pub(super) fn log_fair_binomial(k: u64, n: u64) -> f64 {
    let log_factorial = |m: u64| libm::lgamma(real_u64(m) + 1.0);
    log_factorial(n)
        - log_factorial(k)
        - log_factorial(n - k)
        - real_u64(n) * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_tails_agree_with_scipy() {
        assert!((normal_quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-10);
        assert!((normal_quantile(0.05) + 1.644_853_626_951_472_6).abs() < 1e-10);
        // scipy.stats.chi2.sf
        assert!((chi_square_survival(3.0, 2) - (-1.5_f64).exp()).abs() < 1e-12);
        assert!((chi_square_survival(3.841_458_820_694_124, 1) - 0.05).abs() < 1e-12);
        assert!((chi_square_survival(0.5, 4) - 0.973_500_978_839_268_7).abs() < 1e-12);
    }

    #[test]
    fn wilson_agrees_with_statsmodels() {
        // proportion_confint(7, 100, method="wilson")
        let [low, high] = wilson(7, 100);
        assert!(
            (low - 0.034_315_4).abs() < 1e-5 && (high - 0.137_495_2).abs() < 1e-5,
            "{low} {high}"
        );
        assert!(wilson(0, 50)[0].abs() < 1e-12);
    }

    /// KAT `fair`: a fair coin strays from one half by itself, so a deviation is never shown without
    /// its floor.
    #[test]
    fn fair_coin_deviates_by_its_floor() {
        for (n, expected) in
            [(4_u64, 0.1875), (8, 0.136_718_75), (16, 0.098_190_307_6), (64, 0.0497)]
        {
            let floor: f64 = (0..=n)
                .map(|k| log_fair_binomial(k, n).exp() * (real_u64(k) / real_u64(n) - 0.5).abs())
                .sum();
            assert!((floor - expected).abs() < 5e-5, "n = {n}: {floor}");
        }
    }
}
