//! Builds the networks, attaches the adapter, owns the custom ops.
//!
//! A network is a plain struct of layers. Each layer holds its tensors in the layout of PyTorch,
//! and every tensor is reached under its diffusers or transformers name through [`Network::visit`]:
//! loading, saving, initialising and training all walk that one path. What a file holds, how it is
//! mapped and verified is the business of `checkpoints`; optimizers and losses are in `trainer`.

pub mod adapter;
pub mod base;
pub mod clip;
pub mod conditioning;
mod config;
pub mod error;
pub mod evaluator;
pub mod layer;
pub mod ops;
#[cfg(test)]
mod parity;
mod parking;
mod parts;
pub mod skeleton;
pub mod source;
pub mod tiny;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod visit;

pub use base::{Base, Precision, load, load_with};
pub use burn::tensor::{Device, Tensor};
pub use conditioning::{Conditioning, SizeConditions, TextStates};
pub use error::ModelError;
pub use evaluator::Evaluator;
pub use source::Builder;
pub use tokenizer::ClipTokenizer;
pub use visit::{Network, Slot, Visitor};
