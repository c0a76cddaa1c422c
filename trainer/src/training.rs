//! A run under way: where it begins, its steps, its checkpoints.

use std::path::PathBuf;

use checkpoints::Watch;
use checkpoints::key_map::KeyMap;
use checkpoints::run_dir::Journal;
use datasets::{Batches, Dataset, Role};
use recipes::{ClassSource, ClassSpec, DatasetSpec, FitSpec, Recipe};

use crate::cache::{Cache, Texts};
use crate::class_images::ClassImages;
use crate::error::TrainError;
use crate::event::{Beginning, Event, Phase};
use crate::fit::{Fitted, Job};
use crate::state::State;
use crate::step::{Plan, one_step};
use crate::trainee::Trainee;

/// What is trained, before its first step. Of a parked base the parts that were put aside are brought
/// back if steps need more of it than the UNet, or if the result is a base.
pub(crate) fn trainee(job: &Job<'_>) -> Result<Trainee, TrainError> {
    let (spec, seed) = (&job.recipe.adapter, job.recipe.seed);
    let mut trainee = Trainee::new(spec, job.base, seed)?;
    if job.base.vae.device() == job.base.device {
        return Ok(trainee);
    }
    let mut unet_alone = trainee.is_adapter();
    trainee.visit(&mut |path, _| unet_alone &= path.starts_with("unet."));
    if unet_alone { Ok(trainee) } else { Trainee::new(spec, &job.base.unparked(), seed) }
}

/// The state to begin with, and the checkpoint it came from.
pub(crate) fn begin(
    job: &Job<'_>,
    map: &KeyMap,
    trainee: &mut Trainee,
) -> Result<(State, Option<(u64, PathBuf)>), TrainError> {
    let fit = &job.recipe.fit;
    match job.run.newest()? {
        None => Ok((State::new(trainee, fit), None)),
        Some(checkpoint) => {
            let state = State::resumed(trainee, fit, map, &checkpoint)?;
            Ok((state, Some((checkpoint.step(), checkpoint.path().to_owned()))))
        }
    }
}

/// What the recipe says of class pictures.
pub(crate) fn class_of(recipe: &Recipe) -> Option<&ClassSpec> {
    match &recipe.dataset {
        DatasetSpec::DreamBooth(dreambooth) => dreambooth.class.as_ref(),
        DatasetSpec::Captioned(_) => None,
    }
}

/// The dataset with the class pictures that the base draws; `None` if a stop was requested.
pub(crate) fn with_class(
    job: &Job<'_>,
    watch: &mut Watch<'_, Event>,
) -> Result<Option<Dataset>, TrainError> {
    if !job.dataset.examples.iter().any(|example| example.role == Role::Instance) {
        return Err(TrainError::NoPictures);
    }
    let Some(class) = class_of(job.recipe) else { return Ok(Some(job.dataset.clone())) };
    let ClassSource::Generate { images } = class.source else {
        return Ok(Some(job.dataset.clone()));
    };
    watch.tell(&Event::Phase(Phase::ClassImages));
    let wanted = ClassImages {
        cache_dir: job.cache_dir,
        prompt: &class.prompt,
        count: images as usize,
        images: job.dataset.images,
        guidance_scale: job.recipe.fit.previews.guidance_scale,
        guidance_rescale: job.recipe.fit.previews.guidance_rescale,
    };
    wanted.added_to(job.dataset, &job.base.unparked(), watch)
}

/// A run under way.
pub(crate) struct Training<'a> {
    pub(crate) job: &'a Job<'a>,
    pub(crate) map: &'a KeyMap,
    pub(crate) trainee: Trainee,
    pub(crate) state: State,
    /// Step and folder of the newest checkpoint.
    pub(crate) saved: Option<(u64, PathBuf)>,
}

impl Training<'_> {
    /// Encodes pictures and captions; `None` if a stop was requested.
    pub(crate) fn cache(
        &self,
        dataset: &Dataset,
        watch: &mut Watch<'_, Event>,
    ) -> Result<Option<Cache>, TrainError> {
        watch.tell(&Event::Phase(Phase::Cache));
        let base = self.job.base.unparked();
        let cache = Cache::fill(&base, dataset, Texts::of(&self.state), watch);
        drop(base);
        // What the encoders computed in, and they themselves if they were parked, makes room for
        // the steps.
        self.job.base.device.memory_cleanup();
        cache
    }

    /// Does the remaining steps; whether all were done.
    pub(crate) fn train(
        &mut self,
        plan: &Plan<'_>,
        watch: &mut Watch<'_, Event>,
    ) -> Result<bool, TrainError> {
        let fit = &self.job.recipe.fit;
        let batches = Batches::new(plan.dataset, &fit.batch, plan.seed);
        let mut metrics = self.job.run.journal("metrics.jsonl")?;
        watch.tell(&Event::Phase(Phase::Train));
        watch.tell(&Event::Began(Beginning {
            step: self.state.step(),
            total: fit.steps,
            images_per_step: plan.images_per_step(),
            n_parameters: self.state.flat.n_values,
            n_modules: self.state.flat.segments.len()
                / if self.trainee.is_adapter() { 2 } else { 1 },
        }));
        while self.state.step() < fit.steps {
            let record = one_step(plan, &batches, &mut self.state, &mut self.trainee, watch.stop)?;
            let Some(record) = record else {
                self.save(&mut metrics, watch)?;
                return Ok(false);
            };
            metrics.append(&record)?;
            watch.tell(&Event::Stepped(record));
            if is_due(fit, self.state.step()) {
                self.save(&mut metrics, watch)?;
            }
        }
        Ok(true)
    }

    /// Commits the present state unless it lies on disk already, then deletes what is too old.
    fn save(
        &mut self,
        metrics: &mut Journal,
        watch: &mut Watch<'_, Event>,
    ) -> Result<(), TrainError> {
        let step = self.state.step();
        if self.saved.as_ref().is_some_and(|(saved, _)| *saved == step) {
            return Ok(());
        }
        metrics.sync()?;
        self.trainee.clear_dropout();
        let checkpoint = self.state.commit(&mut self.trainee, self.map, self.job.run)?;
        let path = checkpoint.path().to_owned();
        self.saved = Some((step, path.clone()));
        watch.tell(&Event::Saved { step, checkpoint: path });
        drop(checkpoint);
        self.job.run.retain(self.job.recipe.fit.keep as usize, &[])?;
        Ok(())
    }

    pub(crate) fn interrupted(self) -> Fitted {
        Fitted::Interrupted {
            step: self.state.step(),
            checkpoint: self.saved.map(|(_, path)| path),
        }
    }
}

/// Whether a checkpoint belongs after this step: as often as the recipe says, at every preview,
/// which is drawn from it, and at the end.
fn is_due(fit: &FitSpec, step: u64) -> bool {
    let every = |n: u64| n > 0 && step.is_multiple_of(n);
    every(fit.save_every) || every(fit.previews.every) || step == fit.steps
}
