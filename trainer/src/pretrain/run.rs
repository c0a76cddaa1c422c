//! The loop that all trainings from scratch share, and the state from which it resumes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use checkpoints::{HostTensor, TensorFile, TensorMap, Watch};
use models::ModelError;
use models::base::{host_values, tensor_from_host};
use recipes::{OptimizerSpec, PretrainRecipe};

use super::PretrainError;
use crate::flat::{Flat, Visit};
use crate::lr_schedule::learning_rate;
use crate::optimizer::{AdamW, clip, ema_decay, ema_update, norm};

/// One finished step.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total: u64,
    /// Loss of the step's batch.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
}

/// How a training ended.
#[derive(Clone, Debug)]
pub enum Pretrained {
    /// The component was written.
    Finished(PathBuf),
    /// A stop was requested; the state was written after this many steps.
    Interrupted(u64),
}

/// Loss of one step, as a scalar in the autodiff graph: called with the step and the leaves in place.
pub(super) type Objective<'a> = &'a mut dyn FnMut(u64) -> Result<Tensor<1>, PretrainError>;

/// All that changes while a network is trained.
pub(super) struct Trained {
    pub(super) flat: Flat,
    pub(super) theta: Tensor<1>,
    pub(super) average: Option<Tensor<1>>,
    adamw: AdamW,
    state_path: PathBuf,
}

impl Trained {
    /// The state that the run directory holds, or the network's initial one.
    pub(super) fn begin(
        recipe: &PretrainRecipe,
        visit: Visit<'_>,
        run_dir: &Path,
        device: &Device,
    ) -> Result<Self, PretrainError> {
        let (flat, theta) = Flat::of(visit, device);
        let average = recipe.fit.ema.map(|_| theta.clone());
        let state_path = run_dir.join("state.safetensors");
        let mut trained = Self { flat, adamw: AdamW::new(&theta), theta, average, state_path };
        if trained.state_path.is_file() {
            trained.restore(device)?;
        }
        Ok(trained)
    }

    /// Steps done.
    pub(super) fn step(&self) -> u64 {
        self.adamw.step
    }

    fn restore(&mut self, device: &Device) -> Result<(), PretrainError> {
        let file = TensorFile::open(&self.state_path)?;
        let read = |name: &str| -> Result<Tensor<1>, PretrainError> {
            let host = file.read(name)?;
            let found = host.shape.clone();
            if found != [self.flat.n_values] {
                return Err(ModelError::Adapter {
                    module: format!("{}, tensor `{name}`", self.state_path.display()),
                    reason: format!(
                        "expected {} values, found shape {found:?}",
                        self.flat.n_values
                    ),
                }
                .into());
            }
            Ok(tensor_from_host(host.f32().into_owned(), [self.flat.n_values], device))
        };
        let (theta, first, second) = (read("theta")?, read("first")?, read("second")?);
        let average = if self.average.is_some() { Some(read("average")?) } else { None };
        let step = file.metadata().get("step").and_then(|text| text.parse().ok());
        let Some(step) = step else {
            return Err(ModelError::Adapter {
                module: self.state_path.display().to_string(),
                reason: "expected the number of steps in the metadata, found none".to_owned(),
            }
            .into());
        };
        (self.theta, self.average) = (theta, average);
        self.adamw = AdamW { first, second, step };
        Ok(())
    }

    fn save(&self) -> Result<(), PretrainError> {
        let host = |tensor: &Tensor<1>| -> Result<HostTensor, ModelError> {
            Ok(HostTensor::from_f32(vec![self.flat.n_values], host_values(tensor.clone())?))
        };
        let mut tensors = TensorMap::new();
        tensors.insert("theta".to_owned(), host(&self.theta)?);
        tensors.insert("first".to_owned(), host(&self.adamw.first)?);
        tensors.insert("second".to_owned(), host(&self.adamw.second)?);
        if let Some(average) = &self.average {
            tensors.insert("average".to_owned(), host(average)?);
        }
        let metadata = BTreeMap::from([("step".to_owned(), self.adamw.step.to_string())]);
        checkpoints::write_tensors(&self.state_path, &tensors, &metadata)?;
        Ok(())
    }

    /// Runs the remaining steps. Returns whether all were done; a stop request ends early.
    pub(super) fn fit(
        &mut self,
        recipe: &PretrainRecipe,
        visit: Visit<'_>,
        objective: Objective<'_>,
        watch: &mut Watch<'_, Progress>,
    ) -> Result<bool, PretrainError> {
        let total = recipe.fit.steps;
        while self.adamw.step < total {
            let progress = self.one_step(recipe, visit, objective)?;
            watch.tell(&progress);
            let stopped = watch.stop_requested();
            if stopped
                || self.adamw.step.is_multiple_of(recipe.fit.save_every)
                || self.adamw.step == total
            {
                self.save()?;
            }
            if stopped && self.adamw.step < total {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn one_step(
        &mut self,
        recipe: &PretrainRecipe,
        visit: Visit<'_>,
        objective: Objective<'_>,
    ) -> Result<Progress, PretrainError> {
        let (step, total) = (self.adamw.step, recipe.fit.steps);
        self.flat.install_leaves(visit, &self.theta);
        let loss = objective(step)?;
        let gradients = models::ops::on_threads(&self.theta.device(), || loss.backward());
        let gradient = self.flat.gradients(visit, gradients.into(), &self.theta.device());
        let loss = f64::from(host_values(loss.inner())?[0]);
        let norm = norm(&gradient)?;
        if !loss.is_finite() || !norm.is_finite() {
            return Err(PretrainError::Diverged { step, loss, norm });
        }
        let spec = recipe.fit.optimizer;
        let OptimizerSpec::AdamW { learning_rate: peak, .. } = spec;
        let rate = learning_rate(&recipe.fit.schedule, peak, step, total);
        let shrink = clip(norm, recipe.fit.clip_norm);
        // Leaves share the old values; without them the update can work in place.
        self.flat.install(visit, &self.theta);
        self.theta = self.adamw.update(&spec, rate, self.theta.clone(), (gradient, shrink));
        if let (Some(average), Some(ema)) = (self.average.take(), &recipe.fit.ema) {
            self.average = Some(ema_update(average, &self.theta, ema_decay(ema, step + 1)));
        }
        Ok(Progress { step: step + 1, total, loss, grad_norm: norm, learning_rate: rate })
    }

    /// Puts the values that count into the network: the average if there is one.
    pub(super) fn finish(&self, visit: Visit<'_>) {
        self.flat.install(visit, self.average.as_ref().unwrap_or(&self.theta));
    }
}

/// All parameters of a network in f16, under their names.
pub(super) fn half_precision(network: &mut dyn models::Network) -> Result<TensorMap, ModelError> {
    struct Collect {
        tensors: TensorMap,
        error: Option<ModelError>,
    }
    impl models::Visitor for Collect {
        fn parameter(&mut self, path: &str, slot: &mut dyn models::Slot) {
            match host_values(slot.flat()) {
                Ok(values) => {
                    // The one scalar of CLIP has rank 0 in files; burn holds it as one value.
                    let shape = if path == "logit_scale" { Vec::new() } else { slot.shape() };
                    let host = HostTensor::from_f32(shape, values).to_f16();
                    self.tensors.insert(path.to_owned(), host);
                }
                Err(error) => {
                    self.error.get_or_insert(error);
                }
            }
        }
    }
    let mut collect = Collect { tensors: TensorMap::new(), error: None };
    network.visit("", &mut collect);
    match collect.error {
        Some(error) => Err(error),
        None => Ok(collect.tensors),
    }
}

/// Shows every parameter to a closure.
pub(super) struct Show<'a>(pub(super) &'a mut dyn FnMut(&str, &mut dyn models::Slot));

impl models::Visitor for Show<'_> {
    fn parameter(&mut self, path: &str, slot: &mut dyn models::Slot) {
        (self.0)(path, slot);
    }
}
