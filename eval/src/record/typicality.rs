//! The kitsch gauge: how much of what is drawn is what is always drawn.

use super::BeforeAfter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// Four figures that are never one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypicalityRecord {
    /// Entities marked as stock motifs.
    pub motifs: Vec<String>,
    /// Share of unasked pictures that bear one of them.
    pub stock_share: Option<BeforeAfter<Estimate>>,
    /// Good–Turing coverage in the concept's facet.
    pub coverage: BeforeAfter<f64>,
    /// Déjà-vu: mean percentile in [0, 100] of −`L_B` among base pictures of equal compressibility.
    pub deja_vu: Option<BeforeAfter<Estimate>>,
    /// Pictures per tenth of that percentile, lowest first.
    pub tenths: BeforeAfter<Vec<u64>>,
    /// Pictures of each model.
    pub pictures: u64,
    /// Noise levels per picture.
    pub levels: u64,
    /// T(x|c), mean over the base's pictures that bear c, in nats.
    pub words: Vec<WordTypicality>,
}

/// Typicality for one word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordTypicality {
    /// Entity.
    pub id: String,
    /// Pictures.
    pub pictures: u64,
    /// Mean T in the base. Rare words score high by themselves: compare within one word only.
    pub typicality: Estimate,
}
