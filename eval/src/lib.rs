//! Measures a checkpoint and writes the report.

pub mod base_figures;
pub mod calibrate;
pub mod census;
pub mod depopulation;
pub mod detector;
pub mod dose;
mod error;
pub mod evaluator;
pub mod gate;
pub mod interval;
pub mod manifest;
mod number;
mod ordered;
pub mod panel;
pub mod plan;
pub mod report;
pub mod rows;
pub mod sample;
pub mod similarity;
mod take;
pub mod thesaurus;
mod world;

pub use error::EvalError;
pub use take::{CensusEvent, CensusJob, Change, Counted, census, read};
pub use world::World;
