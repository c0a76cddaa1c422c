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

/// Mean change of each concept's share from its own settlement to the last, over all but the last
/// concept, which nothing followed. `None` with fewer than two concepts.
///
/// `shares[i][k]` is the share of concept i after settlement k; concept i is settled by settlement i.
///
/// Source: Lopez-Paz & Ranzato 2017, arXiv:1706.08840, equation 3 (backward transfer).
pub fn backward_transfer(shares: &[Vec<f64>]) -> Option<f64> {
    let followed = shares.len().checked_sub(1)?;
    let changes: Option<Vec<f64>> = shares[..followed]
        .iter()
        .enumerate()
        .map(|(i, row)| Some(row.last()? - row.get(i)?))
        .collect();
    mean(&changes?)
}

/// Mean over all but the last concept of the largest share it ever had less the share it has at last.
/// `None` with fewer than two concepts.
///
/// Source: Chaudhry et al. 2018, arXiv:1801.10112, definition 3.
pub fn forgetting(shares: &[Vec<f64>]) -> Option<f64> {
    let followed = shares.len().checked_sub(1)?;
    let losses: Option<Vec<f64>> = shares[..followed]
        .iter()
        .map(|row| Some(row.iter().copied().fold(f64::NEG_INFINITY, f64::max) - row.last()?))
        .collect();
    mean(&losses?)
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
        assert!((backward_transfer(&shares).unwrap() + 0.125).abs() < 1e-12);
        assert!((forgetting(&shares).unwrap() - 0.175).abs() < 1e-12);
        assert_eq!(backward_transfer(&shares[..1]), None);
        assert_eq!((backward_transfer(&[]), forgetting(&[])), (None, None));
    }
}
