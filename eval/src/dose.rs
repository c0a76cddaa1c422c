//! How the concept's share answers the dose: an isotonic fit and the dose of half effect.

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

#[cfg(test)]
mod tests {
    use super::*;

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
