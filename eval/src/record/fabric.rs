//! The fabric: whether pictures are as far apart as the things that they show.

use super::BeforeAfter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// Rank correlation between distances in the thesaurus and distances between pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FabricRecord {
    /// Entities with enough pictures that were verified to show what was asked.
    pub entities: Vec<String>,
    /// Pictures behind each entity's centroid, equal in both models.
    pub pictures: u64,
    /// Against path lengths in the tree.
    pub tree: FabricMeasure,
    /// Against 1 − cosine of the evaluator's words.
    pub words: FabricMeasure,
}

/// A Mantel correlation before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FabricMeasure {
    /// ρ of the base, in [−1, 1].
    pub before: Estimate,
    /// ρ of the adapted model.
    pub after: Estimate,
    /// after − before.
    pub delta: Estimate,
    /// after / before; null where the interval of `before` reaches below 0.1.
    pub ratio: Option<Estimate>,
    /// Probability of a ρ as large under random relabelling.
    pub p: BeforeAfter<f64>,
}
