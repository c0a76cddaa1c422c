//! Takes a census: draws what the plan says, looks at it, commits it shard by shard, and reduces it.
//! Interrupted and taken up again it gives the same bytes.

mod independence;
mod measure;
mod references;
mod shards;

pub(crate) use shards::DRAWING;

pub use independence::check as check_independence;

use crate::census::labels::{PersonLabel, blank, labels_from_csv};
use crate::census::{CensusInput, Measured, reduce};
use crate::detector::Detector;
use crate::error::EvalError;
use crate::evaluator::Words;
use crate::gate::Limit;
use crate::json::CensusReport;
use crate::manifest::CensusManifest;
use crate::plan::{CensusPlan, Divisible};
use crate::record::{Refusal, ZeroCheck};
use crate::rows::{Row, Rows};
use crate::sample::Sampling;
use crate::store::Looked;
use crate::tables;
use crate::world::{self, World};
use checkpoints::Watch;
use datasets::Dataset;
use image::{ImageFormat, RgbImage};
use measure::Second;
use models::adapter::Adapter;
use models::{Base, Evaluator};
use recipes::{Bound, CensusSpec, DatasetSpec, GatesSpec};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Most reference pictures that the detector compares with.
const REFERENCES: usize = 32;
/// Bootstrap replicates and sign flips.
const BOOTSTRAP: u32 = 2000;
const FLIPS: u32 = 1999;
/// Pictures are kept of this many seeds per prompt, by the side of the picture.
const KEPT_SMALL: u32 = 512;
const KEPT_LARGE: u32 = 64;
/// Pictures of an open scene that are kept as a series.
const SERIES_PICTURES: u32 = 12;
/// Pictures asked by an entity's name that are kept to be shown.
const NAMED_PICTURES: u32 = 4;
const LARGE_PX: usize = 128;

/// What settled the concept.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// An adapter, which can be given in doses.
    Adapter(&'a Adapter),
    /// A base whose own weights were trained.
    Base(&'a Base),
}

/// A census to take.
#[derive(Clone, Copy, Debug)]
pub struct CensusJob<'a> {
    /// What is counted.
    pub spec: &'a CensusSpec,
    /// The recipe's limits.
    pub gates: &'a GatesSpec,
    /// Where the concept's pictures come from.
    pub source: &'a DatasetSpec,
    /// The concept's pictures.
    pub dataset: &'a Dataset,
    /// The base.
    pub base: &'a Base,
    /// What settled the concept.
    pub change: Change<'a>,
    /// Names of the base, by which a distilled one may be known.
    pub base_name: &'a str,
    /// Who looks at the pictures.
    pub evaluator: &'a Evaluator,
    /// An evaluator of another family, whose agreement is reported.
    pub second_evaluator: Option<&'a Evaluator>,
    /// Whether the truth about the base's world is known.
    pub world: World,
    /// Program and version.
    pub tool: &'a str,
    /// What the arithmetic depends on beside the device: vector instructions, or the card.
    pub numerics: &'a str,
    /// SHA-256 of whatever determines the pictures, by name: `base`, `adapter`, `dataset` …
    pub hashes: &'a BTreeMap<String, String>,
    /// The run directory; everything is written into `census` in it.
    pub run: &'a Path,
    /// Where pictures of bases are kept for later adapters; `None` keeps them in the run alone.
    pub cache: Option<&'a Path>,
}

/// What happens while a census is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CensusEvent {
    /// So many pictures of all are there.
    Drew {
        /// Pictures so far.
        pictures: u64,
        /// Pictures in all.
        of: u64,
    },
    /// All pictures are there; an instrument works.
    Measuring {
        /// Which.
        what: &'static str,
    },
    /// An instrument goes on.
    Working,
    /// All is measured; figures are being reduced.
    Reducing,
}

/// How a census ended.
#[derive(Clone, Debug)]
pub enum Counted {
    /// Taken and written.
    Finished(Box<CensusReport>),
    /// Stopped on request; finished shards are kept and not drawn again.
    Interrupted {
        /// Pictures so far.
        pictures: u64,
        /// Pictures in all.
        of: u64,
    },
}

/// Takes the census of a settled concept and writes `census/` into the run directory.
///
/// # Errors
///
/// A thesaurus, panel or concept that does not fit; an evaluator that shares tensors with the text
/// encoder; a picture or file that cannot be read or written; a fault of the device.
pub fn census(
    job: &CensusJob<'_>,
    watch: &mut Watch<'_, CensusEvent>,
) -> Result<Counted, EvalError> {
    independence::check(job.evaluator, job.base)?;
    if let Some(second) = job.second_evaluator {
        independence::check(second, job.base)?;
        if second.sha256() == job.evaluator.sha256() {
            return Err(EvalError::SharedEvaluator { sha256: second.sha256().to_owned() });
        }
    }
    let divisible = match job.change {
        Change::Adapter(_) => Divisible::Yes,
        Change::Base(_) => Divisible::No,
    };
    let plan = CensusPlan::new(job.spec, job.source, job.dataset, divisible)?;
    let manifest = CensusManifest::new(job, &plan)?;
    let mut taker = Taker::new(job, &plan, &manifest)?;
    if !taker.take_up(&manifest)? {
        let taken = taker
            .fit_detector(watch)
            .and_then(|()| taker.draw_all(watch))
            .and_then(|()| taker.measure(watch));
        match taken {
            Err(EvalError::Stopped) => {
                return Ok(Counted::Interrupted { pictures: taker.drawn, of: plan.pictures() });
            }
            other => other?,
        }
    }
    watch.tell(&CensusEvent::Reducing);
    let report = reduce(&taker.input(&manifest))?;
    taker.finish(&report, manifest)?;
    Ok(Counted::Finished(Box::new(report)))
}

/// A census in the making.
struct Taker<'a> {
    job: &'a CensusJob<'a>,
    plan: &'a CensusPlan,
    sampling: Sampling,
    words: Words,
    temperature: f64,
    confusions: Vec<(String, statistics::calibrate::Confusion)>,
    references: Vec<Vec<f32>>,
    detector: Option<Detector>,
    shards: PathBuf,
    drawn: u64,
    rows: Rows,
    seen: Vec<Seen>,
    person: Vec<PersonLabel>,
    second: Option<Second<'a>>,
    measured: Measured,
    rerun: Option<ZeroCheck>,
    widening: f64,
    refused: Vec<Refusal>,
    warnings: Vec<String>,
}

/// What was seen of one shard, beside its rows.
struct Seen {
    /// Position of the drawing in the plan.
    drawing: usize,
    /// Its first seed.
    first: u32,
    looked: Looked,
}

impl<'a> Taker<'a> {
    fn new(
        job: &'a CensusJob<'a>,
        plan: &'a CensusPlan,
        manifest: &CensusManifest,
    ) -> Result<Self, EvalError> {
        let mut words = Words::new(job.evaluator, &plan.thesaurus)?;
        let verified =
            world::verified(job.world, &plan.thesaurus, &words, job.base, job.evaluator)?;
        let temperature = words.fit_none(&verified);
        let digits: String = manifest.identity_sha256.chars().take(16).collect();
        Ok(Self {
            sampling: Sampling::new(job.spec, job.base)?,
            confusions: world::confusions(&plan.thesaurus, &words, &verified),
            temperature,
            references: Vec::new(),
            detector: None,
            shards: job.run.join("census").join("shards").join(digits),
            drawn: 0,
            rows: Rows {
                facets: plan.thesaurus.facets.iter().map(|facet| facet.id.clone()).collect(),
                entities: words.entities.clone(),
                rows: Vec::new(),
            },
            seen: Vec::new(),
            person: person(job.run)?,
            second: None,
            measured: Measured::default(),
            rerun: None,
            widening: 1.0,
            refused: Vec::new(),
            warnings: Vec::new(),
            words,
            job,
            plan,
        })
    }

    /// Takes the rows and figures of a finished census of the same identity, whose labels of a person
    /// or gates may be new; false if there is none.
    fn take_up(&mut self, manifest: &CensusManifest) -> Result<bool, EvalError> {
        let dir = self.job.run.join("census");
        let path = dir.join("manifest.json");
        if !path.is_file() {
            return Ok(false);
        }
        let before = CensusManifest::read(&path)?;
        if before.identity_sha256 != manifest.identity_sha256 {
            return Ok(false);
        }
        before.check_rows(self.job.run)?;
        let text = |name: &str| -> Result<String, EvalError> {
            Ok(String::from_utf8_lossy(&checkpoints::fs::read(&dir.join(name))?).into_owned())
        };
        let report = CensusReport::from_json(&text("census.json")?)?;
        self.rows = Rows::from_csv(&text("rows.csv")?)?;
        self.detector = report.leak.detector;
        self.rerun = report.nulls.rerun;
        self.widening = report.widening;
        self.refused.clone_from(&report.refused);
        self.warnings.clone_from(&report.warnings);
        self.measured = Measured::of(&report);
        Ok(true)
    }

    /// What the reduction gets.
    fn input(&self, manifest: &CensusManifest) -> CensusInput {
        let mut input = self.input_of_rows();
        input.manifest_sha256 = Some(manifest.identity_sha256.clone());
        input.budget = self.job.spec.budget.to_string();
        if matches!(self.job.change, Change::Base(_)) {
            let reason = "the base's own weights were trained: there is no adapter to shuffle or to give in doses";
            input.refused.push(Refusal { what: "placebo and doses".into(), reason: reason.into() });
        }
        if self.confusions.is_empty() {
            input.warnings.push(
                "“none of these” was never given: no verified pictures to set its threshold"
                    .to_owned(),
            );
        }
        input.refused.extend(self.plan.left_out());
        input.warnings.extend(manifest.note_on_the_empty_prompt());
        input
    }

    /// The same with what was drawn so far, and without what only the end knows.
    fn input_of_rows(&self) -> CensusInput {
        let mut rows = self.rows.clone();
        rows.rows.sort_by(|a, b| {
            let key = |row: &Row| (row.stratum, row.prompt.clone(), row.seed_idx, row.model);
            key(a).cmp(&key(b)).then(a.dose.total_cmp(&b.dose))
        });
        CensusInput {
            tool: self.job.tool.to_owned(),
            budget: String::new(),
            manifest_sha256: None,
            thesaurus: self.plan.thesaurus.clone(),
            panel: self.plan.panel.clone(),
            concept: self.plan.concept.clone(),
            rows,
            detector: self.detector,
            confusions: self.confusions.clone(),
            seed: self.job.spec.seed,
            bootstrap: BOOTSTRAP,
            flips: FLIPS,
            limits: limits(self.job.gates),
            refused: self.refused.clone(),
            warnings: self.warnings.clone(),
            person: self.person.clone(),
            measured: self.measured.clone(),
            rerun: self.rerun,
            widening: self.widening,
        }
    }

    /// Writes the sheet as a blank table, unless somebody wrote into the one that is there.
    fn keep_blank(&self, report: &CensusReport) -> Result<(), EvalError> {
        let Some(sheet) = &report.labels else { return Ok(()) };
        let path = self.job.run.join("census/labels-blank.csv");
        if path.is_file() {
            let there = checkpoints::fs::read(&path)?;
            let read = labels_from_csv(&String::from_utf8_lossy(&there));
            if !read.is_ok_and(|labels| labels.is_empty()) {
                return Ok(());
            }
        }
        Ok(checkpoints::fs::atomic_write(&path, blank(sheet).as_bytes())?)
    }

    /// Writes all tables and removes the shards, which they replace.
    fn finish(&self, report: &CensusReport, mut manifest: CensusManifest) -> Result<(), EvalError> {
        let rows = self.input(&manifest).rows.to_csv().into_bytes();
        let mut files = vec![
            ("census/rows.csv".to_owned(), rows),
            ("census/census.json".to_owned(), report.to_json()?.into_bytes()),
        ];
        files.extend(tables::tables(report));
        for (path, bytes) in &files {
            checkpoints::fs::atomic_write(&self.job.run.join(path), bytes)?;
            manifest.add(path, bytes);
        }
        manifest.pictures = statistics::number::whole(self.rows.rows.len());
        self.keep_blank(report)?;
        let path = self.job.run.join("census/manifest.json");
        checkpoints::fs::atomic_write_json(&path, &manifest)?;
        shards::clear(&self.shards)
    }
}

/// What a person wrote into `labels.csv` after an earlier census of the same run; nothing without one.
fn person(run: &Path) -> Result<Vec<PersonLabel>, EvalError> {
    let path = run.join("census/labels.csv");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    labels_from_csv(&String::from_utf8_lossy(&checkpoints::fs::read(&path)?))
}

fn limits(gates: &GatesSpec) -> Vec<Limit> {
    let limit = |(figure, bound): (&str, Option<Bound>)| {
        bound.map(|bound| Limit {
            figure: figure.to_owned(),
            at_most: bound.at_most,
            at_least: bound.at_least,
        })
    };
    gates.bounds().into_iter().filter_map(limit).collect()
}

fn png(picture: &RgbImage, path: &str) -> Result<Vec<u8>, EvalError> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|source| EvalError::Picture { path: path.to_owned(), source })?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests;
