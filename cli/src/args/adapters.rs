//! The arguments of the verbs that work on adapter files.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use recipes::WeightsSource;

use super::{DosedAdapter, PredictionName};

/// An adapter file to be written under other names.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConvertArguments {
    /// An adapter file of this or another program, or the folder of a PEFT adapter.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) adapter: PathBuf,
    /// Whose names to write.
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) to: FormName,
    /// The base it was made for, if that is none of the released families; only its configuration
    /// is read.
    #[arg(long, value_name = "DIR|FILE|hf:ORG/NAME[/FILE][@REV]")]
    pub(crate) base: Option<WeightsSource>,
    /// Type of the factors; alpha is always exact.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = DtypeName::AsStored)]
    pub(crate) dtype: DtypeName,
    /// The file to write; for peft a folder, which must not be there or be empty.
    #[arg(long, value_name = "FILE.safetensors|DIR")]
    pub(crate) out: PathBuf,
}

/// Adapters to be merged, into a base or with each other.
#[derive(Debug, Clone, Args)]
pub(crate) struct MergeArguments {
    /// The base whose weights take the adapters up. Without one the adapters become one adapter, by
    /// laying their ranks side by side: nothing is approximated.
    #[arg(long, value_name = "DIR|FILE|hf:ORG/NAME[/FILE][@REV]")]
    pub(crate) base: Option<WeightsSource>,
    /// The base that the adapters were made for, if that is none of the released families and they
    /// are only merged with each other; only its configuration is read.
    #[arg(long, value_name = "DIR|FILE|hf:ORG/NAME[/FILE][@REV]", conflicts_with = "base")]
    pub(crate) made_for: Option<WeightsSource>,
    /// What the base predicts, where a folder is written of a single file that does not say it.
    /// A file as --out has no place for it.
    #[arg(long, value_enum, value_name = "KIND", requires = "base")]
    pub(crate) prediction: Option<PredictionName>,
    /// An adapter file with its dose after a colon (1 if absent); repeatable.
    #[arg(long = "adapter", value_name = "FILE[:DOSE]", required = true)]
    pub(crate) adapters: Vec<DosedAdapter>,
    /// Reduce the merged adapter to this rank.
    #[arg(long, value_name = "N", conflicts_with = "base", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) rank: Option<u32>,
    /// Whose names the merged adapter gets; kohya if absent.
    #[arg(long, value_enum, value_name = "FORM", conflicts_with = "base")]
    pub(crate) to: Option<FormName>,
    /// Type of what is written: the factors, or the weights of UNet and text encoders. A VAE keeps
    /// its own.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = DtypeName::AsStored)]
    pub(crate) dtype: DtypeName,
    /// Of a base: a folder in the layout of diffusers, which must not be there or be empty; or, of a
    /// single file, such a file again. Of adapters alone: the file to write.
    #[arg(long, value_name = "DIR|FILE.safetensors")]
    pub(crate) out: PathBuf,
}

/// Two models whose difference becomes an adapter.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExtractArguments {
    /// The model from which the other one was made.
    #[arg(long, value_name = "DIR|FILE|hf:ORG/NAME[/FILE][@REV]")]
    pub(crate) base: WeightsSource,
    /// The other one, of the same layers.
    #[arg(long, value_name = "DIR|FILE|hf:ORG/NAME[/FILE][@REV]")]
    pub(crate) tuned: WeightsSource,
    /// Rank of linear layers and 1x1 convolutions, at most 512; less where a layer has less. The time
    /// that it takes grows with the rank.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) rank: u32,
    /// Rank of larger convolutions, at most 512; they are left out if this is absent and --targets
    /// does not name them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) conv_rank: Option<u32>,
    /// A set of layers (`attn`, `attn_ff`, `attn_ff_proj`, `attn_ff_proj_conv`) or a pattern over
    /// layer paths; repeatable. If absent `attn_ff_proj`, with --conv-rank `attn_ff_proj_conv`, and
    /// the layers of the text encoders.
    #[arg(long = "targets", value_name = "SET|PATTERN")]
    pub(crate) targets: Vec<String>,
    /// Whose names to write.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = FormName::Kohya)]
    pub(crate) to: FormName,
    /// Type of the factors.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = FactorDtype::F16)]
    pub(crate) dtype: FactorDtype,
    /// The file to write; for peft a folder, which must not be there or be empty.
    #[arg(long, value_name = "FILE.safetensors|DIR")]
    pub(crate) out: PathBuf,
}

/// An adapter file to be reduced.
#[derive(Debug, Clone, Args)]
pub(crate) struct ResizeArguments {
    /// An adapter file of this or another program, or the folder of a PEFT adapter.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) adapter: PathBuf,
    /// Ranks to keep of every module.
    #[arg(long, value_name = "N", required_unless_present = "energy", conflicts_with = "energy", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) rank: Option<u32>,
    /// Share of each module's energy to keep, with as few ranks as hold it: above 0, at most 1.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) energy: Option<f64>,
    /// The base it was made for, if that is none of the released families; only its configuration
    /// is read.
    #[arg(long, value_name = "DIR|FILE|hf:ORG/NAME[/FILE][@REV]")]
    pub(crate) base: Option<WeightsSource>,
    /// Whose names to write; those of the file if absent.
    #[arg(long, value_enum, value_name = "FORM", requires = "out")]
    pub(crate) to: Option<FormName>,
    /// Type of the factors; as-stored if absent.
    #[arg(long, value_enum, value_name = "TYPE", requires = "out")]
    pub(crate) dtype: Option<DtypeName>,
    /// The file to write; if absent the energies are printed and nothing is written.
    #[arg(long, value_name = "FILE.safetensors|DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Something to look into.
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectArguments {
    /// A safetensors file, the folder of a base, of a component or of a PEFT adapter, or a run
    /// directory.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) path: PathBuf,
    /// List what the header of an adapter file gives away.
    #[arg(long)]
    pub(crate) privacy: bool,
    /// How other programs read it.
    #[command(flatten)]
    pub(crate) readers: ReaderArguments,
}

/// How other programs read an adapter file.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReaderArguments {
    /// Say of an adapter file which of its keys ComfyUI, Forge, A1111 and diffusers know, and whether
    /// they apply it as it is meant.
    #[arg(long)]
    pub(crate) readers: bool,
    /// The base that they apply it to, if that is none of the released families; only its
    /// configuration is read.
    #[arg(long, value_name = "DIR|FILE|hf:ORG/NAME[/FILE][@REV]", requires = "readers")]
    pub(crate) base: Option<WeightsSource>,
}

/// Whose names an adapter file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormName {
    /// kohya's tools and the web interfaces.
    Kohya,
    /// diffusers.
    Diffusers,
    /// PEFT: a folder for the adapter of one network.
    Peft,
}

/// Types of numbers in a file that is made from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeName {
    /// That of the file it is made from.
    AsStored,
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
}

/// Types of numbers in a new adapter file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FactorDtype {
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Single precision.
    F32,
}

/// A share of a whole, above 0 and at most 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a share above 0 and at most 1, such as 0.95".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_above_nothing_and_at_most_all() {
        assert_eq!((share("0.95"), share("1")), (Ok(0.95), Ok(1.0)));
        for wrong in ["0", "-0.5", "1.01", "95 %", "nan", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
