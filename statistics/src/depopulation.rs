//! Dilution and selection: how much of the loss any newcomer of that size would have cost, and how
//! much says who was driven out. Works on shares; knows no sample.
//!
//! `KL(P_B‖P_A) = kl(a‖λ) + (1−a)·KL(p̃‖p̃′)`, with a and λ the new entity's share before and after
//! and p̃, p̃′ the shares among all others.

use crate::diversity::hill;
use crate::number::real;

/// One facet split into its two parts. All in nats unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// kl(a‖λ): the cost of the newcomer's mass; 0 without a newcomer.
    pub dilution: f64,
    /// (1−a)·KL(p̃‖p̃′): who among the others was driven out.
    pub selection: f64,
    /// Jensen–Shannon form of the dilution.
    pub js_dilution: f64,
    /// Jensen–Shannon form of the selection.
    pub js_selection: f64,
    /// `s_i` = ln(p̃′_`i/p̃_i`) per category; `None` for the newcomer and where either share is 0.
    pub coefficients: Vec<Option<f64>>,
}

/// Splits the change from `before` to `after` (equal length, each sums to 1); `new` is the
/// newcomer's category, if the facet has one.
///
/// Categories of share 0 in `before` add nothing; one that falls to exactly 0 makes the KL terms
/// infinite, so estimates from counts pass through [`smoothed`] first.
pub fn split(before: &[f64], after: &[f64], new: Option<usize>) -> Split {
    let share_of_new = |p: &[f64]| new.map_or(0.0, |n| p[n]);
    let (a, lambda) = (share_of_new(before), share_of_new(after));
    let old = |i: &usize| Some(*i) != new;
    let rest = |p: &[f64], mass: f64| -> Vec<f64> {
        (0..p.len()).filter(old).map(|i| if mass > 0.0 { p[i] / mass } else { 0.0 }).collect()
    };
    let (p, q) = (rest(before, 1.0 - a), rest(after, 1.0 - lambda));
    let middle: Vec<f64> =
        rest(&before.iter().zip(after).map(|(x, y)| x + y).collect::<Vec<_>>(), 2.0 - a - lambda);
    let mut logs = p.iter().zip(&q).map(|(x, y)| (*x > 0.0 && *y > 0.0).then(|| libm::log(y / x)));
    Split {
        dilution: binary_kl(a, lambda),
        selection: (1.0 - a) * kl(&p, &q),
        js_dilution: binary_js(a, lambda),
        js_selection: f64::midpoint((1.0 - a) * kl(&p, &middle), (1.0 - lambda) * kl(&q, &middle)),
        coefficients: (0..before.len())
            .map(|i| if old(&i) { logs.next().flatten() } else { None })
            .collect(),
    }
}

/// Σ max(0, `p_i` − p′_i) over the categories that `residents` marks, as a share.
///
/// Residents are the entities that were there before the newcomer. Pictures that bear none of the
/// entities, and withheld ones, are no entity: what becomes of them displaces nobody.
pub fn displaced(before: &[f64], after: &[f64], residents: &[bool]) -> f64 {
    let losses = before.iter().zip(after).map(|(p, q)| (p - q).max(0.0));
    losses.zip(residents).filter(|(_, resident)| **resident).map(|(loss, _)| loss).sum()
}

/// Hill numbers ^0D, ^1D, ^2D of the categories that `residents` marks, by their shares among
/// themselves; all 0 if none of them has a share.
pub fn effective(shares: &[f64], residents: &[bool]) -> [f64; 3] {
    let marked = shares.iter().zip(residents).filter(|(_, resident)| **resident);
    let held: Vec<f64> = marked.map(|(share, _)| *share).collect();
    let mass: f64 = held.iter().sum();
    if mass <= 0.0 {
        return [0.0; 3];
    }
    let rest: Vec<f64> = held.iter().map(|share| share / mass).collect();
    [0.0, 1.0, 2.0].map(|q| hill(&rest, q))
}

/// 1 − ^1D after / ^1D before, of the categories that `residents` marks: 0 under pure dilution,
/// negative if they became more even, 1 if none is left; 0 if none was there.
pub fn evenness_loss(before: &[f64], after: &[f64], residents: &[bool]) -> f64 {
    let [before, after] = [before, after].map(|shares| effective(shares, residents)[1]);
    if before > 0.0 { 1.0 - after / before } else { 0.0 }
}

/// Ends of kl(a‖λ) where a and λ may lie anywhere in their intervals, each inside (0, 1); 0 is the
/// lower end if these meet, since kl grows with the distance of λ from a.
pub fn dilution_interval(a: [f64; 2], lambda: [f64; 2]) -> [f64; 2] {
    let least = if lambda[0] > a[1] {
        binary_kl(a[1], lambda[0])
    } else if lambda[1] < a[0] {
        binary_kl(a[0], lambda[1])
    } else {
        0.0
    };
    [least, binary_kl(a[0], lambda[1]).max(binary_kl(a[1], lambda[0]))]
}

/// Shares with half a picture added to each category that `seen` marks (Dirichlet-½), `n` pictures in
/// all; the other categories stay 0. For KL terms and selection coefficients only.
pub fn smoothed(shares: &[f64], seen: &[bool], n: f64) -> Vec<f64> {
    let added: f64 = seen.iter().map(|&s| if s { 0.5 } else { 0.0 }).sum();
    shares
        .iter()
        .zip(seen)
        .map(|(share, &s)| if s { (share * n + 0.5) / (n + added) } else { 0.0 })
        .collect()
}

/// One share as [`smoothed`] has it where `n_seen` categories were seen; always inside (0, 1).
pub fn smoothed_share(share: f64, n_seen: usize, n: f64) -> f64 {
    (share * n + 0.5) / (n + 0.5 * real(n_seen.max(2)))
}

/// KL(p‖q) = Σ p ln(p/q); terms with p = 0 are 0. Never below 0 for two distributions.
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    let terms = p.iter().zip(q).filter(|(x, _)| **x > 0.0).map(|(x, y)| x * libm::log(x / y));
    terms.sum::<f64>().max(0.0)
}

fn binary_kl(a: f64, b: f64) -> f64 {
    kl(&[a, 1.0 - a], &[b, 1.0 - b])
}

fn binary_js(a: f64, b: f64) -> f64 {
    let middle = f64::midpoint(a, b);
    f64::midpoint(binary_kl(a, middle), binary_kl(b, middle))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: [f64; 6] = [0.35, 0.25, 0.20, 0.15, 0.05, 0.0];
    const AFTER: [f64; 6] = [0.28, 0.20, 0.08, 0.20, 0.04, 0.20];
    const RESIDENTS: [bool; 6] = [true, true, true, true, true, false];

    /// KAT `split`, first world: the newcomer was not there before.
    #[test]
    fn split_of_the_known_world() {
        let s = split(&BEFORE, &AFTER, Some(5));
        assert!((s.dilution - 0.223_144).abs() < 1e-6, "{s:?}");
        assert!((s.selection - 0.062_006).abs() < 1e-6, "{s:?}");
        assert!((kl(&BEFORE, &AFTER) - 0.285_149).abs() < 1e-6);
        assert!((s.js_dilution - 0.074_882).abs() < 1e-6, "{s:?}");
        assert!((s.js_selection - 0.013_126).abs() < 1e-6, "{s:?}");
        for (found, expected) in
            s.coefficients.iter().zip([0.0, 0.0, -std::f64::consts::LN_2, 0.510_826, 0.0])
        {
            assert!((found.unwrap() - expected).abs() < 1e-6, "{s:?}");
        }
        assert_eq!(s.coefficients[5], None);
        assert!((displaced(&BEFORE, &AFTER, &RESIDENTS) - 0.25).abs() < 1e-12);
        assert!((evenness_loss(&BEFORE, &AFTER, &RESIDENTS) - 0.029_189).abs() < 1e-6);
        assert!((effective(&AFTER, &RESIDENTS)[1] - 4.223_356).abs() < 1e-6);
    }

    /// KAT: pictures that bear none of the entities are no third entity.
    #[test]
    fn pictures_of_nothing_are_not_an_entity() {
        let (before, after) = ([0.50, 0.45, 0.05], [0.20, 0.18, 0.62]);
        let residents = [true, true, false];
        for shares in [before, after] {
            assert!((effective(&shares, &residents)[1] - 1.997_231).abs() < 1e-5, "{shares:?}");
        }
        assert!(evenness_loss(&before, &after, &residents).abs() < 1e-12);
        assert!((displaced(&before, &after, &residents) - 0.57).abs() < 1e-12);
        // The other way round nothing that was there lost a place.
        assert!(displaced(&after, &before, &residents).abs() < 1e-12);
    }

    #[test]
    fn a_facet_without_entities_has_none_in_effect() {
        let nothing = [0.0, 0.0, 1.0];
        let residents = [true, true, false];
        assert!(effective(&nothing, &residents).iter().all(|d| d.abs() < f64::EPSILON));
        assert!(evenness_loss(&nothing, &nothing, &residents).abs() < f64::EPSILON);
        let lost = evenness_loss(&[0.5, 0.5, 0.0], &nothing, &residents);
        assert!((lost - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_dilution_of_intervals_holds_that_of_every_pair_in_them() {
        let [low, high] = dilution_interval([0.01, 0.03], [0.10, 0.20]);
        assert!((low - kl(&[0.03, 0.97], &[0.10, 0.90])).abs() < 1e-12);
        assert!((high - kl(&[0.01, 0.99], &[0.20, 0.80])).abs() < 1e-12);
        assert!(dilution_interval([0.01, 0.10], [0.05, 0.20])[0].abs() < 1e-12, "they meet");
        let [low, high] = dilution_interval([0.2, 0.3], [0.05, 0.1]);
        assert!((low - kl(&[0.2, 0.8], &[0.1, 0.9])).abs() < 1e-12);
        assert!((high - kl(&[0.3, 0.7], &[0.05, 0.95])).abs() < 1e-12);
        // Both ends may be 0 or 1 in counts; smoothed they are not.
        let ends = [0.0, 1.0].map(|share| smoothed_share(share, 1, 10.0));
        assert!(ends[0] > 0.0 && ends[1] < 1.0);
        let whole = smoothed(&[0.4, 0.6], &[true, true], 10.0);
        assert!((smoothed_share(0.4, 2, 10.0) - whole[0]).abs() < 1e-12);
    }

    /// KAT `split`, second world: the newcomer had a share of .05 before.
    #[test]
    fn split_with_a_newcomer_already_there() {
        let before = [0.30, 0.25, 0.20, 0.15, 0.05, 0.05];
        let after = [0.25, 0.20, 0.08, 0.18, 0.04, 0.25];
        let s = split(&before, &after, Some(5));
        assert!((s.dilution - 0.144_097).abs() < 1e-6, "{s:?}");
        assert!((s.selection - 0.052_980).abs() < 1e-6, "{s:?}");
        assert!((kl(&before, &after) - 0.197_078).abs() < 1e-6);
    }

    #[test]
    fn the_two_parts_add_up_and_the_coefficients_average_to_the_selection() {
        let s = split(&BEFORE, &AFTER, Some(5));
        assert!((s.dilution + s.selection - kl(&BEFORE, &AFTER)).abs() < 1e-12);
        let average: f64 =
            s.coefficients.iter().zip(BEFORE).map(|(c, p)| p * c.unwrap_or(0.0)).sum();
        assert!((average + s.selection).abs() < 1e-12);
    }

    #[test]
    fn pure_dilution_selects_nobody() {
        let after: Vec<f64> =
            BEFORE.iter().enumerate().map(|(i, p)| if i == 5 { 0.3 } else { p * 0.7 }).collect();
        let s = split(&BEFORE, &after, Some(5));
        assert!(s.selection.abs() < 1e-12);
        assert!(evenness_loss(&BEFORE, &after, &RESIDENTS).abs() < 1e-12);
        assert!((s.dilution + 0.7_f64.ln()).abs() < 1e-12);
        assert!(s.coefficients.iter().flatten().all(|c| c.abs() < 1e-12));
    }

    #[test]
    fn without_a_newcomer_all_is_selection() {
        let s = split(&BEFORE[..5], &[0.05, 0.15, 0.20, 0.25, 0.35], None);
        assert!(s.dilution.abs() < 1e-12 && s.js_dilution.abs() < 1e-12);
        assert!(s.selection > 0.1);
    }

    #[test]
    fn smoothing_keeps_the_sum_and_the_unseen() {
        let p = smoothed(&[0.5, 0.5, 0.0, 0.0], &[true, true, true, false], 10.0);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((p[2] - 0.5 / 11.5).abs() < 1e-12 && p[3].abs() < 1e-12);
    }
}
