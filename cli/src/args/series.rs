//! The arguments of `series`.

use std::path::PathBuf;

use clap::Args;

/// Series of pictures to draw.
#[derive(Debug, Clone, Args)]
pub(crate) struct SeriesArguments {
    /// The series file, YAML: templates, what stands in their slots, and the series.
    #[arg(value_name = "FILE.yaml")]
    pub(crate) file: PathBuf,
    /// The folder of the pictures, `series/NAME` if absent. Pictures that an earlier command drew
    /// there as the file asks for them are not drawn again; others of the same name are replaced.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Pictures that are drawn together, of those with one instruction. If absent as many as are
    /// worth it. The pictures do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) batch: Option<u32>,
}
