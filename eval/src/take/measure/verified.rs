//! Pictures asked by name that another family of evaluator confirms, and what the evaluator said of them:
//! each model's own confusion.

use super::super::shards::shows;
use super::super::{LARGE_PX, Seen, Taker};
use super::second::Second;
use crate::error::EvalError;
use crate::panel::Stratum;
use crate::plan::Drawing;
use crate::record::VerifiedRecord;
use crate::rows::Model;
use crate::thesaurus::NONE;
use image::RgbImage;
use statistics::calibrate::Confusion;

/// Fewest pictures asked of each entity for any of them to be shown to the second family.
const LEAST_ASKED: u32 = 20;
/// Large pictures asked by one name that are shown to the second family: they fill disks.
const JUDGED_LARGE: u32 = 100;

impl Taker<'_> {
    /// Confusion of the evaluator on each model's own pictures.
    ///
    /// A picture in which the detector sees the concept proves nothing of the entity that it was asked for:
    /// it takes no part, and the detector's own rates stand for it.
    pub(super) fn verified(&self) -> Result<Result<VerifiedRecord, String>, EvalError> {
        let asks = self.seen.iter().any(|seen| self.is_judged(seen));
        if !asks {
            return Ok(Err("the budget asks too few pictures by name".to_owned()));
        }
        let second = match self.second() {
            Ok(second) => second,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some(facet) = self.rows.facets.iter().position(|f| *f == self.plan.concept.facet)
        else {
            return Ok(Err("the concept's facet was not counted".to_owned()));
        };
        let mut entities: Vec<String> =
            self.words.of_facet(facet).iter().map(|&e| self.words.entities[e].clone()).collect();
        entities.push(NONE.to_owned());
        let confusion = |model: Model| self.confusion(second, (model, facet), &entities);
        let (base, adapted) = (confusion(Model::Base)?, confusion(Model::Adapted)?);
        let mut references = vec![0; entities.len()];
        for embedding in &self.references {
            if let Some(label) = self.label_place(facet, embedding, &entities) {
                references[label] += 1;
            }
        }
        Ok(Ok(VerifiedRecord {
            verified_by: second.name().to_owned(),
            sha256: second.sha256(),
            base,
            adapted,
            references,
        }))
    }

    /// Whether pictures of this shard are shown to the second family.
    fn is_judged(&self, seen: &Seen) -> bool {
        self.is_for_judging(&self.plan.drawings[seen.drawing], seen.first)
    }

    fn confusion(
        &self,
        second: &Second<'_>,
        (model, facet): (Model, usize),
        entities: &[String],
    ) -> Result<Confusion, EvalError> {
        let mut counts = vec![vec![0; entities.len()]; entities.len()];
        for seen in &self.seen {
            let drawing = &self.plan.drawings[seen.drawing];
            let asked = drawing.prompt.given.as_ref();
            let Some(truth) = asked.and_then(|id| entities.iter().position(|e| e == id)) else {
                continue;
            };
            if drawing.model != model || !self.is_judged(seen) {
                continue;
            }
            let (kept, pictures) = self.judged_pictures(seen)?;
            for (i, said) in kept.into_iter().zip(second.said(&pictures)?) {
                let embedding = &seen.looked.embeddings[i];
                let fires = self.detector.is_some_and(|d| d.fires(self.score(embedding).0));
                if fires || said[facet] != entities[truth] {
                    continue;
                }
                if let Some(label) = self.label_place(facet, embedding, entities) {
                    counts[truth][label] += 1;
                }
            }
        }
        Ok(Confusion { entities: entities.to_vec(), counts })
    }

    /// What the evaluator alone says of an embedding, as a position among `entities`.
    fn label_place(&self, facet: usize, embedding: &[f32], entities: &[String]) -> Option<usize> {
        let labels = self.words.labels(&self.words.cosines(embedding), self.temperature);
        entities.iter().position(|entity| *entity == labels[facet].entity)
    }

    /// Pictures of a shard that were kept for the second family, with their places in it.
    fn judged_pictures(&self, seen: &Seen) -> Result<(Vec<usize>, Vec<RgbImage>), EvalError> {
        let drawing = &self.plan.drawings[seen.drawing];
        let shelf = self.shelf(&format!("{:04}", seen.drawing), drawing);
        let (mut places, mut pictures) = (Vec::new(), Vec::new());
        for i in 0..seen.looked.pixels.len() {
            let seed_idx = seen.first + u32::try_from(i).unwrap_or(0);
            if !self.is_for_judging(drawing, seed_idx) {
                continue;
            }
            let png = shelf.picture(seed_idx).filter(|png| shows(png, &seen.looked.pixels[i]));
            let Some(png) = png else {
                // Somebody removed it since it was drawn; the next attempt draws it again.
                return Err(EvalError::Removed { path: shelf.picture_file(seed_idx) });
            };
            let decoded = image::load_from_memory(&png).map_err(|source| EvalError::Picture {
                path: format!("{}, seed {seed_idx}", drawing.prompt.id),
                source,
            })?;
            places.push(i);
            pictures.push(decoded.to_rgb8());
        }
        Ok((places, pictures))
    }

    /// Whether a picture is kept for the second family: asked for by name, where enough are.
    pub(in crate::take) fn is_for_judging(&self, drawing: &Drawing, seed_idx: u32) -> bool {
        drawing.prompt.stratum == Stratum::Asked
            && drawing.seeds >= LEAST_ASKED
            && (seed_idx < JUDGED_LARGE || self.sampling.side_px <= LARGE_PX)
            && self.has_second()
    }
}
