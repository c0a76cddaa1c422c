//! Pixels to moments.

use burn::tensor::{Device, Tensor};

use super::VaeConfig;
use super::mid::{MidBlock, NORM_EPS, resnet_style};
use crate::layer::{Conv2d, GroupNorm, Window};
use crate::source::Builder;
use crate::unet::{Downsample2D, ResnetBlock2D};
use crate::visit::network;

/// Source: diffusers `DownEncoderBlock2D`.
#[derive(Clone, Debug)]
struct DownEncoderBlock {
    resnets: Vec<ResnetBlock2D>,
    downsamplers: Vec<Downsample2D>,
}
network!(DownEncoderBlock { resnets: "resnets", downsamplers: "downsamplers" });

/// Source: diffusers `Encoder`; the result holds means, then log-variances.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownEncoderBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
network!(Encoder {
    conv_in: "conv_in",
    down_blocks: "down_blocks",
    mid_block: "mid_block",
    conv_norm_out: "conv_norm_out",
    conv_out: "conv_out",
});

impl Encoder {
    pub(super) fn new(builder: &Builder<'_>, config: &VaeConfig) -> Self {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        let block = |index: usize| {
            let builder = builder.at(format!("down_blocks.{index}"));
            let n_in =
                |layer| if layer == 0 { widths[index.saturating_sub(1)] } else { widths[index] };
            let resnet = |layer| {
                let builder = builder.at(format!("resnets.{layer}"));
                ResnetBlock2D::new(&builder, n_in(layer), widths[index], resnet_style(config))
            };
            DownEncoderBlock {
                resnets: (0..config.layers_per_block).map(resnet).collect(),
                downsamplers: (index < last)
                    .then(|| Downsample2D::asymmetric(&builder.at("downsamplers.0"), widths[index]))
                    .into_iter()
                    .collect(),
            }
        };
        Self {
            conv_in: Conv2d::new(
                &builder.at("conv_in"),
                config.in_channels,
                widths[0],
                Window::THREE,
            ),
            down_blocks: (0..=last).map(block).collect(),
            mid_block: MidBlock::new(&builder.at("mid_block"), config),
            conv_norm_out: GroupNorm::new(
                &builder.at("conv_norm_out"),
                config.norm_groups,
                widths[last],
                NORM_EPS,
            ),
            conv_out: Conv2d::new(
                &builder.at("conv_out"),
                widths[last],
                2 * config.latent_channels,
                Window::THREE,
            ),
        }
    }

    pub(super) fn device(&self) -> Device {
        self.conv_in.weight.device()
    }

    pub(super) fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let mut hidden = self.conv_in.forward(pixels);
        for block in &self.down_blocks {
            for resnet in &block.resnets {
                hidden = resnet.forward(hidden, None);
            }
            for downsampler in &block.downsamplers {
                hidden = downsampler.forward(hidden);
            }
        }
        let hidden = self.mid_block.forward(hidden);
        self.conv_out.forward(self.conv_norm_out.forward_silu(hidden))
    }
}
