//! The command line: verbs and the flags that say where and how, never what.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::device::DeviceChoice;

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
    /// Count what a finished adapter changed.
    Census(RunArguments),
    /// Write the report of a census again.
    Report(RunArguments),
    /// Train, census and report.
    Run(TrainArguments),
    /// Draw pictures with a base and any adapters.
    Generate(Box<GenerateArguments>),
    /// Say what is in a file of tensors, a base or a run directory; verifies its hashes.
    Inspect(InspectArguments),
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
            | Self::Generate(_) => true,
            Self::Validate(_)
            | Self::Plan(_)
            | Self::Report(_)
            | Self::Inspect(_)
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

/// A picture to draw.
#[derive(Debug, Clone, Args)]
pub(crate) struct GenerateArguments {
    /// Folder of the base in the layout of diffusers; the embedded base if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// What to draw; the empty prompt asks for nothing in particular.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) prompt: String,
    /// What not to draw.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) negative: String,
    /// Denoising steps, at most 1000.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: u32,
    /// Guidance weight; 1 is without guidance. 3 for the embedded base if absent, else 7.5.
    #[arg(long, value_name = "W")]
    pub(crate) guidance: Option<f64>,
    /// Algorithm that leads from noise to the picture.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = SamplerName::Ddim)]
    pub(crate) sampler: SamplerName,
    /// Seed of the first picture.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Pictures, with seeds from --seed on; several are laid out as one sheet.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) count: u32,
    /// Size in pixels, such as 64x64; the base's own if absent.
    #[arg(long, value_name = "WxH")]
    pub(crate) size: Option<Size>,
    /// An adapter file, with the dose after a colon (1 if absent); repeatable.
    #[arg(long = "adapter", value_name = "FILE[:DOSE]")]
    pub(crate) adapters: Vec<DosedAdapter>,
    /// Start from the tensor `latents` of this file (unit normal, before any scaling by the
    /// sampler) instead of the seed's noise.
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) init_latents: Option<PathBuf>,
    /// The PNG file to write.
    #[arg(long, value_name = "FILE.png")]
    pub(crate) out: PathBuf,
}

/// Samplers by the names that other programs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SamplerName {
    /// Deterministic DDIM.
    Ddim,
    /// DDIM with the full step noise (eta 1).
    DdimEta1,
    /// Ancestral sampling with the small variance.
    Ddpm,
    /// Euler.
    Euler,
    /// Euler with step noise.
    EulerA,
    /// DPM-Solver++ 2M.
    #[value(name = "dpmpp-2m")]
    DpmPp2M,
    /// DPM-Solver++ 2M on Karras' noise levels.
    #[value(name = "dpmpp-2m-karras")]
    DpmPp2MKarras,
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Width in pixels.
    pub(crate) width_px: usize,
    /// Height in pixels.
    pub(crate) height_px: usize,
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let side = |text: &str| text.parse().ok().filter(|side| (1..=16_384).contains(side));
        let sides = text.split_once('x').map(|(width, height)| (side(width), side(height)));
        match sides {
            Some((Some(width_px), Some(height_px))) => Ok(Self { width_px, height_px }),
            _ => Err("expected WIDTHxHEIGHT in pixels, such as 64x64".to_owned()),
        }
    }
}

/// An adapter file and its dose.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DosedAdapter {
    /// The file.
    pub(crate) path: PathBuf,
    /// Multiplier; 0 is the base, 1 the adapter as fitted.
    pub(crate) dose: f64,
}

impl std::str::FromStr for DosedAdapter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Only a number behind the last colon is a dose: `C:\adapter` and `a:b` are names.
        let dosed = text.rsplit_once(':').and_then(|(path, dose)| Some((path, dose.parse().ok()?)));
        let (path, dose): (&str, f64) = dosed.unwrap_or((text, 1.0));
        if path.is_empty() || !dose.is_finite() {
            return Err("expected FILE or FILE:DOSE with a finite number".to_owned());
        }
        Ok(Self { path: PathBuf::from(path), dose })
    }
}

/// Something to look into.
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectArguments {
    /// A safetensors file, the folder of a base or of a component, or a run directory.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) path: PathBuf,
    /// List what the header of an adapter file gives away.
    #[arg(long)]
    pub(crate) privacy: bool,
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
    fn only_a_number_behind_the_last_colon_is_a_dose() {
        let parse = |text: &str| text.parse::<DosedAdapter>().map(|a| (a.path, a.dose));
        assert_eq!(parse("a.safetensors"), Ok((PathBuf::from("a.safetensors"), 1.0)));
        assert_eq!(parse("a.safetensors:0.5"), Ok((PathBuf::from("a.safetensors"), 0.5)));
        assert_eq!(parse("a:b"), Ok((PathBuf::from("a:b"), 1.0)));
        assert_eq!(parse("a:-1"), Ok((PathBuf::from("a"), -1.0)));
        assert!(parse(":1").is_err() && parse("a:inf").is_err());
    }

    #[test]
    fn sizes_are_width_times_height() {
        let size = "48x32".parse::<Size>().map(|size| (size.width_px, size.height_px));
        assert_eq!(size, Ok((48, 32)));
        for wrong in ["48", "48x", "0x8", "axb", "99999x8"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
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
