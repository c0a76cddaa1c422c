//! Turns YAML into a typed, resolved, immutable `Recipe`.
//!
//! [`load`] is the way in. Each section has a file with two types: what YAML may say, and what it
//! means once every default is filled in and every rule is checked. Only the second kind leaves
//! this crate, so that nothing below needs a default of its own.
//!
//! Also home of [`draws`], because this is the only crate below all others. What a recipe's values
//! do is left to the crates that use them; no model, picture or device is touched here.

mod adapter;
mod base;
mod census;
#[cfg(test)]
mod check;
mod choice;
mod dataset;
pub mod draws;
mod error;
mod field;
mod fingerprint;
mod fit;
mod gate;
mod objective;
mod output;
mod overrides;
mod pattern;
mod pretrain;
mod previews;
mod problem;
mod recipe;
mod sampler;
mod schema;
pub mod series;
mod suggest;
mod units;
mod weights;

pub use adapter::{AdapterSpec, FullSpec, LoraInit, LoraSpec, preset};
pub use base::{BasePrecision, BasePrediction, BaseSpec, ModelSpec, WeightsSet, ZeroTerminalSnr};
pub use census::{Budget, CensusSpec, ConceptSpec, LikelihoodWish, PanelSource, ThesaurusSource};
pub use dataset::{
    AlphaPolicy, CaptionSource, CaptionedSpec, ClassSource, ClassSpec, DatasetSpec, DreamBoothSpec,
    Flip, IdentifierAt, ImageSpec, InstanceSpec, MissingCaption, PostcardsSpec, VaeSample,
};
pub use error::{OverrideError, RecipeError, RecipeErrorKind};
pub use fingerprint::{canonical_json, fingerprint, resolved_yaml};
pub use fit::{BatchSpec, EmaSpec, FitSpec, LrScheduleSpec, OptimizerSpec};
pub use gate::{Bound, GatesSpec};
pub use objective::{LossSpec, ObjectiveSpec, PredictionSpec, WeightingSpec};
pub use output::{AdapterDtype, AdapterFormat, MetadataLevel, OutputSpec};
pub use pattern::matches as pattern_matches;
pub use pretrain::{PretrainRecipe, PretrainSpec};
pub use previews::PreviewsSpec;
pub use problem::Problem;
pub use recipe::{Loaded, MAX_RECIPE_BYTES, Recipe, Resolved, load, load_text};
pub use sampler::{KarrasSigmas, SamplerKind, SamplerSpec, Spacing};
pub use schema::json_schema;
pub use weights::{HubModel, HubModelError, WeightsSource};
