//! Owns the paired generative census: from the rows to every figure of `census.json`. Pure: no model,
//! no file, no clock; the same input gives the same bytes.

mod atlas;
mod calibration;
mod facet;
mod ladder;
mod pairs;
mod words;

use crate::detector::Detector;
use crate::error::EvalError;
use crate::gate::{GateRecord, Limit};
use crate::json::{self, CensusReport};
use crate::panel::{Panel, Stratum};
use crate::record::{ConceptRecord, Counts, FacetRecord, LeakRecord, Nulls, Refusal};
use crate::rows::{Model, Rows};
use crate::thesaurus::Thesaurus;
use pairs::{Drawn, Pictures};
use statistics::calibrate::Confusion;
use statistics::interval::Resampler;

/// All that a census is reduced from.
#[derive(Clone, Debug)]
pub struct CensusInput {
    /// Program and version, such as `populate 0.1.0`.
    pub tool: String,
    /// Name of the budget.
    pub budget: String,
    /// SHA-256 of what determines the census.
    pub manifest_sha256: Option<String>,
    /// What a picture may bear.
    pub thesaurus: Thesaurus,
    /// The neutral prompts.
    pub panel: Panel,
    /// The settled concept.
    pub concept: ConceptRecord,
    /// The pictures.
    pub rows: Rows,
    /// The concept detector, if there was one.
    pub detector: Option<Detector>,
    /// Verified confusion matrices of the evaluator on base pictures, per facet.
    pub confusions: Vec<(String, Confusion)>,
    /// Seed of bootstrap and sign flips.
    pub seed: u64,
    /// Bootstrap replicates; 2000 in every preset.
    pub bootstrap: u32,
    /// Sign flips; 1999 in every preset.
    pub flips: u32,
    /// The recipe's gates.
    pub limits: Vec<Limit>,
    /// Figures refused before the reduction.
    pub refused: Vec<Refusal>,
    /// What a reader should know, known before the reduction.
    pub warnings: Vec<String>,
}

impl CensusInput {
    pub(crate) fn resampler(&self) -> Resampler {
        Resampler { seed: self.seed, draws: self.bootstrap }
    }
}

/// Reduces the rows of a census to its figures.
///
/// # Errors
///
/// [`EvalError::Unpaired`] if a picture stands twice, an adapted or placebo picture has no partner in
/// the base, there is no headline pair at dose 1, or a label is not of the thesaurus.
pub fn reduce(input: &CensusInput) -> Result<CensusReport, EvalError> {
    let pictures = Pictures::index(&input.rows)?;
    let headline = pictures.headline(&input.panel, Drawn::ADAPTED)?;
    if headline.is_empty() {
        return Err(EvalError::Unpaired(
            "no unasked pictures of the adapted model at dose 1".into(),
        ));
    }
    let placebos = pictures.placebos();
    let mut refused = input.refused.clone();
    let mut facets = Vec::new();
    for facet in &input.thesaurus.facets {
        facets.push(facet::analyse(input, &pictures, facet, &mut refused)?);
    }
    let leak = ladder::leak(input, &pictures, &mut refused)?;
    let dose = ladder::dose(input, &pictures, &mut refused)?;
    let similarity = words::similarity(input, &pictures, &mut refused)?;
    refuse_absent_instruments(&mut refused);
    let nulls = Nulls { zero: pictures.zero_check(), placebos };
    let warnings = warnings(input, nulls, &facets);
    Ok(CensusReport {
        schema: json::SCHEMA.to_owned(),
        tool: input.tool.clone(),
        budget: input.budget.clone(),
        manifest_sha256: input.manifest_sha256.clone(),
        concept: input.concept.clone(),
        counts: Counts {
            rows: len(input.rows.rows.len()),
            headline_pairs: len(headline.iter().map(|prompt| prompt.base.len()).sum()),
            headline_prompts: len(headline.len()),
            blocked: len(input.rows.rows.iter().filter(|row| row.blocked).count()),
            bootstrap: input.bootstrap,
            flips: input.flips,
        },
        nulls,
        gates: gates(&input.limits, &facets, &leak, &input.concept.facet),
        transitions: atlas::transitions(input, &headline),
        atlas: atlas::atlas(input, &pictures, &headline),
        facets,
        similarity,
        fabric: None,
        path: None,
        likelihood: None,
        leak,
        dose,
        settlements: None,
        series: None,
        directions: None,
        typicality: None,
        copies: None,
        pixels: None,
        map: Vec::new(),
        places: None,
        labels: None,
        agreement: None,
        refused,
        warnings,
    })
}

pub(crate) fn len(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Figures whose instruments this version does not have: null, with the reason beside.
fn refuse_absent_instruments(refused: &mut Vec<Refusal>) {
    for what in
        ["directions", "fabric", "likelihood", "path", "series", "settlements", "typicality"]
    {
        refused.push(Refusal {
            what: what.to_owned(),
            reason: "this version has no instrument for it".to_owned(),
        });
    }
}

fn gates(
    limits: &[Limit],
    facets: &[FacetRecord],
    leak: &LeakRecord,
    facet: &str,
) -> Vec<GateRecord> {
    let level =
        |id: &str| leak.levels.iter().find(|level| level.level == id).map(|level| level.after);
    limits
        .iter()
        .map(|limit| {
            limit.judge(match limit.figure.as_str() {
                "selection_nats" => facets.iter().find(|f| f.id == facet).map(|f| f.selection),
                "new_share" => level("unasked"),
                "leak" => level("plain"),
                _ => None,
            })
        })
        .collect()
}

fn warnings(input: &CensusInput, nulls: Nulls, facets: &[FacetRecord]) -> Vec<String> {
    let mut warnings = input.warnings.clone();
    if let Some(zero) = nulls.zero.filter(|zero| zero.different_pixels > 0) {
        warnings.push(format!(
            "the adapter at dose 0 changed {} of {} pictures: the device does not repeat itself, and \
             some of every change is its noise",
            zero.different_pixels, zero.pairs
        ));
    }
    if nulls.placebos == 0 {
        warnings.push(
            "no placebo was drawn: “fell” and “rose” may be what any adapter of this size does"
                .to_owned(),
        );
    }
    for (a, b) in input.thesaurus.nested_labels() {
        warnings.push(format!(
            "the label of “{a}” stands within that of “{b}”: the evaluator may confuse them"
        ));
    }
    for facet in facets.iter().filter(|facet| facet.tv.value <= facet.tv_floor) {
        warnings.push(format!("{}: the total variation does not exceed its floor", facet.id));
    }
    let blocked = input.rows.rows.iter().filter(|row| row.blocked).count();
    if blocked > 0 {
        warnings.push(format!("{blocked} pictures were withheld by a filter and counted as such"));
    }
    if !input.rows.rows.iter().any(|row| row.model == Model::Base && row.stratum == Stratum::Asked)
    {
        warnings.push("nothing was asked by name: addressability is unknown".to_owned());
    }
    warnings
}

#[cfg(test)]
pub(crate) mod tests;
