//! Shares corrected for what the evaluator gets wrong, each model by pictures of its own.

use super::BeforeAfter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::calibrate::Confusion;
use statistics::interval::Estimate;

/// Pictures asked by name of which another family of evaluator confirmed that they show what was asked,
/// and what the evaluator itself said of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifiedRecord {
    /// Who confirmed them: `nearest render` or `second evaluator`.
    pub verified_by: String,
    /// SHA-256 of who confirmed them.
    pub sha256: String,
    /// Confirmed pictures of the base: rows are what was asked, columns what the evaluator said. The last
    /// entity is `∅`, which nobody asks for.
    pub base: Confusion,
    /// Confirmed pictures of the adapted model, in the same order.
    pub adapted: Confusion,
    /// What the evaluator alone says of the concept's references, in the same order: where a picture of the
    /// concept goes that the detector misses.
    pub references: Vec<u64>,
}

/// Both models' shares in the concept's facet, each corrected by its own confusion matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrectedRecord {
    /// Condition number of each matrix.
    pub condition: BeforeAfter<f64>,
    /// Categories of which too little is known in either model: their labels are taken as they stand in both.
    pub uncorrected: Vec<String>,
    /// One record per category but the withheld pictures, in thesaurus order.
    pub entities: Vec<CorrectedEntity>,
}

/// One entity's corrected shares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrectedEntity {
    /// Entity, the concept or `∅`.
    pub id: String,
    /// Corrected share in the base.
    pub p_b: f64,
    /// Corrected share in the adapted model.
    pub p_a: f64,
    /// Their difference with a simultaneous 95 % interval, over pictures and matrices together.
    pub delta: Estimate,
}
