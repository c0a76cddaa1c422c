//! The base that draws, with its adapters, and the method that the arguments ask of it.

use checkpoints::{Family, ModelFiles, ModelOptions, Predicts, WhichWeights};
use diffusion::{DiffusionError, Sampler, SamplerKind, TimestepSpacing};
use eval::sample::scheduler_config;
use image::RgbImage;
use models::base::{Precision, load_with};
use models::{Base, ModelError, SizeConditions};
use recipes::{BasePrecision, BaseSpec, Spacing};

use super::order::{Order, leading_refused};
use crate::args::{
    BaseArguments, GenerateArguments, PrecisionName, PredictionName, SamplerName,
    SamplingArguments, Size, SizeArguments, SpacingName, Switch, VaeTiling, WeightsSetName,
};
use crate::device::ChosenDevice;
use crate::drawing::{Method, Tiles};
use crate::error::JobError;
use crate::stage;

/// Guidance where the user gives none: what the embedded base, SDXL and the others were made for.
const GUIDANCE: [f64; 3] = [3.0, 5.0, 7.5];
/// A picture to start from may have this many times the pixels of the base's own, if nobody names a
/// size: twice the side.
const LARGEST_UNASKED: usize = 4;

/// The base with its adapters.
#[derive(Debug)]
pub(super) struct Model {
    /// The networks, adapters attached.
    pub(super) base: Base,
    /// Where they come from.
    pub(super) files: ModelFiles,
    /// The adapters in the order of the command line.
    pub(super) adapters: Vec<Attached>,
}

/// An adapter in use.
#[derive(Debug)]
pub(super) struct Attached {
    /// Name of its file, without its ending.
    pub(super) name: String,
    /// Its dose.
    pub(super) dose: f64,
    /// sha256 of its tensors, 64 hex digits.
    pub(super) tensors_sha256: String,
}

impl Model {
    /// Opens and loads what the arguments name.
    ///
    /// # Errors
    ///
    /// Files that are missing or are no base; adapters of another family; a precision that the
    /// device lacks.
    pub(super) fn open(
        arguments: &GenerateArguments,
        device: &ChosenDevice,
    ) -> Result<Self, JobError> {
        let files = match &arguments.base.base {
            None => stage::base_files(&BaseSpec::Postcards)?,
            Some(source) => stage::open_weights(source, options(&arguments.base))?,
        };
        let precision = precision(arguments.base.precision, &files, device)?;
        let mut base = load_with(&files, &device.device, precision)?;
        base.clip_skip = clip_skip(arguments.base.clip_skip, &base)?;
        let mut adapters = Vec::new();
        for adapter in &arguments.pictures.adapters {
            let exchanged = stage::read_adapter(&adapter.path, &base)?;
            base = eval::sample::settled(&base, &exchanged.adapter, adapter.dose)?;
            let stem = adapter.path.file_stem().unwrap_or_default();
            adapters.push(Attached {
                name: stem.to_string_lossy().into_owned(),
                dose: adapter.dose,
                tensors_sha256: exchanged.tensors_sha256,
            });
        }
        Ok(Self { base, files, adapters })
    }

    /// How the pictures are drawn.
    ///
    /// # Errors
    ///
    /// A size that the base cannot draw, conditions that it does not know.
    pub(super) fn method(
        &self,
        arguments: &GenerateArguments,
        order: &Order,
    ) -> Result<Method, JobError> {
        let base = &self.base;
        let picture = order.picture.as_ref();
        let size_px = size_px(&arguments.size, base, picture.map(|picture| &picture.image))?;
        let sampling = &arguments.sampling;
        let sampler = sampler_kind(sampling);
        Ok(Method {
            sampler,
            spacing: spacing(sampling.spacing, sampler, base)?,
            steps: sampling.steps as usize,
            guidance_scale: sampling.guidance.unwrap_or_else(|| self.guidance_scale(arguments)),
            guidance_rescale: sampling.guidance_rescale,
            strength: picture.map_or(1.0, |picture| picture.strength),
            sizes: sizes(&arguments.size, base, size_px)?,
            latent_shape: base.latent_shape(size_px)?,
            tiles: match arguments.output.vae_tiling {
                VaeTiling::Auto => Tiles::Auto,
                VaeTiling::On => Tiles::Always,
                VaeTiling::Off => Tiles::Never,
            },
            batch: arguments.output.batch.map(|batch| batch as usize),
        })
    }

    /// The steps of a method. A number of them that the base's noise levels do not allow is a mistake
    /// of the command line, not of a file.
    ///
    /// # Errors
    ///
    /// [`JobError::Usage`] for such a number; a noise schedule that the files describe wrongly.
    pub(super) fn sampler(&self, method: &Method) -> Result<Sampler, JobError> {
        method.sampler(&self.base).map_err(|error| {
            let JobError::Diffusion(DiffusionError::StepCount { found, .. }) = &error else {
                return error;
            };
            // Only a single step can be too few.
            let better = if *found == 1 { "more" } else { "fewer" };
            let hint = format!("take {better} `--steps`, or `--spacing trailing`");
            JobError::Usage { message: error.to_string(), hint: Some(hint) }
        })
    }

    fn guidance_scale(&self, arguments: &GenerateArguments) -> f64 {
        let [embedded, sdxl, other] = GUIDANCE;
        if arguments.base.base.is_none() {
            embedded
        } else if self.base.family == Family::Sdxl {
            sdxl
        } else {
            other
        }
    }

    /// Refuses prompts that the text encoders do not read to their end: a mistake of the command
    /// line, not of a file.
    ///
    /// # Errors
    ///
    /// [`JobError::Usage`] with the first such prompt.
    pub(super) fn check_prompts(&self, order: &Order, negative: &str) -> Result<(), JobError> {
        let prompts = order.prompts.iter().map(String::as_str).chain([negative]);
        for prompt in prompts {
            match self.base.check_prompt(prompt) {
                Ok(()) => {}
                Err(error @ ModelError::PromptTooLong { .. }) => {
                    return Err(JobError::Usage { message: error.to_string(), hint: error.hint() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn options(arguments: &BaseArguments) -> ModelOptions {
    ModelOptions {
        variant: arguments.variant.clone(),
        vae: arguments.vae.clone(),
        which: match arguments.weights_set {
            None | Some(WeightsSetName::Plain) => WhichWeights::Plain,
            Some(WeightsSetName::Average) => WhichWeights::Average,
        },
        prediction: arguments.prediction.map(|prediction| match prediction {
            PredictionName::Epsilon => Predicts::Epsilon,
            PredictionName::V => Predicts::V,
            PredictionName::Sample => Predicts::Sample,
        }),
        zero_terminal_snr: arguments.zero_terminal_snr.map(|switch| switch == Switch::On),
        name: None,
    }
}

/// In which number format the UNet is computed.
fn precision(
    asked: Option<PrecisionName>,
    files: &ModelFiles,
    device: &ChosenDevice,
) -> Result<Precision, JobError> {
    let asked = match asked {
        // The miniature is f32 in recipes, too.
        None | Some(PrecisionName::Auto) if files.family() == Family::Postcards => {
            BasePrecision::F32
        }
        None => BasePrecision::Auto,
        Some(asked) => asked.asked(),
    };
    stage::precision_on(device, asked)
}

/// The layer of the text encoder that is read, if there is such a one.
fn clip_skip(asked: u32, base: &Base) -> Result<usize, JobError> {
    let n_layers = base.text_encoder.config().tower.num_hidden_layers;
    let asked = asked as usize;
    if asked > 1 && base.family == Family::Sdxl {
        return Err(JobError::usage(
            "`--clip-skip` has no meaning for Stable Diffusion XL, which reads the last layer but one \
             of both text encoders",
        ));
    }
    if asked > n_layers {
        return Err(JobError::usage(format!(
            "`--clip-skip` must be at most {n_layers}, the layers of the text encoder, found \
             `{asked}`"
        )));
    }
    Ok(asked)
}

fn sampler_kind(sampling: &SamplingArguments) -> SamplerKind {
    match sampling.sampler {
        SamplerName::Ddim => SamplerKind::Ddim { eta: sampling.eta.unwrap_or(0.0) },
        SamplerName::DdimEta1 => SamplerKind::Ddim { eta: 1.0 },
        SamplerName::Ddpm => SamplerKind::Ddpm,
        SamplerName::Euler => SamplerKind::Euler,
        SamplerName::EulerA => SamplerKind::EulerAncestral,
        SamplerName::DpmPp2M => SamplerKind::DpmPp2M { karras: false },
        SamplerName::DpmPp2MKarras => SamplerKind::DpmPp2M { karras: true },
    }
}

/// Which timesteps are visited: those that are asked for, else what the base's files and the sampler
/// amount to. Karras' noise levels leave nothing to choose.
fn spacing(
    asked: Option<SpacingName>,
    sampler: SamplerKind,
    base: &Base,
) -> Result<Option<Spacing>, JobError> {
    let asked = asked.map(|name| match name {
        SpacingName::Leading => Spacing::Leading,
        SpacingName::Trailing => Spacing::Trailing,
        SpacingName::Linspace => Spacing::Linspace,
    });
    let config = scheduler_config(&base.scheduler, sampler, asked)?;
    if config.zero_terminal_snr && asked == Some(Spacing::Leading) {
        return Err(leading_refused("for a base whose last noise level bears no signal"));
    }
    let visited = match config.timestep_spacing {
        TimestepSpacing::Leading => Spacing::Leading,
        TimestepSpacing::Trailing => Spacing::Trailing,
        TimestepSpacing::Linspace => Spacing::Linspace,
    };
    let is_free = !matches!(sampler, SamplerKind::DpmPp2M { karras: true });
    Ok(is_free.then_some(visited))
}

/// What SDXL is told about sizes; for others only the size itself.
fn sizes(
    arguments: &SizeArguments,
    base: &Base,
    size_px: [usize; 2],
) -> Result<SizeConditions, JobError> {
    let told = [
        ("--original-size", arguments.original_size.is_some()),
        ("--crop", arguments.crop.is_some()),
    ];
    if let Some((flag, _)) = told.iter().find(|(_, given)| *given)
        && base.family != Family::Sdxl
    {
        let found = base.family.title();
        return Err(JobError::usage(format!(
            "`{flag}` is a condition of Stable Diffusion XL, found {found}"
        )));
    }
    let whole = SizeConditions::whole(size_px);
    Ok(SizeConditions {
        original: arguments.original_size.map_or(whole.original, sides),
        crop: arguments.crop.map_or(whole.crop, |crop| [crop.top_px, crop.left_px]),
        ..whole
    })
}

const fn sides(size: Size) -> [usize; 2] {
    [size.height_px, size.width_px]
}

/// Height and width of the pictures.
fn size_px(
    arguments: &SizeArguments,
    base: &Base,
    picture: Option<&RgbImage>,
) -> Result<[usize; 2], JobError> {
    let multiple = base.vae.config().factor() * base.unet.config().side_multiple();
    let side_px = base.nominal_side_px();
    if let Some(size) = arguments.size {
        return asked_size(size, base.vae.config().factor());
    }
    if let Some(aspect) = arguments.aspect {
        return Ok(of_aspect(aspect.width_to_height, side_px, multiple));
    }
    let Some(picture) = picture else { return Ok([side_px; 2]) };
    let own = [picture.height() as usize, picture.width() as usize];
    let [height, width] = own.map(|side_px| side_px / multiple * multiple);
    if height == 0 || width == 0 {
        return Err(JobError::Usage {
            message: format!(
                "the picture of `--init-image` is {}x{} pixels, expected sides of at least \
                 {multiple}",
                own[1], own[0]
            ),
            hint: Some("name the size of the result with `--size`".to_owned()),
        });
    }
    if height * width > LARGEST_UNASKED * side_px * side_px {
        let ratio = f64::from(picture.width()) / f64::from(picture.height());
        let [height, width] = of_aspect(ratio, side_px, multiple);
        return Err(JobError::Usage {
            message: format!(
                "the picture of `--init-image` is {}x{} pixels, far more than the \
                 {side_px}x{side_px} that the base draws",
                own[1], own[0]
            ),
            hint: Some(format!("name the size of the result, such as `--size {width}x{height}`")),
        });
    }
    Ok([height, width])
}

/// The size that is asked for, if the VAE can make it.
fn asked_size(size: Size, factor: usize) -> Result<[usize; 2], JobError> {
    let nearest = |side_px: usize| ((side_px + factor / 2) / factor).max(1) * factor;
    let Size { width_px, height_px } = size;
    let [height, width] = sides(size).map(nearest);
    if [height, width] == sides(size) {
        return Ok(sides(size));
    }
    Err(JobError::Usage {
        message: format!(
            "`--size` must have sides that are multiples of {factor}, found `{width_px}x{height_px}`"
        ),
        hint: Some(format!("the nearest is `--size {width}x{height}`")),
    })
}

/// Height and width of about this ratio of width to height, of about as many pixels as a square of
/// `side_px`.
fn of_aspect(ratio: f64, side_px: usize, multiple: usize) -> [usize; 2] {
    let side = |share: f64| {
        let exact = side_px as f64 * share.sqrt() / multiple as f64;
        (exact.round() as usize).max(1) * multiple
    };
    [side(ratio.recip()), side(ratio)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_the_vae_cannot_make_is_refused_with_the_nearest() {
        let asked = |text: &str| asked_size(text.parse().unwrap(), 8);
        assert_eq!(asked("48x32").unwrap(), [32, 48]);
        let error = asked("500x701").unwrap_err();
        assert!(error.to_string().contains("multiples of 8, found `500x701`"), "{error}");
        assert_eq!(error.hint().unwrap(), "the nearest is `--size 504x704`");
        assert_eq!(asked("1x9").unwrap_err().hint().unwrap(), "the nearest is `--size 8x8`");
    }

    #[test]
    fn sizes_of_an_aspect_keep_the_number_of_pixels() {
        assert_eq!(of_aspect(1.0, 512, 64), [512, 512]);
        assert_eq!(of_aspect(1.5, 512, 64), [448, 640]);
        assert_eq!(of_aspect(16.0 / 9.0, 1024, 32), [768, 1376]);
        assert_eq!(of_aspect(1.0 / 10.0, 64, 64), [192, 64]);
    }
}
