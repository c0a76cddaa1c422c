//! The autoencoder between pixels and latents.

mod config;
mod decoder;
mod encoder;
mod mid;
mod tiling;

pub use config::VaeConfig;
pub use tiling::Tiling;

use burn::tensor::{Device, Tensor};
use decoder::Decoder;
use encoder::Encoder;

use crate::error::ModelError;
use crate::layer::{Conv2d, Window};
use crate::ops;
use crate::source::Builder;
use crate::visit::network;

/// A diagonal Gaussian over the VAE's own (unscaled) latents.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// `[batch, latent_channels, height, width]`.
    pub mean: Tensor<4>,
    /// Logarithm of the variance, clamped to [−30, 20]; as `mean`.
    pub log_variance: Tensor<4>,
}

impl Posterior {
    /// `mean + exp(log_variance / 2)·noise`, unscaled; `noise` is unit normal of the same shape.
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + self.log_variance.clone().mul_scalar(0.5).exp() * noise
    }
}

/// Encodes pictures into latents and back.
///
/// Source: diffusers `AutoencoderKL`, proved by the golden case `vae`.
#[derive(Clone, Debug)]
pub struct AutoencoderKL {
    config: VaeConfig,
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
}
network!(AutoencoderKL {
    encoder: "encoder",
    decoder: "decoder",
    quant_conv: "quant_conv",
    post_quant_conv: "post_quant_conv",
});

impl AutoencoderKL {
    /// Builds the network of `config` with the builder's tensors.
    pub fn new(builder: &Builder<'_>, config: &VaeConfig) -> Self {
        let moments = 2 * config.latent_channels;
        let latent = config.latent_channels;
        let quant = |name: &str, width| Conv2d::new(&builder.at(name), width, width, Window::ONE);
        Self {
            encoder: Encoder::new(&builder.at("encoder"), config),
            decoder: Decoder::new(&builder.at("decoder"), config),
            quant_conv: config.quant_conv.then(|| quant("quant_conv", moments)),
            post_quant_conv: config.post_quant_conv.then(|| quant("post_quant_conv", latent)),
            config: config.clone(),
        }
    }

    /// The shape of this network.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The posterior of pictures.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[batch, 3, height, width]` in [−1, 1]; sides must be multiples of
    ///   [`VaeConfig::factor`]
    /// - result: unscaled latents, `[batch, latent_channels, height / factor, width / factor]`
    ///
    /// # Errors
    ///
    /// [`ModelError::Size`] for sides that cannot be halved often enough.
    pub fn posterior_from_pixels(&self, pixels: Tensor<4>) -> Result<Posterior, ModelError> {
        let [_, _, height, width] = pixels.dims();
        let multiple = self.config.factor();
        if height == 0 || width == 0 || height % multiple != 0 || width % multiple != 0 {
            return Err(ModelError::Size { found: [height, width], multiple });
        }
        let moments = ops::on_threads(&self.device(), || {
            let moments = self.encoder.forward(pixels);
            match &self.quant_conv {
                Some(quant_conv) => quant_conv.forward(moments),
                None => moments,
            }
        });
        let parts = moments.chunk(2, 1);
        Ok(Posterior { mean: parts[0].clone(), log_variance: parts[1].clone().clamp(-30.0, 20.0) })
    }

    /// Pictures from scaled latents; `[batch, latent_channels, h, w]` to
    /// `[batch, 3, h·factor, w·factor]`, not clamped to [−1, 1].
    pub fn pixels_from_latents(&self, latents: Tensor<4>) -> Tensor<4> {
        self.pixels_from_unscaled(latents.div_scalar(self.config.scaling_factor))
    }

    /// Pictures from the VAE's own latents.
    pub fn pixels_from_unscaled(&self, unscaled: Tensor<4>) -> Tensor<4> {
        ops::on_threads(&self.device(), || match &self.post_quant_conv {
            Some(post_quant_conv) => self.decoder.forward(post_quant_conv.forward(unscaled)),
            None => self.decoder.forward(unscaled),
        })
    }

    /// Where the tensors are.
    pub fn device(&self) -> Device {
        self.encoder.device()
    }
}
