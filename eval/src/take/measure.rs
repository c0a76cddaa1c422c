//! The instruments that need more than labels: embeddings, latents, trajectories and networks. Each
//! commits what it found, so that an interrupted census goes on behind it; each refuses with a reason.

mod inside;
mod maps;
mod nats;
mod pictures;
mod second;
mod trajectories;
mod verified;
mod worlds;

pub(super) use second::Second;

use super::{CensusEvent, Change, Seen, Taker};
use crate::error::EvalError;
use crate::extent::Extent;
use crate::record::Refusal;
use crate::rows::{Model, Row};
use checkpoints::Watch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use statistics::interval::Resampler;

impl Taker<'_> {
    /// Measures all that the budget pays for.
    pub(super) fn measure(&mut self, watch: &mut Watch<'_, CensusEvent>) -> Result<(), EvalError> {
        self.rerun = self.figure("rerun", |taker| Ok(Ok(taker.draw_again(watch)?)))?.flatten();
        self.measured.fabric = self.figure("fabric", |taker| Ok(taker.fabric()))?;
        self.measured.copies = self.figure("copies", |taker| Ok(taker.copies()))?;
        let extent = Extent::of(self.job.spec);
        watch.tell(&CensusEvent::Measuring { what: "paths" });
        self.measured.path = self.figure("path", |taker| taker.path(extent, watch))?;
        self.note_paths(extent, watch)?;
        watch.tell(&CensusEvent::Measuring { what: "likelihoods" });
        self.measured.likelihood =
            self.figure("likelihood", |taker| taker.likelihood(extent, watch))?;
        watch.tell(&CensusEvent::Measuring { what: "typicality" });
        self.measured.typicality =
            self.figure("typicality", |taker| taker.typicality(extent, watch))?;
        watch.tell(&CensusEvent::Measuring { what: "information maps" });
        self.measured.pixels = self.figure("pixels", |taker| taker.pixels(extent, watch))?;
        watch.tell(&CensusEvent::Measuring { what: "directions" });
        self.measured.directions =
            self.figure("directions", |taker| taker.directions(extent, watch))?;
        self.measured.series = self.figure("series", |taker| taker.series())?;
        self.measured.modes = self.figure("modes", |taker| {
            Ok(if extent.directions == 0 {
                Err("the budget does not measure it".to_owned())
            } else {
                taker.modes()
            })
        })?;
        self.call_second()?;
        self.measured.agreement = self.figure("agreement", |taker| taker.agreement(extent))?;
        self.measured.verified = self.figure("verified", |taker| taker.verified())?;
        Ok(())
    }

    /// One figure, read where an earlier attempt committed it; a refusal is noted with its reason.
    fn figure<T: Serialize + DeserializeOwned>(
        &mut self,
        what: &str,
        measure: impl FnOnce(&mut Self) -> Result<Result<T, String>, EvalError>,
    ) -> Result<Option<T>, EvalError> {
        let path = self.shards.join(format!("{what}.json"));
        let found: Result<T, String> = if path.is_file() {
            checkpoints::fs::read_json(&path)?
        } else {
            let found = measure(self)?;
            checkpoints::fs::atomic_write_json(&path, &found)?;
            found
        };
        Ok(found
            .map_err(|reason| self.refused.push(Refusal { what: what.to_owned(), reason }))
            .ok())
    }

    fn resampler(&self) -> Resampler {
        Resampler { seed: self.job.spec.seed, draws: super::BOOTSTRAP }
    }

    /// What was seen of the pictures of one prompt by one model, by rising seed.
    fn seen_of<'a>(
        &'a self,
        keep: impl Fn(&crate::plan::Drawing) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a crate::plan::Drawing, u32, &'a Seen, usize)> {
        self.seen
            .iter()
            .map(|seen| (&self.plan.drawings[seen.drawing], seen))
            .filter(move |(drawing, _)| keep(drawing))
            .flat_map(|(drawing, seen)| {
                (0..seen.looked.pixels.len())
                    .map(move |i| (drawing, seen.first + u32::try_from(i).unwrap_or(0), seen, i))
            })
    }

    /// The row of one picture.
    fn row_of(&self, model: Model, dose: f64, prompt: &str, seed_idx: u32) -> Option<&Row> {
        self.rows.rows.iter().find(|row| {
            row.model == model
                && (row.dose - dose).abs() < 1e-9
                && row.seed_idx == seed_idx
                && row.prompt == prompt
        })
    }

    /// Whether what was settled can be given in doses.
    fn is_adapter(&self) -> bool {
        matches!(self.job.change, Change::Adapter(_))
    }
}
