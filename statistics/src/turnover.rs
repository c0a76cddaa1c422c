//! What becomes of a set of things from one settlement to the next: replacement against mere loss, and
//! how much of each concept later ones undo.

use crate::number::mean;

/// Jaccard dissimilarity of two sets and its two parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turnover {
    /// (b + c)/(a + b + c), with a things in both sets, b and c in one of them; 0 for two empty sets.
    pub jaccard: f64,
    /// 2·min(b, c)/(a + 2·min(b, c)): things replaced by others.
    pub turnover: f64,
    /// The rest: things lost or gained without replacement.
    pub nestedness: f64,
}

/// Compares two sets, given as one flag per thing.
///
/// Source: Baselga 2012, Global Ecology and Biogeography 21:1223.
pub fn turnover(before: &[bool], after: &[bool]) -> Turnover {
    let (mut both, mut lost, mut gained) = (0.0_f64, 0.0_f64, 0.0_f64);
    for pair in before.iter().zip(after) {
        match pair {
            (true, true) => both += 1.0,
            (true, false) => lost += 1.0,
            (false, true) => gained += 1.0,
            (false, false) => {}
        }
    }
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let replaced = 2.0 * lost.min(gained);
    let jaccard = share(lost + gained, both + lost + gained);
    let turnover = share(replaced, both + replaced);
    Turnover { jaccard, turnover, nestedness: jaccard - turnover }
}

/// Mean change of each concept's share from its own settlement to the last. A concept that was settled
/// last is left out, since nothing followed it. `None` with fewer than two concepts.
///
/// `shares[i][k]` is the share of concept i after settlement k; `own[i]` is the settlement of concept i.
///
/// Source: Lopez-Paz & Ranzato 2017, arXiv:1706.08840, equation 3 (backward transfer).
pub fn backward_transfer(shares: &[Vec<f64>], own: &[usize]) -> Option<f64> {
    over_followed(shares, own, &|row, own| Some(row.last()? - row.get(own)?))
}

/// Mean over the same concepts of the largest share since its own settlement less the share at last.
/// `None` with fewer than two concepts.
///
/// Source: Chaudhry et al. 2018, arXiv:1801.10112, definition 3.
pub fn forgetting(shares: &[Vec<f64>], own: &[usize]) -> Option<f64> {
    over_followed(shares, own, &|row, own| {
        let most = row.get(own..)?.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(most - row.last()?)
    })
}

/// Mean of a figure over the concepts that were not settled last.
fn over_followed(
    shares: &[Vec<f64>],
    own: &[usize],
    figure: &dyn Fn(&[f64], usize) -> Option<f64>,
) -> Option<f64> {
    if shares.len() < 2 {
        return None;
    }
    let followed = shares.iter().zip(own).filter(|(row, own)| **own + 1 < row.len());
    let figures: Option<Vec<f64>> = followed.map(|(row, own)| figure(row, *own)).collect();
    mean(&figures?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KAT `dose`, the part of Baselga: {abcde} against {abcf}.
    #[test]
    fn the_known_sets_differ_by_half_of_which_four_fifths_are_replacement() {
        let before = [true, true, true, true, true, false];
        let after = [true, true, true, false, false, true];
        let found = turnover(&before, &after);
        assert!((found.jaccard - 0.5).abs() < 1e-12, "{found:?}");
        assert!((found.turnover - 0.4).abs() < 1e-12, "{found:?}");
        assert!((found.nestedness - 0.1).abs() < 1e-12, "{found:?}");
        assert_eq!(turnover(&after, &before), found);
    }

    #[test]
    fn mere_loss_is_nestedness_and_pure_exchange_turnover() {
        let loss = turnover(&[true, true], &[true, false]);
        assert!(loss.turnover.abs() < 1e-12 && (loss.nestedness - 0.5).abs() < 1e-12);
        let exchange = turnover(&[true, false], &[false, true]);
        assert!((exchange.turnover - 1.0).abs() < 1e-12 && exchange.nestedness.abs() < 1e-12);
        assert!(turnover(&[false], &[false]).jaccard.abs() < 1e-12);
    }

    #[test]
    fn later_settlements_undo_earlier_ones() {
        let shares = [vec![0.4, 0.5, 0.2], vec![0.0, 0.3, 0.25], vec![0.0, 0.0, 0.6]];
        // (.2 − .4 + .25 − .3)/2 and (.5 − .2 + .3 − .25)/2
        let own = [0, 1, 2];
        assert!((backward_transfer(&shares, &own).unwrap() + 0.125).abs() < 1e-12);
        assert!((forgetting(&shares, &own).unwrap() - 0.175).abs() < 1e-12);
        // A settlement without a concept of its own may come last.
        let two = [vec![0.4, 0.5, 0.2], vec![0.0, 0.3, 0.25]];
        assert!((backward_transfer(&two, &[0, 1]).unwrap() + 0.125).abs() < 1e-12);
        assert_eq!(backward_transfer(&shares[..1], &own[..1]), None);
        assert_eq!((backward_transfer(&[], &[]), forgetting(&[], &[])), (None, None));
    }
}
