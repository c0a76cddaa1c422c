//! The arguments of `sham`.

use std::path::PathBuf;

use clap::Args;

use super::RecipeArguments;

/// A recipe whose sham is drawn.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShamArguments {
    /// The recipe.
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,
    /// The folder to write: `sham.yaml`, and the pictures with their captions in a folder of their own.
    /// It must be new, empty, or hold an earlier sham of this recipe, which is then gone on with.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
