//! A training step on a denoiser alone, with inputs that are drawn: what `populate bench` times.
//!
//! The parts are those of [`crate::step::one_step`]: the flat vector, the global norm, the clip and
//! AdamW. What a step of a run has besides, reading its batch from the caches and its record, needs
//! a dataset and is left out, as it is on the other side of the comparison.

use burn::tensor::{Device, Tensor};
use models::base::{tensor_from_host, timesteps};
use models::ops::{on_threads, square_sums};
use models::unet::{AddedConditions, UNet2DConditionModel};
use models::{ModelError, adapter};
use recipes::{LoraInit, LoraSpec, OptimizerSpec, draws};

use crate::error::TrainError;
use crate::flat::Flat;
use crate::objective::Activations;
use crate::optimizer::{AdamW, clipped, read};

/// What the inputs of a denoiser are like.
#[derive(Clone, Copy, Debug)]
pub struct InputShape {
    /// Pictures of a step, at least 1.
    pub batch: usize,
    /// Height and width of the latents.
    pub latent: usize,
    /// Tokens of a text.
    pub tokens: usize,
}

/// Inputs of a denoiser, drawn from a unit normal distribution.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[batch, in_channels, latent, latent]`.
    pub noisy: Tensor<4>,
    /// `[batch, out_channels, latent, latent]`.
    pub target: Tensor<4>,
    /// `[batch]`, in `0..1000`.
    pub timesteps: Tensor<1>,
    /// `[batch, tokens, cross_attention_dim]`.
    pub context: Tensor<3>,
    /// Of SDXL alone.
    pub added: Option<AddedConditions>,
}

impl Inputs {
    /// The inputs of one step, a function of its number.
    ///
    /// # Errors
    ///
    /// [`ModelError::Config`] for a configuration whose added conditions do not fit each other.
    pub fn draw(
        unet: &UNet2DConditionModel,
        shape: InputShape,
        step: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let InputShape { batch, latent, tokens } = shape;
        let config = unet.config();
        let normals = |purpose: &str, n_values: usize| {
            let mut stream = draws::keyed(step, purpose);
            draws::normals(&mut stream, n_values)
        };
        let image = |purpose: &str, channels: usize| {
            let shape = [batch, channels, latent, latent];
            tensor_from_host(normals(purpose, shape.iter().product()), shape, device)
        };
        let mut stream = draws::keyed(step, "timestep");
        let levels: Vec<f64> = (0..batch).map(|_| draws::below(&mut stream, 1000) as f64).collect();
        let width = config.cross_attention_dim;
        let context = normals("context", batch * tokens * width);
        let added = config.text_time.map(|text_time| {
            let width = text_time.input_width.checked_sub(6 * text_time.time_width);
            let width = width.ok_or_else(|| ModelError::Config {
                file: "unet/config.json".to_owned(),
                field: "projection_class_embeddings_input_dim".to_owned(),
                found: text_time.input_width.to_string(),
                expected: format!("at least {}, six sizes", 6 * text_time.time_width),
            })?;
            let pooled = normals("pooled", batch * width);
            let sizes = [1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0].repeat(batch);
            Ok::<_, ModelError>(AddedConditions {
                pooled_text: tensor_from_host(pooled, [batch, width], device),
                time_ids: tensor_from_host(sizes, [batch, 6], device),
            })
        });
        let added = added.transpose()?;
        Ok(Self {
            noisy: image("noisy", config.in_channels),
            target: image("target", config.out_channels),
            timesteps: timesteps(&levels, device),
            context: tensor_from_host(context, [batch, tokens, width], device),
            added,
        })
    }
}

/// A denoiser with an adapter under training.
#[derive(Debug)]
pub struct StepBench {
    unet: UNet2DConditionModel,
    flat: Flat,
    theta: Tensor<1>,
    adamw: AdamW,
    optimizer: OptimizerSpec,
}

impl StepBench {
    /// Attaches an adapter of `rank` to the layers whose last name is one of `targets`.
    ///
    /// # Errors
    ///
    /// A name without layer; a rank above what a layer's weight can have.
    pub fn new(
        mut unet: UNet2DConditionModel,
        rank: u32,
        targets: &[String],
        device: &Device,
    ) -> Result<Self, TrainError> {
        let spec = LoraSpec {
            rank,
            alpha: rank.into(),
            targets: targets.iter().map(|name| format!("unet.**.{name}")).collect(),
            conv_rank: None,
            conv_alpha: None,
            dropout: 0.0,
            init: LoraInit::Gaussian,
        };
        let initial = adapter::initial(&adapter::layers(&mut unet, "unet"), &spec, 0)?;
        adapter::attach(&mut unet, "unet", &initial, 1.0)?;
        let visit = &mut |show: &mut dyn FnMut(&str, &mut dyn models::Slot)| {
            adapter::visit_factors(&mut unet, "unet", show);
        };
        let (flat, theta) = Flat::of(visit, device);
        let adamw = AdamW::new(&theta);
        let optimizer = OptimizerSpec::AdamW {
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-2,
        };
        Ok(Self { unet, flat, theta, adamw, optimizer })
    }

    /// The denoiser, with the adapter.
    pub fn unet(&self) -> &UNet2DConditionModel {
        &self.unet
    }

    /// Values that are trained.
    pub fn n_trainable(&self) -> usize {
        self.flat.n_values
    }

    /// Forward, mean squared error, backward, clip of the global norm to 1, AdamW; the loss.
    ///
    /// # Errors
    ///
    /// A fault of the device.
    pub fn step(&mut self, inputs: Inputs, activations: Activations) -> Result<f64, TrainError> {
        let device = inputs.noisy.device();
        let Self { unet, flat, theta, adamw, optimizer } = self;
        let mut visit = |show: &mut dyn FnMut(&str, &mut dyn models::Slot)| {
            adapter::visit_factors(unet, "unet", show);
        };
        flat.install_leaves(&mut visit, theta);
        let Inputs { noisy, target, timesteps, context, added } = inputs;
        let (output, recomputation) = match activations {
            Activations::Kept => {
                (self.unet.forward(noisy, timesteps, &context, added.as_ref())?, None)
            }
            Activations::Recomputed => {
                let found =
                    self.unet.forward_recomputed(noisy, timesteps, &context, added.as_ref())?;
                (found.0, Some(found.1))
            }
        };
        let loss = (output - target).powi_scalar(2).mean();
        let value = loss.clone().inner();
        let gradients = on_threads(&device, || match recomputation {
            Some(recomputation) => recomputation.backward(loss.backward()),
            None => loss.backward().into(),
        });
        let unet = &mut self.unet;
        let mut visit = |show: &mut dyn FnMut(&str, &mut dyn models::Slot)| {
            adapter::visit_factors(unet, "unet", show);
        };
        let gradient = flat.gradients(&mut visit, gradients, &device);
        flat.install(&mut visit, theta);
        let squares = square_sums(gradient.clone());
        let gradient = clipped(gradient, &squares, 1.0)?;
        *theta = adamw.update(optimizer, 1e-4, theta.clone(), gradient);
        // As in a step of a run: one read, which waits for the update as well.
        let numbers = read(vec![value, squares, theta.clone().slice(0..1)])?;
        Ok(numbers[0].first().copied().map_or(f64::NAN, f64::from))
    }
}

#[cfg(test)]
mod tests {
    use models::base::host_values;

    use super::*;
    use crate::fixtures::World;

    #[test]
    fn steps_change_the_adapter_and_nothing_else() {
        for family in [checkpoints::Family::Sd1, checkpoints::Family::Sdxl] {
            let world = World::of(family, 81);
            let device = world.base.device.clone();
            let shape = InputShape { batch: 2, latent: 8, tokens: 5 };
            let targets = ["to_q".to_owned(), "to_out.0".to_owned()];
            let unet = world.base.unet.clone();
            let mut bench = StepBench::new(unet, 2, &targets, &device).unwrap();
            let before = host_values(bench.theta.clone()).unwrap();
            let losses = [0, 1].map(|step| {
                let inputs = Inputs::draw(bench.unet(), shape, step, &device).unwrap();
                bench.step(inputs, Activations::Kept).unwrap()
            });
            assert!(losses.iter().all(|loss| loss.is_finite()));
            assert_ne!(host_values(bench.theta.clone()).unwrap(), before);
            assert_eq!(bench.n_trainable(), before.len());
        }
    }
}
