//! Reads and writes named tensors and their provenance, atomically.
//!
//! Every byte that the workspace leaves on a disk passes through [`fs`]. What a tensor means is known elsewhere:
//! this crate owns names, shapes, element types, hashes, folders, single files and the run directory.

// `json!` recurses once for each token of a configuration.
#![recursion_limit = "256"]

pub mod adapter_metadata;
mod advice;
pub mod clip_vocabulary;
mod error;
mod family;
pub mod folder;
pub mod fs;
pub mod hash;
pub mod hub;
pub mod key_map;
pub mod manifest;
mod mapped;
mod model;
pub mod postcards;
mod problem;
pub mod readers;
pub mod run_dir;
mod safetensors;
mod single_file;
mod tensors;
mod weights;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

pub use advice::ErrorKind;
pub use error::CheckpointError;
pub use family::Family;
pub use model::{ModelFiles, ModelOptions, Predicts, TokenizerFiles, WhichWeights};
pub use problem::WeightsProblem;
pub use run_dir::{energy, event_file};
pub use safetensors::{
    FileHashes, HeaderLimit, Planned, TensorFile, TensorInfo, write_stream, write_tensors,
};
pub use tensors::{Dtype, HostTensor, TensorMap, Values, tensors_sha256};
pub use weights::Weights;

/// What a long job gets from whoever started it: a stop flag to read and a sink for what happens.
pub struct Watch<'a, E> {
    /// Set once a stop was requested; read at every micro-batch and every picture.
    pub stop: &'a AtomicBool,
    /// Called on the thread that works, in order.
    pub sink: &'a mut dyn FnMut(&E),
}

impl<E> Watch<'_, E> {
    /// Whether a stop was requested.
    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Reports one event.
    pub fn tell(&mut self, event: &E) {
        (self.sink)(event);
    }
}

impl<E> std::fmt::Debug for Watch<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("stop", &self.stop).finish_non_exhaustive()
    }
}
