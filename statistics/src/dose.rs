//! How the concept's share answers the dose: an isotonic fit and the dose of half effect.

use crate::interval::{CiKind, Estimate, percentile};

/// The nearest non-decreasing sequence (pool adjacent violators, equal weights).
pub fn isotonic(values: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for &value in values {
        pools.push((value, 1));
        while pools.len() > 1 {
            let (last, n_last) = pools[pools.len() - 1];
            let (before, n_before) = pools[pools.len() - 2];
            if before <= last {
                break;
            }
            let (a, b) = (crate::number::real(n_before), crate::number::real(n_last));
            pools.pop();
            pools.pop();
            pools.push(((before * a + last * b) / (a + b), n_before + n_last));
        }
    }
    pools.into_iter().flat_map(|(value, n)| std::iter::repeat_n(value, n)).collect()
}

/// The dose where the isotonic fit of `shares` reaches halfway between its value at dose 0 and at
/// dose 1, by linear interpolation. `doses` rise and hold 0 and 1; `None` if they do not, or if the
/// share does not rise.
pub fn half_effect_dose(doses: &[f64], shares: &[f64]) -> Option<f64> {
    let fit = isotonic(shares);
    let at = |dose: f64| {
        doses.iter().position(|d| (d - dose).abs() < 1e-9).and_then(|i| fit.get(i)).copied()
    };
    let (none, full) = (at(0.0)?, at(1.0)?);
    let goal = f64::midpoint(none, full);
    if full <= none {
        return None;
    }
    (1..fit.len()).find(|&i| fit[i - 1] < goal && fit[i] >= goal).map(|i| {
        let part = (goal - fit[i - 1]) / (fit[i] - fit[i - 1]);
        doses[i - 1] + part * (doses[i] - doses[i - 1])
    })
}

/// The dose of half effect with the middle 95 % of its bootstrap; `None` where the rise of the share
/// from dose 0 to dose 1 is not beyond chance, that is, where its 2.5 % end is not above 0.
///
/// `replicates[i][k]` is the share at `doses[i]` in replicate `k`. A replicate draws the same seeds
/// at every dose, so that whole trajectories are resampled.
pub fn half_effect(doses: &[f64], shares: &[f64], replicates: &[Vec<f64>]) -> Option<Estimate> {
    let at = |dose: f64| {
        let place = doses.iter().position(|d| (d - dose).abs() < 1e-9);
        place.and_then(|i| replicates.get(i))
    };
    let rises: Vec<f64> = at(1.0)?.iter().zip(at(0.0)?).map(|(full, none)| full - none).collect();
    let [least, _] = percentile(&rises, 0.95)?;
    if least <= 0.0 {
        return None;
    }
    let value = half_effect_dose(doses, shares)?;
    let half = |k: usize| {
        let trajectory: Vec<f64> = replicates.iter().map(|drawn| drawn[k]).collect();
        half_effect_dose(doses, &trajectory)
    };
    let halves: Vec<f64> = (0..rises.len()).filter_map(half).collect();
    Some(percentile(&halves, 0.95).map_or(Estimate::bare(value), |[low, high]| {
        Estimate::with(value, [low.min(value), high.max(value)], CiKind::Percentile)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rise that one replicate in ten does not show is a rise by chance.
    #[test]
    fn half_effect_needs_a_rise_beyond_chance() {
        let doses = [0.0, 0.5, 1.0];
        let shares = [0.0, 0.02, 0.05];
        let flat = |k: u32| k.is_multiple_of(10);
        let drawn = |still: &dyn Fn(u32) -> bool| -> Vec<Vec<f64>> {
            let at = |share: f64| -> Vec<f64> {
                (0..200).map(|k| if still(k) { 0.0 } else { share }).collect()
            };
            shares.map(at).to_vec()
        };
        assert_eq!(half_effect(&doses, &shares, &drawn(&flat)), None);
        assert!(half_effect_dose(&doses, &shares).is_some(), "the point alone would give one");
        let sure = half_effect(&doses, &shares, &drawn(&|_| false)).unwrap();
        let expected = 0.5 + 0.5 * (0.025 - 0.02) / 0.03;
        assert!((sure.value - expected).abs() < 1e-12, "{sure:?}");
        assert!(sure.ci.is_some_and(|ci| ci[0] <= expected && expected <= ci[1]), "{sure:?}");
        assert_eq!(half_effect(&doses, &shares, &[]), None);
    }

    #[test]
    fn the_interval_of_the_half_dose_follows_the_trajectories() {
        let doses = [0.0, 0.5, 1.0];
        let middle: Vec<f64> = (0..=100).map(|k| f64::from(k) / 1000.0).collect();
        let replicates = [vec![0.0; 101], middle, vec![0.1; 101]];
        let half = half_effect(&doses, &[0.0, 0.05, 0.1], &replicates).unwrap();
        let [low, high] = half.ci.unwrap();
        assert!((half.value - 0.5).abs() < 1e-12);
        // A middle of 0.0975 is passed at 0.5·0.05/0.0975, one of 0.0025 at 0.5 + 0.5·0.0475/0.0975.
        assert!((low - 0.256_410).abs() < 1e-3 && (high - 0.743_590).abs() < 1e-3, "{half:?}");
    }

    /// KAT `dose`.
    #[test]
    fn known_curve_has_known_half_effect() {
        let shares = [0.046_35, 0.088_90, 0.151_35, 0.228_00, 0.305_70];
        let dose = half_effect_dose(&[0.0, 0.25, 0.5, 0.75, 1.0], &shares).unwrap();
        assert!((dose - 0.580_48).abs() < 1e-5, "{dose}");
    }

    #[test]
    fn violators_are_pooled() {
        assert_eq!(isotonic(&[1.0, 3.0, 2.0, 4.0]), vec![1.0, 2.5, 2.5, 4.0]);
        assert_eq!(isotonic(&[3.0, 2.0, 1.0]), vec![2.0; 3]);
    }

    #[test]
    fn a_flat_or_partial_curve_has_none() {
        assert_eq!(half_effect_dose(&[0.0, 1.0], &[0.2, 0.2]), None);
        assert_eq!(half_effect_dose(&[0.0, 0.5], &[0.1, 0.2]), None);
    }
}
