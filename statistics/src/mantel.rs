//! Whether two tables of distances between the same things agree: Mantel's rank correlation, and how
//! often chance reaches it when the things are relabelled.

use crate::number::{real, real_u64};
use crate::ranks::{average_ranks, spearman};
use recipes::draws;

/// Largest number of things whose relabellings are all tried: 7! = 5040.
const EXACT: usize = 7;
/// Correlations closer than this are one and the same, summed in another order.
const ROUNDING: f64 = 1e-12;

/// A Mantel correlation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mantel {
    /// Spearman's ρ over all pairs of things, in [−1, 1].
    pub rho: f64,
    /// Probability of a ρ at least as large under random relabelling (one-sided, the observed
    /// labelling counted).
    pub p: f64,
    /// Relabellings behind `p`, the observed one among them.
    pub relabellings: u64,
}

/// Spearman's ρ, with average ranks, between the upper triangles of two square tables of distances;
/// `None` if either does not vary.
///
/// Source: Mantel 1967; agrees with scikit-bio `mantel(method="spearman")`.
pub fn rho(a: &[Vec<f64>], b: &[Vec<f64>]) -> Option<f64> {
    spearman(&upper(a), &upper(b))
}

/// ρ with its permutation test: all relabellings for up to seven things, else `relabellings` random
/// ones beside the observed.
///
/// Agrees with scikit-bio `mantel(method="spearman", alternative="greater")`.
pub fn mantel(a: &[Vec<f64>], b: &[Vec<f64>], relabellings: u32, seed: u64) -> Option<Mantel> {
    let rho = rho(a, b)?;
    let n = a.len();
    let (left, right) = (standardized(a), standardized(b));
    let reaches = |order: &[usize]| relabelled(&left, &right, order) >= rho - ROUNDING;
    let (mut reached, mut tried) = (1_u64, 1_u64);
    if n <= EXACT {
        // The observed labelling is the first order and counted already.
        let mut order: Vec<usize> = (0..n).collect();
        while next_order(&mut order) {
            tried += 1;
            reached += u64::from(reaches(&order));
        }
    } else {
        for draw in 0..relabellings {
            let mut stream = draws::stream(seed, u64::from(draw), 2, draws::Purpose::SignFlip);
            let mut order: Vec<usize> = (0..n).collect();
            draws::shuffle(&mut stream, &mut order);
            tried += 1;
            reached += u64::from(reaches(&order));
        }
    }
    Some(Mantel { rho, p: real_u64(reached) / real_u64(tried), relabellings: tried })
}

/// The distances of all pairs i < j, row after row.
fn upper(distances: &[Vec<f64>]) -> Vec<f64> {
    (0..distances.len()).flat_map(|i| distances[i][i + 1..].iter().copied()).collect()
}

/// The table with each distance replaced by its rank, less the mean, over the norm of all pairs:
/// correlations are then plain sums of products over pairs.
fn standardized(distances: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = distances.len();
    let ranks = average_ranks(&upper(distances));
    let middle = f64::midpoint(real(ranks.len()), 1.0);
    let spread = libm::sqrt(ranks.iter().map(|r| (r - middle) * (r - middle)).sum::<f64>());
    let mut table = vec![vec![0.0; n]; n];
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    for ((i, j), rank) in pairs.zip(&ranks) {
        let value = (rank - middle) / spread;
        table[i][j] = value;
        table[j][i] = value;
    }
    table
}

/// The correlation after thing i of `b` took the name of thing `order[i]`.
fn relabelled(a: &[Vec<f64>], b: &[Vec<f64>], order: &[usize]) -> f64 {
    let mut sum = 0.0;
    for (i, row) in a.iter().enumerate() {
        let other = &b[order[i]];
        sum += row.iter().zip(order).skip(i + 1).map(|(x, &j)| x * other[j]).sum::<f64>();
    }
    sum
}

/// The next order in the lexicographic sequence; false after the last.
fn next_order(order: &mut [usize]) -> bool {
    let Some(pivot) = order.windows(2).rposition(|pair| pair[0] < pair[1]) else { return false };
    let Some(larger) = order.iter().rposition(|&item| item > order[pivot]) else { return false };
    order.swap(pivot, larger);
    order[pivot + 1..].reverse();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn euclid(points: &[[f64; 2]]) -> Vec<Vec<f64>> {
        let distance = |a: &[f64; 2], b: &[f64; 2]| libm::hypot(a[0] - b[0], a[1] - b[1]);
        points.iter().map(|a| points.iter().map(|b| distance(a, b)).collect()).collect()
    }

    const POINTS: [[f64; 2]; 8] = [
        [0.0, 0.0],
        [1.0, 0.0],
        [0.0, 1.0],
        [4.0, 4.0],
        [5.0, 4.0],
        [4.0, 5.5],
        [2.0, 1.0],
        [7.0, 3.0],
    ];

    fn line(n: usize) -> Vec<Vec<f64>> {
        let at = |i: usize| libm::pow(real(i), 1.5);
        (0..n).map(|i| (0..n).map(|j| (at(i) - at(j)).abs()).collect()).collect()
    }

    #[test]
    fn rho_and_p_agree_with_scikit_bio() {
        // skbio.stats.distance.mantel, spearman, greater, 9999 permutations: 0.47123, p 0.0273.
        let found = mantel(&euclid(&POINTS), &line(8), 9999, 3).unwrap();
        assert!((found.rho - 0.471_233_159_682_222_3).abs() < 1e-12, "{found:?}");
        assert!((found.p - 0.0273).abs() < 0.008, "{found:?}");
        assert_eq!(found.relabellings, 10_000);
    }

    #[test]
    fn few_things_are_relabelled_in_every_way() {
        let tree: Vec<Vec<f64>> = (0..6_usize)
            .map(|i| {
                (0..6)
                    .map(|j| {
                        if i == j {
                            0.0
                        } else if i / 3 == j / 3 {
                            2.0
                        } else {
                            4.0
                        }
                    })
                    .collect()
            })
            .collect();
        let found = mantel(&tree, &euclid(&POINTS[..6]), 10, 1).unwrap();
        assert_eq!(found.relabellings, 720);
        assert!((found.p - 72.0 / 720.0).abs() < 1e-12, "{found:?}");
        assert!((found.rho - 0.855_012_825_288_569_7).abs() < 1e-12);
    }

    #[test]
    fn the_observed_labelling_counts_among_the_relabellings() {
        // Nothing but the identity keeps a line of growing gaps: 1 of 1000 at best.
        let found = mantel(&line(12), &line(12), 999, 1).unwrap();
        assert!((found.rho - 1.0).abs() < 1e-12);
        assert!((found.p - 0.001).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn things_equally_far_apart_have_no_fabric() {
        let equal = vec![vec![1.0; 8]; 8];
        assert_eq!(mantel(&equal, &line(8), 99, 1), None);
        assert_eq!(rho(&[], &[]), None);
    }

    #[test]
    fn orders_follow_each_other_until_all_were_seen() {
        let mut order = vec![0, 1, 2, 3];
        let mut seen = std::collections::BTreeSet::from([order.clone()]);
        while next_order(&mut order) {
            seen.insert(order.clone());
        }
        assert_eq!((seen.len(), order), (24, vec![3, 2, 1, 0]));
    }
}
