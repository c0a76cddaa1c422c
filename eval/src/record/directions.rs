//! Directions in the UNet's innermost activations (h-space), before and after.

use super::BeforeAfter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// How entities are told apart inside the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectionsRecord {
    /// t/T at which activations were taken.
    pub level: f64,
    /// Pictures.
    pub pictures: u64,
    /// One entry per entity with enough pictures.
    pub entities: Vec<DirectionEntity>,
    /// Principal angles between the spans of all directions before and after, in radians, rising.
    pub principal_angles: Vec<f64>,
}

/// One entity's direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectionEntity {
    /// Entity.
    pub id: String,
    /// AUC on held-out pictures.
    pub auc: BeforeAfter<f64>,
    /// Reliability 2r/(1+r) of split halves.
    pub reliability: BeforeAfter<f64>,
    /// Cosine between both directions, corrected for reliability, at most 1; null where a reliability
    /// is below 0.2.
    pub cosine: Option<Estimate>,
}
