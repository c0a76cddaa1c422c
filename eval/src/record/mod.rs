//! The parts of `census.json`: plain records, one per table or figure.

mod copies;
mod corrected;
mod directions;
mod fabric;
mod likelihood;
mod path;
mod pixels;
mod places;
mod series;
mod settlements;
mod typicality;

pub use copies::*;
pub use corrected::*;
pub use directions::*;
pub use fabric::*;
pub use likelihood::*;
pub use path::*;
pub use pixels::*;
pub use places::*;
pub use series::*;
pub use settlements::*;
pub use typicality::*;

use crate::detector::Detector;
use crate::panel::Stratum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::calibrate::Confusion;
use statistics::contingency::Disagreement;
use statistics::interval::{CiKind, Estimate, MarginalTest};
use std::collections::BTreeMap;

/// The settled concept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConceptRecord {
    /// Its entity, as it stands in rows.
    pub id: String,
    /// What to call it in a sentence.
    pub name: String,
    /// The facet it enters.
    pub facet: String,
    /// The entity it is a kind of.
    pub class: Option<String>,
    /// The rare token that calls it.
    pub identifier: Option<String>,
}

/// How much was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Pictures in all.
    pub rows: u64,
    /// Pairs behind the headline (`empty` and `medium`).
    pub headline_pairs: u64,
    /// Prompts behind the headline.
    pub headline_prompts: u64,
    /// Pictures withheld by a filter.
    pub blocked: u64,
    /// Bootstrap replicates.
    pub bootstrap: u32,
    /// Sign flips.
    pub flips: u32,
}

/// The control models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nulls {
    /// Adapter at dose 0 against the base; absent if dose 0 was not drawn.
    pub zero: Option<ZeroCheck>,
    /// The base against itself, drawn once more; its pictures may have been drawn by an earlier program.
    pub rerun: Option<ZeroCheck>,
    /// Placebo draws.
    pub placebos: u32,
}

/// The zero adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZeroCheck {
    /// Pairs compared.
    pub pairs: u64,
    /// Pairs whose pixels differ in any bit. Must be 0 on a CPU.
    pub different_pixels: u64,
    /// Pairs whose labels differ in any facet.
    pub different_labels: u64,
}

/// One facet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FacetRecord {
    /// Identifier.
    pub id: String,
    /// The concept's entity, if it enters this facet.
    pub new: Option<String>,
    /// Total variation between the weighted shares.
    pub tv: Estimate,
    /// Mean total variation when pairs are exchanged at random.
    pub tv_floor: f64,
    /// Probability of a total variation as large if nothing changed.
    pub tv_p: f64,
    /// Total variation of placebo against base; null without a placebo.
    pub tv_placebo: Option<f64>,
    /// kl(a‖λ) in nats.
    pub dilution: Estimate,
    /// (1−a)·KL(p̃‖p̃′) in nats.
    pub selection: Estimate,
    /// Mean dilution when pairs are exchanged at random.
    pub dilution_floor: f64,
    /// Mean selection when pairs are exchanged at random.
    pub selection_floor: f64,
    /// Selection of placebo against base; null without a placebo.
    pub selection_placebo: Option<f64>,
    /// Jensen–Shannon form of dilution and selection, from raw shares.
    pub js: [f64; 2],
    /// Share of pictures that the entities already there lost; ∅ and withheld pictures are none.
    pub displaced: Estimate,
    /// Mean share displaced when pairs are exchanged at random.
    pub displaced_floor: f64,
    /// Share displaced by the placebo; null without a placebo.
    pub displaced_placebo: Option<f64>,
    /// 1 − ^1D after / ^1D before, among the entities already there.
    pub evenness_loss: Estimate,
    /// Hill numbers of order 0, 1, 2 among the entities already there.
    pub hill: BeforeAfter<[f64; 3]>,
    /// Entropy of the counts: plug-in, Miller–Madow, Chao–Shen.
    pub entropy: BeforeAfter<[f64; 3]>,
    /// Good–Turing coverage.
    pub coverage: BeforeAfter<f64>,
    /// Stuart–Maxwell test of the pooled table.
    pub stuart_maxwell: Option<MarginalTest>,
    /// Bhapkar's test of the pooled table.
    pub bhapkar: Option<MarginalTest>,
    /// Parts of the disagreement of the pooled table.
    pub disagreement: Option<Disagreement>,
    /// The base's shares corrected for the evaluator's errors.
    pub calibration: Option<CalibrationRecord>,
    /// Both models' shares, each corrected by its own confusion matrix; the concept's facet alone.
    pub corrected: Option<CorrectedRecord>,
    /// Strata that are not part of the headline.
    pub strata: Vec<StratumRecord>,
    /// One record per category, in thesaurus order.
    pub entities: Vec<EntityRecord>,
}

/// The same figure before and after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeforeAfter<T> {
    /// In the base.
    pub before: T,
    /// In the adapted model.
    pub after: T,
}

/// The base's shares corrected by a verified confusion matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRecord {
    /// The matrix, in counts.
    pub confusion: Confusion,
    /// Its condition number.
    pub condition: f64,
    /// Corrected shares of the base, in the matrix's order.
    pub base: Vec<f64>,
    /// Total variation between the corrected shares and the published prior.
    pub tv_to_prior: Option<Estimate>,
}

/// A stratum shown apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StratumRecord {
    /// The stratum.
    pub stratum: Stratum,
    /// Pairs.
    pub pairs: u64,
    /// Total variation between its shares.
    pub tv: f64,
    /// Raw share of the concept before and after, if it enters this facet.
    pub new: Option<BeforeAfter<f64>>,
}

/// One entity of one facet, over the headline strata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntityRecord {
    /// Entity, the concept, `∅` or `∅:blocked`.
    pub id: String,
    /// What to call it.
    pub name: String,
    /// What to call it in each language of the thesaurus.
    pub label: BTreeMap<String, String>,
    /// Pictures of the base that bear it.
    pub n_b: u64,
    /// Pictures of the adapted model that bear it.
    pub n_a: u64,
    /// Weighted share in the base.
    pub p_b: f64,
    /// Weighted share in the adapted model.
    pub p_a: f64,
    /// `p_a` − `p_b`.
    pub delta: f64,
    /// Standard error of `delta`.
    pub se: f64,
    /// 95 % interval of `delta`, simultaneous over the facet.
    pub ci: [f64; 2],
    /// How `ci` was made.
    pub ci_kind: CiKind,
    /// Mean of |delta| when pairs are exchanged at random.
    pub floor: f64,
    /// Exact `McNemar` test, mid-p.
    pub mid_p: f64,
    /// Benjamini–Hochberg q over the facet.
    pub q: f64,
    /// ln(p′/p) minus the same for the whole rest; null for the concept and the unseen.
    pub selection_coefficient: Option<f64>,
    /// Its simultaneous 95 % interval.
    pub selection_ci: Option<[f64; 2]>,
    /// placebo − `p_b`; null without a placebo.
    pub placebo_delta: Option<f64>,
    /// Simultaneous 95 % interval of `p_a` − placebo.
    pub contrast_ci: Option<[f64; 2]>,
    /// Share of the base's pictures asked for it that bear it.
    pub obedience_b: Option<f64>,
    /// The same in the adapted model.
    pub obedience_a: Option<f64>,
    /// Published share in the base's training world.
    pub prior: Option<f64>,
    /// Upper bound (`interval::never_seen`) where no adapted picture bears it.
    pub vanished_below: Option<f64>,
    /// What may be said of it.
    pub verdict: Verdict,
    /// Probabilities of the four kinds; null with fewer than three settlements.
    pub kind_probabilities: Option<[f64; 4]>,
}

/// What may be said of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It lost pictures, more than under the placebo.
    Depopulated,
    /// It lost pictures; there was no placebo to compare with.
    Fell,
    /// It gained pictures, more than under the placebo.
    Favoured,
    /// It gained pictures; there was no placebo to compare with.
    Rose,
    /// Its share changed by less than the margin of equivalence.
    Retained,
    /// None of these can be said.
    Undecided,
}

impl Verdict {
    /// What it is called in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Depopulated => "depopulated",
            Self::Fell => "fell",
            Self::Favoured => "favoured",
            Self::Rose => "rose",
            Self::Retained => "retained",
            Self::Undecided => "undecided",
        }
    }
}

/// Pictures that changed from one entity to another under the same seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// Facet.
    pub facet: String,
    /// Entity in the base.
    pub from: String,
    /// Entity in the adapted model.
    pub to: String,
    /// Pairs.
    pub n: u64,
    /// Share of `from`'s pictures that went this way.
    pub share: f64,
    /// Some of them.
    pub pairs: Vec<Pair>,
}

/// One seed drawn by both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Prompt identifier.
    pub prompt: String,
    /// Seed index.
    pub seed_idx: u32,
    /// The base's picture.
    pub before: Seen,
    /// The adapted model's picture.
    pub after: Seen,
}

/// A picture and what it bears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Path within the census.
    pub picture: String,
    /// What it bears, one entity per facet.
    pub entities: Vec<String>,
}

/// Similarity of words and pictures; raw cosines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimilarityRecord {
    /// Counted entities, the order of all rows below.
    pub entities: Vec<String>,
    /// Mean cosine of unasked pictures with each entity's words.
    pub unasked: Vec<SimilarityShift>,
    /// The asked matrix; null if nothing was asked by name.
    pub asked: Option<AskedRecord>,
    /// Mean cosine of asked pictures with their own words (the matrix's diagonal).
    pub clip_t: Option<SimilarityShift>,
    /// Mean cosine of pictures asked by the identifier with the references.
    pub clip_i: Option<SimilarityShift>,
}

/// A mean cosine before and after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimilarityShift {
    /// In the base.
    pub before: f64,
    /// In the adapted model.
    pub after: f64,
    /// after − before.
    pub delta: Estimate,
}

/// Words (rows) against pictures asked by name (columns).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskedRecord {
    /// What was asked, the order of all columns.
    pub asked: Vec<String>,
    /// Pictures per column and model.
    pub pictures: Vec<u64>,
    /// Mean cosine in the base, `[entity][asked]`.
    pub before: Vec<Vec<f64>>,
    /// Mean cosine in the adapted model.
    pub after: Vec<Vec<f64>>,
    /// ΔC.
    pub delta: Vec<Vec<f64>>,
    /// Simultaneous 95 % intervals of ΔC; null if a column has fewer than 32 pictures.
    pub delta_ci: Option<Vec<Vec<[f64; 2]>>>,
    /// Double-centered ΔC.
    pub centered: Vec<Vec<f64>>,
    /// Its simultaneous 95 % intervals; null as `delta_ci`.
    pub centered_ci: Option<Vec<Vec<[f64; 2]>>>,
}

/// Where the concept shows up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeakRecord {
    /// The detector; null if there was none.
    pub detector: Option<Detector>,
    /// From its own name down to nothing asked.
    pub levels: Vec<LeakLevel>,
    /// AUC of detector scores of the adapted model, with the identifier against without.
    pub selectivity: Option<f64>,
    /// Slope of the bleed over steps of the thesaurus away from the concept's class, over captions without
    /// the identifier, siblings and unrelated entities.
    pub decay: Option<Estimate>,
}

/// One rung of the leak ladder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeakLevel {
    /// `identifier`, `plain`, `sibling`, `unrelated` or `unasked`.
    pub level: String,
    /// Pairs.
    pub pairs: u64,
    /// Observed detector rate, unweighted counts for all but `unasked`.
    pub raw: BeforeAfter<f64>,
    /// Share in the base, corrected where `corrected` says so.
    pub before: Estimate,
    /// Share in the adapted model.
    pub after: Estimate,
    /// after − before.
    pub bleed: Estimate,
    /// Whether the detector's errors were corrected for.
    pub corrected: bool,
}

/// Share against dose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DoseRecord {
    /// Rising doses.
    pub points: Vec<DosePoint>,
    /// Isotonic fit of the concept's share.
    pub fit: Vec<f64>,
    /// Dose of half effect; null where the rise from dose 0 to dose 1 is not beyond chance.
    pub half_effect: Option<f64>,
    /// Its 95 % interval, from a bootstrap of whole trajectories.
    pub half_effect_ci: Option<[f64; 2]>,
    /// Neighbouring doses between which the share falls.
    pub violations: u64,
}

/// One dose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DosePoint {
    /// Multiplier of the adapter.
    pub dose: f64,
    /// Pairs.
    pub pairs: u64,
    /// Unasked share of the concept.
    pub share: Estimate,
    /// Total variation to the base in the concept's facet.
    pub tv: f64,
}

/// A figure that was not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Which.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// Which pictures the report shows; all paths lie within the census.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Atlas {
    /// Pairs for the first page: changed ones first.
    pub pairs: Vec<Pair>,
    /// Pictures asked by the identifier.
    pub asked: Vec<Pair>,
    /// Doses of the strip's columns.
    pub doses: Vec<f64>,
    /// One row per seed, one picture per dose.
    pub strip: Vec<Vec<Seen>>,
    /// Pairs asked for an entity by its name, by that entity.
    #[serde(default)]
    pub named: BTreeMap<String, Vec<Pair>>,
}
