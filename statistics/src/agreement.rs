//! How far two judges of the same pictures agree.

use crate::number::real;
use std::collections::BTreeMap;

/// Cohen's κ of two lists of labels of the same pictures: agreement beyond what the frequencies of
/// the labels alone would give, 1 for full agreement. `None` of nothing, or where chance alone gives
/// full agreement.
///
/// Source: Cohen 1960; agrees with scikit-learn `cohen_kappa_score`.
pub fn cohen_kappa(a: &[u16], b: &[u16]) -> Option<f64> {
    let n = real(a.len().min(b.len()));
    if n <= 0.0 {
        return None;
    }
    let mut counts: BTreeMap<u16, (f64, f64)> = BTreeMap::new();
    let mut same = 0.0;
    for (x, y) in a.iter().zip(b) {
        counts.entry(*x).or_default().0 += 1.0;
        counts.entry(*y).or_default().1 += 1.0;
        same += f64::from(u8::from(x == y));
    }
    let by_chance: f64 = counts.values().map(|(own, other)| own * other).sum::<f64>() / (n * n);
    (by_chance < 1.0).then(|| (same / n - by_chance) / (1.0 - by_chance))
}

/// Share of entries that have the same sign in both lists, among those that are not 0 in both; `None`
/// if all are.
pub fn same_sign(a: &[f64], b: &[f64]) -> Option<f64> {
    let sign = |x: f64| i8::from(x > 0.0) - i8::from(x < 0.0);
    let signs: Vec<(i8, i8)> = a.iter().zip(b).map(|(x, y)| (sign(*x), sign(*y))).collect();
    let told = signs.iter().filter(|(x, y)| *x != 0 || *y != 0).count();
    let same = signs.iter().filter(|(x, y)| *x != 0 && x == y).count();
    (told > 0).then(|| real(same) / real(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kappa_agrees_with_scikit_learn() {
        let found = cohen_kappa(&[0, 0, 1, 1, 2, 2, 0, 1], &[0, 1, 1, 1, 2, 0, 0, 2]).unwrap();
        assert!((found - 0.428_571_428_571_428_55).abs() < 1e-12, "{found}");
        assert_eq!(cohen_kappa(&[3, 4, 4], &[3, 4, 4]), Some(1.0));
        assert_eq!(cohen_kappa(&[7, 7], &[7, 7]), None);
        assert_eq!(cohen_kappa(&[], &[]), None);
    }

    #[test]
    fn judges_who_agree_by_chance_alone_have_no_kappa() {
        let found = cohen_kappa(&[0, 0, 1, 1], &[0, 1, 0, 1]).unwrap();
        assert!(found.abs() < 1e-12, "{found}");
    }

    #[test]
    fn signs_are_compared_where_either_judge_saw_a_change() {
        let found = same_sign(&[0.1, -0.2, 0.0, 0.0, 0.3], &[0.4, 0.1, 0.0, -0.1, 0.01]).unwrap();
        assert!((found - 0.5).abs() < 1e-12, "{found}");
        assert_eq!(same_sign(&[0.0], &[0.0]), None);
    }
}
