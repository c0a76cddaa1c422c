//! The arguments of `generate`, and how their values are written.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use recipes::{BasePrecision, WeightsSource};

/// Longest side of a picture in pixels.
const MAX_SIDE_PX: usize = 16_384;
/// Most seeds of a list.
const MAX_SEEDS: usize = 4096;
/// Widest aspect; its inverse is the highest.
const MAX_ASPECT: f64 = 10.0;

/// Pictures to draw.
#[derive(Debug, Clone, Args)]
pub(crate) struct GenerateArguments {
    /// Which base draws.
    #[command(flatten)]
    pub(crate) base: BaseArguments,
    /// What is drawn, and how often.
    #[command(flatten)]
    pub(crate) pictures: PictureArguments,
    /// How noise becomes a picture.
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    /// How large.
    #[command(flatten)]
    pub(crate) size: SizeArguments,
    /// From where.
    #[command(flatten)]
    pub(crate) start: StartArguments,
    /// What is written.
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// Which base draws.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Base")]
pub(crate) struct BaseArguments {
    /// A folder in the layout of diffusers, a single .safetensors checkpoint, or a model of the
    /// Hugging Face hub; the embedded base if absent.
    #[arg(long, value_name = "DIR|FILE|hf:ORG/NAME[/FILE][@REV]")]
    pub(crate) base: Option<WeightsSource>,
    /// A VAE instead of the base's own: a .safetensors file or the folder of one.
    #[arg(long, value_name = "FILE|DIR", requires = "base")]
    pub(crate) vae: Option<PathBuf>,
    /// Variant of the weight files, such as fp16.
    #[arg(long, value_name = "NAME", requires = "base")]
    pub(crate) variant: Option<String>,
    /// Which weights, of a checkpoint that holds two sets; plain if absent.
    #[arg(long, value_enum, value_name = "SET", requires = "base")]
    pub(crate) weights_set: Option<WeightsSetName>,
    /// What the network predicts, where the files do not say it or say it wrongly.
    #[arg(long, value_enum, value_name = "KIND", requires = "base")]
    pub(crate) prediction: Option<PredictionName>,
    /// Whether the noise levels are rescaled so that nothing of the picture is left in the last
    /// one; as the files say if absent.
    #[arg(long, value_enum, value_name = "WHETHER", requires = "base")]
    pub(crate) zero_terminal_snr: Option<Switch>,
    /// Number format in which the UNet is computed: auto is bf16 on an NVIDIA card and f32 on the
    /// processor. auto if absent; the embedded base is always computed in f32.
    #[arg(long, value_enum, value_name = "FORMAT", requires = "base")]
    pub(crate) precision: Option<PrecisionName>,
    /// Layer of the text encoder that is read, from the end: 1 is the last, 2 the one before.
    /// Not for SDXL.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=12))]
    pub(crate) clip_skip: u32,
}

/// What is drawn, and how often.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pictures")]
pub(crate) struct PictureArguments {
    /// What to draw; if absent the empty prompt, which asks for nothing in particular. Repeatable:
    /// every prompt is drawn with every seed.
    #[arg(long = "prompt", value_name = "TEXT")]
    pub(crate) prompts: Vec<String>,
    /// A text file with one prompt on each line; empty lines are skipped.
    #[arg(long = "prompts", value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// What not to draw, for all prompts.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) negative: String,
    /// Seed of the first picture of each prompt.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Pictures of each prompt, with seeds from --seed on; 1 if absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) count: Option<u32>,
    /// The seeds themselves, such as 1,2,5-8.
    #[arg(long, value_name = "LIST", conflicts_with_all = ["seed", "count"])]
    pub(crate) seeds: Option<SeedList>,
    /// Nine pictures, with seeds from --seed on, laid out three by three, with several prompts a row
    /// of nine for each; in a folder they are written one by one, too.
    #[arg(long, conflicts_with_all = ["count", "seeds"])]
    pub(crate) grid: bool,
    /// An adapter file of this or another program, with the dose after a colon (1 if absent);
    /// repeatable, and their effects add up.
    #[arg(long = "adapter", value_name = "FILE[:DOSE]")]
    pub(crate) adapters: Vec<DosedAdapter>,
}

/// How noise becomes a picture.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArguments {
    /// Algorithm that leads from noise to the picture.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = SamplerName::Ddim)]
    pub(crate) sampler: SamplerName,
    /// Denoising steps, at most 1000.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: u32,
    /// Step noise of --sampler ddim: 0 draws none, 1 all of it; 0 if absent.
    #[arg(long, value_name = "ETA")]
    pub(crate) eta: Option<f64>,
    /// Which timesteps are visited; if absent as the base's files say, else as is usual for the
    /// sampler.
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) spacing: Option<SpacingName>,
    /// Guidance weight; 1 is without guidance. If absent 3 for the embedded base, 5 for SDXL, else
    /// 7.5.
    #[arg(long, value_name = "W")]
    pub(crate) guidance: Option<f64>,
    /// How far guidance is brought back to the contrast of a picture without it: 0 not at all, 1
    /// wholly. For bases that predict v at zero terminal SNR, 0.7 is usual.
    #[arg(long, value_name = "PHI", default_value_t = 0.0)]
    pub(crate) guidance_rescale: f64,
}

/// How large the pictures are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Size")]
pub(crate) struct SizeArguments {
    /// Size in pixels, such as 768x512. If absent the base's own; with --init-image that of the
    /// picture, rounded down to what the base can draw.
    #[arg(long, value_name = "WxH")]
    pub(crate) size: Option<Size>,
    /// The size of this aspect, such as 3:2, with as many pixels as the base's own, rounded to what
    /// the base can draw.
    #[arg(long, value_name = "W:H", conflicts_with = "size")]
    pub(crate) aspect: Option<Aspect>,
    /// Size that SDXL is told the picture had before it was cropped; the picture's own if absent.
    /// A small one asks for blurred pictures.
    #[arg(long, value_name = "WxH")]
    pub(crate) original_size: Option<Size>,
    /// Pixels that SDXL is told were cut off at the left and at the top; 0,0 if absent.
    #[arg(long, value_name = "LEFT,TOP")]
    pub(crate) crop: Option<Crop>,
}

/// From where the drawing starts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Start")]
pub(crate) struct StartArguments {
    /// Start from this picture (PNG, JPEG, WebP or BMP) instead of pure noise. It is resized until
    /// it covers the size, what sticks out is cut off on both sides alike, and transparent places
    /// become white.
    #[arg(long, value_name = "FILE")]
    pub(crate) init_image: Option<PathBuf>,
    /// How much of it is noised and drawn anew, above 0 and at most 1: this share of the steps is
    /// taken. 0.75 if absent.
    #[arg(long, value_name = "S", requires = "init_image")]
    pub(crate) strength: Option<f64>,
    /// Start from the noise in this file instead of the seed's: from its tensor `latents` (shape
    /// `[n, channels, height, width]`, unit normal before any scaling by the sampler), which makes
    /// n pictures of each prompt. It may also hold the noise of the steps that are taken, `noise`
    /// (shape `[steps, n, channels, height, width]`), and for --init-image that of the encoder's
    /// draw, `posterior` (as large as `latents`, or one for all): every sampler then repeats what
    /// another program drew. The noise of the last step may be missing: only DDIM with --eta adds
    /// it.
    #[arg(long, value_name = "FILE.safetensors", conflicts_with_all = ["count", "grid"])]
    pub(crate) init_latents: Option<PathBuf>,
}

/// What is written.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArguments {
    /// A PNG file, for one picture or for a sheet of all: a row for each prompt, a column for each
    /// seed, and one prompt in a square. Or a folder (it exists, or the path ends in `/`), where
    /// each picture becomes INDEX-SEED.png and replaces a file of that name.
    #[arg(long, value_name = "FILE.png|DIR/")]
    pub(crate) out: PathBuf,
    /// Show how the first picture came about: noised step by step, and denoised. A .png is a strip
    /// (rows: the noising; the denoising; what the network took for the picture at each of its
    /// steps), a .gif or a lossless .webp an animation; a folder gets all three. Only a .png tells
    /// how it was made.
    #[arg(long, value_name = "FILE|DIR/")]
    pub(crate) trajectory: Option<PathBuf>,
    /// At most this many pictures in a row of the trajectory.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=64), requires = "trajectory")]
    pub(crate) frames: u32,
    /// Write no text into the pictures: neither prompt nor settings.
    #[arg(long)]
    pub(crate) private: bool,
    /// Decode in overlapping tiles of 512 px, whose memory does not grow with the picture; each
    /// tile sees only itself, so that colors may drift a little. auto does so above 1024x1024
    /// pixels in all, where a whole picture would take more than 4 GiB. The picture of --init-image
    /// is always encoded whole.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = VaeTiling::Auto)]
    pub(crate) vae_tiling: VaeTiling,
    /// Pictures that are drawn together. If absent as many as are worth it: 8 small ones, fewer the
    /// larger they are. The pictures do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) batch: Option<u32>,
}

/// The sets of weights in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsSetName {
    /// Those of the last training step.
    Plain,
    /// Their moving average.
    Average,
}

/// What a network can predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PredictionName {
    /// The noise.
    Epsilon,
    /// The velocity.
    V,
    /// The picture.
    Sample,
}

/// Number formats in which a UNet can be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionName {
    /// bf16 on an NVIDIA card, f32 on the processor.
    Auto,
    /// Single precision.
    F32,
    /// bfloat16; slower than f32 on a processor.
    Bf16,
}

impl PrecisionName {
    /// As recipes say it.
    pub(crate) const fn asked(self) -> BasePrecision {
        match self {
            Self::Auto => BasePrecision::Auto,
            Self::F32 => BasePrecision::F32,
            Self::Bf16 => BasePrecision::Bf16,
        }
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Samplers by the names that other programs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SamplerName {
    /// DDIM; deterministic unless --eta says otherwise.
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

/// Spacings of the timesteps by the names that diffusers uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpacingName {
    /// Even, counted from the clean end.
    Leading,
    /// Even, counted from the noisy end, which is always visited.
    Trailing,
    /// Even between both ends.
    Linspace,
}

/// When the VAE works in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VaeTiling {
    /// Above a number of pixels.
    Auto,
    /// Whenever a side is longer than a tile.
    On,
    /// Never.
    Off,
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Width in pixels.
    pub(crate) width_px: usize,
    /// Height in pixels.
    pub(crate) height_px: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let side =
            |text: &str| text.parse::<usize>().ok().filter(|side| (1..=MAX_SIDE_PX).contains(side));
        let sides = text.split_once('x').map(|(width, height)| (side(width), side(height)));
        match sides {
            Some((Some(width_px), Some(height_px))) => Ok(Self { width_px, height_px }),
            _ => Err("expected WIDTHxHEIGHT in pixels, such as 64x64".to_owned()),
        }
    }
}

/// A share of width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Aspect {
    /// Width over height.
    pub(crate) width_to_height: f64,
}

impl FromStr for Aspect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let side = |text: &str| text.parse::<f64>().ok().filter(|side| *side > 0.0);
        let ratio = text
            .split_once(':')
            .and_then(|(width, height)| Some(side(width)? / side(height)?))
            .filter(|ratio| (MAX_ASPECT.recip()..=MAX_ASPECT).contains(ratio));
        ratio
            .map(|width_to_height| Self { width_to_height })
            .ok_or_else(|| "expected WIDTH:HEIGHT, such as 3:2, at most ten to one".to_owned())
    }
}

/// What was cut off from a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crop {
    /// Columns at the left.
    pub(crate) left_px: usize,
    /// Rows at the top.
    pub(crate) top_px: usize,
}

impl FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let side = |text: &str| text.parse::<usize>().ok().filter(|side| *side <= MAX_SIDE_PX);
        match text.split_once(',').map(|(left, top)| (side(left), side(top))) {
            Some((Some(left_px), Some(top_px))) => Ok(Self { left_px, top_px }),
            _ => Err("expected LEFT,TOP in pixels, such as 0,0".to_owned()),
        }
    }
}

/// Seeds in the order in which they were named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeedList(pub(crate) Vec<u64>);

impl FromStr for SeedList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || "expected seeds and ranges of them, such as 1,2,5-8".to_owned();
        let mut seeds: Vec<u64> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u64>().map_err(|_| expected());
            let (first, last) = (number(first)?, number(last)?);
            let room = MAX_SEEDS - seeds.len();
            let n_more = last.checked_sub(first).ok_or_else(expected)?;
            if usize::try_from(n_more).map_or(true, |n_more| n_more >= room) {
                return Err(format!("expected at most {MAX_SEEDS} seeds"));
            }
            seeds.extend(first..=last);
        }
        Ok(Self(seeds))
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

impl FromStr for DosedAdapter {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_precision_belongs_to_a_base_that_is_named() {
        use clap::Parser;

        let asked = |more: &[&str]| {
            let words = [&["populate", "generate", "--out", "x.png"][..], more].concat();
            let parsed = crate::args::Arguments::try_parse_from(words).ok()?;
            let crate::args::Verb::Generate(arguments) = parsed.verb else { panic!("{more:?}") };
            Some(arguments.base.precision)
        };
        assert_eq!(asked(&[]), Some(None));
        for (word, precision) in [
            ("auto", PrecisionName::Auto),
            ("f32", PrecisionName::F32),
            ("bf16", PrecisionName::Bf16),
        ] {
            let found = asked(&["--base", "dir", "--precision", word]);
            assert_eq!(found, Some(Some(precision)), "{word}");
        }
        assert_eq!(asked(&["--precision", "bf16"]), None, "the embedded base has no choice");
        assert_eq!(asked(&["--base", "dir", "--precision", "f16"]), None);
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
    fn crops_are_left_and_top() {
        assert_eq!("8,16".parse::<Crop>(), Ok(Crop { left_px: 8, top_px: 16 }));
        for wrong in ["8", "8x16", "-1,0", ","] {
            assert!(wrong.parse::<Crop>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn aspects_are_width_to_height() {
        assert_eq!("3:2".parse::<Aspect>(), Ok(Aspect { width_to_height: 1.5 }));
        assert_eq!("1:2".parse::<Aspect>(), Ok(Aspect { width_to_height: 0.5 }));
        for wrong in ["3", "3:0", "0:3", "a:b", "100:1", "inf:inf", "-3:-2"] {
            assert!(wrong.parse::<Aspect>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn seeds_are_listed_one_by_one_and_in_ranges() {
        let parse = |text: &str| text.parse::<SeedList>().map(|list| list.0);
        assert_eq!(parse("1,2,5-8"), Ok(vec![1, 2, 5, 6, 7, 8]));
        assert_eq!(parse("7"), Ok(vec![7]));
        assert_eq!(parse("3, 1"), Ok(vec![3, 1]));
        assert_eq!(parse("0-4095").map(|seeds| seeds.len()), Ok(4096));
        for wrong in ["", "1,", "8-5", "a", "0-4096", "1,0-4095", "0-18446744073709551615"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
