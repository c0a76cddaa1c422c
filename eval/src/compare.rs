//! Compares several settlements on the same noise: adapters, checkpoints or doses of one base, or
//! settlements on top of each other, each with its own census. Nothing is drawn; what the censuses
//! committed is read.

mod chain;
mod labels;
mod opened;
mod successive;
#[cfg(test)]
mod tests;

pub use labels::Labels;

use crate::census::{CensusInput, facet_record, reduce};
use crate::error::EvalError;
use crate::json::sorted;
use crate::record::{EntityRecord, Refusal, SettlementsRecord};
use crate::rows::{Model, Row, Rows};
use opened::Opened;
use recipes::CensusSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use statistics::interval::{CiKind, Estimate};
use std::collections::BTreeSet;
use std::path::Path;
use successive::Successive;

/// The schema that `comparison.json` names.
pub const SCHEMA: &str = "populate/comparison/1";
/// Bootstrap replicates and sign flips of every comparison.
const BOOTSTRAP: u32 = 2000;
const FLIPS: u32 = 1999;

/// One settlement to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What to call it.
    pub name: &'a str,
    /// Folder that holds its `census`; that of the run itself for its finished adapter.
    pub run: &'a Path,
    /// Run that it is a state of.
    pub of: &'a Path,
    /// Multiplier of the adapter; its census must have drawn it.
    pub dose: f64,
    /// What was counted.
    pub spec: &'a CensusSpec,
}

/// Several settlements in one table, and what differs from each to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Always `populate/comparison/1`.
    pub schema: String,
    /// Facet that is compared.
    pub facet: String,
    /// One entry per settlement, in the order given.
    pub states: Vec<ComparedState>,
    /// Every pair of settlements, on the seeds that both drew.
    pub pairs: Vec<ComparedPair>,
    /// Successive states of one model: the base, then checkpoints or doses of one run, or runs that
    /// were each settled on top of the one before.
    pub settlements: Option<SettlementsRecord>,
    /// How pictures of `settlements` are labelled; null without it.
    pub settlements_labels: Option<Labels>,
    /// Each settlement of a chain drawn twice: with its adapter attached, and merged into the base of the
    /// next. Empty for states of one run.
    pub links: Vec<ComparedLink>,
    /// Names of the settlements in the other order, behind `settlements.order_effect`; empty without.
    pub reversed: Vec<String>,
    /// Figures that were not given, and why.
    pub refused: Vec<Refusal>,
}

/// One settlement against the base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedState {
    /// Its name.
    pub name: String,
    /// What was settled.
    pub concept: String,
    /// The settlement that it lies on, which is the base of its census: its name, or the first eight
    /// digits of its adapter's SHA-256 where it is not among those compared. Null: the bare base.
    pub on: Option<String>,
    /// Multiplier of the adapter.
    pub dose: f64,
    /// Unasked pairs.
    pub pairs: u64,
    /// Unasked share of the concept.
    pub new_share: Option<Estimate>,
    /// Share that the entities already there lost.
    pub displaced: Estimate,
    /// Dilution in nats.
    pub dilution: Estimate,
    /// Selection in nats.
    pub selection: Estimate,
    /// Total variation to the base.
    pub tv: Estimate,
    /// The concept's share in prompts without the identifier.
    pub leak: Option<Estimate>,
    /// Fabric kept.
    pub fabric_ratio: Option<Estimate>,
    /// Every entity against the base.
    pub entities: Vec<EntityRecord>,
}

/// The same weights in two censuses: what differs between them is rounding, and no settlement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedLink {
    /// The settlement as its own census drew it, with its adapter attached.
    pub from: String,
    /// The settlement whose base it is, merged.
    pub to: String,
    /// Unasked pictures on the same seeds.
    pub pairs: u64,
    /// Those that are labelled otherwise.
    pub different: u64,
}

/// Two settlements against each other, seed by seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedPair {
    /// Name of the one.
    pub from: String,
    /// Name of the other.
    pub to: String,
    /// Pairs of pictures.
    pub pairs: u64,
    /// How the pictures of both are labelled.
    pub labels: Labels,
    /// Total variation between both.
    pub tv: Estimate,
    /// Mean total variation when pairs are exchanged at random.
    pub tv_floor: f64,
    /// Probability of one as large if both were alike.
    pub tv_p: f64,
    /// Change of each entity's share from one to the other.
    pub entities: Vec<ComparedEntity>,
}

/// One entity in two settlements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedEntity {
    /// Entity.
    pub id: String,
    /// Share in `to` − share in `from`, with a simultaneous interval.
    pub delta: Estimate,
    /// Exact `McNemar` test, mid-p.
    pub mid_p: f64,
    /// Benjamini–Hochberg q over the entities.
    pub q: f64,
}

impl Comparison {
    /// The bytes of `comparison.json`: sorted keys, shortest floats that read back equal.
    ///
    /// # Errors
    ///
    /// [`EvalError::Json`] if a value cannot be written; none of ours can be so.
    pub fn to_json(&self) -> Result<String, EvalError> {
        let mut text = serde_json::to_string_pretty(&sorted(serde_json::to_value(self)?))?;
        text.push('\n');
        Ok(text)
    }
}

/// The JSON Schema (draft-07) of `comparison.json`.
pub fn json_schema() -> Value {
    let generator = schemars::generate::SchemaSettings::draft07().into_generator();
    sorted(generator.into_root_schema_for::<Comparison>().to_value())
}

/// Compares settlements that were counted with one thesaurus, panel and noise, and that all lie on one
/// bare base.
///
/// # Errors
///
/// A census that is absent, damaged or of another version; [`EvalError::Unpaired`] if two of them
/// cannot be compared picture by picture, or a dose was not drawn.
pub fn compare(candidates: &[Candidate<'_>]) -> Result<Comparison, EvalError> {
    compared(candidates.iter().map(Opened::open).collect::<Result<Vec<_>, _>>()?)
}

fn compared(opened: Vec<Opened>) -> Result<Comparison, EvalError> {
    opened::check_all(&opened)?;
    let opened = opened::on_common_pictures(opened);
    let Some(first) = opened.first() else {
        return Err(EvalError::Unpaired("nothing to compare".to_owned()));
    };
    let facet = first.input.concept.facet.clone();
    let states = opened.iter().map(|one| state(one, &opened)).collect::<Result<Vec<_>, _>>()?;
    let mut pairs = Vec::new();
    for (i, from) in opened.iter().enumerate() {
        for to in &opened[i + 1..] {
            pairs.push(pair(from, to)?);
        }
    }
    let found = successive::of(&opened)?;
    let Successive { record: settlements, labels: settlements_labels, links, reversed, refused } =
        found;
    Ok(Comparison {
        schema: SCHEMA.to_owned(),
        facet,
        states,
        pairs,
        settlements,
        settlements_labels,
        links,
        reversed,
        refused,
    })
}

/// One settlement against the base of its own census.
fn state(opened: &Opened, all: &[Opened]) -> Result<ComparedState, EvalError> {
    let report = reduce(&opened.input)?;
    let level = |id: &str| report.leak.levels.iter().find(|l| l.level == id).map(|l| l.after);
    let home = report.facets.iter().find(|facet| facet.id == opened.input.concept.facet);
    let Some(home) = home else {
        return Err(EvalError::Unpaired("the facet of the concept was not counted".to_owned()));
    };
    let fabric = opened.report.fabric.as_ref().filter(|_| opened.is_whole());
    Ok(ComparedState {
        name: opened.name.clone(),
        concept: opened.input.concept.name.clone(),
        on: chain::on(opened, all),
        dose: opened.dose,
        pairs: report.counts.headline_pairs,
        new_share: level("unasked"),
        displaced: home.displaced,
        dilution: home.dilution,
        selection: home.selection,
        tv: home.tv,
        leak: level("plain"),
        fabric_ratio: fabric.and_then(|fabric| fabric.tree.ratio),
        entities: home.entities.clone(),
    })
}

/// The one settlement as if it were the base of the other, both labelled alike.
fn pair(from: &Opened, to: &Opened) -> Result<ComparedPair, EvalError> {
    let labels = Labels::of(&[from, to]);
    let settled = |opened: &Opened, model: Model| -> Result<Vec<Row>, EvalError> {
        let input = labels.read(&opened.input)?;
        let adapted = input.rows.rows.iter().filter(|row| row.model == Model::Adapted);
        Ok(adapted.map(|row| Row { model, ..row.clone() }).collect())
    };
    let (mut rows, after) = (settled(from, Model::Base)?, settled(to, Model::Adapted)?);
    let key = |row: &Row| (row.stratum, row.prompt.clone(), row.seed_idx);
    let shared: BTreeSet<_> = after.iter().map(key).collect();
    rows.retain(|row| shared.contains(&key(row)));
    let drawn: BTreeSet<_> = rows.iter().map(key).collect();
    rows.extend(after.into_iter().filter(|row| drawn.contains(&key(row))));
    let input = CensusInput { rows: Rows { rows, ..to.input.rows.clone() }, ..to.input.clone() };
    let facet = facet_record(&input, &to.input.concept.facet)?;
    let entity = |entity: &EntityRecord| ComparedEntity {
        id: entity.id.clone(),
        delta: Estimate::with(entity.delta, entity.ci, CiKind::MaxT),
        mid_p: entity.mid_p,
        q: entity.q,
    };
    // A concept that is no word of the thesaurus is nobody's nearest entity: no picture bears it.
    let borne = |id: &str| {
        labels == Labels::Own
            || id != to.input.concept.id
            || to.input.thesaurus.entity(id).is_some()
    };
    Ok(ComparedPair {
        from: from.name.clone(),
        to: to.name.clone(),
        pairs: facet.entities.iter().map(|entity| entity.n_b).sum(),
        labels,
        tv: facet.tv,
        tv_floor: facet.tv_floor,
        tv_p: facet.tv_p,
        entities: facet.entities.iter().filter(|e| borne(&e.id)).map(entity).collect(),
    })
}
