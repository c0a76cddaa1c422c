//! Successive settlements, and the four kinds of bodies that live through them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::interval::Estimate;

/// States of one model on the same seeds: the base, then one settlement (or checkpoint) after another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettlementsRecord {
    /// Facet.
    pub facet: String,
    /// Names of the states; the first is the base.
    pub states: Vec<String>,
    /// Entities, the order of all rows below.
    pub entities: Vec<String>,
    /// Share of each entity in each state, `[state][entity]`.
    pub shares: Vec<Vec<f64>>,
    /// From each state to the next.
    pub steps: Vec<SettlementStep>,
    /// Recolonisation: total variation of each state to the base, base first; it falls where the old
    /// entities return.
    pub distance_to_base: Vec<Estimate>,
    /// TV(`P_ab`, `P_ba`); null unless both orders were drawn.
    pub order_effect: Option<Estimate>,
    /// Mean of the same when both orders are exchanged place by place at random.
    pub order_floor: Option<f64>,
    /// Probability of an order effect as large if the order did nothing.
    pub order_p: Option<f64>,
    /// Mean change of each concept's share from its own settlement to the last (backward transfer);
    /// null with fewer than two concepts, and where pictures are labelled without any.
    pub backward_transfer: Option<f64>,
    /// The four kinds; empty with fewer than three settlements.
    pub kinds: Vec<KindRecord>,
}

/// One settlement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettlementStep {
    /// Name of the state that it leads to.
    pub to: String,
    /// Total variation to the state before.
    pub tv: Estimate,
    /// Share of pictures that entities already there lost, summed over all steps so far.
    pub displaced_so_far: f64,
    /// Jaccard dissimilarity of the sets of entities seen, and its parts.
    pub jaccard: f64,
    /// The part that is replacement.
    pub turnover: f64,
    /// The part that is loss or gain alone.
    pub nestedness: f64,
}

/// Beckett's four kinds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// I: keeps its number, keeps no place.
    Circulating,
    /// II: sometimes stops.
    SometimesStops,
    /// III: keeps its place.
    Sedentary,
    /// IV: gave up; seated if it still answers its name, gone if not.
    Vanquished,
}

/// One entity's mobility.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KindRecord {
    /// Entity.
    pub id: String,
    /// The kind that the point estimates say.
    pub kind: Kind,
    /// Probabilities of kinds I to IV over a bootstrap of seeds.
    pub probabilities: [f64; 4],
    /// Mean chance-corrected stay κ.
    pub kappa: f64,
    /// κ over that of the placebo.
    pub ratio: Option<f64>,
    /// Mean share of left places that was taken up again elsewhere.
    pub returns: f64,
    /// ad: how far it still answers its name, after over before; null if it was not asked.
    pub addressability: Option<f64>,
}
