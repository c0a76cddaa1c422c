//! Proves the promises from outside.
//!
//! One binary; each module is one promise. What needs a trained base uses `models::tiny`, some
//! 50,000 random values in the files of a real base, so that nothing here waits for a training.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test ends at the first surprise, and stands outside the program's own rules"
)]

mod adapters;
mod architecture;
mod bench;
mod census;
mod cli;
mod families;
mod frozen;
mod generate;
#[cfg(feature = "cuda")]
mod gpu;
mod hostile;
mod interchange;
mod learns;
mod parity;
mod recipes;
mod resume;
mod series;
mod settled;
mod sham;
mod world;
mod zero;
