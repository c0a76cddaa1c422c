//! Owns the paired generative census: from the rows to every figure of `census.json`. Pure: no model,
//! no file, no clock; the same input gives the same bytes.

mod atlas;
mod calibration;
pub(crate) mod categories;
mod corrected;
mod facet;
pub mod labels;
mod ladder;
mod map;
mod pairs;
mod places;
mod words;

use crate::detector::Detector;
use crate::error::EvalError;
use crate::gate::{GateRecord, Limit};
use crate::json::{self, CensusReport};
use crate::modes::ModesRecord;
use crate::panel::{Panel, Stratum};
use crate::record::{
    AgreementRecord, ConceptRecord, CopiesRecord, Counts, DirectionsRecord, FabricRecord,
    FacetRecord, LeakRecord, LikelihoodRecord, Nulls, PathRecord, PixelRecord, Refusal,
    SeriesRecord, TypicalityRecord, VerifiedRecord, ZeroCheck,
};
use crate::rows::{Model, Rows};
use crate::thesaurus::Thesaurus;
use categories::Categories;
use labels::PersonLabel;
use pairs::{Drawn, Pictures, PromptPairs};
use statistics::calibrate::Confusion;
use statistics::contingency::{PairedLabels, Shares};
use statistics::diversity::good_turing;
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
    /// What a person saw in pairs of the census-taker's sheet.
    pub person: Vec<PersonLabel>,
    /// What instruments found that need more than the rows.
    pub measured: Measured,
    /// The base against itself, drawn once more.
    pub rerun: Option<ZeroCheck>,
    /// Factor on the width of every entity's interval: above 1 where looking more than once decided
    /// when to stop.
    pub widening: f64,
}

/// Figures of instruments that look at networks, embeddings or latents. Each is null where it was not
/// measured; a reason may stand among the refusals.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Thesaurus against pictures.
    pub fabric: Option<FabricRecord>,
    /// Path-space KL and forecast.
    pub path: Option<PathRecord>,
    /// Likelihood census.
    pub likelihood: Option<LikelihoodRecord>,
    /// Series of pictures.
    pub series: Option<SeriesRecord>,
    /// Directions inside the network.
    pub directions: Option<DirectionsRecord>,
    /// Typicality.
    pub typicality: Option<TypicalityRecord>,
    /// Collapse and copying.
    pub copies: Option<CopiesRecord>,
    /// Information maps.
    pub pixels: Option<PixelRecord>,
    /// What arrived and departed without a thesaurus.
    pub modes: Option<ModesRecord>,
    /// A second evaluator's opinion.
    pub agreement: Option<AgreementRecord>,
    /// Pictures asked by name that a second evaluator confirmed.
    pub verified: Option<VerifiedRecord>,
}

impl Measured {
    /// What an earlier census of the same pictures found.
    pub(crate) fn of(report: &CensusReport) -> Self {
        Self {
            fabric: report.fabric.clone(),
            path: report.path.clone(),
            likelihood: report.likelihood.clone(),
            series: report.series.clone(),
            directions: report.directions.clone(),
            typicality: report.typicality.clone(),
            copies: report.copies.clone(),
            pixels: report.pixels.clone(),
            modes: report.modes.clone(),
            agreement: report.agreement.clone(),
            verified: report.verified.clone(),
        }
    }

    /// The name of each figure, and whether it is there.
    fn names(&self) -> [(&'static str, bool); 10] {
        [
            ("agreement", self.agreement.is_some()),
            ("copies", self.copies.is_some()),
            ("directions", self.directions.is_some()),
            ("fabric", self.fabric.is_some()),
            ("likelihood", self.likelihood.is_some()),
            ("modes", self.modes.is_some()),
            ("path", self.path.is_some()),
            ("pixels", self.pixels.is_some()),
            ("series", self.series.is_some()),
            ("typicality", self.typicality.is_some()),
        ]
    }
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
    let sheet = labels::labels(input, &headline, &mut refused)?;
    refuse_absent(&input.measured, &mut refused);
    refused.push(Refusal {
        what: "settlements".to_owned(),
        reason: "one run is one settlement: `populate census` on several states of it shows more"
            .to_owned(),
    });
    let nulls = Nulls { zero: pictures.zero_check(), rerun: input.rerun, placebos };
    let warnings = each_once(warnings(input, nulls, &facets));
    let refused = each_once(refused);
    Ok(CensusReport {
        schema: json::SCHEMA.to_owned(),
        tool: input.tool.clone(),
        budget: input.budget.clone(),
        manifest_sha256: input.manifest_sha256.clone(),
        concept: input.concept.clone(),
        counts: counts(input, &headline),
        nulls,
        gates: gates(input, &facets, &leak),
        transitions: atlas::transitions(input, &headline),
        atlas: atlas::atlas(input, &pictures, &headline),
        facets,
        similarity,
        fabric: input.measured.fabric.clone(),
        path: input.measured.path.clone(),
        likelihood: input.measured.likelihood.clone(),
        leak,
        dose,
        settlements: None,
        series: input.measured.series.clone(),
        directions: input.measured.directions.clone(),
        typicality: input.measured.typicality.clone(),
        copies: input.measured.copies.clone(),
        pixels: input.measured.pixels.clone(),
        map: map::points(input, &pictures)?,
        places: Some(places::places(input, &pictures, &headline)),
        labels: sheet,
        modes: input.measured.modes.clone(),
        agreement: input.measured.agreement.clone(),
        verified: input.measured.verified.clone(),
        refused,
        warnings,
        widening: input.widening,
    })
}

fn counts(input: &CensusInput, headline: &[PromptPairs<'_>]) -> Counts {
    Counts {
        rows: len(input.rows.rows.len()),
        headline_pairs: len(headline.iter().map(|prompt| prompt.base.len()).sum()),
        headline_prompts: len(headline.len()),
        blocked: len(input.rows.rows.iter().filter(|row| row.blocked).count()),
        bootstrap: input.bootstrap,
        flips: input.flips,
    }
}

/// Reduces one facet alone.
///
/// # Errors
///
/// As [`reduce`]; [`EvalError::Unpaired`] if there is no such facet.
pub(crate) fn facet_record(input: &CensusInput, id: &str) -> Result<FacetRecord, EvalError> {
    let pictures = Pictures::index(&input.rows)?;
    let facet = input.thesaurus.facets.iter().find(|facet| facet.id == id);
    let facet = facet.ok_or_else(|| EvalError::Unpaired(format!("there is no facet `{id}`")))?;
    facet::analyse(input, &pictures, facet, &mut Vec::new())
}

/// Half of the widest interval among the entities of a facet.
///
/// # Errors
///
/// As [`reduce`].
pub(crate) fn widest_half(input: &CensusInput, facet: &str) -> Result<f64, EvalError> {
    let record = facet_record(input, facet)?;
    let halves = record.entities.iter().map(|entity| (entity.ci[1] - entity.ci[0]) / 2.0);
    Ok(halves.fold(0.0, f64::max))
}

/// Shares under one prompt, and the same of every bootstrap replicate.
pub(crate) struct PromptShares {
    /// Base and adapted share of each category.
    pub(crate) own: Vec<(f64, f64)>,
    replicates: Vec<Vec<(f64, f64)>>,
}

impl PromptShares {
    /// The replicates of one category.
    pub(crate) fn of_entity(&self, i: usize) -> Vec<(f64, f64)> {
        self.replicates.iter().map(|shares| shares[i]).collect()
    }
}

/// Shares of the concept's facet under one prompt alone.
///
/// # Errors
///
/// As [`reduce`].
pub(crate) fn shares_of_prompt(
    input: &CensusInput,
    categories: &Categories,
    prompt: &str,
    resampler: Resampler,
) -> Result<PromptShares, EvalError> {
    let pictures = Pictures::index(&input.rows)?;
    let mut pairs = pictures.headline(&input.panel, Drawn::ADAPTED)?;
    pairs.retain(|pairs| pairs.prompt == prompt);
    for pairs in &mut pairs {
        pairs.weight = 1.0;
    }
    let labels = categories.labels(&pictures, &pairs)?;
    let both = |shares: &Shares| -> Vec<(f64, f64)> {
        shares.base.iter().copied().zip(shares.adapted.iter().copied()).collect()
    };
    let lengths = labels.lengths();
    let replicates = (0..resampler.draws)
        .map(|draw| both(&labels.shares(Some(&resampler.positions(draw, &lengths)))));
    Ok(PromptShares { own: both(&labels.shares(None)), replicates: replicates.collect() })
}

/// Unasked pictures in two categories, 1 for those that bear one of `motifs`, and Good–Turing coverage
/// of the concept's facet before and after.
///
/// # Errors
///
/// As [`reduce`].
pub(crate) fn stock(
    input: &CensusInput,
    motifs: &[String],
) -> Result<(PairedLabels, [f64; 2]), EvalError> {
    let categories = Categories::of_concept(input)?;
    let pictures = Pictures::index(&input.rows)?;
    let pairs = pictures.headline(&input.panel, Drawn::ADAPTED)?;
    let mut labels = categories.labels(&pictures, &pairs)?;
    let table = labels.table();
    let before: Vec<u64> = table.iter().map(|row| row.iter().sum()).collect();
    let after: Vec<u64> = (0..table.len()).map(|j| table.iter().map(|row| row[j]).sum()).collect();
    let is_motif: Vec<u16> =
        categories.names.iter().map(|name| u16::from(motifs.contains(name))).collect();
    for block in &mut labels.blocks {
        for list in [&mut block.base, &mut block.adapted] {
            for label in list.iter_mut() {
                *label = is_motif[usize::from(*label)];
            }
        }
        block.placebos.clear();
    }
    labels.n_categories = 2;
    Ok((labels, [good_turing(&before), good_turing(&after)]))
}

pub(crate) fn len(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The items in their order without repeats: a census taken up again brings what it said before.
fn each_once<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept: Vec<T> = Vec::with_capacity(items.len());
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

/// Every figure that is not there has a reason beside it.
fn refuse_absent(measured: &Measured, refused: &mut Vec<Refusal>) {
    for (what, there) in measured.names() {
        if !there && !refused.iter().any(|refusal| refusal.what == what) {
            refused.push(Refusal {
                what: what.to_owned(),
                reason: "the budget does not measure it".to_owned(),
            });
        }
    }
}

/// Compares the recipe's limits with what was found; a figure that was not measured decides nothing.
fn gates(input: &CensusInput, facets: &[FacetRecord], leak: &LeakRecord) -> Vec<GateRecord> {
    let level = |id: &str| leak.levels.iter().find(|l| l.level == id).map(|l| l.after);
    let home = facets.iter().find(|facet| facet.id == input.concept.facet);
    let fabric = input.measured.fabric.as_ref().and_then(|fabric| fabric.tree.ratio);
    let figure = |limit: &Limit| match limit.figure.as_str() {
        "selection_nats" => home.map(|facet| facet.selection),
        "displaced" => home.map(|facet| facet.displaced),
        "new_share" => level("unasked"),
        "leak" => level("plain"),
        "leak_unrelated" => level("unrelated"),
        "fabric_ratio" => fabric,
        _ => None,
    };
    input.limits.iter().map(|limit| limit.judge(figure(limit))).collect()
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
