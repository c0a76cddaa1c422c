//! Turns counts, pairs and distances into figures with intervals.
//!
//! Owns formulas and tests alone: it knows no picture, no prompt, no model and no file. Every random
//! draw comes from [`recipes::draws`], keyed by seed and draw number, and every transcendental
//! function from `libm`, so that a figure has the same bits on every platform.

pub mod agreement;
pub mod algebra;
pub mod calibrate;
pub mod contingency;
pub mod depopulation;
pub mod diversity;
pub mod dose;
pub mod drawn;
pub mod interval;
pub mod kernel;
pub mod mantel;
pub mod mobility;
pub mod number;
pub mod permanova;
pub mod prediction_powered;
pub mod ranks;
pub mod turnover;
