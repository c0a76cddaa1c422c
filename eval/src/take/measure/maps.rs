//! Information maps: where in the base's own pictures a word has its hold, before and after.

use super::super::{CensusEvent, Taker};
use super::trajectories::{EMPTY, ROUNDED};
use crate::error::EvalError;
use crate::extent::Extent;
use crate::network::Network;
use crate::noising::keyed_noise;
use crate::pixel::{self, WordInformation};
use crate::protocol::Denoiser;
use crate::record::{PixelPicture, PixelRecord};
use crate::rows::Model;
use checkpoints::Watch;
use image::{GrayImage, ImageFormat};
use models::Base;
use models::base::Precision;
use std::io::Cursor;

/// What is found of one word.
struct OfWord {
    information: WordInformation,
    pictures: Vec<PixelPicture>,
}

impl Taker<'_> {
    /// Maps of the words of the most frequent entities, on pictures that bear them.
    pub(super) fn pixels(
        &mut self,
        extent: Extent,
        watch: &mut Watch<'_, CensusEvent>,
    ) -> Result<Result<PixelRecord, String>, EvalError> {
        if self.job.base.precision != Precision::F32 {
            return Ok(Err(ROUNDED.to_owned()));
        }
        let settled = self.weights(Model::Adapted, 1.0)?;
        let mut words = Vec::new();
        for entity in self.most_frequent(extent.words) {
            words.extend(self.word_maps(&entity, &settled, extent, watch)?);
            watch.tell(&CensusEvent::Working);
        }
        if words.is_empty() {
            return Ok(Err("no entity has unasked pictures whose latents were kept".to_owned()));
        }
        let levels = u64::try_from(extent.word_levels()).unwrap_or(0);
        let (information, pictures): (Vec<_>, Vec<_>) =
            words.into_iter().map(|word| (word.information, word.pictures)).unzip();
        let mut record = pixel::reduce(&information, levels, self.resampler());
        for (word, pictures) in record.words.iter_mut().zip(pictures) {
            word.pictures = pictures;
        }
        Ok(Ok(record))
    }

    /// Entities of the concept's facet by their number of unasked base pictures, most first.
    fn most_frequent(&self, n: usize) -> Vec<String> {
        let facet = self.rows.facets.iter().position(|f| *f == self.plan.concept.facet);
        let rows =
            || self.rows.rows.iter().filter(|row| row.model == Model::Base && row.prompt == EMPTY);
        let count = |id: &str| {
            let label = |row: &&crate::rows::Row| facet.and_then(|f| row.labels.get(f)).cloned();
            rows().filter_map(|row| label(&row)).filter(|label| label.entity == id).count()
        };
        let counted = self.plan.thesaurus.counted(&self.plan.concept.facet);
        let mut entities: Vec<(usize, String)> =
            counted.map(|entity| (count(&entity.id), entity.id.clone())).collect();
        entities.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
        entities.into_iter().filter(|(n, _)| *n > 0).take(n).map(|(_, id)| id).collect()
    }

    fn word_maps(
        &self,
        id: &str,
        settled: &Base,
        extent: Extent,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Option<OfWord>, EvalError> {
        let Some(entity) = self.plan.thesaurus.entity(id) else { return Ok(None) };
        let scored = self.latents_of(id, extent.word_pictures);
        if scored.keys.is_empty() {
            return Ok(None);
        }
        let grid = self.grid(extent.word_levels())?;
        let phrase = entity.phrase();
        let maps = |base: &Base| -> Result<Vec<Vec<f64>>, EvalError> {
            let mut network = Network::new(base, &self.sampling, watch.stop)?;
            let noise = keyed_noise(self.job.spec.seed, network.width());
            pixel::information(&mut network, phrase, scored.samples(), &grid, &noise)
        };
        let (before, after) = (maps(self.job.base)?, maps(settled)?);
        let nats = |maps: &[Vec<f64>]| maps.iter().map(|map| map.iter().sum()).collect();
        let information = WordInformation {
            id: id.to_owned(),
            phrase: phrase.to_owned(),
            before: nats(&before),
            after: nats(&after),
        };
        let mut pictures = Vec::new();
        for (i, &key) in scored.keys.iter().enumerate() {
            pictures.extend(self.picture_maps(id, key, &before[i], &after[i])?);
        }
        Ok(Some(OfWord { information, pictures }))
    }

    /// Draws and keeps the maps of one picture; nothing if the picture itself was not kept.
    fn picture_maps(
        &self,
        id: &str,
        key: u64,
        before: &[f64],
        after: &[f64],
    ) -> Result<Option<PixelPicture>, EvalError> {
        let [channels, _, width] = self.job.base.latent_shape([self.sampling.side_px; 2])?;
        let seed_idx = u32::try_from(key).unwrap_or(u32::MAX);
        let row = self.row_of(Model::Base, 0.0, EMPTY, seed_idx);
        let Some(picture) = row.and_then(|row| row.picture.clone()) else { return Ok(None) };
        let [before, after] = [before, after].map(|map| pixel::over_channels(map, channels));
        let scale = pixel::scale(&before, &after);
        let keep = |name: &str, map: &GrayImage| -> Result<String, EvalError> {
            let path = format!("maps/{id}/{seed_idx:05}-{name}.png");
            let place = self.job.run.join("census").join(&path);
            checkpoints::fs::atomic_write(&place, &gray_png(map, &path)?)?;
            Ok(path)
        };
        Ok(Some(PixelPicture {
            picture,
            before: keep("before", &pixel::gray(&before, width, scale))?,
            after: keep("after", &pixel::gray(&after, width, scale))?,
            difference: keep("difference", &pixel::gray_difference(&before, &after, width, scale))?,
            scale,
        }))
    }
}

fn gray_png(map: &GrayImage, path: &str) -> Result<Vec<u8>, EvalError> {
    let mut bytes = Cursor::new(Vec::new());
    map.write_to(&mut bytes, ImageFormat::Png)
        .map_err(|source| EvalError::Picture { path: path.to_owned(), source })?;
    Ok(bytes.into_inner())
}
