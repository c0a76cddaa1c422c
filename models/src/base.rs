//! A whole base model: the networks of a diffusers folder on one device.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use checkpoints::folder::{ComponentFiles, ModelFolder};
use checkpoints::{CheckpointError, HostTensor, Weights};

use crate::clip::{CLIPTextModel, ClipTextConfig, TextProjection};
use crate::error::ModelError;
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
    if unet.config().cross_attention_dim != text_encoder.config().tower.hidden_size {
        return Err(ModelError::Config {
            file: "unet/config.json".to_owned(),
            field: "cross_attention_dim".to_owned(),
            found: format!("`{}`", unet.config().cross_attention_dim),
            expected: format!(
                "{}, the width of the text encoder",
                text_encoder.config().tower.hidden_size
            ),
        });
    }
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
    let projected = files.weights.info("text_projection.weight").is_some();
    let projection = if projected { TextProjection::With } else { TextProjection::Without };
    let text_encoder = CLIPTextModel::new(&builder, &config, projection);
    builder.finish(|name| name.ends_with("position_ids"))?;
    Ok(text_encoder)
}

impl Base {
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
