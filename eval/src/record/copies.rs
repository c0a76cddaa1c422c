//! Collapse and copying: how near the pictures come to the references, and to each other.

use super::BeforeAfter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// Nearness to references and diversity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopiesRecord {
    /// Pictures asked by the identifier, of each model.
    pub pictures: u64,
    /// Mean cosine of the references among each other, each left out in turn.
    pub among_references: f64,
    /// Mean cosine of the pictures with the references (CLIP-I).
    pub clip_i: BeforeAfter<Estimate>,
    /// Above this cosine with a reference a picture counts as a copy: the larger of the base's 99th
    /// percentile and the largest leave-one-out cosine.
    pub copy_threshold: f64,
    /// Pictures above it.
    pub copies: BeforeAfter<u64>,
    /// Gini coefficient of how often each reference is the nearest: 0 even, 1 − 1/n a black hole.
    pub black_hole: BeforeAfter<f64>,
    /// How often each reference is the nearest of an adapted picture, by its path within the census.
    pub nearest: Vec<NearestReference>,
    /// Vendi score of the pictures (order 1): how many there are in effect.
    pub vendi: BeforeAfter<Estimate>,
    /// The same of orders 2 and ∞.
    pub vendi_higher: BeforeAfter<[f64; 2]>,
    /// PRES: mean cosine between pictures of the class and the references, as after − before.
    pub prior_resemblance: Option<Estimate>,
}

/// One reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NearestReference {
    /// Its picture, a path within the census.
    pub picture: String,
    /// Adapted pictures whose nearest reference it is.
    pub pictures: u64,
}
