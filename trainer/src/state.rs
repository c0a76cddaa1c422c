//! All that changes while a run trains, and its form in a checkpoint.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use checkpoints::key_map::KeyMap;
use checkpoints::run_dir::{Checkpoint, Content, RunDir};
use checkpoints::{HostTensor, TensorFile, TensorMap};
use models::base::{host_values, tensor_from_host};
use recipes::{FitSpec, draws};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::flat::Flat;
use crate::optimizer::AdamW;
use crate::trainee::Trainee;

/// Version of `state.json`.
const VERSION: u32 = 1;
/// File of the trained values.
pub(crate) const ADAPTER: &str = "adapter.safetensors";
/// File of trained parameters, where the weights themselves are trained.
pub(crate) const PARAMETERS: &str = "parameters.safetensors";
const AVERAGE: &str = "ema.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// Trained values, moments, average and counters. Everything else of a step follows from its number.
#[derive(Clone, Debug)]
pub struct State {
    /// Where each value lies in the vectors.
    pub flat: Flat,
    /// The trained values, `[n_values]`.
    pub theta: Tensor<1>,
    /// Their moving average, if the recipe wants one.
    pub average: Option<Tensor<1>>,
    /// Moments and the number of updates.
    pub adamw: AdamW,
    /// Pictures trained on, repeats counted.
    pub images_seen: u64,
    /// Gradient norm of the last step, before clipping.
    pub grad_norm: Option<f64>,
}

/// Counters of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    version: u32,
    step: u64,
    images_seen: u64,
    grad_norm: Option<f64>,
    draws_scheme: u64,
    n_values: usize,
}

impl State {
    /// The state before the first step.
    pub fn new(trainee: &mut Trainee, fit: &FitSpec) -> Self {
        let device = trainee.base().device.clone();
        let (flat, theta) = Flat::of(&mut |show| trainee.visit(show), &device);
        let average = fit.ema.map(|_| theta.clone());
        Self { flat, adamw: AdamW::new(&theta), theta, average, images_seen: 0, grad_norm: None }
    }

    /// The state of a checkpoint; `trainee` gets its values.
    ///
    /// # Errors
    ///
    /// [`TrainError::Resume`] if the checkpoint lacks a value, has one of another shape, or was made
    /// under another scheme of draws.
    pub fn resumed(
        trainee: &mut Trainee,
        fit: &FitSpec,
        map: &KeyMap,
        checkpoint: &Checkpoint,
    ) -> Result<Self, TrainError> {
        let refuse =
            |reason: String| TrainError::Resume { path: checkpoint.path().to_owned(), reason };
        let counters: StateFile = checkpoint.json(STATE)?;
        let (found, expected) =
            ((counters.version, counters.draws_scheme), (VERSION, draws::SCHEME));
        if found != expected {
            return Err(refuse(format!(
                "expected version and scheme of draws {expected:?}, found {found:?}"
            )));
        }
        let name = if trainee.is_adapter() { ADAPTER } else { PARAMETERS };
        let mut restore = |name: &str| -> Result<Tensor<1>, TrainError> {
            let tensors = checkpoint.tensors(name)?.read_all()?;
            let unfit = || {
                refuse(format!("`{name}` does not hold exactly the values that the recipe trains"))
            };
            trainee.restore(&tensors, map).ok_or_else(unfit)?;
            let device = trainee.base().device.clone();
            Ok(Flat::of(&mut |show| trainee.visit(show), &device).1)
        };
        let average = if fit.ema.is_some() { Some(restore(AVERAGE)?) } else { None };
        let theta = restore(name)?;
        let device = trainee.base().device.clone();
        let (flat, _) = Flat::of(&mut |show| trainee.visit(show), &device);
        let file = checkpoint.tensors(OPTIMIZER)?;
        let moments = |name: &str| moments(&file, &flat, name, &device);
        let (Some(first), Some(second)) = (moments("first")?, moments("second")?) else {
            return Err(refuse(format!("`{OPTIMIZER}` does not hold the moments of every value")));
        };
        let adamw = AdamW { first, second, step: counters.step };
        let (images_seen, grad_norm) = (counters.images_seen, counters.grad_norm);
        Ok(Self { flat, theta, average, adamw, images_seen, grad_norm })
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.adamw.step
    }

    /// Puts the trained values into `trainee`, as constants.
    pub fn install(&self, trainee: &mut Trainee) {
        self.flat.install(&mut |show| trainee.visit(show), &self.theta);
    }

    /// Puts the average into `trainee`; whether there is one.
    pub fn install_average(&self, trainee: &mut Trainee) -> bool {
        if let Some(average) = &self.average {
            self.flat.install(&mut |show| trainee.visit(show), average);
        }
        self.average.is_some()
    }

    /// Commits a checkpoint of this state. Nothing is drawn or changed by it.
    ///
    /// # Errors
    ///
    /// [`TrainError::Checkpoint`]: disk full and the like, or a value that is not finite.
    pub fn commit(
        &self,
        trainee: &mut Trainee,
        map: &KeyMap,
        run: &RunDir,
    ) -> Result<Checkpoint, TrainError> {
        let average =
            if self.install_average(trainee) { Some(trainee.tensors(map)?) } else { None };
        self.install(trainee);
        let values = trainee.tensors(map)?;
        let mut optimizer = TensorMap::new();
        self.collect("first", &self.adamw.first, &mut optimizer)?;
        self.collect("second", &self.adamw.second, &mut optimizer)?;
        let counters = StateFile {
            version: VERSION,
            step: self.step(),
            images_seen: self.images_seen,
            grad_norm: self.grad_norm,
            draws_scheme: draws::SCHEME,
            n_values: self.flat.n_values,
        };
        let counters = json_bytes(&counters)?;
        let none = BTreeMap::new();
        let name = if trainee.is_adapter() { ADAPTER } else { PARAMETERS };
        let mut files = vec![
            (name, Content::Tensors(&values, &none)),
            (OPTIMIZER, Content::Tensors(&optimizer, &none)),
            (STATE, Content::Bytes(&counters)),
        ];
        if let Some(average) = &average {
            files.push((AVERAGE, Content::Tensors(average, &none)));
        }
        Ok(run.commit_checkpoint(self.step(), &files)?)
    }

    /// Cuts a vector at the parameters, under `<name>.<path>`.
    fn collect(
        &self,
        name: &str,
        vector: &Tensor<1>,
        tensors: &mut TensorMap,
    ) -> Result<(), TrainError> {
        let values = host_values(vector.clone())?;
        for segment in &self.flat.segments {
            let part = values[segment.start..segment.start + segment.len].to_vec();
            let tensor = HostTensor::from_f32(vec![segment.len], part);
            tensors.insert(format!("{name}.{}", segment.name), tensor);
        }
        Ok(())
    }
}

fn json_bytes(counters: &StateFile) -> Result<Vec<u8>, TrainError> {
    serde_json::to_vec_pretty(counters).map_err(|source| {
        TrainError::Checkpoint(checkpoints::CheckpointError::Json { path: STATE.into(), source })
    })
}

/// One moment of every parameter as one vector; `None` if one is missing or of another length.
fn moments(
    file: &TensorFile,
    flat: &Flat,
    name: &str,
    device: &Device,
) -> Result<Option<Tensor<1>>, TrainError> {
    let mut values = Vec::with_capacity(flat.n_values);
    for segment in &flat.segments {
        let key = format!("{name}.{}", segment.name);
        if file.info(&key).is_none_or(|info| info.len() != segment.len) {
            return Ok(None);
        }
        values.extend_from_slice(&file.read(&key)?.f32());
    }
    let shape = [values.len()];
    Ok(Some(tensor_from_host(values, shape, device)))
}

#[cfg(test)]
mod tests {
    use models::adapter;

    use super::*;
    use crate::fixtures::World;

    #[test]
    fn a_checkpoint_of_another_adapter_is_refused() {
        let world = World::new();
        let recipe = world.recipe(&["fit.steps=2"]);
        world.fit("runs", &recipe, None).0.unwrap();
        let checkpoint = world.run_dir("runs", &recipe).newest().unwrap().unwrap();
        let layers = adapter::base_layers(&world.base);
        let map = adapter::key_map(&layers, world.base.unet.config()).unwrap();
        let resumed = |sets: &[&str]| {
            let recipe = world.recipe(sets);
            let mut trainee = Trainee::new(&recipe.adapter, &world.base, recipe.seed).unwrap();
            State::resumed(&mut trainee, &recipe.fit, &map, &checkpoint)
        };
        let state = resumed(&[]).unwrap();
        assert_eq!(state.step(), 2);
        assert!(state.images_seen > 2 && state.average.is_some() && state.grad_norm.is_some());
        for other in ["adapter.lora.rank=3", "adapter.lora.targets=attn"] {
            let error = resumed(&[other]).unwrap_err();
            assert!(matches!(error, TrainError::Resume { .. }), "{other}: {error}");
            assert_eq!(error.kind(), crate::TrainErrorKind::Io);
        }
    }
}
