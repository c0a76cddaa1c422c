//! What a run tells while it works. Whoever listens draws bars, writes event files, reads sensors.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Something that happened, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Another kind of work begins; energy and time are counted by these.
    Phase(Phase),
    /// Class pictures that the base has drawn.
    ClassImages {
        /// Pictures that are there.
        done: usize,
        /// Pictures that are needed.
        total: usize,
    },
    /// Captions or pictures of which is known what the frozen networks say. Of each kind the first
    /// such event has 0 done and, unless a stop was requested, the last one all.
    Cached {
        /// Which of both.
        what: Encoded,
        /// How many are done.
        done: usize,
        /// How many there are.
        total: usize,
    },
    /// Work goes on from a checkpoint of an earlier attempt.
    Resumed {
        /// Steps done.
        step: u64,
        /// Its folder; it exists at least until the next event.
        checkpoint: PathBuf,
    },
    /// Training is about to begin or to go on; at step 0 the model still is the base.
    Began(Beginning),
    /// One optimizer step was done.
    Stepped(StepRecord),
    /// A checkpoint was committed; the folder exists at least until the next event.
    Saved {
        /// Steps done.
        step: u64,
        /// Its folder.
        checkpoint: PathBuf,
    },
    /// The results lie in the run directory and have passed their checks.
    Written {
        /// The files.
        files: Vec<PathBuf>,
    },
}

/// What is encoded once before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// Captions, by the text encoders.
    Captions,
    /// Pictures, by the autoencoder.
    Pictures,
}

impl Encoded {
    /// What is counted, in words.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Captions => "captions",
            Self::Pictures => "pictures",
        }
    }
}

/// Kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The base draws class pictures.
    ClassImages,
    /// Pictures and captions are encoded.
    Cache,
    /// Optimizer steps.
    Train,
    /// Results are written and checked.
    Output,
}

impl Phase {
    /// The name under which time and energy are kept.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClassImages => "class_images",
            Self::Cache => "cache",
            Self::Train => "train",
            Self::Output => "output",
        }
    }
}

/// What is about to be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Steps already done; 0 for a new run.
    pub step: u64,
    /// Steps in all.
    pub total: u64,
    /// Pictures per step, those of the class included.
    pub images_per_step: u64,
    /// Values that are trained.
    pub n_parameters: usize,
    /// Modules of the adapter, or parameters of full training.
    pub n_modules: usize,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps done, this one included: the first is 1.
    pub step: u64,
    /// What was minimised: `loss_concept` plus the prior weight times `loss_preserve`.
    pub loss: f64,
    /// Mean weighted loss of the concept's pictures.
    pub loss_concept: f64,
    /// Mean weighted loss of the class pictures; `None` without them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_preserve: Option<f64>,
    /// L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Pictures that have been trained on, repeats counted.
    pub images_seen: u64,
}
