//! One level of the UNet on the way down, in the middle, and on the way up.

use burn::tensor::Tensor;

use super::attention::{Transformer2DModel, TransformerStyle};
use super::resnet::{Downsample2D, ResnetBlock2D, ResnetStyle, Upsample2D};
use crate::source::Builder;
use crate::visit::network;

/// What is given to every block of a forward pass.
pub(crate) struct Conditions<'a> {
    /// SiLU of the timestep embedding, `[batch, time_width]`.
    pub(crate) activated_time: &'a Tensor<2>,
    /// Text states, `[batch, tokens, width]`.
    pub(crate) context: &'a Tensor<3>,
}

/// Source: diffusers `CrossAttnDownBlock2D` and `DownBlock2D`.
#[derive(Clone, Debug)]
pub(crate) struct DownBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    downsamplers: Vec<Downsample2D>,
}
network!(DownBlock { attentions: "attentions", resnets: "resnets", downsamplers: "downsamplers" });

/// Place of a block: its channels and whether the resolution changes after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) n_in: usize,
    pub(crate) n_out: usize,
    pub(crate) n_layers: usize,
    pub(crate) resamples: bool,
}

impl DownBlock {
    pub(crate) fn new(
        builder: &Builder<'_>,
        place: Place,
        resnet: ResnetStyle,
        transformer: Option<TransformerStyle>,
    ) -> Self {
        let n_in = |index| if index == 0 { place.n_in } else { place.n_out };
        Self {
            resnets: (0..place.n_layers)
                .map(|i| {
                    ResnetBlock2D::new(
                        &builder.at(format!("resnets.{i}")),
                        n_in(i),
                        place.n_out,
                        resnet,
                    )
                })
                .collect(),
            attentions: transformers(builder, place.n_layers, place.n_out, transformer),
            downsamplers: place
                .resamples
                .then(|| Downsample2D::symmetric(&builder.at("downsamplers.0"), place.n_out))
                .into_iter()
                .collect(),
        }
    }

    /// Appends every feature map that the way up will need to `skips`.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        given: &Conditions<'_>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        let mut hidden = x;
        for (index, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(hidden, Some(given.activated_time));
            if let Some(attention) = self.attentions.get(index) {
                hidden = attention.forward(hidden, given.context);
            }
            skips.push(hidden.clone());
        }
        for downsampler in &self.downsamplers {
            hidden = downsampler.forward(hidden);
            skips.push(hidden.clone());
        }
        hidden
    }
}

/// Source: diffusers `UNetMidBlock2DCrossAttn`.
#[derive(Clone, Debug)]
pub(crate) struct MidBlock {
    attentions: Vec<Transformer2DModel>,
    resnets: Vec<ResnetBlock2D>,
}
network!(MidBlock { attentions: "attentions", resnets: "resnets" });

impl MidBlock {
    pub(crate) fn new(
        builder: &Builder<'_>,
        channels: usize,
        resnet: ResnetStyle,
        transformer: TransformerStyle,
    ) -> Self {
        Self {
            attentions: transformers(builder, 1, channels, Some(transformer)),
            resnets: (0..2)
                .map(|i| {
                    ResnetBlock2D::new(
                        &builder.at(format!("resnets.{i}")),
                        channels,
                        channels,
                        resnet,
                    )
                })
                .collect(),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>, given: &Conditions<'_>) -> Tensor<4> {
        let hidden = self.resnets[0].forward(x, Some(given.activated_time));
        let hidden = self.attentions[0].forward(hidden, given.context);
        self.resnets[1].forward(hidden, Some(given.activated_time))
    }
}

/// Source: diffusers `CrossAttnUpBlock2D` and `UpBlock2D`.
#[derive(Clone, Debug)]
pub(crate) struct UpBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    upsamplers: Vec<Upsample2D>,
}
network!(UpBlock { attentions: "attentions", resnets: "resnets", upsamplers: "upsamplers" });

impl UpBlock {
    /// `n_below` are the channels of the corresponding level's input on the way down, which the last
    /// skip connection has.
    pub(crate) fn new(
        builder: &Builder<'_>,
        place: Place,
        n_below: usize,
        resnet: ResnetStyle,
        transformer: Option<TransformerStyle>,
    ) -> Self {
        let width = |index: usize| {
            let hidden = if index == 0 { place.n_in } else { place.n_out };
            let skip = if index + 1 == place.n_layers { n_below } else { place.n_out };
            hidden + skip
        };
        Self {
            resnets: (0..place.n_layers)
                .map(|i| {
                    ResnetBlock2D::new(
                        &builder.at(format!("resnets.{i}")),
                        width(i),
                        place.n_out,
                        resnet,
                    )
                })
                .collect(),
            attentions: transformers(builder, place.n_layers, place.n_out, transformer),
            upsamplers: place
                .resamples
                .then(|| Upsample2D::new(&builder.at("upsamplers.0"), place.n_out))
                .into_iter()
                .collect(),
        }
    }

    /// Takes one feature map from `skips` per resnet, last first. The result has the size of the
    /// next one, which for odd sides is one less than the double.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        given: &Conditions<'_>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        let mut hidden = x;
        for (index, resnet) in self.resnets.iter().enumerate() {
            if let Some(skip) = skips.pop() {
                hidden = Tensor::cat(vec![hidden, skip], 1);
            }
            hidden = resnet.forward(hidden, Some(given.activated_time));
            if let Some(attention) = self.attentions.get(index) {
                hidden = attention.forward(hidden, given.context);
            }
        }
        for upsampler in &self.upsamplers {
            hidden = match skips.last().map(Tensor::dims) {
                Some([_, _, height, width]) => upsampler.forward_to(hidden, [height, width]),
                None => upsampler.forward(hidden),
            };
        }
        hidden
    }
}

fn transformers(
    builder: &Builder<'_>,
    n_layers: usize,
    channels: usize,
    style: Option<TransformerStyle>,
) -> Vec<Transformer2DModel> {
    let Some(style) = style else { return Vec::new() };
    (0..n_layers)
        .map(|index| {
            Transformer2DModel::new(&builder.at(format!("attentions.{index}")), channels, style)
        })
        .collect()
}
