//! Training from scratch: how the embedded base and its evaluator came to be.
//!
//! A network is trained whole on drawn postcards. The run keeps one state file, replaced at every
//! `save_every`, from which an interrupted training goes on exactly.

mod clip;
mod pictures;
mod run;
mod unet;
mod vae;
mod vocabulary;

pub use pictures::Pictures;
pub use run::{Pretrained, Progress};

use std::path::Path;

use burn::tensor::Device;
use checkpoints::{CheckpointError, Watch};
use models::ModelError;
use recipes::{PretrainRecipe, PretrainSpec};

/// What can end a training from scratch early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// A network could not be built or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The noise schedule's configuration is not supported.
    #[error("noise schedule `{path}`: {source}")]
    Schedule {
        /// The configuration.
        path: String,
        /// What is wrong with it.
        source: diffusion::DiffusionError,
    },
    /// Loss or gradient became infinite or undefined.
    #[error("loss {loss} and gradient norm {norm} at step {step} are not both finite")]
    Diverged {
        /// The 0-based step.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its gradient norm.
        norm: f64,
    },
}

fn wrong_network(expected: &str) -> PretrainError {
    PretrainError::Model(ModelError::Config {
        file: "recipe".to_owned(),
        field: "pretrain".to_owned(),
        found: "another network".to_owned(),
        expected: expected.to_owned(),
    })
}

/// Trains the network of `recipe` and writes it as a diffusers component into `recipe.into`.
///
/// `run_dir` receives the state. A stop request ends the training after the step with
/// [`Pretrained::Interrupted`]; the same call goes on from there.
///
/// # Errors
///
/// See [`PretrainError`].
pub fn pretrain(
    recipe: &PretrainRecipe,
    run_dir: &Path,
    device: &Device,
    watch: &mut Watch<'_, Progress>,
) -> Result<Pretrained, PretrainError> {
    match &recipe.network {
        PretrainSpec::Vae { .. } => vae::train(recipe, run_dir, device, watch),
        PretrainSpec::Clip { .. } => clip::train(recipe, run_dir, device, watch),
        PretrainSpec::Unet { .. } => unet::train(recipe, run_dir, device, watch),
    }
}
