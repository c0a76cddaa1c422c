//! One level of the UNet on the way down, in the middle, and on the way up: its layers, and the
//! order in which they are walked.

use super::attention::{Transformer2DModel, TransformerStyle};
use super::resnet::{Downsample2D, ResnetBlock2D, ResnetStyle, Upsample2D};
use super::unit::{Part, Units};
use crate::source::Builder;
use crate::visit::network;

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

    /// Appends its units; every feature map between them is a skip connection.
    pub(crate) fn add_to<'a>(&'a self, units: &mut Units<'a>) {
        for (index, resnet) in self.resnets.iter().enumerate() {
            units.add(Part::Resnet(resnet));
            if let Some(attention) = self.attentions.get(index) {
                units.add_transformer(attention);
            }
            units.skip();
        }
        for downsampler in &self.downsamplers {
            units.add(Part::Downsample(downsampler));
            units.skip();
        }
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

    /// Appends its units.
    pub(crate) fn add_to<'a>(&'a self, units: &mut Units<'a>) {
        for (index, resnet) in self.resnets.iter().enumerate() {
            units.add(Part::Resnet(resnet));
            if let Some(attention) = self.attentions.get(index) {
                units.add_transformer(attention);
            }
        }
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

    /// Appends its units. Each resnet reads one skip connection, the newest first; the result has
    /// the size of the next one, which for odd sides is one less than the double.
    pub(crate) fn add_to<'a>(&'a self, units: &mut Units<'a>) {
        for (index, resnet) in self.resnets.iter().enumerate() {
            units.add_with_skip(Part::Resnet(resnet));
            if let Some(attention) = self.attentions.get(index) {
                units.add_transformer(attention);
            }
        }
        for upsampler in &self.upsamplers {
            units.add_with_sides(Part::Upsample(upsampler));
        }
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
