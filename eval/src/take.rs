//! Takes a census: draws what the plan says, looks at it, commits it shard by shard, and reduces it.
//! Interrupted and taken up again it gives the same bytes.

mod independence;

use crate::census::{CensusInput, reduce};
use crate::detector::{self, Detector};
use crate::error::EvalError;
use crate::evaluator::{Sight, Words, cosine};
use crate::gate::Limit;
use crate::json::CensusReport;
use crate::manifest::CensusManifest;
use crate::panel::{Prompt, Stratum};
use crate::plan::{CensusPlan, Divisible, Drawing};
use crate::record::Refusal;
use crate::rows::{Model, Row, Rows};
use crate::sample::{SHARD, Sampling, settled, through_vae};
use crate::tables;
use crate::world::{self, World};
use checkpoints::Watch;
use checkpoints::hash::bytes_sha256;
use datasets::{Dataset, Mirror, Role};
use image::{ImageFormat, RgbImage};
use models::adapter::{self, Adapter};
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
    /// Who looks at the pictures.
    pub evaluator: &'a Evaluator,
    /// Whether the truth about the base's world is known.
    pub world: World,
    /// Program and version.
    pub tool: &'a str,
    /// SHA-256 of whatever determines the pictures, by name: `base`, `adapter`, `dataset` …
    pub hashes: &'a BTreeMap<String, String>,
    /// The run directory; everything is written into `census` in it.
    pub run: &'a Path,
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
    /// All pictures are there; figures are being reduced.
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
    let divisible = match job.change {
        Change::Adapter(_) => Divisible::Yes,
        Change::Base(_) => Divisible::No,
    };
    let plan = CensusPlan::new(job.spec, job.source, job.dataset, divisible)?;
    let manifest = CensusManifest::new(job, &plan)?;
    let mut taker = match Taker::new(job, &plan, &manifest, watch) {
        Err(EvalError::Stopped) => {
            return Ok(Counted::Interrupted { pictures: 0, of: plan.pictures() });
        }
        other => other?,
    };
    match taker.draw_all(watch) {
        Err(EvalError::Stopped) => {
            return Ok(Counted::Interrupted { pictures: taker.drawn, of: plan.pictures() });
        }
        other => other?,
    }
    watch.tell(&CensusEvent::Reducing);
    let report = reduce(&taker.input(&manifest)?)?;
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
}

impl<'a> Taker<'a> {
    fn new(
        job: &'a CensusJob<'a>,
        plan: &'a CensusPlan,
        manifest: &CensusManifest,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Self, EvalError> {
        let mut words = Words::new(job.evaluator, &plan.thesaurus)?;
        let verified =
            world::verified(job.world, &plan.thesaurus, &words, job.base, job.evaluator)?;
        let temperature = words.fit_none(&verified);
        let digits: String = manifest.identity_sha256.chars().take(16).collect();
        let mut taker = Self {
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
            words,
            job,
            plan,
        };
        taker.fit_detector(watch)?;
        Ok(taker)
    }

    /// Embeds the references as the autoencoder gives them back, and sets the detector's threshold on
    /// base pictures whose noise no census prompt shares.
    fn fit_detector(&mut self, watch: &Watch<'_, CensusEvent>) -> Result<(), EvalError> {
        let references = self.reference_pictures()?;
        let decoded = through_vae(&references, self.job.base)?;
        let sights = self.words.look(self.job.evaluator, &decoded)?;
        self.references = sights.into_iter().map(|sight| sight.embedding).collect();
        for (i, picture) in references.iter().enumerate() {
            let path = format!("census/pictures/references/{i:02}.png");
            checkpoints::fs::atomic_write(&self.job.run.join(&path), &png(picture, &path)?)?;
        }
        let stored = self.shards.join("detector.json");
        if stored.is_file() {
            self.detector = checkpoints::fs::read_json(&stored)?;
            return Ok(());
        }
        let prompt =
            Prompt { id: "detector/empty".into(), ..Prompt::new(Stratum::Empty, "", None) };
        let seeds: Vec<u32> = (0..(self.job.spec.seeds_empty / 2).clamp(256, 1024)).collect();
        let pictures = self.sampling.draw(self.job.base, &prompt, &seeds, watch.stop)?;
        let sights = self.words.look(self.job.evaluator, &pictures)?;
        let base: Vec<f64> = sights.iter().map(|sight| self.score(sight).0).collect();
        let cosines: Vec<Vec<f64>> = self
            .references
            .iter()
            .map(|a| self.references.iter().map(|b| f64::from(cosine(a, b))).collect())
            .collect();
        if !self.references.is_empty() {
            let (setting, held_out) = base.split_at(base.len() / 2);
            self.detector = Detector::fit(setting, &detector::leave_one_out(&cosines))
                .map(|detector| detector.held_out(held_out));
        }
        Ok(checkpoints::fs::atomic_write_json(&stored, &self.detector)?)
    }

    fn reference_pictures(&self) -> Result<Vec<RgbImage>, EvalError> {
        let side = u32::try_from(self.sampling.side_px).unwrap_or(u32::MAX);
        let mut pictures = Vec::new();
        for i in self.job.dataset.of_role(Role::Instance).into_iter().take(REFERENCES) {
            let pixels = self.job.dataset.pixels(i, Mirror::No)?;
            let at = |side: u32| usize::try_from(side).unwrap_or(0);
            let plane = at(pixels.width) * at(pixels.height);
            let picture = RgbImage::from_fn(pixels.width, pixels.height, |x, y| {
                let place = at(y) * at(pixels.width) + at(x);
                image::Rgb([0, 1, 2].map(|c| crate::sample::byte(pixels.values[c * plane + place])))
            });
            let filter = image::imageops::FilterType::CatmullRom;
            pictures.push(if picture.dimensions() == (side, side) {
                picture
            } else {
                image::imageops::resize(&picture, side, side, filter)
            });
        }
        Ok(pictures)
    }

    /// Largest and mean cosine with the references; (−1, −1) without any.
    fn score(&self, sight: &Sight) -> (f64, f64) {
        let cosines: Vec<f64> =
            self.references.iter().map(|r| f64::from(cosine(r, &sight.embedding))).collect();
        (detector::score(&cosines), statistics::number::mean(&cosines).unwrap_or(-1.0))
    }

    /// Draws every shard that is not there yet, model by model.
    fn draw_all(&mut self, watch: &mut Watch<'_, CensusEvent>) -> Result<(), EvalError> {
        let of = self.plan.pictures();
        let mut order: Vec<(usize, &Drawing)> = self.plan.drawings.iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| a.model.cmp(&b.model).then(a.dose.total_cmp(&b.dose)));
        let mut model: Option<(Model, f64, Base)> = None;
        for (number, drawing) in order {
            for first in (0..drawing.seeds).step_by(usize::try_from(SHARD).unwrap_or(1)) {
                let path = self.shards.join(format!("{number:04}-{first:06}.csv"));
                let rows = if path.is_file() {
                    let bytes = checkpoints::fs::read(&path)?;
                    Rows::from_csv(&String::from_utf8_lossy(&bytes))?
                } else {
                    if watch.stop_requested() {
                        return Err(EvalError::Stopped);
                    }
                    let same = |(m, d, _): &(Model, f64, Base)| {
                        *m == drawing.model && d.to_bits() == drawing.dose.to_bits()
                    };
                    let weights = match model.take().filter(same) {
                        Some(loaded) => loaded,
                        None => (drawing.model, drawing.dose, self.weights(drawing)?),
                    };
                    let rows = self.shard(drawing, first, &weights.2, watch)?;
                    model = Some(weights);
                    checkpoints::fs::atomic_write(&path, rows.to_csv().as_bytes())?;
                    rows
                };
                self.drawn += u64::try_from(rows.rows.len()).unwrap_or(0);
                self.rows.rows.extend(rows.rows);
                watch.tell(&CensusEvent::Drew { pictures: self.drawn, of });
            }
        }
        Ok(())
    }

    /// The weights that a drawing names. Copies share their tensors with the base.
    fn weights(&self, drawing: &Drawing) -> Result<Base, EvalError> {
        let base = self.job.base;
        match (drawing.model, self.job.change) {
            (Model::Base, _) | (Model::Placebo(_), Change::Base(_)) => Ok(base.clone()),
            (Model::Adapted, Change::Base(trained)) => Ok(trained.clone()),
            (Model::Adapted, Change::Adapter(adapter)) => Ok(settled(base, adapter, drawing.dose)?),
            (Model::Placebo(draw), Change::Adapter(adapter)) => {
                let seed = self.job.spec.seed.wrapping_add(u64::from(draw) << 32);
                Ok(settled(base, &adapter::placebo(adapter, seed), drawing.dose)?)
            }
        }
    }

    /// Draws, judges and keeps up to [`SHARD`] pictures.
    fn shard(
        &self,
        drawing: &Drawing,
        first: u32,
        weights: &Base,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Rows, EvalError> {
        let seeds: Vec<u32> = (first..drawing.seeds.min(first + SHARD)).collect();
        let pictures = self.sampling.draw(weights, &drawing.prompt, &seeds, watch.stop)?;
        let sights = self.words.look(self.job.evaluator, &pictures)?;
        let mut rows = Rows { rows: Vec::with_capacity(seeds.len()), ..self.empty_rows() };
        for ((&seed_idx, picture), sight) in seeds.iter().zip(&pictures).zip(sights) {
            rows.rows.push(self.row(drawing, seed_idx, picture, sight)?);
        }
        Ok(rows)
    }

    fn empty_rows(&self) -> Rows {
        Rows {
            facets: self.rows.facets.clone(),
            entities: self.rows.entities.clone(),
            rows: Vec::new(),
        }
    }

    fn row(
        &self,
        drawing: &Drawing,
        seed_idx: u32,
        picture: &RgbImage,
        sight: Sight,
    ) -> Result<Row, EvalError> {
        let (score, mean) = self.score(&sight);
        let mut labels = self.words.labels(&sight.cosines, self.temperature);
        let score = statistics::number::single(score);
        let detected = self.detector.map(|detector| detector.fires(f64::from(score)));
        let facet = self.rows.facets.iter().position(|f| *f == self.plan.concept.facet);
        if let Some(label) =
            facet.and_then(|f| labels.get_mut(f)).filter(|_| detected == Some(true))
        {
            label.entity.clone_from(&self.plan.concept.id);
        }
        let Drawing { model, dose, prompt, .. } = drawing;
        let file = prompt.id.replace('/', "-");
        let path = format!("pictures/{model}-{dose}/{file}/{seed_idx:05}.png");
        let encoded = png(picture, &path)?;
        let kept = self.keeps(drawing, seed_idx);
        if kept {
            checkpoints::fs::atomic_write(&self.job.run.join("census").join(&path), &encoded)?;
        }
        let known = !self.references.is_empty();
        let raw = statistics::number::real(picture.as_raw().len().max(1));
        Ok(Row {
            model: *model,
            dose: *dose,
            stratum: prompt.stratum,
            prompt: prompt.id.clone(),
            asked: prompt.given.clone(),
            seed_idx,
            labels,
            detector_score: known.then_some(score),
            detected,
            clip_i: known.then(|| statistics::number::single(mean)),
            blocked: false,
            compression_ratio: statistics::number::single(
                statistics::number::real(encoded.len()) / raw,
            ),
            log_w: None,
            path_nats: None,
            pixels: bytes_sha256(picture.as_raw()).chars().take(16).collect(),
            picture: kept.then_some(path),
            cosines: sight.cosines,
        })
    }

    /// Pictures of base and adapted model that the report may show.
    fn keeps(&self, drawing: &Drawing, seed_idx: u32) -> bool {
        let most = if self.sampling.side_px > LARGE_PX { KEPT_LARGE } else { KEPT_SMALL };
        let shown = drawing.prompt.stratum.is_headline()
            || (drawing.prompt.stratum == Stratum::Identifier && seed_idx < 16);
        shown && seed_idx < most && !matches!(drawing.model, Model::Placebo(_))
    }

    fn input(&self, manifest: &CensusManifest) -> Result<CensusInput, EvalError> {
        let mut refused = Vec::new();
        let mut warnings = Vec::new();
        if matches!(self.job.change, Change::Base(_)) {
            let reason = "the base's own weights were trained: there is no adapter to shuffle or to give in doses";
            refused.push(Refusal { what: "placebo and doses".into(), reason: reason.into() });
        }
        if self.confusions.is_empty() {
            warnings.push(
                "“none of these” was never given: no verified pictures to set its threshold"
                    .to_owned(),
            );
        }
        refused.extend(self.plan.left_out());
        warnings.extend(manifest.note_on_the_empty_prompt());
        let mut rows = self.rows.clone();
        rows.rows.sort_by(|a, b| {
            let key = |row: &Row| (row.stratum, row.prompt.clone(), row.seed_idx, row.model);
            key(a).cmp(&key(b)).then(a.dose.total_cmp(&b.dose))
        });
        Ok(CensusInput {
            tool: self.job.tool.to_owned(),
            budget: serde_json::to_value(self.job.spec.budget)?
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            manifest_sha256: Some(manifest.identity_sha256.clone()),
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
            refused,
            warnings,
        })
    }

    /// Writes all tables and removes the shards, which they replace.
    fn finish(&self, report: &CensusReport, mut manifest: CensusManifest) -> Result<(), EvalError> {
        let rows = self.input(&manifest)?.rows.to_csv().into_bytes();
        let mut files = vec![
            ("census/rows.csv".to_owned(), rows),
            ("census/census.json".to_owned(), report.to_json()?.into_bytes()),
        ];
        files.extend(tables::tables(report));
        for (path, bytes) in &files {
            checkpoints::fs::atomic_write(&self.job.run.join(path), bytes)?;
            manifest.add(path, bytes);
        }
        let path = self.job.run.join("census/manifest.json");
        checkpoints::fs::atomic_write_json(&path, &manifest)?;
        for shard in checkpoints::fs::list(&self.shards)? {
            checkpoints::fs::remove_file(&shard)?;
        }
        Ok(())
    }
}

fn limits(gates: &GatesSpec) -> Vec<Limit> {
    let limit = |figure: &str, bound: Option<Bound>| {
        bound.map(|bound| Limit {
            figure: figure.to_owned(),
            at_most: bound.at_most,
            at_least: bound.at_least,
        })
    };
    [
        limit("selection_nats", gates.selection_nats),
        limit("new_share", gates.new_share),
        limit("leak", gates.leak),
    ]
    .into_iter()
    .flatten()
    .collect()
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
