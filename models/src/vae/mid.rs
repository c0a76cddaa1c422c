//! The middle of encoder and decoder.

use burn::tensor::Tensor;

use super::VaeConfig;
use crate::layer::{Bias, GroupNorm};
use crate::source::Builder;
use crate::unet::{Attention, ResnetBlock2D, ResnetStyle, map_from_positions, positions_from_map};
use crate::visit::network;

/// ε of every group norm of a VAE; a constant in diffusers.
pub(super) const NORM_EPS: f64 = 1e-6;

pub(super) fn resnet_style(config: &VaeConfig) -> ResnetStyle {
    ResnetStyle { groups: config.norm_groups, eps: NORM_EPS, time_width: None }
}

/// One-headed attention over positions on a normalised residual branch.
#[derive(Clone, Debug)]
struct MidAttention {
    group_norm: GroupNorm,
    attention: Attention,
}
network!(MidAttention { group_norm: "group_norm", attention: "" });

/// Source: diffusers `UNetMidBlock2D`.
#[derive(Clone, Debug)]
pub(super) struct MidBlock {
    attentions: Vec<MidAttention>,
    resnets: Vec<ResnetBlock2D>,
}
network!(MidBlock { attentions: "attentions", resnets: "resnets" });

impl MidBlock {
    pub(super) fn new(builder: &Builder<'_>, config: &VaeConfig) -> Self {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let attention = |builder: &Builder<'_>| MidAttention {
            group_norm: GroupNorm::new(
                &builder.at("group_norm"),
                config.norm_groups,
                channels,
                NORM_EPS,
            ),
            attention: Attention::new(builder, [channels, channels], 1, Bias::With),
        };
        let attentions = config.mid_attention.then(|| attention(&builder.at("attentions.0")));
        Self {
            attentions: attentions.into_iter().collect(),
            resnets: (0..2)
                .map(|i| {
                    ResnetBlock2D::new(
                        &builder.at(format!("resnets.{i}")),
                        channels,
                        channels,
                        resnet_style(config),
                    )
                })
                .collect(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut hidden = self.resnets[0].forward(x, None);
        for mid in &self.attentions {
            let [_, _, height, width] = hidden.dims();
            let positions = positions_from_map(mid.group_norm.forward(hidden.clone()));
            let attended = mid.attention.forward(positions.clone(), positions);
            hidden = map_from_positions(attended, [height, width]) + hidden;
        }
        self.resnets[1].forward(hidden, None)
    }
}
