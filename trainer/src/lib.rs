//! Fits an adapter to a dataset and commits checkpoints.
//!
//! All trainable values of a run lie in one flat vector ([`flat`]), so that clipping, the update and
//! the average are a handful of operations whatever the network looks like. What a dataset holds,
//! how files are written and what the networks compute belong to the crates below; what was learned
//! is judged by `eval`, from disk.

pub mod bench;
pub mod cache;
pub mod class_images;
pub mod divergence;
pub mod error;
pub mod event;
pub mod fit;
#[cfg(test)]
mod fixtures;
pub mod flat;
pub mod lr_schedule;
pub mod objective;
pub mod optimizer;
pub mod output;
pub mod postflight;
pub mod pretrain;
pub mod state;
pub mod step;
pub mod trainee;
mod training;

pub use divergence::{Divergence, PictureDraw};
pub use error::{TrainError, TrainErrorKind};
pub use event::{Event, Phase, StepRecord};
pub use fit::{Fitted, Job, fit};
