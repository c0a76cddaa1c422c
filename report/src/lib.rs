//! Owns the report: one offline page, a pure function of the census and of what is known about the
//! run. No script, no network, no clock.

pub mod chart;
mod flow;
mod html;
mod panels;
pub mod prose;
mod thumbnail;

use eval::Pictures;
use eval::json::CensusReport;
use std::collections::BTreeMap;

/// What the page says about the run beside the census.
#[derive(Clone, Debug, Default)]
pub struct RunInfo {
    /// Name of the recipe.
    pub name: String,
    /// What one picture is called: `postcard`, `picture`.
    pub picture_noun: String,
    /// Text of each prompt by its identifier.
    pub prompts: BTreeMap<String, String>,
    /// Facts in order: base, adapter, steps, device …
    pub facts: Vec<(String, String)>,
    /// Hashes in order.
    pub hashes: Vec<(String, String)>,
    /// What training recorded, rising in step.
    pub metrics: Vec<Metric>,
    /// Seconds per phase, in order.
    pub seconds: Vec<(String, f64)>,
    /// Energy of the run.
    pub energy: Energy,
    /// The resolved recipe.
    pub recipe_yaml: String,
}

/// One recorded training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Optimizer step.
    pub step: u64,
    /// Loss.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
}

/// Energy of the run, or why it is not known.
#[derive(Clone, Debug, PartialEq)]
pub enum Energy {
    /// Watt-hours, and what the counter covers.
    Measured {
        /// Watt-hours.
        watt_hours: f64,
        /// What was measured.
        scope: String,
    },
    /// The reason why there is no figure.
    NotMeasured(String),
}

impl Default for Energy {
    fn default() -> Self {
        Self::NotMeasured("no counter was read".to_owned())
    }
}

/// The files of the report, by their path within the run directory.
pub fn render(
    census: &CensusReport,
    pictures: &Pictures,
    info: &RunInfo,
) -> Vec<(String, Vec<u8>)> {
    vec![("report/index.html".to_owned(), html::page(census, pictures, info).into_bytes())]
}

#[cfg(test)]
mod tests;
