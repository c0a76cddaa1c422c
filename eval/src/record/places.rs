//! The map, the two hundred places, and what a person said.

use super::Pair;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// Where settlements lie: depopulation against fabric kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapPoint {
    /// What it is.
    pub kind: MapKind,
    /// What to call it.
    pub name: String,
    /// Multiplier of the adapter.
    pub dose: f64,
    /// KL between the shares of the concept's facet: dilution + selection, in nats.
    pub nats: Estimate,
    /// Fabric kept, ρ after / ρ before; null where nothing was asked by name or it was refused.
    pub fabric: Option<Estimate>,
}

/// What a point of the map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MapKind {
    /// The adapter as fitted.
    Settlement,
    /// The same at another dose.
    Dose,
    /// A placebo.
    Placebo,
}

/// Two hundred seeds of the empty prompt, and what holds each of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacesRecord {
    /// Facet.
    pub facet: String,
    /// Seed indices.
    pub seeds: Vec<u32>,
    /// The base first, then rising doses, then placebos.
    pub states: Vec<PlacesState>,
}

/// One state of all places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacesState {
    /// `base`, `adapted` or `placebo-0` …
    pub model: String,
    /// Multiplier of the adapter.
    pub dose: f64,
    /// Entity per seed; null where that seed was not drawn.
    pub entities: Vec<Option<String>>,
}

/// The census-taker's sheet: pairs for a person to label, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsRecord {
    /// Facet that is labelled.
    pub facet: String,
    /// Identity of each pair, as `labels.csv` names it: its number and four digits of its pictures.
    pub ids: Vec<String>,
    /// The pairs in the same order, chosen by a draw of their own.
    pub pairs: Vec<Pair>,
    /// Pairs that a person labelled.
    pub labelled: u64,
    /// Prediction-powered change per entity; empty before anything was labelled.
    pub corrected: Vec<LabelledEntity>,
}

/// One entity corrected by labels of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelledEntity {
    /// Entity.
    pub id: String,
    /// As counted.
    pub counted: f64,
    /// Prediction-powered estimate of the same change.
    pub corrected: Estimate,
}

/// How far a second evaluator of another family agrees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgreementRecord {
    /// Name of the second evaluator.
    pub evaluator: String,
    /// Its hash.
    pub sha256: String,
    /// One entry per facet that both can judge.
    pub facets: Vec<FacetAgreement>,
}

/// Agreement in one facet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FacetAgreement {
    /// Facet.
    pub facet: String,
    /// Cohen's κ on base pictures.
    pub kappa: f64,
    /// Share of entities whose change has the same sign in both.
    pub same_sign: f64,
    /// Pictures that both judged.
    pub pictures: u64,
}
