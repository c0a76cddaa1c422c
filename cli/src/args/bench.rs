//! The arguments of `populate bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::PrecisionName;

/// What to time.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArguments {
    /// The work.
    #[command(subcommand)]
    pub(crate) work: BenchWork,
}

/// Works that can be timed.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BenchWork {
    /// Training steps of an adapter on a UNet: forward, loss, backward, clip, AdamW.
    Step(StepArguments),
    /// Forward passes of a UNet, as in sampling.
    Forward(DenoiserArguments),
    /// Pictures from latents.
    Decode(AutoencoderArguments),
    /// Latents from pictures.
    Encode(AutoencoderArguments),
    /// States of captions.
    Text(TextArguments),
}

/// How often.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct RepeatArguments {
    /// Rounds that are timed, one by one.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    /// Rounds before them that are not.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) warmup: u32,
    /// Pictures or captions of a round.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
}

/// A UNet and the size of its inputs.
#[derive(Debug, Clone, Args)]
pub(crate) struct DenoiserArguments {
    /// Folder of a UNet in the layout of diffusers, or the folder that holds it as `unet`.
    #[arg(long, value_name = "DIR")]
    pub(crate) unet: PathBuf,
    /// Height and width of the latents; the configuration's if absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) latent: Option<u32>,
    /// Tokens of a text.
    #[arg(long, value_name = "N", default_value_t = 77, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) tokens: u32,
    /// Type in which the UNet computes.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = PrecisionName::F32)]
    pub(crate) dtype: PrecisionName,
    /// How often, and how many at once.
    #[command(flatten)]
    pub(crate) repeat: RepeatArguments,
}

/// A UNet with an adapter.
#[derive(Debug, Clone, Args)]
pub(crate) struct StepArguments {
    /// The UNet.
    #[command(flatten)]
    pub(crate) denoiser: DenoiserArguments,
    /// Rank of the adapter.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) rank: u32,
    /// Layers that carry one, by the end of their names.
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "to_q,to_k,to_v,to_out.0"
    )]
    pub(crate) targets: Vec<String>,
    /// Compute activations again in the backward pass instead of keeping them.
    #[arg(long)]
    pub(crate) activation_recompute: bool,
}

/// An autoencoder and the size of its latents.
#[derive(Debug, Clone, Args)]
pub(crate) struct AutoencoderArguments {
    /// Folder of a VAE in the layout of diffusers, or the folder that holds it as `vae`.
    #[arg(long, value_name = "DIR")]
    pub(crate) vae: PathBuf,
    /// Height and width of the latents; pictures are larger by the VAE's factor.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) latent: u32,
    /// How often, and how many at once.
    #[command(flatten)]
    pub(crate) repeat: RepeatArguments,
}

/// A text encoder.
#[derive(Debug, Clone, Args)]
pub(crate) struct TextArguments {
    /// Folder of a text encoder in the layout of transformers, or the folder that holds it as
    /// `text_encoder`.
    #[arg(long, value_name = "DIR")]
    pub(crate) text_encoder: PathBuf,
    /// How often, and how many at once.
    #[command(flatten)]
    pub(crate) repeat: RepeatArguments,
}
