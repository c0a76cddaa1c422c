//! The mathematics of noising and denoising over a closure `denoise(x, t)`.
//!
//! Owns what a `scheduler_config.json` means, the noise schedule, the three kinds of prediction,
//! loss weights, guidance and the samplers. Schedules and the coefficients of every sampler step
//! are computed on the host in `f64`; tensors only ever see the finished coefficients.
//!
//! Knows no network, file or recipe and draws nothing: whatever is random comes in as an argument
//! or through a closure.

mod config;
mod config_file;
mod error;
mod guidance;
mod objective;
mod prediction;
pub mod sampler;
mod schedule;
mod timesteps;
mod weighting;

pub use config::{BetaSchedule, FinalAlpha, SchedulerClass, SchedulerConfig};
pub use error::DiffusionError;
pub use guidance::{guide, rescale_guidance};
pub use objective::{mean_squared_errors, offset_noise, weighted_mean};
pub use prediction::{
    Prediction, clean_from_output, epsilon_from_output, noisy_from_clean, target,
};
pub use sampler::{Moment, Sampler, SamplerKind, sample, sample_from, sample_watched};
pub use schedule::NoiseSchedule;
pub use timesteps::{TimestepSpacing, stratified_timesteps, timestep_from_unit};
pub use weighting::Weighting;
