//! What a run has consumed: counters read, differences added up, honest about what is not known.
//!
//! A source that cannot be read gives null with the reason, never 0 and never an estimate. NVML is opened by the caller,
//! who hands in a source; RAPL is read here, below a folder that is given.

mod ledger;
mod rapl;

use serde::{Deserialize, Serialize};

pub use ledger::{Carbon, EnergyLedger, EnergyTotals};
pub use rapl::Rapl;

/// A counter of energy that only rises, until it wraps or is reset.
pub trait EnergySource: std::fmt::Debug {
    /// The counter in microjoules.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if it cannot be read now.
    fn read_uj(&mut self) -> Result<u64, Unavailable>;
    /// The value after which the counter starts again at 0, if it does.
    fn wrap_uj(&self) -> Option<u64>;
    /// Where the numbers come from, such as `nvml.total_energy`.
    fn label(&self) -> &str;
}

/// Why a source gives nothing, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unavailable: {reason}")]
pub struct Unavailable {
    /// Such as `EACCES`.
    pub reason: String,
}

/// What a source measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// The whole board, other processes included.
    Gpu,
    /// Processor packages, other processes included.
    Cpu,
}

/// Exclusive parts of a run; their sum is the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Opening weights and pictures.
    Load,
    /// Encoding pictures and captions once.
    Cache,
    /// Optimizer steps.
    Train,
    /// Previews.
    Sample,
    /// Counting.
    Census,
    /// Writing the report.
    Report,
}
