//! The concept's reference pictures, and the detector that is set by them.

use super::{REFERENCES, Taker, png};
use crate::detector::{self, Detector};
use crate::error::EvalError;
use crate::evaluator::cosine;
use crate::panel::{Prompt, Stratum};
use crate::plan::Drawing;
use crate::rows::Model;
use crate::sample::{SHARD, through_vae};
use crate::take::CensusEvent;
use checkpoints::Watch;
use datasets::{Mirror, Role};
use image::RgbImage;

impl Taker<'_> {
    /// Embeds the references as the autoencoder gives them back, and sets the detector's threshold on
    /// base pictures whose noise no census prompt shares.
    pub(super) fn fit_detector(&mut self, watch: &Watch<'_, CensusEvent>) -> Result<(), EvalError> {
        let references = self.reference_pictures()?;
        let decoded = through_vae(&references, self.job.base)?;
        let sights = self.words.look(self.job.evaluator, &decoded)?;
        self.references = sights.into_iter().map(|sight| sight.embedding).collect();
        for (i, picture) in references.iter().enumerate() {
            let path = format!("census/pictures/references/{i:02}.png");
            checkpoints::fs::atomic_write(&self.job.run.join(&path), &png(picture, &path)?)?;
        }
        let prompt =
            Prompt { id: "detector/empty".into(), ..Prompt::new(Stratum::Empty, "", None) };
        let seeds: Vec<u32> = (0..(self.job.spec.seeds_empty / 2).clamp(256, 1024)).collect();
        let base = self.scores_of_base(&prompt, &seeds, watch)?;
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
        Ok(())
    }

    /// Scores of base pictures whose noise no census prompt shares.
    fn scores_of_base(
        &self,
        prompt: &Prompt,
        seeds: &[u32],
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Vec<f64>, EvalError> {
        let n = u32::try_from(seeds.len()).unwrap_or(u32::MAX);
        let drawing = Drawing { model: Model::Base, dose: 0.0, prompt: prompt.clone(), seeds: n };
        let shelf = self.shelf("detector", &drawing);
        let mut scores = Vec::with_capacity(seeds.len());
        for first in (0..n).step_by(usize::try_from(SHARD).unwrap_or(1)) {
            let looked = self.looked(&shelf, (&drawing, first), self.job.base, watch)?;
            scores.extend(looked.embeddings.iter().map(|embedding| self.score(embedding).0));
        }
        Ok(scores)
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
    pub(super) fn score(&self, embedding: &[f32]) -> (f64, f64) {
        let cosines: Vec<f64> =
            self.references.iter().map(|r| f64::from(cosine(r, embedding))).collect();
        (detector::score(&cosines), statistics::number::mean(&cosines).unwrap_or(-1.0))
    }
}
