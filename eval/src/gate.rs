//! Limits that a recipe sets on measured figures. A gate looks at the interval, not at the point.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// A limit on one figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The figure, by the name that recipes give it, such as `selection_nats`.
    pub figure: String,
    /// Largest value allowed.
    pub at_most: Option<f64>,
    /// Smallest value allowed.
    pub at_least: Option<f64>,
}

/// What a gate found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The whole interval lies within the limits.
    Pass,
    /// The whole interval lies outside a limit.
    Fail,
    /// The interval holds a limit, or there is no figure.
    Undecided,
}

/// A gate with what it was compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateRecord {
    /// The limit.
    pub limit: Limit,
    /// The figure; null if it was refused.
    pub found: Option<Estimate>,
    /// The outcome.
    pub judgement: Judgement,
}

impl Limit {
    /// Compares the figure with the limit. A figure without an interval decides nothing.
    pub fn judge(&self, found: Option<Estimate>) -> GateRecord {
        let judgement = found.map_or(Judgement::Undecided, |estimate| {
            let Some([low, high]) = estimate.ci else { return Judgement::Undecided };
            let (most, least) =
                (self.at_most.unwrap_or(f64::INFINITY), self.at_least.unwrap_or(f64::NEG_INFINITY));
            if low > most || high < least {
                Judgement::Fail
            } else if high <= most && low >= least {
                Judgement::Pass
            } else {
                Judgement::Undecided
            }
        });
        GateRecord { limit: self.clone(), found, judgement }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use statistics::interval::CiKind;

    #[test]
    fn the_interval_decides_not_the_point() {
        let limit = Limit { figure: "selection_nats".into(), at_most: Some(0.1), at_least: None };
        let judge = |low, high| {
            let found = Estimate::with(f64::midpoint(low, high), [low, high], CiKind::Percentile);
            limit.judge(Some(found)).judgement
        };
        assert_eq!(judge(0.01, 0.09), Judgement::Pass);
        assert_eq!(judge(0.05, 0.14), Judgement::Undecided);
        assert_eq!(judge(0.11, 0.14), Judgement::Fail);
        assert_eq!(limit.judge(None).judgement, Judgement::Undecided);
        assert_eq!(limit.judge(Some(Estimate::bare(0.2))).judgement, Judgement::Undecided);
        let least = Limit { figure: "new_share".into(), at_most: None, at_least: Some(0.05) };
        let found = Estimate::with(0.02, [0.01, 0.03], CiKind::Percentile);
        assert_eq!(least.judge(Some(found)).judgement, Judgement::Fail);
    }
}
