//! Latents to pixels.

use burn::tensor::Tensor;

use super::VaeConfig;
use super::mid::{MidBlock, NORM_EPS, resnet_style};
use crate::layer::{Conv2d, GroupNorm, Window};
use crate::source::Builder;
use crate::unet::{ResnetBlock2D, Upsample2D};
use crate::visit::network;

/// Source: diffusers `UpDecoderBlock2D`.
#[derive(Clone, Debug)]
struct UpDecoderBlock {
    resnets: Vec<ResnetBlock2D>,
    upsamplers: Vec<Upsample2D>,
}
network!(UpDecoderBlock { resnets: "resnets", upsamplers: "upsamplers" });

/// Source: diffusers `Decoder`.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpDecoderBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
network!(Decoder {
    conv_in: "conv_in",
    up_blocks: "up_blocks",
    mid_block: "mid_block",
    conv_norm_out: "conv_norm_out",
    conv_out: "conv_out",
});

impl Decoder {
    pub(super) fn new(builder: &Builder<'_>, config: &VaeConfig) -> Self {
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let last = widths.len() - 1;
        let block = |index: usize| {
            let builder = builder.at(format!("up_blocks.{index}"));
            let n_in =
                |layer| if layer == 0 { widths[index.saturating_sub(1)] } else { widths[index] };
            let resnet = |layer| {
                let builder = builder.at(format!("resnets.{layer}"));
                ResnetBlock2D::new(&builder, n_in(layer), widths[index], resnet_style(config))
            };
            UpDecoderBlock {
                resnets: (0..=config.layers_per_block).map(resnet).collect(),
                upsamplers: (index < last)
                    .then(|| Upsample2D::new(&builder.at("upsamplers.0"), widths[index]))
                    .into_iter()
                    .collect(),
            }
        };
        Self {
            conv_in: Conv2d::new(
                &builder.at("conv_in"),
                config.latent_channels,
                widths[0],
                Window::THREE,
            ),
            mid_block: MidBlock::new(&builder.at("mid_block"), config),
            up_blocks: (0..=last).map(block).collect(),
            conv_norm_out: GroupNorm::new(
                &builder.at("conv_norm_out"),
                config.norm_groups,
                widths[last],
                NORM_EPS,
            ),
            conv_out: Conv2d::new(
                &builder.at("conv_out"),
                widths[last],
                config.out_channels,
                Window::THREE,
            ),
        }
    }

    pub(super) fn forward(&self, latents: Tensor<4>) -> Tensor<4> {
        let mut hidden = self.mid_block.forward(self.conv_in.forward(latents));
        for block in &self.up_blocks {
            for resnet in &block.resnets {
                hidden = resnet.forward(hidden, None);
            }
            for upsampler in &block.upsamplers {
                hidden = upsampler.forward(hidden);
            }
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(hidden))
    }
}
