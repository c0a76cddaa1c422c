//! The likelihood census: nats that a model lost on the base's own pictures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// Loss of log density per entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LikelihoodRecord {
    /// What the figures are.
    pub unit: LikelihoodUnit,
    /// Noise levels per picture.
    pub levels: u64,
    /// γ = −log SNR at the middle of each bin of the profiles, rising.
    pub gammas: Vec<f64>,
    /// One entry per entity with pictures.
    pub entities: Vec<LikelihoodEntity>,
}

/// What a likelihood figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodUnit {
    /// Nats of a density.
    Nats,
    /// A gap between scores: the model is distilled or few-step, and its score is of no density.
    ScoreGap,
}

/// One entity: total = population + deformation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LikelihoodEntity {
    /// Entity of the concept's facet.
    pub id: String,
    /// Pictures of the base that bear it.
    pub pictures: u64,
    /// E[log `p_B` − log `p_A`] over these pictures.
    pub total: Estimate,
    /// −log(`P_A`/`P_B`) of the counted census; null where a count is 0.
    pub population: Option<Estimate>,
    /// total − population: change of how the entity is drawn.
    pub deformation: Option<Estimate>,
    /// Deformation below −2 standard errors, which cannot be: the instruments disagree.
    pub instruments_disagree: bool,
    /// Share of `total` per bin of γ; sums to `total`.
    pub profile: Vec<f64>,
}
