//! Measures what a settled concept changed, from what lies on disk.

pub mod base_figures;
pub mod census;
pub mod detector;
mod error;
pub mod evaluator;
pub mod gate;
pub mod json;
pub mod manifest;
mod ordered;
pub mod panel;
pub mod plan;
mod reading;
pub mod record;
pub mod rows;
pub mod sample;
pub mod similarity;
pub mod synthetic;
mod tables;
mod take;
pub mod thesaurus;
mod world;

pub use error::EvalError;
pub use reading::{Pictures, read};
pub use take::{CensusEvent, CensusJob, Change, Counted, census};
pub use world::World;
