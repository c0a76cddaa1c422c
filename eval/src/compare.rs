//! Compares several settlements on the same noise: adapters, checkpoints or doses of one base, each with
//! its own census. Nothing is drawn; what the censuses committed is read.

use crate::catalogue;
use crate::census::categories::Categories;
use crate::census::{CensusInput, Measured, facet_record, reduce};
use crate::error::EvalError;
use crate::json::{CensusReport, sorted};
use crate::manifest::{CensusManifest, described};
use crate::record::{EntityRecord, Refusal, SettlementsRecord};
use crate::rows::{Model, Row, Rows};
use crate::settlements::{SettlementsInput, settlements};
use crate::thesaurus::{BLOCKED, Entity, NONE, Node, Thesaurus};
use recipes::CensusSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use statistics::interval::{CiKind, Estimate, Resampler};
use statistics::mobility::Places;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
    /// Folder that holds its `census`.
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
    /// The settlements as successive states of one model: base, first, second …
    pub settlements: Option<SettlementsRecord>,
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

/// What a census left, with the dose in question taken for the whole.
struct Opened {
    name: String,
    dose: f64,
    input: CensusInput,
    report: CensusReport,
    manifest: CensusManifest,
}

/// Compares settlements that were counted with one base, thesaurus, panel and noise.
///
/// # Errors
///
/// A census that is absent, damaged or of another version; [`EvalError::Unpaired`] if two of them
/// cannot be compared picture by picture, or a dose was not drawn.
pub fn compare(candidates: &[Candidate<'_>]) -> Result<Comparison, EvalError> {
    let opened = candidates.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let of_one_run = candidates.windows(2).all(|pair| pair[0].of == pair[1].of);
    let Some((first, others)) = opened.split_first() else {
        return Err(EvalError::Unpaired("nothing to compare".to_owned()));
    };
    for other in others {
        check_alike(first, other)?;
    }
    let opened = on_common_pictures(opened);
    let Some(first) = opened.first() else {
        return Err(EvalError::Unpaired("nothing to compare".to_owned()));
    };
    let facet = first.input.concept.facet.clone();
    let states = opened.iter().map(state).collect::<Result<Vec<_>, _>>()?;
    let mut pairs = Vec::new();
    for (i, from) in opened.iter().enumerate() {
        for to in &opened[i + 1..] {
            pairs.push(pair(from, to)?);
        }
    }
    let found = if of_one_run {
        successive(&opened)?
    } else {
        Err("settlements of several runs each lie on the bare base: only states of one run follow \
             each other"
            .to_owned())
    };
    let (settlements, refused) = match found {
        Ok(record) => (Some(record), Vec::new()),
        Err(reason) => (None, vec![Refusal { what: "settlements".to_owned(), reason }]),
    };
    Ok(Comparison { schema: SCHEMA.to_owned(), facet, states, pairs, settlements, refused })
}

/// The settlements in the order given, as successive states of the base on the seeds that all drew.
fn successive(opened: &[Opened]) -> Result<Result<SettlementsRecord, String>, EvalError> {
    let Some(last) = opened.last() else { return Ok(Err("nothing to compare".to_owned())) };
    let thesaurus = opened.iter().fold(last.input.thesaurus.clone(), |all, other| {
        if other.input.concept.id == last.input.concept.id {
            all
        } else {
            with_concept(&all, other)
        }
    });
    let input = CensusInput { thesaurus, ..last.input.clone() };
    let categories = Categories::of_concept(&input)?;
    let (mut lengths, mut weights) = (Vec::new(), Vec::new());
    let mut states = vec![Vec::new(); opened.len() + 1];
    for prompt in input.panel.prompts().filter(|prompt| prompt.stratum.is_headline()) {
        let of = |opened: &Opened, model: Model| -> Result<BTreeMap<u32, u16>, EvalError> {
            let rows = opened.input.rows.rows.iter();
            rows.filter(|row| row.model == model && row.prompt == prompt.id)
                .map(|row| Ok((row.seed_idx, categories.of(row)?)))
                .collect()
        };
        let mut drawn = vec![of(last, Model::Base)?];
        for one in opened {
            drawn.push(of(one, Model::Adapted)?);
        }
        let in_all = |seed: &&u32| drawn.iter().all(|labels| labels.contains_key(seed));
        let seeds: Vec<u32> = drawn[0].keys().filter(in_all).copied().collect();
        if seeds.is_empty() {
            continue;
        }
        for (state, labels) in states.iter_mut().zip(&drawn) {
            state.extend(seeds.iter().filter_map(|seed| labels.get(seed)));
        }
        lengths.push(seeds.len());
        weights.push(input.panel.weight(&prompt.id));
    }
    let total: f64 = weights.iter().sum();
    let weights = weights.into_iter().map(|weight| weight / total.max(f64::MIN_POSITIVE));
    let places = Places { lengths, weights: weights.collect(), states };
    Ok(of_places(opened, &input, &categories, &places))
}

/// Reduces successive states to their record.
fn of_places(
    opened: &[Opened],
    input: &CensusInput,
    categories: &Categories,
    places: &Places,
) -> Result<SettlementsRecord, String> {
    let names: Vec<String> = std::iter::once("base".to_owned())
        .chain(opened.iter().map(|one| one.name.clone()))
        .collect();
    let position = |id: &str| {
        let place = categories.names.iter().position(|name| name == id);
        place.and_then(|place| u16::try_from(place).ok())
    };
    let concepts: Vec<Option<u16>> =
        opened.iter().map(|one| position(&one.input.concept.id)).collect();
    let bodies: Vec<bool> =
        categories.names.iter().map(|name| !matches!(name.as_str(), NONE | BLOCKED)).collect();
    let answers = |id: &String| {
        let home = opened.last()?.report.facets.iter().find(|f| f.id == input.concept.facet)?;
        let entity = home.entities.iter().find(|entity| entity.id == *id)?;
        let before = entity.obedience_b.filter(|before| *before > 0.0)?;
        Some(entity.obedience_a? / before)
    };
    let addressability: Vec<Option<f64>> = categories.names.iter().map(answers).collect();
    settlements(
        &SettlementsInput {
            facet: &input.concept.facet,
            states: &names,
            categories: &categories.names,
            bodies: &bodies,
            places,
            concepts: &concepts,
            placebos: &[],
            reversed: None,
            addressability: &addressability,
        },
        Resampler { seed: input.seed, draws: BOOTSTRAP },
    )
}

fn open(candidate: &Candidate<'_>) -> Result<Opened, EvalError> {
    let dir = candidate.run.join("census");
    let text = checkpoints::fs::read(&dir.join("census.json"))?;
    let report = CensusReport::from_json(&String::from_utf8_lossy(&text))?;
    let manifest = CensusManifest::read(&dir.join("manifest.json"))?;
    let rows =
        Rows::from_csv(&String::from_utf8_lossy(&checkpoints::fs::read(&dir.join("rows.csv"))?))?;
    let mut input = CensusInput {
        tool: report.tool.clone(),
        budget: report.budget.clone(),
        manifest_sha256: report.manifest_sha256.clone(),
        thesaurus: catalogue::thesaurus(&candidate.spec.thesaurus)?,
        panel: catalogue::panel(&candidate.spec.panel)?,
        concept: report.concept.clone(),
        detector: report.leak.detector,
        confusions: Vec::new(),
        seed: candidate.spec.seed,
        bootstrap: BOOTSTRAP,
        flips: FLIPS,
        limits: Vec::new(),
        refused: Vec::new(),
        warnings: Vec::new(),
        person: Vec::new(),
        measured: Measured::default(),
        rerun: None,
        widening: 1.0,
        rows,
    };
    for (what, found) in
        [("thesaurus", described(&input.thesaurus)), ("panel", described(&input.panel))]
    {
        if manifest.hashes.get(what) != Some(&found) {
            return Err(EvalError::Unpaired(format!(
                "the {what} is no longer that with which `{}` was counted",
                candidate.name
            )));
        }
    }
    input.rows.rows = at_dose(std::mem::take(&mut input.rows.rows), candidate.dose);
    if !input.rows.rows.iter().any(|row| row.model == Model::Adapted) {
        return Err(EvalError::Unpaired(format!(
            "the census of `{}` drew nothing at dose {}",
            candidate.name, candidate.dose
        )));
    }
    Ok(Opened { name: candidate.name.to_owned(), dose: candidate.dose, input, report, manifest })
}

/// The base's rows, and those of the adapted model at `dose` as if it were the whole.
fn at_dose(rows: Vec<Row>, dose: f64) -> Vec<Row> {
    let wanted = |row: &Row| match row.model {
        Model::Base => true,
        Model::Adapted => (row.dose - dose).abs() < 1e-9,
        Model::Placebo(_) => false,
    };
    let whole = |row: Row| {
        let dose = if row.model == Model::Adapted { 1.0 } else { 0.0 };
        Row { dose, ..row }
    };
    rows.into_iter().filter(wanted).map(whole).collect()
}

/// All settlements on the unasked pictures that every one of them drew: doses draw fewer prompts and
/// seeds than the whole adapter. Asked pictures stay as they are.
fn on_common_pictures(mut opened: Vec<Opened>) -> Vec<Opened> {
    let key = |row: &Row| (row.prompt.clone(), row.seed_idx);
    let drawn = |one: &Opened| -> BTreeSet<(String, u32)> {
        let rows = one.input.rows.rows.iter();
        rows.filter(|row| row.model == Model::Adapted && row.stratum.is_headline())
            .map(key)
            .collect()
    };
    let sets: Vec<BTreeSet<(String, u32)>> = opened.iter().map(drawn).collect();
    for one in &mut opened {
        one.input.rows.rows.retain(|row| {
            !row.stratum.is_headline() || sets.iter().all(|set| set.contains(&key(row)))
        });
    }
    opened
}

/// Whether two censuses asked the same of the same base on the same noise.
fn check_alike(a: &Opened, b: &Opened) -> Result<(), EvalError> {
    let differs = |what: &str| {
        Err(EvalError::Unpaired(format!(
            "`{}` and `{}` were not counted alike: they differ in {what}",
            a.name, b.name
        )))
    };
    for what in ["base", "evaluator", "panel", "thesaurus"] {
        if a.manifest.hashes.get(what) != b.manifest.hashes.get(what) {
            return differs(what);
        }
    }
    for what in ["sampler", "guidance_scale", "guidance_rescale", "seed"] {
        if a.manifest.census.get(what) != b.manifest.census.get(what) {
            return differs(&format!("`census.{what}`"));
        }
    }
    if a.input.concept.facet != b.input.concept.facet {
        return differs("the facet of the concept");
    }
    let pixels = |opened: &Opened| -> BTreeMap<(String, u32), String> {
        let base = opened.input.rows.rows.iter().filter(|row| row.model == Model::Base);
        base.map(|row| ((row.prompt.clone(), row.seed_idx), row.pixels.clone())).collect()
    };
    let others = pixels(b);
    let differing =
        pixels(a).iter().filter(|(key, hash)| others.get(key).is_some_and(|o| o != *hash)).count();
    if differing > 0 {
        return differs(&format!("{differing} pictures of the base on the same seeds"));
    }
    Ok(())
}

fn state(opened: &Opened) -> Result<ComparedState, EvalError> {
    let report = reduce(&opened.input)?;
    let level = |id: &str| report.leak.levels.iter().find(|l| l.level == id).map(|l| l.after);
    let home = report.facets.iter().find(|facet| facet.id == opened.input.concept.facet);
    let Some(home) = home else {
        return Err(EvalError::Unpaired("the facet of the concept was not counted".to_owned()));
    };
    let whole = (opened.dose - 1.0).abs() < 1e-9;
    let fabric = opened.report.fabric.as_ref().filter(|_| whole);
    Ok(ComparedState {
        name: opened.name.clone(),
        concept: opened.input.concept.name.clone(),
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

/// The one settlement as if it were the base of the other.
fn pair(from: &Opened, to: &Opened) -> Result<ComparedPair, EvalError> {
    let settled = |opened: &Opened, model: Model| -> Vec<Row> {
        let adapted = opened.input.rows.rows.iter().filter(|row| row.model == Model::Adapted);
        adapted.map(|row| Row { model, ..row.clone() }).collect()
    };
    let (mut rows, after) = (settled(from, Model::Base), settled(to, Model::Adapted));
    let key = |row: &Row| (row.stratum, row.prompt.clone(), row.seed_idx);
    let shared: BTreeSet<_> = after.iter().map(key).collect();
    rows.retain(|row| shared.contains(&key(row)));
    let drawn: BTreeSet<_> = rows.iter().map(key).collect();
    rows.extend(after.into_iter().filter(|row| drawn.contains(&key(row))));
    let input = CensusInput {
        thesaurus: with_concept(&to.input.thesaurus, from),
        rows: Rows { rows, ..to.input.rows.clone() },
        ..to.input.clone()
    };
    let facet = facet_record(&input, &to.input.concept.facet)?;
    let (from_concept, to_concept) = (from.input.concept.id.clone(), to.input.concept.id.clone());
    let same_concept = from_concept == to_concept;
    let entity = |entity: &EntityRecord| ComparedEntity {
        id: entity.id.clone(),
        delta: Estimate::with(entity.delta, entity.ci, CiKind::MaxT),
        mid_p: entity.mid_p,
        q: entity.q,
    };
    Ok(ComparedPair {
        from: from.name.clone(),
        to: to.name.clone(),
        pairs: facet.entities.iter().map(|entity| entity.n_b).sum(),
        tv: facet.tv,
        tv_floor: facet.tv_floor,
        tv_p: facet.tv_p,
        // Each census has a detector for its own concept alone.
        entities: facet
            .entities
            .iter()
            .filter(|entity| same_concept || ![&from_concept, &to_concept].contains(&&entity.id))
            .map(entity)
            .collect(),
    })
}

/// The thesaurus with another settlement's concept as one of the entities already there.
fn with_concept(thesaurus: &Thesaurus, other: &Opened) -> Thesaurus {
    let concept = &other.input.concept;
    let mut thesaurus = thesaurus.clone();
    if thesaurus.entity(&concept.id).is_none() {
        thesaurus.entities.push(Entity {
            id: concept.id.clone(),
            facet: concept.facet.clone(),
            node: Node::Counted,
            broader: concept.class.clone(),
            related: Vec::new(),
            motif: false,
            ask: None,
            prior: None,
            label: BTreeMap::from([("en".to_owned(), concept.name.clone())]),
            synonyms: BTreeMap::new(),
            notation: None,
            source: None,
        });
    }
    thesaurus
}
