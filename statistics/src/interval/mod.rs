//! Owns intervals and tests on paired seeds: the bootstrap with simultaneous (max-t) intervals, exact
//! `McNemar`, Stuart–Maxwell, Bhapkar, sign flips and false-discovery rates. Knows no picture and no
//! file; every random draw comes from [`recipes::draws`], keyed by seed and draw number.

mod bootstrap;
mod distribution;
mod marginal;

pub use bootstrap::{Replicate, Resampler, basic, max_t, max_t_by_spread, percentile};
pub use distribution::{chi_square_survival, normal_quantile, wilson};
pub use marginal::{
    MarginalTest, McNemar, SignFlip, benjamini_hochberg, bhapkar, mcnemar, sign_flip,
    stuart_maxwell,
};

use crate::number::real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A measured number with its 95 % interval, where one could be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The point estimate.
    pub value: f64,
    /// Lower and upper end of the 95 % interval.
    pub ci: Option<[f64; 2]>,
    /// How the interval was made.
    pub ci_kind: Option<CiKind>,
}

impl Estimate {
    /// A number without an interval.
    pub fn bare(value: f64) -> Self {
        Self { value, ci: None, ci_kind: None }
    }

    /// A number with an interval of the given kind.
    pub fn with(value: f64, ci: [f64; 2], kind: CiKind) -> Self {
        Self { value, ci: Some(ci), ci_kind: Some(kind) }
    }

    /// The same distance, with an interval that starts at 0 unless its sign-flip `p` is at most .05.
    ///
    /// Percentiles reflected at a distance between many categories leave out 0 in about half of all
    /// worlds in which nothing happened: a distance is never 0, and the replicates repeat its bias.
    #[must_use]
    pub fn grounded(self, p: f64) -> Self {
        let ground = |[low, high]: [f64; 2]| [if p > 0.05 { 0.0 } else { low }, high];
        Self { ci: self.ci.map(ground), ..self }
    }
}

/// Largest share that may lie behind a count of 0, at level 1 − `alpha` for each of `k` questions at
/// once: `ln(k/α)·max ω/n` over prompts of weight `ω` and `n` pictures each. For one prompt and one
/// question it is the rule of three, 3/N.
///
/// All of what was missed may sit in the prompt that was asked least for its weight.
///
/// Source: Hanley & Lippman-Hand 1983, JAMA 249:1743, weighted, with Bonferroni's bound over `k`.
pub fn never_seen(pools: impl Iterator<Item = (f64, usize)>, alpha: f64, k: usize) -> f64 {
    let unit = pools.map(|(weight, n)| weight / real(n.max(1))).fold(0.0, f64::max);
    (unit * libm::log(real(k.max(1)) / alpha)).min(1.0)
}

/// How an interval was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CiKind {
    /// Simultaneous over all entities: paired bootstrap of the largest studentised deviation.
    MaxT,
    /// Ends of the middle 95 % of the bootstrap draws.
    Percentile,
    /// Reflected percentiles, widened to hold the estimate; for distances, which are biased upward.
    Basic,
    /// Nothing was counted, or everything: see [`never_seen`].
    RuleOfThree,
    /// Wilson's score interval of a share.
    Wilson,
    /// Estimate ± 1.96 standard errors.
    Normal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_that_sign_flips_reach_may_be_nothing() {
        let distance = Estimate::with(0.2, [0.12, 0.27], CiKind::Basic);
        assert_eq!(distance.grounded(0.051).ci, Some([0.0, 0.27]));
        assert_eq!(distance.grounded(0.05), distance);
        assert_eq!(Estimate::bare(0.2).grounded(1.0), Estimate::bare(0.2));
    }

    #[test]
    fn what_was_never_seen_may_hide_in_the_prompt_asked_least() {
        let never = |pools: &[(f64, usize)], k| never_seen(pools.iter().copied(), 0.05, k);
        // 0.95 = (1 − p)^300 has p = 3/300 within a few per cent of itself.
        assert!((never(&[(1.0, 300)], 1) - 0.01).abs() < 2e-4);
        assert!(((1.0 - never(&[(1.0, 300)], 1)).powi(300) - 0.05).abs() < 2e-3);
        // A tenth of the weight on 32 of 640 pictures: 1 − (1 − p)^32 with p = 0.094 is 0.95.
        assert!((never(&[(0.6, 512), (0.1, 32), (0.3, 96)], 1) - 0.1 * 0.0936).abs() < 1e-4);
        assert!(never(&[(1.0, 300)], 13) > 1.8 * never(&[(1.0, 300)], 1));
        assert!((never(&[], 1)).abs() < f64::EPSILON);
    }
}
