//! The command line: verbs and the flags that say where and how, never what.

mod adapters;
mod bench;
mod census;
mod generate;
mod series;
mod sham;
mod thesaurus;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::device::DeviceChoice;
pub(crate) use adapters::*;
pub(crate) use bench::*;
pub(crate) use census::*;
pub(crate) use generate::*;
pub(crate) use series::*;
pub(crate) use sham::*;
pub(crate) use thesaurus::*;

/// Settles a concept in a diffusion model and counts who had to leave.
#[derive(Debug, Parser)]
#[command(
    name = "populate",
    bin_name = "populate",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    /// Flags of every verb.
    #[command(flatten)]
    pub(crate) place: Place,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that say where and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Folder that holds the run directories.
    #[arg(long, global = true, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, global = true, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Write JSON lines on standard output and nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Check a recipe and its pictures, a thesaurus or a panel, without loading a model.
    Validate(RecipeArguments),
    /// Print what a recipe will do and cost, before anything is run.
    Plan(RecipeArguments),
    /// Fit the adapter of a recipe; goes on where an earlier attempt stopped.
    Train(TrainArguments),
    /// Go on with a run, from its directory alone.
    Resume(ResumeArguments),
    /// Count what a finished adapter changed; of several adapters, compare them.
    Census(CensusArguments),
    /// Write the report of a census again.
    Report(ReportArguments),
    /// Train, census and report.
    Run(TrainArguments),
    /// Draw the pictures of a recipe with its base, and write the recipe that settles those instead: a null.
    Sham(ShamArguments),
    /// Draw pictures with a base and any adapters.
    Generate(Box<GenerateArguments>),
    /// Draw series of pictures from a file of instructions, and measure how they hold together.
    Series(SeriesArguments),
    /// Write an adapter file in the form of another program.
    Convert(ConvertArguments),
    /// Add adapters to a base's weights, or several adapters into one file.
    Merge(MergeArguments),
    /// Make an adapter of the difference between two models.
    Extract(ExtractArguments),
    /// Bring an adapter to another rank.
    Resize(ResizeArguments),
    /// Make a thesaurus of a published vocabulary.
    Thesaurus(ThesaurusArguments),
    /// Say what is in a file of tensors, a base or a run directory; verifies its hashes.
    Inspect(InspectArguments),
    /// Time a part of the work on given weights.
    Bench(BenchArguments),
    /// Check this machine: processor, GPU, sensors, storage, embedded base.
    Doctor(DoctorArguments),
    /// Print a JSON Schema.
    Schema(SchemaArguments),
    /// Print a completion script.
    Completions(CompletionsArguments),
}

impl Verb {
    /// Whether a request to stop is answered at the next boundary, with what was done kept.
    pub(crate) const fn stops_in_order(&self) -> bool {
        match self {
            Self::Train(_)
            | Self::Resume(_)
            | Self::Census(_)
            | Self::Run(_)
            | Self::Sham(_)
            | Self::Generate(_)
            | Self::Series(_) => true,
            Self::Validate(_)
            | Self::Plan(_)
            | Self::Report(_)
            | Self::Convert(_)
            | Self::Merge(_)
            | Self::Extract(_)
            | Self::Resize(_)
            | Self::Inspect(_)
            | Self::Thesaurus(_)
            | Self::Bench(_)
            | Self::Doctor(_)
            | Self::Schema(_)
            | Self::Completions(_) => false,
        }
    }
}

/// A recipe with overrides.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecipeArguments {
    /// The recipe, a YAML file.
    #[arg(value_name = "RECIPE")]
    pub(crate) recipe: PathBuf,
    /// Replace one value of the recipe, such as fit.steps=100; repeatable, and recorded.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(crate) sets: Vec<String>,
}

/// A recipe to be run.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrainArguments {
    /// The recipe.
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,
    /// What to do with an earlier attempt of the same run.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ResumeWhen::Auto)]
    pub(crate) resume: ResumeWhen,
    /// Name of the run directory, instead of the recipe's name and fingerprint.
    #[arg(long, value_name = "NAME")]
    pub(crate) run_id: Option<String>,
}

/// Whether to go on with an earlier attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResumeWhen {
    /// Go on if there is one, else begin.
    Auto,
    /// Refuse if there is one.
    Never,
    /// Refuse if there is none.
    Must,
}

/// A run directory to go on with.
#[derive(Debug, Clone, Args)]
pub(crate) struct ResumeArguments {
    /// The run directory.
    #[arg(value_name = "RUN_DIR")]
    pub(crate) run: PathBuf,
}

/// A run to look at.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArguments {
    /// The run directory, or the recipe whose run is meant.
    #[arg(value_name = "RUN_DIR|RECIPE")]
    pub(crate) run: PathBuf,
    /// Replace one value of the recipe, if one is given.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(crate) sets: Vec<String>,
}

/// A report to write again.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArguments {
    /// Whose.
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// Put all pictures into the pages themselves, at most 15 MB each.
    #[arg(long)]
    pub(crate) self_contained: bool,
}

/// What to check.
#[derive(Debug, Clone, Args)]
pub(crate) struct DoctorArguments {
    /// Measure the embedded base instead: minutes on a processor.
    #[arg(long, conflicts_with = "heartbeat")]
    pub(crate) base: bool,
    /// Measure the postcards base in this folder, not the embedded one.
    #[arg(long, value_name = "DIR", requires = "base")]
    pub(crate) folder: Option<PathBuf>,
    /// Write the measured figures into this Markdown file, between `<!-- figures -->` and
    /// `<!-- /figures -->`.
    #[arg(long, value_name = "FILE", requires = "base")]
    pub(crate) model_card: Option<PathBuf>,
    /// Check only that the run in this directory is alive.
    #[arg(long, value_name = "RUN_DIR")]
    pub(crate) heartbeat: Option<PathBuf>,
    /// Oldest sign of progress, in seconds, that counts as alive.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "heartbeat")]
    pub(crate) max_age: u64,
}

/// Which schema to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct SchemaArguments {
    /// Of which kind of file.
    #[arg(value_enum, default_value_t = SchemaOf::Recipe)]
    pub(crate) of: SchemaOf,
}

/// Files that have a JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// Recipes, for editors.
    Recipe,
    /// `census.json`.
    Census,
    /// `comparison.json`.
    Comparison,
    /// Files of series, for editors.
    Series,
}

/// Which shell to complete in.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_the_place_may_stand_behind_the_verb() {
        let parsed = Arguments::try_parse_from([
            "populate", "plan", "r.yaml", "--json", "--device", "cuda:1",
        ]);
        let place = parsed.map(|arguments| arguments.place);
        assert!(place.is_ok_and(|place| place.json && place.device == DeviceChoice::Cuda(1)));
    }
}
