//! A whole base model: the networks of a diffusers folder on one device.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use checkpoints::folder::{ComponentFiles, ModelFolder};
use checkpoints::{CheckpointError, HostTensor, Weights};

use crate::clip::{CLIPTextModel, ClipTextConfig, TextProjection};
use crate::error::ModelError;
use crate::ops;
use crate::source::{Builder, TensorSource};
use crate::tokenizer::{ClipTokenizer, OverLength};
use crate::unet::{UNet2DConditionModel, UNetConfig};
use crate::vae::{AutoencoderKL, VaeConfig};

impl TensorSource for Weights {
    fn label(&self) -> String {
        self.path().display().to_string()
    }

    fn names(&self) -> Vec<String> {
        Self::names(self).map(str::to_owned).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.info(name).map(|info| info.shape.clone())
    }

    fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        Self::read(self, name)
    }
}

/// Network, autoencoder, text encoder and tokenizer of one base; cloning shares the tensors.
#[derive(Clone, Debug)]
pub struct Base {
    /// The denoiser, where adapters attach.
    pub unet: UNet2DConditionModel,
    /// The autoencoder.
    pub vae: AutoencoderKL,
    /// The text encoder.
    pub text_encoder: CLIPTextModel,
    /// Its tokenizer.
    pub tokenizer: ClipTokenizer,
    /// `scheduler/scheduler_config.json`, whose meaning belongs to `diffusion`.
    pub scheduler: serde_json::Value,
    /// SHA-256 of each component's weights, 64 hex digits.
    pub hashes: BTreeMap<String, String>,
    /// Where the tensors are.
    pub device: Device,
}

/// Loads the base of a diffusers folder.
///
/// # Errors
///
/// A missing file, an unsupported configuration, or tensors that are not those of the configuration.
pub fn load(folder: &ModelFolder, device: &Device) -> Result<Base, ModelError> {
    let unet = load_unet(&folder.component("unet")?, device)?;
    let vae = load_vae(&folder.component("vae")?, device)?;
    let text_encoder = load_text_encoder(&folder.component("text_encoder")?, device)?;
    let mut tokenizer = ClipTokenizer::load(&folder.dir("tokenizer"))?;
    tokenizer.limit(text_encoder.config().max_position_embeddings);
    check_parts(unet.config(), vae.config(), text_encoder.config(), &tokenizer)?;
    Ok(Base {
        unet,
        vae,
        text_encoder,
        tokenizer,
        scheduler: folder.json("scheduler/scheduler_config.json")?,
        hashes: folder.hashes()?,
        device: device.clone(),
    })
}

/// Refuses parts of a base that do not fit each other: nothing else would notice.
fn check_parts(
    unet: &UNetConfig,
    vae: &VaeConfig,
    text: &ClipTextConfig,
    tokenizer: &ClipTokenizer,
) -> Result<(), ModelError> {
    let equal = |file: &str, field: &str, found: usize, expected: usize, what: &str| {
        if found == expected {
            return Ok(());
        }
        Err(ModelError::Config {
            file: file.to_owned(),
            field: field.to_owned(),
            found: format!("`{found}`"),
            expected: format!("{expected}, {what}"),
        })
    };
    let latents = (vae.latent_channels, "the latent channels of the VAE");
    let width = (text.tower.hidden_size, "the width of the text encoder");
    let of_unet = [
        ("in_channels", unet.in_channels, latents),
        ("out_channels", unet.out_channels, latents),
        ("cross_attention_dim", unet.cross_attention_dim, width),
    ];
    for (field, found, (expected, what)) in of_unet {
        equal("unet/config.json", field, found, expected, what)?;
    }
    for (field, found) in [("in_channels", vae.in_channels), ("out_channels", vae.out_channels)] {
        equal("vae/config.json", field, found, 3, "red, green and blue")?;
    }
    if tokenizer.n_tokens() > text.vocab_size {
        return Err(ModelError::Config {
            file: "text_encoder/config.json".to_owned(),
            field: "vocab_size".to_owned(),
            found: format!("`{}`", text.vocab_size),
            expected: format!("at least {}, the tokens of the tokenizer", tokenizer.n_tokens()),
        });
    }
    Ok(())
}

/// Refuses the configuration of another class of network.
fn check_class(files: &ComponentFiles, expected: &str) -> Result<(), ModelError> {
    match files.config.get("_class_name") {
        None => Ok(()),
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(ModelError::Config {
            file: config_label(files),
            field: "_class_name".to_owned(),
            found: format!("`{found}`"),
            expected: expected.to_owned(),
        }),
    }
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
        _ => Err(ModelError::Config {
            file: config_label(files),
            field: "architectures".to_owned(),
            found: format!("`{named}`"),
            expected: "one of CLIPTextModel and CLIPTextModelWithProjection".to_owned(),
        }),
    }
}

fn config_label(files: &ComponentFiles) -> String {
    files.config_path.display().to_string()
}

/// Loads one `UNet2DConditionModel`.
///
/// # Errors
///
/// As [`load`].
pub fn load_unet(
    files: &ComponentFiles,
    device: &Device,
) -> Result<UNet2DConditionModel, ModelError> {
    check_class(files, "UNet2DConditionModel")?;
    let config = UNetConfig::from_json(&config_label(files), &files.config)?;
    let builder = Builder::from_source(&files.weights, device);
    let unet = UNet2DConditionModel::new(&builder, &config);
    builder.finish(|_| false)?;
    Ok(unet)
}

/// Loads one `AutoencoderKL`.
///
/// # Errors
///
/// As [`load`].
pub fn load_vae(files: &ComponentFiles, device: &Device) -> Result<AutoencoderKL, ModelError> {
    check_class(files, "AutoencoderKL")?;
    let config = VaeConfig::from_json(&config_label(files), &files.config)?;
    let builder = Builder::from_source(&files.weights, device);
    let vae = AutoencoderKL::new(&builder, &config);
    builder.finish(|_| false)?;
    Ok(vae)
}

/// Loads one `CLIPTextModel`, or one with projection if its configuration names that architecture.
///
/// # Errors
///
/// As [`load`].
pub fn load_text_encoder(
    files: &ComponentFiles,
    device: &Device,
) -> Result<CLIPTextModel, ModelError> {
    let config = ClipTextConfig::from_json(&config_label(files), &files.config)?;
    let builder = Builder::from_source(&files.weights, device);
    let text_encoder = CLIPTextModel::new(&builder, &config, projection_of(files)?);
    builder.finish(|name| name.ends_with("position_ids"))?;
    Ok(text_encoder)
}

impl Base {
    /// `cpu` or `gpu`: results of the two kinds of arithmetic differ in their last bits.
    pub fn device_kind(&self) -> &'static str {
        if ops::is_host(&self.device) { "cpu" } else { "gpu" }
    }

    /// Text states of prompts, after the final norm: `[batch, tokens, width]`.
    ///
    /// # Errors
    ///
    /// [`ModelError::PromptTooLong`] for a prompt that does not fit.
    pub fn text_states(&self, prompts: &[&str]) -> Result<Tensor<3>, ModelError> {
        let encode = |prompt: &&str| self.tokenizer.encode(prompt, OverLength::Error);
        let ids = prompts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        Ok(self.text_encoder.forward(&ids).last)
    }

    /// Shape of the latents of one picture: `[channels, height, width]`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Size`] for sides that VAE and UNet together cannot halve often enough.
    pub fn latent_shape(
        &self,
        [height_px, width_px]: [usize; 2],
    ) -> Result<[usize; 3], ModelError> {
        let factor = self.vae.config().factor();
        let multiple = factor * self.unet.config().side_multiple();
        if height_px == 0 || width_px == 0 || height_px % multiple != 0 || width_px % multiple != 0
        {
            return Err(ModelError::Size { found: [height_px, width_px], multiple });
        }
        Ok([self.vae.config().latent_channels, height_px / factor, width_px / factor])
    }

    /// Side of the pictures for which the base was trained, in pixels.
    pub fn nominal_side_px(&self) -> usize {
        let side = self.unet.config().sample_size.unwrap_or(64);
        side * self.vae.config().factor()
    }

    /// Noise level `t` for every row of a batch, `[batch]`.
    pub fn timesteps(&self, t: f64, batch: usize) -> Tensor<1> {
        timesteps(&vec![t; batch], &self.device)
    }
}

/// Noise levels as the UNet reads them, `[batch]` in f32.
pub fn timesteps(levels: &[f64], device: &Device) -> Tensor<1> {
    let values: Vec<f32> = levels.iter().map(|&level| level as f32).collect();
    let n_values = values.len();
    Tensor::from_data(TensorData::new(values, [n_values]), (device, DType::F32))
}

/// Host values as a device tensor in f32.
pub fn tensor_from_host<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// The values of a device tensor, row-major, in f32.
///
/// # Errors
///
/// [`ModelError::Device`] for a fault of this or an earlier operation on the device.
pub fn host_values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    let data = tensor.try_into_data().map_err(|error| ModelError::Device(error.to_string()))?;
    data.convert::<f32>()
        .try_to_vec::<f32>()
        .map_err(|error| ModelError::Device(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Loads the tiny base after one field of one of its files was changed; the error.
    fn changed(file: &str, field: &str, value: Value) -> String {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::flex();
        crate::tiny::write(dir.path(), 1, &device).unwrap();
        let path = dir.path().join(file);
        let mut config: Value = checkpoints::fs::read_json(&path).unwrap();
        config[field] = value;
        checkpoints::fs::atomic_write_json(&path, &config).unwrap();
        let loaded = ModelFolder::open(dir.path())
            .map_err(ModelError::from)
            .and_then(|folder| load(&folder, &device));
        loaded.expect_err(field).to_string()
    }

    #[test]
    fn parts_of_another_class_are_refused() {
        for (file, field, value) in [
            ("unet/config.json", "_class_name", json!("UNet3DConditionModel")),
            ("vae/config.json", "_class_name", json!("AutoencoderTiny")),
            ("text_encoder/config.json", "architectures", json!(["T5EncoderModel"])),
        ] {
            let message = changed(file, field, value);
            assert!(message.contains(&format!("field `{field}` is")), "{message}");
        }
    }

    #[test]
    fn a_projection_that_the_configuration_names_is_missed() {
        let message = changed(
            "text_encoder/config.json",
            "architectures",
            json!(["CLIPTextModelWithProjection"]),
        );
        assert!(message.contains("1 missing: text_projection.weight"), "{message}");
    }

    #[test]
    fn parts_that_do_not_fit_each_other_are_refused() {
        let parts = |unet: usize, latents: usize, vocabulary: usize| {
            let dir = tempfile::tempdir().unwrap();
            let base = crate::tiny::base(dir.path(), 1, &Device::flex()).unwrap();
            let mut unet_config = base.unet.config().clone();
            let mut vae_config = base.vae.config().clone();
            let mut text_config = base.text_encoder.config().clone();
            (unet_config.in_channels, vae_config.latent_channels) = (unet, latents);
            unet_config.out_channels = latents;
            text_config.vocab_size = vocabulary;
            check_parts(&unet_config, &vae_config, &text_config, &base.tokenizer)
        };
        parts(4, 4, 514).unwrap();
        let message = parts(9, 4, 514).unwrap_err().to_string();
        assert!(message.contains("field `in_channels` is `9`, expected 4"), "{message}");
        let message = parts(4, 4, 100).unwrap_err().to_string();
        assert!(message.contains("field `vocab_size` is `100`, expected at least"), "{message}");
    }
}
