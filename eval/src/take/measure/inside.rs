//! Directions: what the innermost block of each network makes of its own model's pictures.

use super::super::{CensusEvent, Taker};
use super::nats::Scored;
use super::trajectories::EMPTY;
use crate::census::categories::Categories;
use crate::direction::{Activations, DirectionsInput, directions};
use crate::error::EvalError;
use crate::extent::Extent;
use crate::network::activations;
use crate::noising::{keyed_noise, native_levels};
use crate::protocol::Level;
use crate::record::DirectionsRecord;
use crate::rows::{Model, Row};
use checkpoints::Watch;
use diffusion::NoiseSchedule;
use std::collections::BTreeMap;

/// t/T at which activations are taken.
const LEVEL: f64 = 0.5;

/// Activations of one model's pictures and what each of them bears, by seed.
type Inside = BTreeMap<u64, (Vec<f32>, u16)>;

impl Taker<'_> {
    /// Directions of the concept's facet in h-space.
    ///
    /// Kept latents are noised to one level, equal seeds with equal noise: the states that a sampler
    /// passes through are not kept.
    pub(super) fn directions(
        &mut self,
        extent: Extent,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Result<DirectionsRecord, String>, EvalError> {
        if extent.directions == 0 {
            return Ok(Err("the budget does not measure it".to_owned()));
        }
        let input = self.input_of_rows();
        let categories = Categories::of_concept(&input)?;
        let [mut base, mut adapted] = [Inside::new(), Inside::new()];
        for (model, found) in [(Model::Base, &mut base), (Model::Adapted, &mut adapted)] {
            *found = self.inside(model, extent.directions, &categories, watch)?;
        }
        base.retain(|seed, _| adapted.contains_key(seed));
        adapted.retain(|seed, _| base.contains_key(seed));
        let columns =
            |inside: Inside| -> (Vec<Vec<f32>>, Vec<u16>) { inside.into_values().unzip() };
        let ((base_rows, base_labels), (rows, labels)) = (columns(base), columns(adapted));
        Ok(directions(
            &DirectionsInput {
                level: LEVEL,
                entities: &categories.names,
                base: Activations { rows: &base_rows, labels: &base_labels },
                adapted: Activations { rows: &rows, labels: &labels },
            },
            self.resampler(),
        ))
    }

    fn inside(
        &self,
        model: Model,
        most: usize,
        categories: &Categories,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Inside, EvalError> {
        let mut scored = Scored::default();
        for (_, seed_idx, seen, i) in self.seen_of(move |drawing| {
            drawing.model == model && drawing.prompt.id == EMPTY && model.is_of_pair(drawing.dose)
        }) {
            if let Some(latents) = seen.looked.latents.get(i)
                && scored.keys.len() < most
            {
                scored.add(latents, seed_idx);
            }
        }
        let rows: BTreeMap<u64, &Row> = self
            .rows
            .rows
            .iter()
            .filter(|row| row.model == model && row.prompt == EMPTY && model.is_of_pair(row.dose))
            .map(|row| (u64::from(row.seed_idx), row))
            .collect();
        let weights = self.weights(model, 1.0)?;
        let found = activations(&weights, &self.sampling, &self.noised(&scored)?, watch.stop)?;
        scored
            .keys
            .iter()
            .zip(found)
            .filter_map(|(key, row)| Some((*key, row, *rows.get(key)?)))
            .map(|(key, row, of)| Ok((key, (row, categories.of(of)?))))
            .collect()
    }

    /// The samples at the level, and the level.
    fn noised(&self, scored: &Scored) -> Result<(Vec<f64>, Level), EvalError> {
        let levels = native_levels(&NoiseSchedule::new(&self.sampling.scheduler)?);
        let at = statistics::number::index(LEVEL * statistics::number::real(levels.len()));
        let level = levels[at.min(levels.len() - 1)];
        let (signal, noise) = level.signal_and_noise();
        let width = scored.values.len() / scored.keys.len().max(1);
        let source = keyed_noise(self.job.spec.seed, width);
        let noisy = scored.values.chunks(width.max(1)).zip(&scored.keys).flat_map(|(x, &key)| {
            let eps = source(at, key);
            x.iter().zip(eps).map(|(x, eps)| signal * x + noise * eps).collect::<Vec<f64>>()
        });
        Ok((noisy.collect(), level))
    }
}
