//! The components of a base before any weight is read: what each one is, and whether they fit.

use checkpoints::ModelFiles;
use checkpoints::folder::ComponentFiles;

use crate::clip::{ClipTextConfig, TextProjection};
use crate::error::ModelError;
use crate::tokenizer::ClipTokenizer;
use crate::unet::{TextTime, UNetConfig};
use crate::vae::VaeConfig;

/// The text encoders, in the order in which their states are joined.
pub(crate) const TEXT_ENCODERS: [&str; 2] = ["text_encoder", "text_encoder_2"];
/// The tokenizer of each.
pub(crate) const TOKENIZERS: [&str; 2] = ["tokenizer", "tokenizer_2"];
/// Numbers that tell SDXL the sizes of a picture.
pub(crate) const N_SIZES: usize = 6;

/// Files and shape of one component.
#[derive(Debug)]
pub(crate) struct Part<C> {
    pub(crate) files: ComponentFiles,
    pub(crate) config: C,
}

/// Shape of a text encoder.
#[derive(Clone, Debug)]
pub(crate) struct TextShape {
    pub(crate) clip: ClipTextConfig,
    pub(crate) projection: TextProjection,
}

/// All components with weights of one base.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) unet: Part<UNetConfig>,
    pub(crate) vae: Part<VaeConfig>,
    pub(crate) text: Part<TextShape>,
    /// The second text encoder of SDXL.
    pub(crate) text_2: Option<Part<TextShape>>,
}

impl Parts {
    /// Opens the components and reads their configurations.
    pub(crate) fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        let second = files.components().iter().any(|name| name == TEXT_ENCODERS[1]);
        let text = |name: &str| part(files, name, text_shape);
        Ok(Self {
            unet: part(files, "unet", unet_config)?,
            vae: part(files, "vae", vae_config)?,
            text: text(TEXT_ENCODERS[0])?,
            text_2: second.then(|| text(TEXT_ENCODERS[1])).transpose()?,
        })
    }

    /// Refuses components that do not fit each other: nothing else would notice.
    pub(crate) fn check(
        &self,
        tokenizer: &ClipTokenizer,
        tokenizer_2: Option<&ClipTokenizer>,
    ) -> Result<(), ModelError> {
        self.check_channels()?;
        self.check_texts()?;
        check_vocabulary(&self.text, tokenizer)?;
        if let (Some(part), Some(second)) = (&self.text_2, tokenizer_2) {
            check_vocabulary(part, second)?;
            let length = (tokenizer.max_length(), "the tokens that the first text encoder reads");
            equal(&part.files, "max_position_embeddings", second.max_length(), length)?;
        }
        Ok(())
    }

    fn check_channels(&self) -> Result<(), ModelError> {
        let (unet, vae) = (&self.unet.config, &self.vae.config);
        let latents = (vae.latent_channels, "the latent channels of the VAE");
        for (field, found) in
            [("in_channels", unet.in_channels), ("out_channels", unet.out_channels)]
        {
            equal(&self.unet.files, field, found, latents)?;
        }
        for (field, found) in [("in_channels", vae.in_channels), ("out_channels", vae.out_channels)]
        {
            equal(&self.vae.files, field, found, (3, "red, green and blue"))?;
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), ModelError> {
        let unet = &self.unet;
        match (unet.config.text_time, &self.text_2) {
            (None, None) => {
                let width = (self.text.width(), "the width of the text encoder");
                equal(&unet.files, "cross_attention_dim", unet.config.cross_attention_dim, width)
            }
            (Some(text_time), Some(second)) => self.check_pair(text_time, second),
            (Some(_), None) => Err(config_error(
                &unet.files,
                "addition_embed_type",
                "`text_time` in a base without `text_encoder_2`",
                "both text encoders of SDXL beside it",
            )),
            (None, Some(_)) => Err(config_error(
                &unet.files,
                "addition_embed_type",
                "absent in a base with `text_encoder_2`",
                "`text_time`, which reads the second text encoder",
            )),
        }
    }

    /// The text encoders of SDXL.
    fn check_pair(&self, text_time: TextTime, second: &Part<TextShape>) -> Result<(), ModelError> {
        if second.config.projection == TextProjection::Without {
            return Err(config_error(
                &second.files,
                "architectures",
                "`CLIPTextModel`",
                "CLIPTextModelWithProjection, whose projected text the UNet reads",
            ));
        }
        let unet = &self.unet;
        let width = (self.text.width() + second.width(), "the widths of both text encoders");
        equal(&unet.files, "cross_attention_dim", unet.config.cross_attention_dim, width)?;
        let added = second.config.clip.tower.projection_dim + N_SIZES * text_time.time_width;
        equal(
            &unet.files,
            "projection_class_embeddings_input_dim",
            text_time.input_width,
            (added, "the projected text and six sizes of `addition_time_embed_dim` values"),
        )
    }
}

impl Part<TextShape> {
    fn width(&self) -> usize {
        self.config.clip.tower.hidden_size
    }
}

/// Refuses a tokenizer with tokens that the text encoder does not know.
fn check_vocabulary(part: &Part<TextShape>, tokenizer: &ClipTokenizer) -> Result<(), ModelError> {
    let (found, n_tokens) = (part.config.clip.vocab_size, tokenizer.n_tokens());
    if n_tokens <= found {
        return Ok(());
    }
    let expected = format!("at least {n_tokens}, the tokens of the tokenizer");
    Err(config_error(&part.files, "vocab_size", &format!("`{found}`"), &expected))
}

fn part<C>(
    files: &ModelFiles,
    name: &str,
    config: fn(&ComponentFiles) -> Result<C, ModelError>,
) -> Result<Part<C>, ModelError> {
    let files = files.component(name)?;
    let config = config(&files)?;
    Ok(Part { files, config })
}

/// Refuses the configuration of another class of network.
fn check_class(files: &ComponentFiles, expected: &str) -> Result<(), ModelError> {
    match files.config.get("_class_name") {
        None => Ok(()),
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(config_error(files, "_class_name", &format!("`{found}`"), expected)),
    }
}

/// The configuration of a UNet.
pub(crate) fn unet_config(files: &ComponentFiles) -> Result<UNetConfig, ModelError> {
    check_class(files, "UNet2DConditionModel")?;
    UNetConfig::from_json(&label(files), &files.config)
}

/// The configuration of a VAE.
pub(crate) fn vae_config(files: &ComponentFiles) -> Result<VaeConfig, ModelError> {
    check_class(files, "AutoencoderKL")?;
    VaeConfig::from_json(&label(files), &files.config)
}

/// The configuration of a text encoder.
pub(crate) fn text_shape(files: &ComponentFiles) -> Result<TextShape, ModelError> {
    let clip = ClipTextConfig::from_json(&label(files), &files.config)?;
    Ok(TextShape { clip, projection: projection_of(files)? })
}

/// Whether the configuration of a text encoder names the architecture with a projection; one that
/// names none has what its file has.
fn projection_of(files: &ComponentFiles) -> Result<TextProjection, ModelError> {
    let of = |projected| if projected { TextProjection::With } else { TextProjection::Without };
    let named = files.config.get("architectures").filter(|value| !value.is_null());
    let Some(named) = named else {
        return Ok(of(files.weights.info("text_projection.weight").is_some()));
    };
    let only =
        named.as_array().filter(|names| names.len() == 1).and_then(|names| names[0].as_str());
    match only {
        Some("CLIPTextModel") => Ok(of(false)),
        Some("CLIPTextModelWithProjection") => Ok(of(true)),
        _ => Err(config_error(
            files,
            "architectures",
            &format!("`{named}`"),
            "one of CLIPTextModel and CLIPTextModelWithProjection",
        )),
    }
}

fn equal(
    files: &ComponentFiles,
    field: &str,
    found: usize,
    (expected, what): (usize, &str),
) -> Result<(), ModelError> {
    if found == expected {
        return Ok(());
    }
    Err(config_error(files, field, &format!("`{found}`"), &format!("{expected}, {what}")))
}

fn config_error(files: &ComponentFiles, field: &str, found: &str, expected: &str) -> ModelError {
    ModelError::Config {
        file: label(files),
        field: field.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}

/// How messages name a configuration.
fn label(files: &ComponentFiles) -> String {
    files.config_path.display().to_string()
}
