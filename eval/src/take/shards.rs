//! Draws shard by shard what the plan says, looks at it, and commits it.

use super::{
    CensusEvent, Change, KEPT_LARGE, KEPT_SMALL, LARGE_PX, NAMED_PICTURES, SERIES_PICTURES, Seen,
    Taker, png,
};
use crate::census;
use crate::error::EvalError;
use crate::panel::Stratum;
use crate::plan::{Drawing, guided};
use crate::record::ZeroCheck;
use crate::rows::{Model, Row};
use crate::sample::{SHARD, settled};
use crate::store::{Looked, Shelf, compression_ratio};
use checkpoints::Watch;
use checkpoints::hash::bytes_sha256;
use image::RgbImage;
use models::Base;
use models::adapter;
use serde_json::json;
use std::path::Path;

/// Critical values of O'Brien and Fleming for four looks at level 0.05.
///
/// Source: O'Brien & Fleming 1979, Biometrics 35:549, by the recursion of Armitage, `McPherson` & Rowe.
const LOOKS: [f64; 4] = [4.049, 2.863, 2.337, 2.024];
/// Raised with every change of code that changes pictures, embeddings or figures: what was kept before is
/// then drawn and measured anew.
pub(crate) const DRAWING: u32 = 2;
/// The critical value of one look.
const Z: f64 = 1.96;

impl Taker<'_> {
    /// Draws every shard that is not there yet, in one look or, where the census may end early, in up
    /// to four.
    pub(super) fn draw_all(&mut self, watch: &mut Watch<'_, CensusEvent>) -> Result<(), EvalError> {
        let Some(wanted) = self.job.spec.stop_at_half_width else {
            return self.draw_look(LOOKS.len() - 1, 0, watch);
        };
        let mut from = 0;
        for (look, z) in LOOKS.iter().enumerate() {
            self.draw_look(look, from, watch)?;
            from = look + 1;
            self.widening = z / Z;
            let width = census::widest_half(&self.input_of_rows(), &self.plan.concept.facet)?;
            if width <= wanted && look + 1 < LOOKS.len() {
                self.warnings.push(format!(
                    "ended at look {} of {}: no interval of the {} reaches farther than {wanted}; \
                     they are widened by {:.2} for having looked",
                    look + 1,
                    LOOKS.len(),
                    self.plan.concept.facet,
                    self.widening
                ));
                break;
            }
        }
        Ok(())
    }

    /// Draws what lies behind look `from` up to the end of `look`, model by model. Unasked pictures
    /// are drawn in equal parts, all others with the first.
    fn draw_look(
        &mut self,
        look: usize,
        from: usize,
        watch: &mut Watch<'_, CensusEvent>,
    ) -> Result<(), EvalError> {
        let plan = self.plan;
        let mut order: Vec<(usize, &Drawing)> = plan.drawings.iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| a.model.cmp(&b.model).then(a.dose.total_cmp(&b.dose)));
        let mut model: Option<(Model, f64, Base)> = None;
        for (number, drawing) in order {
            let [first, end] = part(drawing, from, look);
            if first >= end {
                continue;
            }
            let same = |(m, d, _): &(Model, f64, Base)| {
                *m == drawing.model && d.to_bits() == drawing.dose.to_bits()
            };
            let weights = match model.take().filter(same) {
                Some(loaded) => loaded,
                None => (drawing.model, drawing.dose, self.weights(drawing.model, drawing.dose)?),
            };
            for first in (first..end).step_by(usize::try_from(SHARD).unwrap_or(1)) {
                self.draw_shard((number, drawing), first, &weights.2, watch)?;
            }
            model = Some(weights);
        }
        Ok(())
    }

    fn draw_shard(
        &mut self,
        (number, drawing): (usize, &Drawing),
        first: u32,
        weights: &Base,
        watch: &mut Watch<'_, CensusEvent>,
    ) -> Result<(), EvalError> {
        let shelf = self.shelf(&format!("{number:04}"), drawing);
        let looked = self.looked(&shelf, (drawing, first), weights, watch)?;
        let n = looked.pixels.len();
        let rows: Vec<Row> = (0..n).map(|i| self.row(drawing, first, &looked, i)).collect();
        self.drawn += u64::try_from(n).unwrap_or(0);
        self.rows.rows.extend(rows);
        self.seen.push(Seen { drawing: number, first, looked });
        watch.tell(&CensusEvent::Drew { pictures: self.drawn, of: self.plan.pictures() });
        Ok(())
    }

    /// Draws the first shard of the base once more and compares it with what was kept of it; nothing if
    /// the empty prompt is not asked.
    pub(super) fn draw_again(
        &self,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Option<ZeroCheck>, EvalError> {
        let first = self.seen.iter().find(|seen| {
            let drawing = &self.plan.drawings[seen.drawing];
            drawing.model == Model::Base && keeps_latents(drawing) && seen.first == 0
        });
        let Some(Seen { drawing, looked, .. }) = first else { return Ok(None) };
        let drawing = &self.plan.drawings[*drawing];
        let seeds: Vec<u32> = (0..drawing.seeds.min(SHARD)).collect();
        let sketches =
            self.sampling.sketches(self.job.base, &drawing.prompt, &seeds, watch.stop)?;
        let pictures: Vec<RgbImage> = sketches.into_iter().map(|sketch| sketch.picture).collect();
        let again = self.words.look(self.job.evaluator, &pictures)?;
        let mut check = ZeroCheck { pairs: 0, different_pixels: 0, different_labels: 0 };
        for (i, (picture, sight)) in pictures.iter().zip(&again).enumerate() {
            let entities = |embedding: &[f32]| -> Vec<String> {
                let cosines = self.words.cosines(embedding);
                let labels = self.words.labels(&cosines, self.temperature);
                labels.into_iter().map(|label| label.entity).collect()
            };
            let differs = entities(&sight.embedding) != entities(&looked.embeddings[i]);
            check.pairs += 1;
            check.different_pixels += u64::from(pixels_hash(picture.as_raw()) != looked.pixels[i]);
            check.different_labels += u64::from(differs);
        }
        Ok(Some(check))
    }

    /// The weights of a model at a dose. Copies share their tensors with the base.
    pub(super) fn weights(&self, model: Model, dose: f64) -> Result<Base, EvalError> {
        let base = self.job.base;
        match (model, self.job.change) {
            (Model::Base, _) | (Model::Placebo(_), Change::Base(_)) => Ok(base.clone()),
            (Model::Adapted, Change::Base(trained)) => Ok(trained.clone()),
            (Model::Adapted, Change::Adapter(adapter)) => Ok(settled(base, adapter, dose)?),
            (Model::Placebo(draw), Change::Adapter(adapter)) => {
                let seed = self.job.spec.seed.wrapping_add(u64::from(draw) << 32);
                Ok(settled(base, &adapter::placebo(adapter, seed), dose)?)
            }
        }
    }

    /// Where the shards of a drawing lie: those of the base in the cache, where later adapters find
    /// them, all others in the run.
    pub(super) fn shelf(&self, name: &str, drawing: &Drawing) -> Shelf {
        match self.job.cache {
            Some(cache) if drawing.model == Model::Base => {
                Shelf::shared(cache, &self.identity(drawing))
            }
            Some(_) | None => Shelf::within(self.shards.join(name)),
        }
    }

    /// All that determines what is seen in pictures of the base alone, whatever was settled.
    fn identity(&self, drawing: &Drawing) -> serde_json::Value {
        let (base, sampling) = (self.job.base, &self.sampling);
        let guidance = guided(sampling.guidance_scale, &drawing.prompt)
            .then_some([sampling.guidance_scale, sampling.guidance_rescale]);
        json!({
            "drawing": DRAWING,
            "tool": self.job.tool,
            "numerics": self.job.numerics,
            "empty_prompt": base.force_zeros_for_empty_prompt,
            "base": base.hashes,
            "precision": base.precision.name(),
            "device": base.device_kind(),
            "clip_skip": base.clip_skip,
            "evaluator": self.job.evaluator.sha256(),
            "prompt": [drawing.prompt.id, drawing.prompt.text],
            "noise": [json!(sampling.seed), json!(self.job.spec.sampler)],
            "scheduler": format!("{:?}", sampling.scheduler),
            "guidance": guidance,
            "side_px": sampling.side_px,
            // A batch of another size may round differently on some devices.
            "shard": drawing.seeds.min(SHARD),
        })
    }

    /// What is seen in up to [`SHARD`] pictures: read where it was kept, else drawn and kept.
    pub(super) fn looked(
        &self,
        shelf: &Shelf,
        (drawing, first): (&Drawing, u32),
        weights: &Base,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Looked, EvalError> {
        let seeds: Vec<u32> = (first..drawing.seeds.min(first + SHARD)).collect();
        if let Some(looked) = shelf.read(first, seeds.len())
            && (looked.latents.is_empty() != keeps_latents(drawing))
            && self.restore(shelf, drawing, &seeds, &looked)?
        {
            return Ok(looked);
        }
        if watch.stop_requested() {
            return Err(EvalError::Stopped);
        }
        let sketches = self.sampling.sketches(weights, &drawing.prompt, &seeds, watch.stop)?;
        let (mut looked, mut kept) = (Looked::default(), Vec::new());
        let mut pictures = Vec::with_capacity(sketches.len());
        for (&seed_idx, sketch) in seeds.iter().zip(sketches) {
            let path = picture_path(drawing, seed_idx);
            let encoded = png(&sketch.picture, &path)?;
            let raw = sketch.picture.as_raw();
            looked.compression.push(compression_ratio(&encoded, raw));
            looked.pixels.push(pixels_hash(raw));
            if keeps_latents(drawing) {
                looked.latents.push(sketch.latents);
            }
            let shown = self.keeps(drawing, seed_idx);
            if shown {
                let place = self.job.run.join("census").join(&path);
                checkpoints::fs::atomic_write(&place, &encoded)?;
            }
            // Pictures of the run alone lie where the report finds them; those of the base serve others.
            let shared = drawing.model == Model::Base && self.job.cache.is_some();
            if (shown && shared) || self.is_for_judging(drawing, seed_idx) {
                kept.push((seed_idx, encoded));
            }
            pictures.push(sketch.picture);
        }
        let sights = self.words.look(self.job.evaluator, &pictures)?;
        looked.embeddings = sights.into_iter().map(|sight| sight.embedding).collect();
        shelf.write(first, &looked, &kept)?;
        Ok(looked)
    }

    /// Puts kept pictures of a shelf where the report finds them; false if one is missing, or is that of
    /// another census.
    fn restore(
        &self,
        shelf: &Shelf,
        drawing: &Drawing,
        seeds: &[u32],
        looked: &Looked,
    ) -> Result<bool, EvalError> {
        let on_shelf =
            |seed_idx: u32, pixels: &str| shelf.picture(seed_idx).filter(|png| shows(png, pixels));
        for (&seed_idx, pixels) in seeds.iter().zip(&looked.pixels) {
            if self.is_for_judging(drawing, seed_idx) && on_shelf(seed_idx, pixels).is_none() {
                return Ok(false);
            }
            if !self.keeps(drawing, seed_idx) {
                continue;
            }
            let place = self.job.run.join("census").join(picture_path(drawing, seed_idx));
            if place.is_file() && shows(&checkpoints::fs::read(&place)?, pixels) {
                continue;
            }
            let Some(picture) = on_shelf(seed_idx, pixels) else { return Ok(false) };
            checkpoints::fs::atomic_write(&place, &picture)?;
        }
        Ok(true)
    }

    /// The row of picture `i` of a shard.
    fn row(&self, drawing: &Drawing, first: u32, looked: &Looked, i: usize) -> Row {
        let embedding = &looked.embeddings[i];
        let (score, mean) = self.score(embedding);
        let cosines = self.words.cosines(embedding);
        let mut labels = self.words.labels(&cosines, self.temperature);
        let score = statistics::number::single(score);
        let detected = self.detector.map(|detector| detector.fires(f64::from(score)));
        let facet = self.rows.facets.iter().position(|f| *f == self.plan.concept.facet);
        if let Some(label) =
            facet.and_then(|f| labels.get_mut(f)).filter(|_| detected == Some(true))
        {
            label.entity.clone_from(&self.plan.concept.id);
        }
        let Drawing { model, dose, prompt, .. } = drawing;
        let seed_idx = first + u32::try_from(i).unwrap_or(0);
        let known = !self.references.is_empty();
        Row {
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
            compression_ratio: looked.compression[i],
            log_w: None,
            path_nats: None,
            pixels: looked.pixels[i].clone(),
            picture: self.keeps(drawing, seed_idx).then(|| picture_path(drawing, seed_idx)),
            cosines,
        }
    }

    /// Pictures of base and adapted model that the report may show.
    fn keeps(&self, drawing: &Drawing, seed_idx: u32) -> bool {
        let headline =
            drawing.prompt.stratum.is_headline() && !drawing.prompt.id.starts_with("detector/");
        let in_series = drawing.prompt.stratum == Stratum::Scene && seed_idx < SERIES_PICTURES;
        let shown = headline
            || in_series
            || (drawing.prompt.stratum == Stratum::Identifier && seed_idx < 16)
            || (drawing.prompt.stratum == Stratum::Asked && seed_idx < NAMED_PICTURES);
        shown && seed_idx < self.most_kept() && !matches!(drawing.model, Model::Placebo(_))
    }

    /// Pictures that the report may show of one prompt at most.
    fn most_kept(&self) -> u32 {
        if self.sampling.side_px > LARGE_PX { KEPT_LARGE } else { KEPT_SMALL }
    }
}

/// Seeds of a drawing between the end of look `from` − 1 and that of `look`, in whole shards.
fn part(drawing: &Drawing, from: usize, look: usize) -> [u32; 2] {
    let n_looks = u32::try_from(LOOKS.len()).unwrap_or(1);
    let end_of = |look: usize| {
        let looks = u32::try_from(look).unwrap_or(n_looks).min(n_looks);
        if drawing.prompt.stratum.is_headline() {
            let shards = drawing.seeds.div_ceil(SHARD);
            (looks * shards).div_ceil(n_looks).saturating_mul(SHARD).min(drawing.seeds)
        } else if looks == 0 {
            0
        } else {
            drawing.seeds
        }
    };
    [end_of(from), end_of(look + 1)]
}

/// Whether a PNG holds the pixels of this hash.
pub(super) fn shows(png: &[u8], pixels: &str) -> bool {
    image::load_from_memory(png)
        .is_ok_and(|picture| pixels_hash(picture.to_rgb8().as_raw()) == pixels)
}

/// First 16 hex digits of the SHA-256 of 8-bit pixels.
fn pixels_hash(raw: &[u8]) -> String {
    bytes_sha256(raw).chars().take(16).collect()
}

/// Where a picture lies within the census.
fn picture_path(drawing: &Drawing, seed_idx: u32) -> String {
    let Drawing { model, dose, prompt, .. } = drawing;
    format!("pictures/{model}-{dose}/{}/{seed_idx:05}.png", prompt.id.replace('/', "-"))
}

/// Whether the latents of a drawing are kept: unasked ones of the base and of the adapted model, which
/// likelihoods are taken of.
fn keeps_latents(drawing: &Drawing) -> bool {
    drawing.model.is_of_pair(drawing.dose) && drawing.prompt.id == "empty/empty"
}

/// Removes the shards of a census, which its tables replace.
pub(super) fn clear(dir: &Path) -> Result<(), EvalError> {
    for shelf in checkpoints::fs::list(dir)? {
        if shelf.is_dir() {
            for shard in checkpoints::fs::list(&shelf)? {
                checkpoints::fs::remove_file(&shard)?;
            }
            checkpoints::fs::remove_empty_dir(&shelf)?;
        } else {
            checkpoints::fs::remove_file(&shelf)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::Prompt;

    fn drawing(stratum: Stratum, seeds: u32) -> Drawing {
        Drawing { model: Model::Base, dose: 0.0, prompt: Prompt::new(stratum, "", None), seeds }
    }

    #[test]
    fn looks_share_out_unasked_pictures_in_whole_shards_and_begin_with_all_others() {
        let unasked = drawing(Stratum::Empty, 1000);
        let ends: Vec<[u32; 2]> = (0..4).map(|look| part(&unasked, look, look)).collect();
        assert_eq!(ends, [[0, 256], [256, 512], [512, 768], [768, 1000]]);
        assert_eq!(part(&unasked, 0, 3), [0, 1000]);
        let asked = drawing(Stratum::Asked, 8);
        let ends: Vec<[u32; 2]> = (0..4).map(|look| part(&asked, look, look)).collect();
        assert_eq!(ends, [[0, 8], [8, 8], [8, 8], [8, 8]]);
        // One shard cannot be shared out.
        assert_eq!(part(&drawing(Stratum::Medium, 32), 0, 0), [0, 32]);
    }

    #[test]
    fn a_picture_is_known_by_its_pixels() {
        let picture = RgbImage::from_pixel(4, 4, image::Rgb([7, 8, 9]));
        let bytes = png(&picture, "test").unwrap();
        assert!(shows(&bytes, &pixels_hash(picture.as_raw())));
        assert!(!shows(&bytes, &pixels_hash(&[0; 48])));
        assert!(!shows(b"no picture", &pixels_hash(picture.as_raw())));
    }
}
