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
    /// Nothing was counted; the upper end is 3/N.
    RuleOfThree,
    /// Wilson's score interval of a share.
    Wilson,
}
