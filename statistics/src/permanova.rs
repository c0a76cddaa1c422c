//! How much of the squared distances between things lies between their groups: PERMANOVA, with the
//! share that chance alone would give, and the silhouette.

use crate::number::real;
use recipes::draws;

/// Part of the total below which the rest within groups counts as rounding, so that F stays finite.
const LEAST_WITHIN: f64 = 1e-12;
/// Relative difference below which two sums of squares are the same, taken in another order.
const ROUNDING: f64 = 1e-10;

/// Squared distances split between and within groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permanova {
    /// SST = Σ d²/N over all pairs.
    pub sst: f64,
    /// SSW = Σ d²/n over the pairs of each group.
    pub ssw: f64,
    /// Pseudo-F = \[(SST − SSW)/(R − 1)\] / \[SSW/(N − R)\]; about 1 by chance. Where all things of a group
    /// coincide it would be infinite; SSW then counts as 1e-12 of SST.
    pub f: f64,
    /// R² = 1 − SSW/SST, positive by chance.
    pub r2: f64,
    /// ω² = (SST − SSW − (R−1)·MSW)/(SST + MSW), MSW = SSW/(N − R): R² without that bias.
    pub omega2: f64,
}

/// What relabelling does to a [`Permanova`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relabelled {
    /// Mean R² over the relabellings.
    pub r2: f64,
    /// Probability of an F at least as large, the observed labelling counted.
    pub p: f64,
}

/// Splits the squared `distances` by `groups` (one number per thing, groups counted from 0); `None`
/// with fewer than two groups, as many groups as things, or no distance at all.
///
/// Source: Anderson 2001, Austral Ecology 26:32; agrees with scikit-bio `permanova`.
pub fn permanova(distances: &[Vec<f64>], groups: &[usize]) -> Option<Permanova> {
    let sizes = sizes(groups);
    let (n, r) = (real(groups.len()), real(sizes.iter().filter(|&&size| size > 0).count()));
    if r < 2.0 || n <= r {
        return None;
    }
    let sst = total(distances);
    if sst <= 0.0 {
        return None;
    }
    let ssw = within(distances, groups, &sizes);
    let (between, rest) = (sst - ssw, n - r);
    let mean_within = ssw / rest;
    Some(Permanova {
        sst,
        ssw,
        f: between / (r - 1.0) / (ssw.max(LEAST_WITHIN * sst) / rest),
        r2: 1.0 - ssw / sst,
        omega2: (between - (r - 1.0) * mean_within) / (sst + mean_within),
    })
}

/// Deals the group labels out anew, `relabellings` times; `None` where [`permanova`] has none.
pub fn relabelled(
    distances: &[Vec<f64>],
    groups: &[usize],
    relabellings: u32,
    seed: u64,
) -> Option<Relabelled> {
    let observed = permanova(distances, groups)?;
    let sizes = sizes(groups);
    let (mut sum, mut reached) = (0.0, 1_u32);
    for draw in 0..relabellings {
        let mut stream = draws::stream(seed, u64::from(draw), 3, draws::Purpose::SignFlip);
        let mut dealt = groups.to_vec();
        draws::shuffle(&mut stream, &mut dealt);
        let ssw = within(distances, &dealt, &sizes);
        sum += 1.0 - ssw / observed.sst;
        // F falls as SSW rises.
        reached += u32::from(ssw <= observed.ssw + ROUNDING * observed.sst);
    }
    let n = f64::from(relabellings);
    Some(Relabelled {
        r2: if relabellings == 0 { 0.0 } else { sum / n },
        p: f64::from(reached) / (n + 1.0),
    })
}

/// Mean silhouette in [−1, 1]: how much nearer a thing is to its own group than to the next. A thing
/// alone in its group counts 0. `None` with fewer than two groups.
///
/// Source: Rousseeuw 1987; agrees with scikit-learn `silhouette_score(metric="precomputed")`.
pub fn silhouette(distances: &[Vec<f64>], groups: &[usize]) -> Option<f64> {
    let sizes = sizes(groups);
    if sizes.iter().filter(|&&size| size > 0).count() < 2 {
        return None;
    }
    let one = |i: usize| {
        if sizes[groups[i]] < 2 {
            return 0.0;
        }
        let mut sums = vec![0.0; sizes.len()];
        for (j, &group) in groups.iter().enumerate() {
            sums[group] += distances[i][j];
        }
        let own = sums[groups[i]] / real(sizes[groups[i]] - 1);
        let others = (0..sizes.len()).filter(|&g| g != groups[i] && sizes[g] > 0);
        let next = others.map(|g| sums[g] / real(sizes[g])).fold(f64::INFINITY, f64::min);
        let larger = own.max(next);
        if larger > 0.0 { (next - own) / larger } else { 0.0 }
    };
    Some((0..groups.len()).map(one).sum::<f64>() / real(groups.len()))
}

/// Things per group.
fn sizes(groups: &[usize]) -> Vec<usize> {
    let mut sizes = vec![0; groups.iter().max().map_or(0, |most| most + 1)];
    for &group in groups {
        sizes[group] += 1;
    }
    sizes
}

fn total(distances: &[Vec<f64>]) -> f64 {
    let rows = distances.iter().enumerate();
    let sum: f64 = rows.map(|(i, row)| row[i + 1..].iter().map(|d| d * d).sum::<f64>()).sum();
    sum / real(distances.len()).max(1.0)
}

fn within(distances: &[Vec<f64>], groups: &[usize], sizes: &[usize]) -> f64 {
    let mut sums = vec![0.0; sizes.len()];
    for (i, row) in distances.iter().enumerate() {
        for (d, _) in row.iter().zip(groups).skip(i + 1).filter(|(_, group)| **group == groups[i]) {
            sums[groups[i]] += d * d;
        }
    }
    sums.iter().zip(sizes).map(|(sum, &size)| sum / real(size).max(1.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn known() -> Vec<Vec<f64>> {
        let distance = |a: &[f64; 2], b: &[f64; 2]| libm::hypot(a[0] - b[0], a[1] - b[1]);
        POINTS.iter().map(|a| POINTS.iter().map(|b| distance(a, b)).collect()).collect()
    }

    fn line(points: &[f64]) -> Vec<Vec<f64>> {
        points.iter().map(|a| points.iter().map(|b| (a - b).abs()).collect()).collect()
    }

    #[test]
    fn f_and_p_agree_with_scikit_bio_and_the_silhouette_with_scikit_learn() {
        // skbio.stats.distance.permanova for F; p by trying every arrangement (there p 0.03, 0.0111).
        for (groups, f, p, silhouette_score) in [
            ([0, 0, 0, 1, 1, 1, 0, 1], 28.942_029, 2.0 / 70.0, 0.669_563_378_083_872),
            ([0, 0, 0, 1, 1, 1, 2, 2], 7.964_41, 6.0 / 560.0, 0.373_645_175_357_380_2),
        ] {
            let split = permanova(&known(), &groups).unwrap();
            assert!((split.f - f).abs() < 1e-5, "{split:?}");
            let chance = relabelled(&known(), &groups, 9999, 1).unwrap();
            assert!((chance.p - p).abs() < 0.006, "{chance:?}");
            // By chance R² is (R−1)/(N−1), whatever the distances.
            let by_chance = real(groups[7]) / 7.0;
            assert!((chance.r2 - by_chance).abs() < 0.01, "{chance:?}");
            let found = silhouette(&known(), &groups).unwrap();
            assert!((found - silhouette_score).abs() < 1e-12, "{found}");
        }
    }

    #[test]
    fn equal_distances_say_that_groups_mean_nothing() {
        let equal: Vec<Vec<f64>> =
            (0..9).map(|i| (0..9).map(|j| if i == j { 0.0 } else { 2.0 }).collect()).collect();
        let groups = [0, 0, 0, 1, 1, 1, 2, 2, 2];
        let split = permanova(&equal, &groups).unwrap();
        assert!((split.f - 1.0).abs() < 1e-12, "{split:?}");
        // R² is (R−1)/(N−1) although there is nothing; ω² says so.
        assert!((split.r2 - 0.25).abs() < 1e-12 && split.omega2.abs() < 1e-12, "{split:?}");
        let chance = relabelled(&equal, &groups, 99, 1).unwrap();
        assert!((chance.r2 - 0.25).abs() < 1e-12 && (chance.p - 1.0).abs() < 1e-12, "{chance:?}");
        assert!(silhouette(&equal, &groups).unwrap().abs() < 1e-12);
    }

    #[test]
    fn points_that_coincide_within_their_group_leave_f_finite() {
        let split = permanova(&line(&[0.0, 0.0, 5.0, 5.0]), &[0, 0, 1, 1]).unwrap();
        assert!((split.r2 - 1.0).abs() < 1e-12 && split.f.is_finite() && split.f > 1e9);
    }

    #[test]
    fn one_group_or_one_point_has_no_split() {
        let points = line(&[0.0, 1.0, 2.0]);
        assert_eq!(permanova(&points, &[0, 0, 0]), None);
        assert_eq!(permanova(&points, &[0, 1, 2]), None);
        assert_eq!(permanova(&line(&[1.0; 4]), &[0, 0, 1, 1]), None);
        assert_eq!(silhouette(&points, &[1, 1, 1]), None);
        assert_eq!(permanova(&[], &[]), None);
    }
}
