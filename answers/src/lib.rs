//! Proves every instrument on worlds whose answer is known.
//!
//! A known answer is a construction, what comes of it in closed form or by another program, and how far
//! an instrument may stray. Each takes its instrument as an argument, so that a test can hand it a wrong
//! one and see it fail.

pub mod answer;
pub mod calibration;
pub mod copies;
pub mod counting;
pub mod direction;
pub mod error;
pub mod fabric;
#[cfg(test)]
mod golden;
pub mod likelihood;
pub mod modes;
pub mod path;
pub mod pixel;
pub mod placebo;
pub mod postcards;
pub mod registry;
pub mod rings;
pub mod series;
pub mod settlements;
pub mod typicality;
pub mod worlds;
