//! Opens the censuses that are compared, and refuses those that were not counted alike.

use super::{BOOTSTRAP, Candidate, FLIPS};
use crate::catalogue;
use crate::census::{CensusInput, Measured};
use crate::error::EvalError;
use crate::json::CensusReport;
use crate::manifest::{CensusManifest, described};
use crate::rows::{Model, Row, Rows};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What a census left, with the dose in question taken for the whole.
pub(super) struct Opened {
    pub(super) name: String,
    /// Run that it is a state of.
    pub(super) of: PathBuf,
    /// Whether it is that run's last state, rather than an earlier checkpoint.
    pub(super) last: bool,
    pub(super) dose: f64,
    pub(super) input: CensusInput,
    pub(super) report: CensusReport,
    pub(super) manifest: CensusManifest,
}

impl Opened {
    /// Reads what the census of a candidate left.
    ///
    /// # Errors
    ///
    /// As [`super::compare`].
    pub(super) fn open(candidate: &Candidate<'_>) -> Result<Self, EvalError> {
        let dir = candidate.run.join("census");
        let text = checkpoints::fs::read(&dir.join("census.json"))?;
        let report = CensusReport::from_json(&String::from_utf8_lossy(&text))?;
        let manifest = CensusManifest::read(&dir.join("manifest.json"))?;
        let text = checkpoints::fs::read(&dir.join("rows.csv"))?;
        let rows = Rows::from_csv(&String::from_utf8_lossy(&text))?;
        let rows = Rows { rows: at_dose(rows.rows, candidate.dose), ..rows };
        let opened = Self {
            name: candidate.name.to_owned(),
            of: candidate.of.to_owned(),
            last: candidate.run == candidate.of,
            dose: candidate.dose,
            input: input(candidate, &report, rows)?,
            report,
            manifest,
        };
        opened.check()?;
        Ok(opened)
    }

    /// Whether the adapter is taken as it was fitted.
    pub(super) fn is_whole(&self) -> bool {
        (self.dose - 1.0).abs() < 1e-9
    }

    /// SHA-256 of the base that it was drawn against, with all that was settled in it before.
    pub(super) fn base(&self) -> Option<&String> {
        self.manifest.hashes.get("base")
    }

    /// SHA-256 of the bare base.
    fn root(&self) -> Option<&String> {
        self.manifest.hashes.get("root").or_else(|| self.base())
    }

    /// SHA-256 of each adapter that was settled before, the first one first.
    pub(super) fn settled(&self) -> Vec<&str> {
        let joined = self.manifest.hashes.get("settled").map_or("", String::as_str);
        joined.split(',').filter(|hash| !hash.is_empty()).collect()
    }

    /// The same, with its own adapter.
    pub(super) fn lineage(&self) -> Vec<&str> {
        let own = self.manifest.hashes.get("trained").map(String::as_str);
        self.settled().into_iter().chain(own).collect()
    }

    /// Whether thesaurus and panel are those of the census, and the dose was drawn.
    fn check(&self) -> Result<(), EvalError> {
        for (what, found) in [
            ("thesaurus", described(&self.input.thesaurus)),
            ("panel", described(&self.input.panel)),
        ] {
            if self.manifest.hashes.get(what) != Some(&found) {
                return Err(EvalError::Unpaired(format!(
                    "the {what} is no longer that with which `{}` was counted",
                    self.name
                )));
            }
        }
        if !self.input.rows.rows.iter().any(|row| row.model == Model::Adapted) {
            return Err(EvalError::Unpaired(format!(
                "the census of `{}` drew nothing at dose {}",
                self.name, self.dose
            )));
        }
        Ok(())
    }
}

/// What a census is reduced from, as far as a comparison asks.
fn input(
    candidate: &Candidate<'_>,
    report: &CensusReport,
    rows: Rows,
) -> Result<CensusInput, EvalError> {
    Ok(CensusInput {
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
        widening: report.widening,
        rows,
    })
}

/// The base's rows, and those of the adapted model at `dose` as if it were the whole.
pub(super) fn at_dose(rows: Vec<Row>, dose: f64) -> Vec<Row> {
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
pub(super) fn on_common_pictures(mut opened: Vec<Opened>) -> Vec<Opened> {
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

/// Whether all censuses asked the same on the same noise, on top of one bare base; and those of one
/// base, whatever was settled in it before, drew the same pictures of it.
///
/// # Errors
///
/// [`EvalError::Unpaired`] naming two of them and what they differ in.
pub(super) fn check_all(all: &[Opened]) -> Result<(), EvalError> {
    for (i, one) in all.iter().enumerate() {
        let earlier = &all[..i];
        if let Some(first) = earlier.first() {
            check_alike(first, one)?;
        }
        if let Some(twin) = earlier.iter().find(|other| other.base() == one.base()) {
            check_base(twin, one)?;
        }
    }
    Ok(())
}

fn check_alike(a: &Opened, b: &Opened) -> Result<(), EvalError> {
    if a.root() != b.root() {
        return Err(unlike(a, b, "the bare base"));
    }
    for what in ["evaluator", "panel", "thesaurus"] {
        if a.manifest.hashes.get(what) != b.manifest.hashes.get(what) {
            return Err(unlike(a, b, what));
        }
    }
    for what in ["sampler", "guidance_scale", "guidance_rescale", "seed"] {
        if a.manifest.census.get(what) != b.manifest.census.get(what) {
            return Err(unlike(a, b, &format!("`census.{what}`")));
        }
    }
    if a.input.concept.facet != b.input.concept.facet {
        return Err(unlike(a, b, "the facet of the concept"));
    }
    Ok(())
}

/// Whether two censuses of one base drew the same pictures of it.
fn check_base(a: &Opened, b: &Opened) -> Result<(), EvalError> {
    let pixels = |opened: &Opened| -> BTreeMap<(String, u32), String> {
        let base = opened.input.rows.rows.iter().filter(|row| row.model == Model::Base);
        base.map(|row| ((row.prompt.clone(), row.seed_idx), row.pixels.clone())).collect()
    };
    let others = pixels(b);
    let differing =
        pixels(a).iter().filter(|(key, hash)| others.get(key).is_some_and(|o| o != *hash)).count();
    if differing > 0 {
        let what = format!("{differing} pictures of the base on the same seeds");
        return Err(unlike(a, b, &what));
    }
    Ok(())
}

fn unlike(a: &Opened, b: &Opened, what: &str) -> EvalError {
    EvalError::Unpaired(format!(
        "`{}` and `{}` were not counted alike: they differ in {what}",
        a.name, b.name
    ))
}
