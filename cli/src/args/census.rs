//! Arguments of `populate census`.

use std::path::PathBuf;

use clap::Args;

/// What to count.
#[derive(Debug, Clone, Args)]
pub(crate) struct CensusArguments {
    /// A run directory, or the recipe whose run is meant. Of several, each is counted where it was not
    /// yet, and all are compared on the same noise. RUN@STEP is an earlier checkpoint, RUN:DOSE another
    /// dose that its census drew.
    #[arg(value_name = "RUN", required_unless_present = "kat")]
    pub(crate) items: Vec<String>,
    /// Replace one value of the recipe, if one is given.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Folder for the comparison of several runs.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Compute a known answer instead of a census: its name, `list` or `all`.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["items", "sets", "out"])]
    pub(crate) kat: Option<String>,
    /// Seed of the known answer's draws.
    #[arg(long, value_name = "N", requires = "kat", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Draw as many pictures for known answers about the base as a release must, not a quick look.
    #[arg(long, requires = "kat")]
    pub(crate) full: bool,
    /// Repeat a known answer over so many seeds and judge their distribution.
    #[arg(long, value_name = "N", requires = "kat")]
    pub(crate) seeds: Option<u32>,
}
