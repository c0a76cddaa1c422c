//! What is minimised, from the recipe's words: timesteps, noise, target, weight.

use burn::tensor::{Device, Tensor};
use diffusion::{DiffusionError, NoiseSchedule, Prediction, SchedulerConfig, Weighting};
use models::Conditioning;
use models::base::{tensor_from_host, timesteps};
use models::ops::on_threads;
use models::unet::{GradientParts, Recomputation, UNet2DConditionModel};
use recipes::{FitSpec, LossSpec, ObjectiveSpec, PredictionSpec, WeightingSpec, draws};

use crate::error::TrainError;

/// The loss of a settlement on one base.
#[derive(Clone, Debug)]
pub struct Objective {
    schedule: NoiseSchedule,
    prediction: Prediction,
    weighting: Weighting,
    loss: LossSpec,
    offset_noise: f64,
    timesteps: (usize, usize),
}

/// Everything random of one micro-batch, already drawn.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// Scaled latents x₀, `[batch, channels, height, width]`.
    pub clean: Tensor<4>,
    /// Unit normal noise ε, offset included; as `clean`.
    pub noise: Tensor<4>,
    /// Noise levels, one per sample.
    pub timesteps: Vec<usize>,
    /// Text states and, of SDXL, pooled text and sizes: one row per sample.
    pub given: Conditioning,
}

/// What becomes of the activations of a forward pass until it is run backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// They are kept.
    Kept,
    /// Each unit of the denoiser is run again for its own: less memory, one more forward pass.
    Recomputed,
}

impl Activations {
    /// What a recipe says.
    pub fn of(fit: &FitSpec) -> Self {
        if fit.activation_recompute { Self::Recomputed } else { Self::Kept }
    }
}

/// A forward pass that has not been run backwards yet.
#[derive(Debug)]
pub struct Pass<'a> {
    losses: Tensor<1>,
    recomputation: Option<Recomputation<'a>>,
}

impl Pass<'_> {
    /// Weighted loss of every sample, `[batch]`.
    pub fn losses(&self) -> Tensor<1> {
        self.losses.clone().inner()
    }

    /// The gradients of Σ factor·loss, with one factor per sample. With 1/n for each of n samples
    /// of a step this adds up over micro-batches of any size to the mean over the step.
    pub fn backward(self, factors: &[f64]) -> GradientParts {
        let device = self.losses.device().without_autodiff();
        let loss = (self.losses * per_sample(factors, &device)).sum();
        on_threads(&device, || match self.recomputation {
            Some(recomputation) => recomputation.backward(loss.backward()),
            None => loss.backward().into(),
        })
    }
}

impl Objective {
    /// The objective of `spec` on the base whose `scheduler_config.json` is `scheduler`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Schedule`] for a schedule that is not supported, and for noise prediction on one
    /// that ends without signal; [`TrainError::Timesteps`] for a range beyond its end.
    pub fn new(spec: &ObjectiveSpec, scheduler: &serde_json::Value) -> Result<Self, TrainError> {
        let config = scheduler_config(scheduler)?;
        let schedule = NoiseSchedule::new(&config)?;
        let timesteps = (spec.timesteps.0 as usize, spec.timesteps.1 as usize);
        if timesteps.1 > schedule.len() {
            return Err(TrainError::Timesteps { found: timesteps.1, limit: schedule.len() });
        }
        let prediction = match spec.prediction {
            PredictionSpec::Auto => config.prediction_type,
            PredictionSpec::Epsilon => Prediction::Epsilon,
            PredictionSpec::V => Prediction::V,
        };
        if config.zero_terminal_snr && prediction == Prediction::Epsilon {
            return Err(DiffusionError::ZeroSnrWithEpsilon.into());
        }
        let weighting = match spec.weighting {
            WeightingSpec::Uniform => Weighting::Uniform,
            WeightingSpec::MinSnr { gamma } => Weighting::MinSnr { gamma },
        };
        let (loss, offset_noise) = (spec.loss, spec.offset_noise);
        Ok(Self { schedule, prediction, weighting, loss, offset_noise, timesteps })
    }

    /// What the network puts out.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The noise level of one sample, uniform over the recipe's range.
    pub fn timestep(&self, seed: u64, step: u64, sample: u64) -> usize {
        let (from, below) = self.timesteps;
        let mut stream = draws::stream(seed, step, sample, draws::Purpose::Timestep);
        from + draws::below(&mut stream, (below - from) as u64) as usize
    }

    /// The noise of one sample, `shape` being `[channels, height, width]`, row-major.
    pub fn noise(&self, seed: u64, step: u64, sample: u64, shape: [usize; 3]) -> Vec<f32> {
        let [channels, height, width] = shape;
        let mut stream = draws::stream(seed, step, sample, draws::Purpose::Noise);
        let mut noise = draws::normals(&mut stream, channels * height * width);
        if self.offset_noise > 0.0 {
            let mut stream = draws::stream(seed, step, sample, draws::Purpose::OffsetNoise);
            let offsets = draws::normals(&mut stream, channels);
            for (plane, offset) in noise.chunks_mut(height * width).zip(offsets) {
                let offset = (f64::from(offset) * self.offset_noise) as f32;
                for value in plane {
                    *value += offset;
                }
            }
        }
        noise
    }

    /// A forward pass up to the weighted loss of every sample: w(t)·mean((output − target)²).
    ///
    /// # Errors
    ///
    /// As [`UNet2DConditionModel::forward`].
    pub fn pass<'a>(
        &self,
        unet: &'a UNet2DConditionModel,
        batch: &MicroBatch,
        activations: Activations,
    ) -> Result<Pass<'a>, TrainError> {
        let MicroBatch { clean, noise, timesteps: levels, given } = batch;
        let device = clean.device().without_autodiff();
        let noisy =
            diffusion::noisy_from_clean(&self.schedule, clean.clone(), noise.clone(), levels);
        let target = diffusion::target(
            &self.schedule,
            self.prediction,
            clean.clone(),
            noise.clone(),
            levels,
        );
        let real: Vec<f64> = levels.iter().map(|&level| level as f64).collect();
        let times = timesteps(&real, &device);
        let (context, added) = (&given.context, given.added.as_ref());
        let (output, recomputation) = match activations {
            Activations::Kept => (unet.forward(noisy, times, context, added)?, None),
            Activations::Recomputed => {
                let (output, recomputation) =
                    unet.forward_recomputed(noisy, times, context, added)?;
                (output, Some(recomputation))
            }
        };
        let LossSpec::Mse = self.loss;
        let losses = diffusion::mean_squared_errors(output, target);
        Ok(Pass { losses: losses * per_sample(&self.weights(levels), &device), recomputation })
    }

    /// The factor of each sample's loss at its noise level.
    pub fn weights(&self, timesteps: &[usize]) -> Vec<f64> {
        let weight = |&t: &usize| self.weighting.loss_weight(self.schedule.snr(t), self.prediction);
        timesteps.iter().map(weight).collect()
    }
}

/// The meaning of a `scheduler_config.json`.
///
/// # Errors
///
/// [`TrainError::Schedule`] naming field and value.
pub(crate) fn scheduler_config(
    scheduler: &serde_json::Value,
) -> Result<SchedulerConfig, TrainError> {
    serde_json::from_value(scheduler.clone()).map_err(|source| {
        let path = std::path::PathBuf::from("scheduler/scheduler_config.json");
        TrainError::Checkpoint(checkpoints::CheckpointError::Json { path, source })
    })
}

/// One value per sample, `[batch]`.
fn per_sample(values: &[f64], device: &Device) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    let shape = [values.len()];
    tensor_from_host(values, shape, device)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use checkpoints::{TensorFile, Weights};
    use models::adapter::{self, Adapter, Factors};
    use models::base::host_values;
    use models::unet::UNetConfig;
    use models::{Builder, Device};
    use recipes::OptimizerSpec;
    use serde_json::json;

    use super::*;
    use crate::flat::Flat;
    use crate::optimizer::{AdamW, clip, norm};

    const STEPS: usize = 4;
    const ACCUMULATE: usize = 2;
    const IMAGES: usize = 2;

    fn golden(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/golden").join(path)
    }

    fn open(path: &str) -> TensorFile {
        TensorFile::open(&golden(path)).unwrap()
    }

    fn numbers(file: &TensorFile, name: &str) -> Vec<f64> {
        file.read(name).unwrap().f32().iter().map(|&value| f64::from(value)).collect()
    }

    /// Rows `from..from + IMAGES` of a tensor.
    fn rows<const D: usize>(file: &TensorFile, name: &str, from: usize) -> Tensor<D> {
        let host = file.read(name).unwrap();
        let mut shape: [usize; D] = host.shape.clone().try_into().unwrap();
        let row = host.len() / shape[0];
        shape[0] = IMAGES;
        let values = host.f32()[from * row..(from + IMAGES) * row].to_vec();
        tensor_from_host(values, shape, &Device::flex())
    }

    fn adapted_unet(case: &TensorFile) -> UNet2DConditionModel {
        let config = checkpoints::fs::read_json(&golden("unet_sd1/config.json")).unwrap();
        let weights = Weights::open(&golden("unet_sd1/weights.safetensors")).unwrap();
        let builder = Builder::from_source(&weights, &Device::flex());
        let mut unet = UNet2DConditionModel::new(
            &builder,
            &UNetConfig::from_json("unet_sd1", &config).unwrap(),
        );
        builder.finish(|_| false).unwrap();
        let start = open("train_step/start.safetensors");
        let mut adapter = Adapter::default();
        for name in start.names().filter(|name| name.ends_with(".lora_A.weight")) {
            let path = name.trim_end_matches(".lora_A.weight");
            let factors = Factors {
                down: start.read(name).unwrap(),
                up: start.read(&format!("{path}.lora_B.weight")).unwrap(),
                alpha: numbers(case, "alpha")[0],
            };
            adapter.modules.insert(path.to_owned(), factors);
        }
        adapter::attach(&mut unet, "unet", &adapter, 1.0).unwrap();
        unet
    }

    fn check(name: &str, found: f64, expected: f64, tolerance: f64) {
        assert!(
            (found / expected - 1.0).abs() < tolerance,
            "{name}: {found} instead of {expected}"
        );
    }

    /// Largest difference of the factors from a golden file, relative to its largest value.
    fn worst(flat: &Flat, theta: &Tensor<1>, file: &str) -> f64 {
        let (file, theta) = (open(file), host_values(theta.clone()).unwrap());
        let (mut difference, mut largest) = (0.0f32, 0.0f32);
        for segment in &flat.segments {
            let key = segment
                .name
                .replace(".lora_down", ".lora_A.weight")
                .replace(".lora_up", ".lora_B.weight");
            let expected = file.read(&key).unwrap();
            let found = &theta[segment.start..segment.start + segment.len];
            for (found, expected) in found.iter().zip(expected.f32().iter()) {
                difference = difference.max((found - expected).abs());
                largest = largest.max(expected.abs());
            }
        }
        f64::from(difference / largest)
    }

    /// The objective of the golden case.
    fn golden_objective(case: &TensorFile, prediction: &str) -> Objective {
        let spec = ObjectiveSpec {
            prediction: PredictionSpec::Auto,
            weighting: WeightingSpec::MinSnr { gamma: numbers(case, "gamma")[0] },
            loss: LossSpec::Mse,
            offset_noise: 0.0,
            timesteps: (0, 1000),
        };
        let scheduler = json!({
            "_class_name": "DDPMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "clip_sample": false, "num_train_timesteps": 1000,
            "prediction_type": prediction,
        });
        Objective::new(&spec, &scheduler).unwrap()
    }

    fn golden_batch(case: &TensorFile, from: usize) -> MicroBatch {
        let levels = numbers(case, "timesteps");
        MicroBatch {
            clean: rows(case, "latents", from),
            noise: rows(case, "noise", from),
            timesteps: levels[from..from + IMAGES].iter().map(|&level| level as usize).collect(),
            given: Conditioning { context: rows(case, "encoder_hidden_states", from), added: None },
        }
    }

    /// Loss and gradient of one step of the golden case, accumulated over its parts.
    fn golden_gradient(
        objective: &Objective,
        case: &TensorFile,
        unet: &mut UNet2DConditionModel,
        (flat, step, activations): (&Flat, usize, Activations),
    ) -> (f64, Tensor<1>) {
        let factor = 1.0 / (ACCUMULATE * IMAGES) as f64;
        let (mut loss, mut parts) = (0.0, Vec::new());
        for micro in 0..ACCUMULATE {
            let batch = golden_batch(case, (step * ACCUMULATE + micro) * IMAGES);
            let pass = objective.pass(unet, &batch, activations).unwrap();
            let values = host_values(pass.losses()).unwrap();
            loss += values.iter().map(|&value| f64::from(value) * factor).sum::<f64>();
            let found = pass.backward(&[factor; IMAGES]);
            let visit = &mut |show: &mut dyn FnMut(&str, &mut dyn models::Slot)| {
                adapter::visit_factors(unet, "unet", show);
            };
            parts.push(flat.gradients(visit, found, &Device::flex()));
        }
        (loss, parts.into_iter().reduce(|sum, part| sum + part).unwrap())
    }

    fn trains_as_diffusers(prediction: &str, activations: Activations) {
        let case = open("train_step/case.safetensors");
        let objective = golden_objective(&case, prediction);
        let optimizer = OptimizerSpec::AdamW {
            learning_rate: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-2,
        };
        let mut unet = adapted_unet(&case);
        let (flat, mut theta) =
            Flat::of(&mut |show| adapter::visit_factors(&mut unet, "unet", show), &Device::flex());
        let mut adamw = AdamW::new(&theta);
        let expected = |name: &str| numbers(&case, &format!("{prediction}.{name}"));
        for step in 0..STEPS {
            let visit = &mut |show: &mut dyn FnMut(&str, &mut dyn models::Slot)| {
                adapter::visit_factors(&mut unet, "unet", show);
            };
            flat.install_leaves(visit, &theta);
            let (loss, gradient) =
                golden_gradient(&objective, &case, &mut unet, (&flat, step, activations));
            let grad_norm = norm(&gradient).unwrap();
            check("loss", loss, expected("losses")[step], 1e-3);
            check("norm", grad_norm, expected("gradient_norms")[step], 5e-3);
            let shrink = clip(grad_norm, numbers(&case, "clip_norm")[0]);
            let rate = numbers(&case, "learning_rates")[step];
            theta = adamw.update(&optimizer, rate, theta.clone(), (gradient, shrink));
            if step == 0 {
                let file = format!("train_step/{prediction}.after_1.safetensors");
                let worst = worst(&flat, &theta, &file);
                assert!(worst < 1e-3, "after one step: {worst}");
            }
        }
        // Adam divides by the size of the gradient: where that is rounding, values move freely.
        let worst = worst(&flat, &theta, &format!("train_step/{prediction}.after_4.safetensors"));
        assert!(worst < 5e-3, "after {STEPS} steps: {worst}");
    }

    #[test]
    fn four_steps_of_noise_prediction_are_those_of_diffusers_and_peft() {
        trains_as_diffusers("epsilon", Activations::Kept);
    }

    #[test]
    fn four_steps_of_velocity_prediction_are_those_of_diffusers_and_peft() {
        trains_as_diffusers("v_prediction", Activations::Kept);
    }

    #[test]
    fn four_steps_that_recompute_activations_are_those_of_diffusers_and_peft() {
        trains_as_diffusers("epsilon", Activations::Recomputed);
    }

    fn objective(offset_noise: f64, timesteps: (u32, u32)) -> Result<Objective, TrainError> {
        let spec = ObjectiveSpec {
            prediction: PredictionSpec::Epsilon,
            weighting: WeightingSpec::Uniform,
            loss: LossSpec::Mse,
            offset_noise,
            timesteps,
        };
        Objective::new(
            &spec,
            &json!({ "_class_name": "DDIMScheduler", "num_train_timesteps": 500 }),
        )
    }

    #[test]
    fn timesteps_fill_their_range_and_never_leave_it() {
        let objective = objective(0.0, (10, 13)).unwrap();
        let mut drawn: Vec<usize> =
            (0..60).map(|sample| objective.timestep(1, 0, sample)).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [10, 11, 12]);
    }

    #[test]
    fn a_range_beyond_the_schedule_is_refused() {
        let error = objective(0.0, (0, 1000)).unwrap_err();
        assert!(matches!(error, TrainError::Timesteps { found: 1000, limit: 500 }), "{error}");
    }

    /// The objective of velocity prediction on Stable Diffusion's schedule, rescaled to end without
    /// signal.
    fn without_terminal_signal(prediction: PredictionSpec) -> Result<Objective, TrainError> {
        let spec = ObjectiveSpec {
            prediction,
            weighting: WeightingSpec::MinSnr { gamma: 5.0 },
            loss: LossSpec::Mse,
            offset_noise: 0.0,
            timesteps: (0, 1000),
        };
        let scheduler = json!({
            "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "rescale_betas_zero_snr": true,
            "prediction_type": "v_prediction",
        });
        Objective::new(&spec, &scheduler)
    }

    #[test]
    fn the_last_level_has_no_signal_and_no_weight_under_zero_terminal_snr() {
        let objective = without_terminal_signal(PredictionSpec::Auto).unwrap();
        for (t, alpha) in [(0, 0.999_15), (100, 0.886_761), (500, 0.241_019), (900, 0.002_960_39)] {
            let found = objective.schedule.alpha_cumprod(t);
            assert!((found - alpha).abs() < 1e-6, "abar({t}) is {found}");
            // min(snr, 5)/(snr + 1) is min(abar, 5·(1 − abar)).
            let weight = objective.weights(&[t])[0];
            assert!((weight - alpha.min(5.0 * (1.0 - alpha))).abs() < 1e-5, "{t}: {weight}");
        }
        assert!(objective.weights(&[999])[0].abs() < 1e-15);
    }

    #[test]
    fn noise_prediction_is_refused_under_zero_terminal_snr() {
        let error = without_terminal_signal(PredictionSpec::Epsilon).unwrap_err();
        assert!(
            matches!(error, TrainError::Schedule(DiffusionError::ZeroSnrWithEpsilon)),
            "{error}"
        );
    }

    #[test]
    fn sample_prediction_follows_the_base_and_is_weighed_by_its_snr() {
        let scheduler = json!({ "_class_name": "DDIMScheduler", "prediction_type": "sample" });
        let spec = ObjectiveSpec {
            prediction: PredictionSpec::Auto,
            weighting: WeightingSpec::MinSnr { gamma: 5.0 },
            loss: LossSpec::Mse,
            offset_noise: 0.0,
            timesteps: (0, 1000),
        };
        let objective = Objective::new(&spec, &scheduler).unwrap();
        assert_eq!(objective.prediction(), Prediction::Sample);
        let snr = objective.schedule.snr(500);
        assert!((objective.weights(&[500])[0] - snr.min(5.0)).abs() < 1e-12);
    }

    #[test]
    fn offset_noise_moves_whole_channels_of_the_same_noise() {
        let (plain, offset) =
            (objective(0.0, (0, 500)).unwrap(), objective(0.5, (0, 500)).unwrap());
        let shape = [3, 4, 5];
        let (plain, offset) = (plain.noise(1, 2, 3, shape), offset.noise(1, 2, 3, shape));
        for (plain, offset) in plain.chunks(20).zip(offset.chunks(20)) {
            let shift = offset[0] - plain[0];
            assert!(shift != 0.0);
            assert!(
                plain
                    .iter()
                    .zip(offset)
                    .all(|(plain, offset)| (offset - plain - shift).abs() < 1e-5)
            );
        }
    }
}
