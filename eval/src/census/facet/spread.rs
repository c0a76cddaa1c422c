//! Intervals of a facet's distances.

use super::{Analysis, Figures};
use statistics::contingency::Shares;
use statistics::depopulation::{dilution_interval, smoothed_share};
use statistics::interval::{CiKind, Estimate, SignFlip, basic, percentile};

/// Places in a facet's sign flips; from the last on, one |Δ| per category.
pub(super) const TV: usize = 0;
pub(super) const DILUTION: usize = 1;
pub(super) const SELECTION: usize = 2;
pub(super) const DISPLACED: usize = 3;
pub(super) const ENTITIES: usize = 4;

/// The figures of all pairs, of the bootstrap's and of the sign flips'.
pub(super) struct Spread<'a> {
    pub(super) analysis: &'a Analysis<'a>,
    pub(super) figures: &'a Figures,
    pub(super) drawn: &'a [Figures],
    pub(super) flips: &'a SignFlip,
}

impl Spread<'_> {
    fn reflected(&self, read: fn(&Figures) -> f64, least: f64) -> Estimate {
        let value = read(self.figures);
        if self.analysis.nothing_moved() {
            return Estimate::bare(value);
        }
        basic(value, &self.drawn.iter().map(read).collect::<Vec<_>>(), least)
    }

    /// A distance. Its interval holds 0 unless the sign flips say that something happened.
    pub(super) fn distance(&self, flip: usize, read: fn(&Figures) -> f64) -> Estimate {
        self.reflected(read, 0.0).grounded(self.flips.p[flip])
    }

    /// A distance that is a share of the pictures. Where none was seen to move, some may have.
    pub(super) fn places(&self, flip: usize, read: fn(&Figures) -> f64) -> Estimate {
        let distance = self.distance(flip, read);
        let still = distance.ci.is_some_and(|ci| ci[1] <= 0.0);
        if still || self.analysis.nothing_moved() {
            let most = self.analysis.never(0.05, 1);
            return Estimate::with(distance.value, [0.0, most], CiKind::RuleOfThree);
        }
        distance
    }

    /// 1 − ^1D after / ^1D before; may be negative.
    pub(super) fn evenness_loss(&self) -> Estimate {
        self.reflected(|figures| figures.evenness_loss, f64::NEG_INFINITY)
    }

    /// kl(a‖λ), with its interval mapped from those of a and λ. A bootstrap of kl itself would be
    /// biased upward, and without spread where no newcomer was seen. 0 without a newcomer.
    pub(super) fn dilution(&self) -> Estimate {
        let Some(new) = self.analysis.new else { return Estimate::bare(0.0) };
        let value = self.figures.dilution;
        let before = self.share(&|shares| shares.base[new]);
        let after = self.share(&|shares| shares.adapted[new]);
        let (Some(a), Some(lambda)) = (before.ci, after.ci) else { return Estimate::bare(value) };
        // The estimate is of smoothed shares, and so are the ends.
        let n_seen = self.analysis.seen.iter().filter(|&&seen| seen).count();
        let smooth = |end: f64| smoothed_share(end, n_seen, self.analysis.n);
        let [low, high] = dilution_interval(a.map(smooth), lambda.map(smooth));
        let kind = after.ci_kind.unwrap_or(CiKind::Percentile);
        Estimate::with(value, [low.min(value), high.max(value)], kind)
    }

    /// A share of all pictures. At both ends the bootstrap has no spread, and the interval is widened
    /// by what may have been missed.
    fn share(&self, read: &dyn Fn(&Shares) -> f64) -> Estimate {
        let analysis = self.analysis;
        let value = read(&analysis.shares);
        let drawn: Vec<f64> = analysis.replicates.iter().map(read).collect();
        let Some([low, high]) = percentile(&drawn, 0.95) else { return Estimate::bare(value) };
        let never = analysis.never(0.05, 1);
        // Shares are sums of weights and reach 1 up to rounding.
        if value < 1e-9 {
            Estimate::with(value, [0.0, high.max(never)], CiKind::RuleOfThree)
        } else if value > 1.0 - 1e-9 {
            Estimate::with(value, [low.min(1.0 - never), 1.0], CiKind::RuleOfThree)
        } else {
            Estimate::with(value, [low, high], CiKind::Percentile)
        }
    }
}
