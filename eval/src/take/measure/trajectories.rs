//! Paths: what other weights would have said along the base's own trajectories.

use super::super::{CensusEvent, Taker};
use crate::census::categories::Categories;
use crate::error::EvalError;
use crate::extent::{Extent, FORECAST_DOSE};
use crate::panel::{Prompt, Stratum};
use crate::path::{PathBlock, PathInput, PathModel, PathSum, PathSums, reduce};
use crate::record::PathRecord;
use crate::rows::{Model, Row};
use crate::sample::SHARD;
use checkpoints::Watch;
use models::Base;
use models::base::Precision;

/// Why differences of two passes are not taken in half precision.
pub(super) const ROUNDED: &str =
    "the denoiser computes in half precision: what two passes differ by would be rounding";

/// The prompt whose trajectories are walked.
pub(super) const EMPTY: &str = "empty/empty";

impl Taker<'_> {
    /// Path-space KL at the small dose, at the whole one and of a placebo; forecast.
    pub(super) fn path(
        &mut self,
        extent: Extent,
        watch: &mut Watch<'_, CensusEvent>,
    ) -> Result<Result<PathRecord, String>, EvalError> {
        if !self.is_adapter() {
            return Ok(Err("the base's own weights were trained: there is no small dose".into()));
        }
        if self.walked(extent) == 0 {
            return Ok(Err("the census draws too few pictures of the empty prompt".into()));
        }
        if self.job.base.precision != Precision::F32 {
            return Ok(Err(ROUNDED.to_owned()));
        }
        let steps = match self.sampling.path_steps() {
            Ok(steps) => steps,
            Err(error @ EvalError::Noiseless { .. }) => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        let models = self.path_models(extent);
        let sums = self.path_sums(extent, &models, watch)?;
        let block = self.path_block(sums)?;
        let categories = Categories::of_concept(&self.input_of_rows())?;
        let named: Vec<PathModel> = models
            .iter()
            .map(|(model, dose)| PathModel { model: model.to_string(), dose: *dose })
            .collect();
        Ok(Ok(reduce(&PathInput {
            models: &named,
            blocks: &[block],
            facet: &self.plan.concept.facet,
            entities: &categories.names,
            steps: u64::try_from(steps).unwrap_or(u64::MAX),
            secant: Some(0),
            resampler: self.resampler(),
        })))
    }

    /// Trajectories that are walked: of seeds whose pictures were drawn, the first ones.
    fn walked(&self, extent: Extent) -> u32 {
        let drawn = |row: &&Row| row.model == Model::Base && row.prompt == EMPTY;
        let n = self.rows.rows.iter().filter(drawn).count();
        extent.paths.min(u32::try_from(n).unwrap_or(u32::MAX))
    }

    /// The models that are asked, the small dose first.
    fn path_models(&self, extent: Extent) -> Vec<(Model, f64)> {
        let mut models = vec![(Model::Adapted, FORECAST_DOSE)];
        if extent.whole_dose {
            models.push((Model::Adapted, 1.0));
            if self.job.spec.placebo > 0 {
                models.push((Model::Placebo(0), 1.0));
            }
        }
        models
    }

    /// Sums per model and trajectory, shard by shard.
    fn path_sums(
        &self,
        extent: Extent,
        models: &[(Model, f64)],
        watch: &mut Watch<'_, CensusEvent>,
    ) -> Result<Vec<Vec<PathSum>>, EvalError> {
        let others: Vec<Base> = models
            .iter()
            .map(|(model, dose)| self.weights(*model, *dose))
            .collect::<Result<_, _>>()?;
        let prompt = Prompt::new(Stratum::Empty, "", None);
        let mut all = vec![Vec::new(); models.len()];
        let n = self.walked(extent);
        for first in (0..n).step_by(usize::try_from(SHARD).unwrap_or(1)) {
            let path = self.shards.join(format!("path-{first:06}.json"));
            let sums: Vec<Vec<[f64; 2]>> = if path.is_file() {
                checkpoints::fs::read_json(&path)?
            } else {
                let seeds: Vec<u32> = (first..n.min(first + SHARD)).collect();
                let sums = self.walk(&others, &prompt, &seeds, watch)?;
                checkpoints::fs::atomic_write_json(&path, &sums)?;
                watch.tell(&CensusEvent::Working);
                sums
            };
            for (of_model, shard) in all.iter_mut().zip(sums) {
                of_model.extend(shard.into_iter().map(|[nats, cross]| PathSum { nats, cross }));
            }
        }
        Ok(all)
    }

    /// One shard's trajectories: nats and cross term, `[model][trajectory]`.
    fn walk(
        &self,
        others: &[Base],
        prompt: &Prompt,
        seeds: &[u32],
        watch: &Watch<'_, CensusEvent>,
    ) -> Result<Vec<Vec<[f64; 2]>>, EvalError> {
        let width: usize = self.job.base.latent_shape([self.sampling.side_px; 2])?.iter().product();
        let mut walked = vec![Vec::with_capacity(seeds.len()); others.len()];
        for batch in seeds.chunks(self.sampling.per_batch()) {
            let mut sums = PathSums::new(width, batch.len(), others.len());
            self.sampling.along(
                (self.job.base, others),
                (prompt, batch),
                watch.stop,
                &mut |step| sums.add(step),
            )?;
            for (of_model, sums) in walked.iter_mut().zip(sums.finish()) {
                of_model.extend(sums.into_iter().map(|sum| [sum.nats, sum.cross]));
            }
        }
        Ok(walked)
    }

    /// The trajectories with what their pictures bear.
    fn path_block(&self, sums: Vec<Vec<PathSum>>) -> Result<PathBlock, EvalError> {
        let input = self.input_of_rows();
        let categories = Categories::of_concept(&input)?;
        let n = u32::try_from(sums.first().map_or(0, Vec::len)).unwrap_or(0);
        let mut rows: Vec<&Row> = input
            .rows
            .rows
            .iter()
            .filter(|row| row.model == Model::Base && row.prompt == EMPTY && row.seed_idx < n)
            .collect();
        rows.sort_by_key(|row| row.seed_idx);
        let labels = rows.iter().map(|row| categories.of(row)).collect::<Result<_, _>>()?;
        Ok(PathBlock { weight: 1.0, labels, sums })
    }

    /// Writes nats and log weight of the whole dose, or else of the small one, into the base's rows:
    /// from the committed shards, so that a census that was interrupted behind them has them, too.
    pub(super) fn note_paths(
        &mut self,
        extent: Extent,
        watch: &mut Watch<'_, CensusEvent>,
    ) -> Result<(), EvalError> {
        if self.measured.path.is_none() {
            return Ok(());
        }
        let models = self.path_models(extent);
        let all = self.path_sums(extent, &models, watch)?;
        let is_whole = |(model, dose): &(Model, f64)| model.is_settlement(*dose);
        let sums = &all[models.iter().position(is_whole).unwrap_or(0)];
        for row in &mut self.rows.rows {
            if row.model != Model::Base || row.prompt != EMPTY {
                continue;
            }
            let sum = usize::try_from(row.seed_idx).ok().and_then(|seed| sums.get(seed));
            row.path_nats = sum.map(|sum| sum.nats);
            row.log_w = sum.map(|sum| sum.log_weight());
        }
        Ok(())
    }
}
