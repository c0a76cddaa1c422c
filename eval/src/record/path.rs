//! Path-space figures: how far apart two models are along the base's own trajectories.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// Path-space KL of several models to the base, and the forecast at dose 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathRecord {
    /// Noisy steps that are summed.
    pub steps: u64,
    /// One entry per model and dose, in the order of doses; placebos last.
    pub doses: Vec<PathDose>,
    /// Slopes of the shares at dose 0, from the base's pictures alone.
    pub forecast: Option<Forecast>,
}

/// One model at one dose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathDose {
    /// `adapted`, `placebo-0` …
    pub model: String,
    /// Multiplier of the adapter.
    pub dose: f64,
    /// Trajectories.
    pub pairs: u64,
    /// `KL_path` in nats, at least the KL between the shares.
    pub kl: Estimate,
    /// Largest total variation that it allows, √(KL/2), at most 1.
    pub tv_bound: f64,
    /// Mean weight `E[W]`; 1 in theory.
    pub mean_weight: f64,
    /// Effective share of the sample, (ΣW)²/(NΣW²).
    pub effective_share: f64,
    /// 1 − `E[W]`, mass settled where the base never goes; null if `effective_share` is below 0.1.
    pub outside: Option<f64>,
    /// Reweighted shares in the concept's facet; null likewise.
    pub weighted: Option<Vec<WeightedShare>>,
}

/// A share of the adapted model, told from the base's pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedShare {
    /// Entity.
    pub id: String,
    /// Share in the base.
    pub base: f64,
    /// mean(W·1[c = e]).
    pub share: f64,
}

/// What the first little dose does to each share, before anything is settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// Dose of the secant.
    pub dose: f64,
    /// Facet.
    pub facet: String,
    /// One entry per entity that the base drew; the concept cannot be among them.
    pub entities: Vec<ForecastEntity>,
}

/// One entity's slope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForecastEntity {
    /// Entity.
    pub id: String,
    /// ∂P(e)/∂dose at dose 0, with a simultaneous interval.
    pub slope: Estimate,
}
