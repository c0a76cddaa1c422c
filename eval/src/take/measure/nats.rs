//! Likelihood and typicality: nats of kept latents under both networks.

use super::super::{CensusEvent, Change, Taker};
use super::trajectories::EMPTY;
use crate::census::categories::Categories;
use crate::census::shares_of_prompt;
use crate::error::EvalError;
use crate::extent::{Extent, LEVELS};
use crate::likelihood::{
    EntityNats, Insistence, Population, check_shared_vae, nats_lost, sign_of_distillation, unit,
};
use crate::network::Network;
use crate::noising::{Grid, Samples, keyed_noise, native_levels};
use crate::protocol::{Condition, Denoiser};
use crate::record::{BeforeAfter, LikelihoodRecord, TypicalityRecord};
use crate::rows::Model;
use crate::typicality::{Gauged, TypicalityInput, WordNats, energy, typicality};
use checkpoints::Watch;
use diffusion::NoiseSchedule;
use models::Base;
use recipes::LikelihoodWish;
use std::collections::BTreeMap;

/// Latents of kept pictures, and the key of the noise that each is given.
#[derive(Default)]
pub(super) struct Scored {
    pub(super) values: Vec<f64>,
    pub(super) keys: Vec<u64>,
}

impl Scored {
    pub(super) fn add(&mut self, latents: &[f32], seed_idx: u32) {
        self.values.extend(latents.iter().map(|&value| f64::from(value)));
        self.keys.push(u64::from(seed_idx));
    }

    pub(super) fn samples(&self) -> Samples<'_> {
        Samples { values: &self.values, keys: &self.keys }
    }
}

impl Taker<'_> {
    /// Nats that the adapted model lost on the base's own pictures of each entity.
    pub(super) fn likelihood(
        &mut self,
        extent: Extent,
        watch: &mut Watch<'_, CensusEvent>,
    ) -> Result<Result<LikelihoodRecord, String>, EvalError> {
        if self.job.spec.likelihood == LikelihoodWish::Off || extent.likelihood_pictures == 0 {
            let reason = match self.job.spec.likelihood {
                LikelihoodWish::Off => "the recipe switches it off",
                LikelihoodWish::Auto | LikelihoodWish::Force => "the budget does not measure it",
            };
            return Ok(Err(reason.to_owned()));
        }
        let insistence = match self.job.spec.likelihood {
            LikelihoodWish::Force => Insistence::Force,
            LikelihoodWish::Auto | LikelihoodWish::Off => Insistence::Refuse,
        };
        if let Change::Adapter(adapter) = self.job.change
            && let Err(error) = check_shared_vae(adapter.modules.keys().map(String::as_str))
        {
            return Ok(Err(error.to_string()));
        }
        let sign = sign_of_distillation(&[self.job.base_name], &[&self.job.base.scheduler]);
        let unit = match unit(sign.as_deref(), insistence) {
            Ok(unit) => unit,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let grid = self.grid(extent.likelihood_levels)?;
        let settled = self.weights(Model::Adapted, 1.0)?;
        let input = self.input_of_rows();
        let categories = Categories::of_concept(&input)?;
        let shares = shares_of_prompt(&input, &categories, EMPTY, self.resampler())?;
        let mut entities = Vec::new();
        for (i, id) in categories.names.iter().enumerate() {
            let scored = self.latents_of(id, extent.likelihood_pictures);
            if scored.keys.is_empty() {
                continue;
            }
            let path = self.shards.join(format!("likelihood-{i:03}.json"));
            let nats: Vec<Vec<f64>> = if path.is_file() {
                checkpoints::fs::read_json(&path)?
            } else {
                let nats = self.nats_of(&scored, &settled, &grid, watch)?;
                checkpoints::fs::atomic_write_json(&path, &nats)?;
                watch.tell(&CensusEvent::Working);
                nats
            };
            entities.push(EntityNats {
                id: id.clone(),
                nats,
                population: Population::new(shares.own[i], &shares.of_entity(i)),
            });
        }
        Ok(Ok(crate::likelihood::reduce(&entities, &grid, unit, self.resampler())))
    }

    /// Stratified levels of the base's own schedule.
    pub(super) fn grid(&self, levels: usize) -> Result<Grid, EvalError> {
        let schedule = NoiseSchedule::new(&self.sampling.scheduler)?;
        Ok(Grid::stratified(&native_levels(&schedule), levels, self.job.spec.seed, 0))
    }

    /// Kept latents of the base's unasked pictures that bear an entity, lowest seeds first.
    pub(super) fn latents_of(&self, entity: &str, most: usize) -> Scored {
        let facet = self.rows.facets.iter().position(|f| *f == self.plan.concept.facet);
        let bears: BTreeMap<u32, bool> = self
            .rows
            .rows
            .iter()
            .filter(|row| row.model == Model::Base && row.prompt == EMPTY)
            .map(|row| {
                let label = facet.and_then(|f| row.labels.get(f));
                (row.seed_idx, label.is_some_and(|label| label.entity == entity))
            })
            .collect();
        let mut scored = Scored::default();
        for (_, seed_idx, seen, i) in
            self.seen_of(|drawing| drawing.model == Model::Base && drawing.prompt.id == EMPTY)
        {
            let kept = scored.keys.len() < most && bears.get(&seed_idx) == Some(&true);
            if let Some(latents) = seen.looked.latents.get(i).filter(|_| kept) {
                scored.add(latents, seed_idx);
            }
        }
        scored
    }

    fn nats_of(
        &self,
        scored: &Scored,
        settled: &Base,
        grid: &Grid,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Vec<Vec<f64>>, EvalError> {
        let mut base = Network::new(self.job.base, &self.sampling, watch.stop)?;
        let mut adapted = Network::new(settled, &self.sampling, watch.stop)?;
        let noise = keyed_noise(self.job.spec.seed, base.width());
        let models: &mut [&mut dyn Denoiser] = &mut [&mut base, &mut adapted];
        let lost = nats_lost(models, Condition::Nothing, scored.samples(), grid, &noise)?;
        Ok(lost.into_iter().next().unwrap_or_default())
    }

    /// The kitsch gauge.
    pub(super) fn typicality(
        &mut self,
        extent: Extent,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Result<TypicalityRecord, String>, EvalError> {
        let input = self.input_of_rows();
        let motifs: Vec<String> = input
            .thesaurus
            .counted(&self.plan.concept.facet)
            .filter(|entity| entity.motif)
            .map(|entity| entity.id.clone())
            .collect();
        let (stock, coverage) = crate::census::stock(&input, &motifs)?;
        let grid = self.grid(LEVELS)?;
        let pictures = self.gauged(extent.typical_pictures, &grid, watch)?;
        let words = self.word_nats(extent, &grid, watch)?;
        let record = crate::typicality::reduce(&TypicalityInput {
            motifs: &motifs,
            stock: (!motifs.is_empty()).then_some(&stock),
            coverage: BeforeAfter { before: coverage[0], after: coverage[1] },
            pictures: &pictures,
            words: &words,
            levels: u64::try_from(LEVELS).unwrap_or(0),
            resampler: self.resampler(),
        });
        Ok(Ok(record))
    }

    /// `L_B` of both models' unasked pictures on equal seeds, with how well each deflates.
    fn gauged(
        &self,
        most: usize,
        grid: &Grid,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Vec<(Gauged, Gauged)>, EvalError> {
        let of = |model: Model| -> Result<BTreeMap<u32, Gauged>, EvalError> {
            let (mut scored, mut ratios) = (Scored::default(), Vec::new());
            let whole = |drawing: &crate::plan::Drawing| {
                drawing.model == model
                    && drawing.prompt.id == EMPTY
                    && model.is_of_pair(drawing.dose)
            };
            for (_, seed_idx, seen, i) in self.seen_of(whole) {
                if let Some(latents) = seen.looked.latents.get(i)
                    && scored.keys.len() < most
                {
                    scored.add(latents, seed_idx);
                    ratios.push(f64::from(seen.looked.compression[i]));
                }
            }
            let mut network = Network::new(self.job.base, &self.sampling, watch.stop)?;
            let noise = keyed_noise(self.job.spec.seed, network.width());
            let energies = energy(&mut network, scored.samples(), grid, &noise)?;
            let seeds = scored.keys.iter().map(|&key| u32::try_from(key).unwrap_or(0));
            Ok(seeds
                .zip(energies.into_iter().zip(ratios))
                .map(|(seed, (energy, compression_ratio))| {
                    (seed, Gauged { energy, compression_ratio })
                })
                .collect())
        };
        if most == 0 {
            return Ok(Vec::new());
        }
        let (base, adapted) = (of(Model::Base)?, of(Model::Adapted)?);
        Ok(base.iter().filter_map(|(seed, before)| Some((*before, *adapted.get(seed)?))).collect())
    }

    /// T(x|c) of the base's pictures that bear c.
    fn word_nats(
        &self,
        extent: Extent,
        grid: &Grid,
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Vec<WordNats>, EvalError> {
        if extent.typical_pictures == 0 {
            return Ok(Vec::new());
        }
        let facet = &self.plan.concept.facet;
        let n_entities = self.plan.thesaurus.counted(facet).count().max(1);
        let each = extent.typical_pictures.div_ceil(n_entities);
        let mut words = Vec::new();
        for entity in self.plan.thesaurus.counted(facet) {
            let scored = self.latents_of(&entity.id, each);
            if scored.keys.is_empty() {
                continue;
            }
            let mut network = Network::new(self.job.base, &self.sampling, watch.stop)?;
            let noise = keyed_noise(self.job.spec.seed, network.width());
            let nats = typicality(&mut network, entity.phrase(), scored.samples(), grid, &noise)?;
            words.push(WordNats { id: entity.id.clone(), nats });
        }
        Ok(words)
    }
}
