//! The denoising network of SD 1.x, SD 2.x and SDXL.

mod attention;
mod block;
mod config;
mod recompute;
mod resnet;
mod time;
mod unit;

pub use config::{Halves, Level, TextTime, UNetConfig};
pub use recompute::{GradientParts, Recomputation};

pub(crate) use attention::{
    Attention, join_heads, map_from_positions, positions_from_map, split_heads,
};
pub(crate) use resnet::{Downsample2D, ResnetBlock2D, ResnetStyle, Upsample2D};

use attention::TransformerStyle;
use block::{DownBlock, MidBlock, Place, UpBlock};
use burn::tensor::{DType, Tensor};
use time::{TimestepEmbedding, sinusoids};
use unit::{Conditions, Units};

use crate::error::ModelError;
use crate::layer::{Conv2d, GroupNorm, Window};
use crate::ops;
use crate::source::Builder;
use crate::visit::network;

/// SDXL's conditioning besides the text states.
#[derive(Clone, Debug)]
pub struct AddedConditions {
    /// Pooled and projected text, `[batch, width]`.
    pub pooled_text: Tensor<2>,
    /// `(original height, width, crop top, left, target height, width)` in pixels, `[batch, 6]`.
    pub time_ids: Tensor<2>,
}

/// Predicts noise (or velocity, or the clean latents) from noisy latents, timesteps and text.
///
/// Source: diffusers `UNet2DConditionModel`, proved by the golden cases `unet_sd1`,
/// `unet_sd1_odd`, `unet_sd2` and `unet_sdxl`.
#[derive(Clone, Debug)]
pub struct UNet2DConditionModel {
    config: UNetConfig,
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
network!(UNet2DConditionModel {
    conv_in: "conv_in",
    time_embedding: "time_embedding",
    add_embedding: "add_embedding",
    down_blocks: "down_blocks",
    up_blocks: "up_blocks",
    mid_block: "mid_block",
    conv_norm_out: "conv_norm_out",
    conv_out: "conv_out",
});

/// What the units start from, in the type in which the network computes.
#[derive(Debug)]
struct Entry {
    /// Output of `conv_in`, `[batch, channels, height, width]`.
    map: Tensor<4>,
    /// SiLU of the timestep embedding, `[batch, time_width]`.
    activated_time: Tensor<2>,
    /// Text states, `[batch, tokens, cross_attention_dim]`.
    context: Tensor<3>,
}

impl UNet2DConditionModel {
    /// Builds the network of `config` with the builder's tensors.
    pub fn new(builder: &Builder<'_>, config: &UNetConfig) -> Self {
        let time_width = config.time_width();
        let top = config.levels[0].channels;
        let added = |text_time: TextTime| {
            TimestepEmbedding::new(&builder.at("add_embedding"), text_time.input_width, time_width)
        };
        Self {
            conv_in: Conv2d::new(&builder.at("conv_in"), config.in_channels, top, Window::THREE),
            time_embedding: TimestepEmbedding::new(&builder.at("time_embedding"), top, time_width),
            add_embedding: config.text_time.map(added),
            down_blocks: down_blocks(builder, config),
            mid_block: mid_block(builder, config),
            up_blocks: up_blocks(builder, config),
            conv_norm_out: GroupNorm::new(
                &builder.at("conv_norm_out"),
                config.norm_groups,
                top,
                config.norm_eps,
            ),
            conv_out: Conv2d::new(&builder.at("conv_out"), top, config.out_channels, Window::THREE),
            config: config.clone(),
        }
    }

    /// The shape of this network.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The network's output for noisy latents.
    ///
    /// Weights of a half type compute in it: what is given is cast on entry, and the result to f32.
    /// The waves of the timesteps are taken before they are cast.
    ///
    /// # Shapes
    ///
    /// - `noisy`: `[batch, in_channels, height, width]`, scaled latents of any sides but 0
    /// - `timesteps`: `[batch]`, f32, in `0..1000`
    /// - `context`: `[batch, tokens, cross_attention_dim]`
    /// - result: `[batch, out_channels, height, width]`
    ///
    /// # Errors
    ///
    /// [`ModelError::Size`] for a side of 0, [`ModelError::Config`] when the configuration asks for
    /// added conditions and none are given.
    pub fn forward(
        &self,
        noisy: Tensor<4>,
        timesteps: Tensor<1>,
        context: &Tensor<3>,
        added: Option<&AddedConditions>,
    ) -> Result<Tensor<4>, ModelError> {
        ops::on_threads(&noisy.device(), || {
            let Entry { map, activated_time, context } =
                self.entry(noisy, timesteps, context, added)?;
            let given = Conditions { activated_time: &activated_time, context: &context };
            Ok(self.head(self.units().forward(map, given)))
        })
    }

    /// What the innermost block puts out, its mean over all positions: a point of h-space.
    ///
    /// # Shapes
    ///
    /// - `noisy`, `timesteps`, `context`: as in [`Self::forward`]
    /// - result: `[batch, channels]`, f32, with the channels of the innermost level
    ///
    /// # Errors
    ///
    /// As [`Self::forward`].
    ///
    /// Source: Kwon, Jeong & Uh 2022, arXiv:2210.10960 (h-space: the bottleneck's activations).
    pub fn innermost(
        &self,
        noisy: Tensor<4>,
        timesteps: Tensor<1>,
        context: &Tensor<3>,
        added: Option<&AddedConditions>,
    ) -> Result<Tensor<2>, ModelError> {
        ops::on_threads(&noisy.device(), || {
            let Entry { map, activated_time, context } =
                self.entry(noisy, timesteps, context, added)?;
            let given = Conditions { activated_time: &activated_time, context: &context };
            let inner = as_type(self.units_down_to_the_middle().forward(map, given), DType::F32);
            let [batch, channels, height, width] = inner.dims();
            Ok(inner.reshape([batch, channels, height * width]).mean_dim(2).squeeze_dim(2))
        })
    }

    /// What comes before the units.
    fn entry(
        &self,
        noisy: Tensor<4>,
        timesteps: Tensor<1>,
        context: &Tensor<3>,
        added: Option<&AddedConditions>,
    ) -> Result<Entry, ModelError> {
        let [_, _, height, width] = noisy.dims();
        if height == 0 || width == 0 {
            return Err(ModelError::Size { found: [height, width], multiple: 1 });
        }
        let activated_time = ops::silu(self.time_embedding(timesteps, added)?);
        let context = as_type(context.clone(), self.dtype());
        let map = self.conv_in.forward(as_type(noisy, self.dtype()));
        Ok(Entry { map, activated_time, context })
    }

    /// The units between entry and head.
    fn units(&self) -> Units<'_> {
        let mut units = self.units_down_to_the_middle();
        for block in &self.up_blocks {
            block.add_to(&mut units);
        }
        units
    }

    /// The units from the entry to the innermost block.
    fn units_down_to_the_middle(&self) -> Units<'_> {
        let mut units = Units::new();
        for block in &self.down_blocks {
            block.add_to(&mut units);
        }
        self.mid_block.add_to(&mut units);
        units
    }

    /// What comes after the units: `[batch, channels, height, width]` to
    /// `[batch, out_channels, height, width]`, in f32 if the weights are of a half type.
    fn head(&self, hidden: Tensor<4>) -> Tensor<4> {
        let output = self.conv_out.forward(self.conv_norm_out.forward_silu(hidden));
        if matches!(self.dtype(), DType::F16 | DType::BF16) {
            return as_type(output, DType::F32);
        }
        output
    }

    /// In which type the network computes.
    fn dtype(&self) -> DType {
        self.conv_in.weight.dtype()
    }

    fn time_embedding(
        &self,
        timesteps: Tensor<1>,
        added: Option<&AddedConditions>,
    ) -> Result<Tensor<2>, ModelError> {
        let (config, dtype) = (&self.config, self.dtype());
        let sines = |values, width| {
            as_type(sinusoids(values, width, config.halves, config.freq_shift), dtype)
        };
        let embedding = self.time_embedding.forward(sines(timesteps, config.levels[0].channels));
        let (Some(text_time), Some(projection)) = (config.text_time, &self.add_embedding) else {
            return Ok(embedding);
        };
        let Some(added) = added else {
            return Err(ModelError::Config {
                file: "unet/config.json".to_owned(),
                field: "addition_embed_type".to_owned(),
                found: "`text_time` without pooled text and sizes".to_owned(),
                expected: "both to be given".to_owned(),
            });
        };
        let [batch, n_sizes] = added.time_ids.dims();
        let sizes = sines(added.time_ids.clone().reshape([batch * n_sizes]), text_time.time_width);
        let sizes = sizes.reshape([batch, n_sizes * text_time.time_width]);
        let pooled_text = as_type(added.pooled_text.clone(), dtype);
        let joined = Tensor::cat(vec![pooled_text, sizes], 1);
        Ok(embedding + projection.forward(joined))
    }
}

/// `x` in another type, or itself if it is of that type already.
fn as_type<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

fn resnet_style(config: &UNetConfig) -> ResnetStyle {
    ResnetStyle {
        groups: config.norm_groups,
        eps: config.norm_eps,
        time_width: Some(config.time_width()),
    }
}

fn transformer_style(config: &UNetConfig, heads: usize, depth: usize) -> TransformerStyle {
    TransformerStyle {
        heads,
        depth,
        context_width: config.cross_attention_dim,
        groups: config.norm_groups,
        linear_projection: config.linear_projection,
    }
}

fn down_blocks(builder: &Builder<'_>, config: &UNetConfig) -> Vec<DownBlock> {
    let last = config.levels.len() - 1;
    let block = |(index, level): (usize, &Level)| {
        let n_in = config.levels[index.saturating_sub(1)].channels;
        let place = Place {
            n_in,
            n_out: level.channels,
            n_layers: config.layers_per_block,
            resamples: index < last,
        };
        let transformer =
            level.down_heads.map(|heads| transformer_style(config, heads, level.depth));
        DownBlock::new(
            &builder.at(format!("down_blocks.{index}")),
            place,
            resnet_style(config),
            transformer,
        )
    };
    config.levels.iter().enumerate().map(block).collect()
}

fn mid_block(builder: &Builder<'_>, config: &UNetConfig) -> MidBlock {
    let bottom = config.levels[config.levels.len() - 1];
    let transformer = transformer_style(config, config.mid_heads, bottom.depth);
    MidBlock::new(&builder.at("mid_block"), bottom.channels, resnet_style(config), transformer)
}

fn up_blocks(builder: &Builder<'_>, config: &UNetConfig) -> Vec<UpBlock> {
    let last = config.levels.len() - 1;
    let block = |(index, level_idx): (usize, usize)| {
        let level = config.levels[level_idx];
        let place = Place {
            n_in: config.levels[(level_idx + 1).min(last)].channels,
            n_out: level.channels,
            n_layers: config.layers_per_block + 1,
            resamples: level_idx > 0,
        };
        let n_below = config.levels[level_idx.saturating_sub(1)].channels;
        let transformer = level.up_heads.map(|heads| transformer_style(config, heads, level.depth));
        UpBlock::new(
            &builder.at(format!("up_blocks.{index}")),
            place,
            n_below,
            resnet_style(config),
            transformer,
        )
    };
    (0..=last).rev().enumerate().map(block).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use checkpoints::Family;

    use super::*;
    use crate::base::{host_values, tensor_from_host, timesteps};
    use crate::tiny;
    use crate::visit::{Network, Slot, Visitor};

    /// Puts every parameter into double precision.
    struct InDouble;

    impl Visitor for InDouble {
        fn parameter(&mut self, _path: &str, slot: &mut dyn Slot) {
            slot.set(slot.flat().cast(DType::F64));
        }
    }

    /// The output for inputs in f32.
    fn output(unet: &UNet2DConditionModel) -> Tensor<4> {
        let device = Device::flex();
        let waves = |n_values: usize| (0..n_values).map(|i| (0.7 * i as f32).sin()).collect();
        let context = tensor_from_host(waves(2 * 3 * 40), [2, 3, 40], &device);
        let added = AddedConditions {
            pooled_text: tensor_from_host(waves(2 * 12), [2, 12], &device),
            time_ids: tensor_from_host(vec![64.0; 2 * 6], [2, 6], &device),
        };
        let noisy = tensor_from_host(waves(2 * 4 * 64), [2, 4, 8, 8], &device);
        unet.forward(noisy, timesteps(&[3.0, 901.0], &device), &context, Some(&added)).unwrap()
    }

    /// That weights of a half type give single precision is proved in `crate::base`.
    #[test]
    fn weights_in_double_precision_take_single_and_give_double() {
        let dir = tempfile::tempdir().unwrap();
        let mut unet =
            tiny::family_base(dir.path(), Family::Sdxl, 3, &Device::flex()).unwrap().unet;
        let single = host_values(output(&unet)).unwrap();
        unet.visit("", &mut InDouble);
        let double = output(&unet);
        assert_eq!(double.dtype(), DType::F64);
        let double = host_values(double).unwrap();
        let largest = single.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(single.iter().zip(&double).all(|(a, b)| (a - b).abs() < 1e-4 * largest));
    }
}
