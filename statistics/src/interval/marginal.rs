//! Tests of marginal homogeneity on paired labels, and corrections for asking many questions.

use super::distribution::{chi_square_survival, log_fair_binomial};
use crate::number::{real, real_u64};
use recipes::draws;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exact `McNemar` test of `b` against `c` discordant pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct McNemar {
    /// Two-sided exact p-value, min(1, 2·P(X ≤ min(b, c))).
    pub exact: f64,
    /// The same less half of what both tails count of the observed outcome.
    pub mid: f64,
}

/// Exact two-sided `McNemar` test: under no change each discordant pair falls either way with ½.
///
/// Source: Fagerland, Lydersen & Laake 2013 (mid-p); agrees with statsmodels `mcnemar(exact=True)`.
pub fn mcnemar(b: u64, c: u64) -> McNemar {
    let (n, least) = (b + c, b.min(c));
    let tail: f64 = (0..=least).map(|k| libm::exp(log_fair_binomial(k, n))).sum();
    let observed = libm::exp(log_fair_binomial(least, n));
    McNemar { exact: (2.0 * tail).min(1.0), mid: (2.0 * tail - observed).min(1.0) }
}

/// A chi-square test of the whole table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MarginalTest {
    /// The statistic.
    pub statistic: f64,
    /// Degrees of freedom.
    pub df: usize,
    /// Probability of a larger statistic if nothing changed.
    pub p: f64,
}

/// Stuart–Maxwell test that both margins of a square table are equal: χ² = dᵀV⁻¹d.
///
/// Categories in which no pair disagrees are dropped first, then the last of the rest; `None` if
/// fewer than two remain or V cannot be inverted.
///
/// Source: Stuart 1955, Maxwell 1970; agrees with statsmodels `SquareTable(shift_zeros=False)`.
pub fn stuart_maxwell(table: &[Vec<u64>]) -> Option<MarginalTest> {
    let row = |i: usize| table[i].iter().sum::<u64>();
    let column = |i: usize| table.iter().map(|cells| cells[i]).sum::<u64>();
    let moved: Vec<usize> =
        (0..table.len()).filter(|&i| row(i) + column(i) > 2 * table[i][i]).collect();
    let df = moved.len().checked_sub(1).filter(|&df| df > 0)?;
    let kept = &moved[..df];
    let d: Vec<f64> = kept.iter().map(|&i| real_u64(column(i)) - real_u64(row(i))).collect();
    let mut v: Vec<Vec<f64>> = kept
        .iter()
        .map(|&i| {
            kept.iter()
                .map(|&j| {
                    if i == j {
                        real_u64(row(i) + column(i) - 2 * table[i][i])
                    } else {
                        -real_u64(table[i][j] + table[j][i])
                    }
                })
                .collect()
        })
        .collect();
    let solution = solve(&mut v, &d)?;
    let statistic = d.iter().zip(&solution).map(|(a, b)| a * b).sum();
    Some(MarginalTest { statistic, df, p: chi_square_survival(statistic, df) })
}

/// Bhapkar's test from Stuart–Maxwell's on `n` pairs: χ²/(1 − χ²/n). `None` if χ² reaches n.
///
/// Source: Bhapkar 1966; agrees with statsmodels `SquareTable.homogeneity(method="bhapkar")`.
pub fn bhapkar(test: MarginalTest, n: u64) -> Option<MarginalTest> {
    let rest = 1.0 - test.statistic / real_u64(n);
    (rest > 0.0).then(|| {
        let statistic = test.statistic / rest;
        MarginalTest { statistic, df: test.df, p: chi_square_survival(statistic, test.df) }
    })
}

/// Solves `a·x = y` by Gaussian elimination with row exchange; `None` if `a` is singular.
fn solve(a: &mut [Vec<f64>], y: &[f64]) -> Option<Vec<f64>> {
    let n = y.len();
    let mut x = y.to_vec();
    for column in 0..n {
        let pivot =
            (column..n).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))?;
        if a[pivot][column].abs() < 1e-9 {
            return None;
        }
        a.swap(column, pivot);
        x.swap(column, pivot);
        for row in column + 1..n {
            let factor = a[row][column] / a[column][column];
            let (above, below) = a.split_at_mut(row);
            for (value, pivot) in below[0][column..].iter_mut().zip(&above[column][column..]) {
                *value -= factor * pivot;
            }
            x[row] -= factor * x[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| a[row][k] * x[k]).sum();
        x[row] = (x[row] - known) / a[row][row];
    }
    Some(x)
}

/// What a statistic does when the two models of each pair are exchanged at random.
#[derive(Clone, Debug, PartialEq)]
pub struct SignFlip {
    /// p = (1 + #{flipped ≥ observed})/(1 + flips), one per statistic.
    pub p: Vec<f64>,
    /// Mean of the flipped statistic: what it shows when nothing happened.
    pub floor: Vec<f64>,
}

/// Flips each of `n_pairs` pairs with probability ½, `flips` times, and compares `statistic` with
/// what it was unflipped. The observed arrangement is counted.
///
/// `statistic` receives one flag per pair and returns one number per statistic.
pub fn sign_flip(
    seed: u64,
    flips: u32,
    n_pairs: usize,
    statistic: &dyn Fn(&[bool]) -> Vec<f64>,
) -> SignFlip {
    let observed = statistic(&vec![false; n_pairs]);
    let mut sum = vec![0.0; observed.len()];
    let mut reached = vec![1_u32; observed.len()];
    for flip in 0..flips {
        let mut stream = draws::stream(seed, u64::from(flip), 0, draws::Purpose::SignFlip);
        let flipped: Vec<bool> = (0..n_pairs).map(|_| draws::below(&mut stream, 2) == 1).collect();
        for (i, value) in statistic(&flipped).into_iter().enumerate() {
            sum[i] += value;
            // Equal up to rounding counts as reached: sums in another order may differ by one unit.
            reached[i] += u32::from(value >= observed[i] - 1e-12);
        }
    }
    let n = f64::from(flips);
    SignFlip {
        p: reached.iter().map(|&count| f64::from(count) / (n + 1.0)).collect(),
        floor: sum.iter().map(|total| if flips == 0 { 0.0 } else { total / n }).collect(),
    }
}

/// Benjamini–Hochberg q-values, in the order of `p`.
///
/// Source: Benjamini & Hochberg 1995; agrees with statsmodels `multipletests(method="fdr_bh")`.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut q = vec![1.0; p.len()];
    let mut least: f64 = 1.0;
    for (rank, &i) in order.iter().enumerate().rev() {
        least = least.min(p[i] * real(p.len()) / real(rank + 1));
        q[i] = least;
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KAT `table`.
    fn table() -> Vec<Vec<u64>> {
        vec![vec![40, 5, 0, 2], vec![3, 30, 1, 4], vec![0, 0, 25, 6], vec![0, 0, 0, 10]]
    }

    #[test]
    fn stuart_maxwell_and_bhapkar_of_the_known_table() {
        let test = stuart_maxwell(&table()).unwrap();
        assert!((test.statistic - 12.575_221).abs() < 1e-6, "{test:?}");
        assert_eq!(test.df, 3);
        assert!((test.p - 0.005_651).abs() < 1e-6);
        let exact = bhapkar(test, 126).unwrap();
        assert!((exact.statistic - 13.969_416).abs() < 1e-6, "{exact:?}");
    }

    #[test]
    fn an_empty_category_changes_nothing() {
        let mut wide = table();
        for cells in &mut wide {
            cells.push(0);
        }
        wide.push(vec![0; 5]);
        assert_eq!(stuart_maxwell(&wide), stuart_maxwell(&table()));
        assert_eq!(stuart_maxwell(&[vec![5, 0], vec![0, 7]]), None);
    }

    #[test]
    fn mcnemar_of_the_known_table() {
        let expected = [
            (7, 3, 0.343_750, 0.226_563),
            (8, 5, 0.581_055, 0.423_950),
            (6, 1, 0.125_000, 0.070_313),
            (0, 12, 0.000_488, 0.000_244),
        ];
        for (b, c, exact, mid) in expected {
            let test = mcnemar(b, c);
            assert!((test.exact - exact).abs() < 1e-6, "{b} {c} {test:?}");
            assert!((test.mid - mid).abs() < 1e-6, "{b} {c} {test:?}");
        }
        assert_eq!(mcnemar(0, 0), McNemar { exact: 1.0, mid: 1.0 });
        assert!((mcnemar(4, 4).mid - 1.0).abs() < 1e-12);
    }

    #[test]
    fn false_discovery_rates_agree_with_statsmodels() {
        // multipletests([0.01, 0.04, 0.03, 0.005], method="fdr_bh")[1]
        let q = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in q.iter().zip([0.02, 0.04, 0.04, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{q:?}");
        }
    }

    #[test]
    fn sign_flip_finds_a_shift_and_nothing_in_noise() {
        let shifted: Vec<f64> = (0..40).map(|i| 0.5 + f64::from(i % 3)).collect();
        let centered: Vec<f64> = (0..40).map(|i| f64::from(i % 2) - 0.5).collect();
        let test = sign_flip(7, 999, 40, &|flips| {
            let total = |values: &[f64]| {
                let sum: f64 =
                    values.iter().zip(flips).map(|(v, f)| if *f { -v } else { *v }).sum();
                sum.abs()
            };
            vec![total(&shifted), total(&centered)]
        });
        assert!((test.p[0] - 0.001).abs() < 1e-12, "{test:?}");
        assert!((test.p[1] - 1.0).abs() < 1e-12, "the observed arrangement is counted: {test:?}");
        assert!(test.floor[0] > 0.0);
    }
}
