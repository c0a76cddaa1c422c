//! `vae/config.json`.

use serde_json::{Value, json};

use crate::config::Fields;
use crate::error::ModelError;

/// Shape of a [`super::AutoencoderKL`].
///
/// Source: diffusers `AutoencoderKL.__init__` and its registered defaults.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "three independent switches of the file")]
pub struct VaeConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Channels per level, from full resolution down.
    pub block_out_channels: Vec<usize>,
    /// Resnets per level of the encoder; one more in the decoder.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of every group norm.
    pub norm_groups: usize,
    /// Factor between the latents of the VAE and those of the UNet.
    pub scaling_factor: f64,
    /// Whether the encoder ends in a 1×1 convolution.
    pub quant_conv: bool,
    /// Whether the decoder begins with a 1×1 convolution.
    pub post_quant_conv: bool,
    /// Whether the middle blocks attend.
    pub mid_attention: bool,
}

impl VaeConfig {
    /// Reads a parsed `config.json`; `file` names it in messages.
    ///
    /// # Errors
    ///
    /// An unknown or unsupported field or value.
    pub fn from_json(file: &str, value: &Value) -> Result<Self, ModelError> {
        let mut fields = Fields::new(file, value)?;
        let block_out_channels = fields.widths("block_out_channels", &[64])?;
        let n_levels = block_out_channels.len();
        let (down, up) = (vec!["DownEncoderBlock2D"; n_levels], vec!["UpDecoderBlock2D"; n_levels]);
        fields.only("down_block_types", &[json!(down)])?;
        fields.only("up_block_types", &[json!(up)])?;
        fields.not_null("norm_num_groups", "a positive integer")?;
        fields.only("act_fn", &[json!("silu"), json!("swish")])?;
        for field in ["shift_factor", "latents_mean", "latents_std"] {
            fields.only(field, &[])?;
        }
        // The VAE always runs in f32 here, which is what `force_upcast` asks for.
        fields.ignore(&["force_upcast", "sample_size"]);
        let config = Self {
            in_channels: fields.usize("in_channels", 3)?,
            out_channels: fields.usize("out_channels", 3)?,
            layers_per_block: fields.usize("layers_per_block", 1)?,
            latent_channels: fields.usize("latent_channels", 4)?,
            norm_groups: fields.usize("norm_num_groups", 32)?,
            scaling_factor: fields.f64("scaling_factor", 0.18215)?,
            quant_conv: fields.switch("use_quant_conv")?.unwrap_or(true),
            post_quant_conv: fields.switch("use_post_quant_conv")?.unwrap_or(true),
            mid_attention: fields.switch("mid_block_add_attention")?.unwrap_or(true),
            block_out_channels,
        };
        if let Some(width) = config
            .block_out_channels
            .iter()
            .find(|&&width| !width.is_multiple_of(config.norm_groups))
        {
            return Err(fields.error(
                "norm_num_groups",
                config.norm_groups,
                &format!("a divisor of {width} channels"),
            ));
        }
        fields.finish()?;
        Ok(config)
    }

    /// Pixels per latent along a side.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}
