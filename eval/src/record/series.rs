//! Series: whether pictures drawn under varied instructions belong to one world.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// Coherence of series of pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeriesRecord {
    /// Pictures per series.
    pub pictures: u64,
    /// One entry per space of distances: `style`, `content`, `palette`.
    pub spaces: Vec<SeriesSpace>,
    /// Coherence against diversity, per dose (0 is the base).
    pub frontier: Vec<FrontierPoint>,
    /// The pictures.
    pub sheets: Vec<SeriesSheet>,
}

/// Coherence in one space of distances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeriesSpace {
    /// `style`, `content` or `palette`.
    pub space: String,
    /// In the base; null where only one model was drawn.
    pub before: Option<Coherence>,
    /// In the adapted model.
    pub after: Coherence,
    /// World retention, `R²_A / R²_B`; null where the denominator is not above its permutation mean.
    pub retention: Option<Estimate>,
}

/// PERMANOVA of pictures by series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Coherence {
    /// R², share of the squared distances that lies between series.
    pub r2: Estimate,
    /// Mean R² when the pictures are dealt out anew: R² is positive by chance.
    pub r2_permuted: f64,
    /// ω², R² without that bias.
    pub omega2: f64,
    /// Pseudo-F.
    pub f: f64,
    /// Probability of an F as large under relabelling.
    pub p: f64,
    /// Mean silhouette in [−1, 1].
    pub silhouette: f64,
}

/// One dose: a frozen, repeated picture maximises R², so both axes are always shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FrontierPoint {
    /// Multiplier of the adapter.
    pub dose: f64,
    /// R² in the space of content.
    pub r2: Estimate,
    /// Mean Vendi score within a series: 1 if all pictures are the same.
    pub vendi: Estimate,
    /// Mean cosine with the nearest reference; null without references.
    pub nearest_reference: Option<f64>,
    /// Mean cosine of pictures with their own instructions.
    pub clip_t: f64,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeriesSheet {
    /// Its name.
    pub name: String,
    /// Model that drew it: `base` or `adapted`.
    pub model: String,
    /// Its pictures with their instructions, in order.
    pub pictures: Vec<SeriesPicture>,
}

/// One picture of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeriesPicture {
    /// Path within the census.
    pub picture: String,
    /// The instruction.
    pub instruction: String,
    /// Seed index.
    pub seed_idx: u32,
}
