//! `unet/config.json`: every field that SD 1.x, SD 2.x and SDXL use.

use serde_json::{Value, json};

use crate::config::Fields;
use crate::error::ModelError;

/// One level of the UNet, from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Channels.
    pub channels: usize,
    /// Heads of each attention; `None` for a level without attention.
    pub down_heads: Option<usize>,
    /// The same for the mirrored level of the way up.
    pub up_heads: Option<usize>,
    /// Transformer blocks per attention.
    pub depth: usize,
}

/// Order of the two halves of a sinusoidal embedding; `flip_sin_to_cos` in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halves {
    /// Cosines, then sines: all released models.
    CosineFirst,
    /// Sines, then cosines.
    SineFirst,
}

/// What SDXL adds to the timestep embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextTime {
    /// Width of the sinusoid of each of the six sizes.
    pub time_width: usize,
    /// Width of pooled text and all sinusoids together.
    pub input_width: usize,
}

/// Shape of a [`super::UNet2DConditionModel`].
///
/// Source: diffusers `UNet2DConditionModel.__init__` and its registered defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the noisy latents.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Levels from the top.
    pub levels: Vec<Level>,
    /// Resnets per level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Width of the text states.
    pub cross_attention_dim: usize,
    /// Heads of the middle block.
    pub mid_heads: usize,
    /// Whether `proj_in` and `proj_out` are linear instead of 1×1 convolutions.
    pub linear_projection: bool,
    /// Groups of every group norm.
    pub norm_groups: usize,
    /// ε of the resnets' group norms.
    pub norm_eps: f64,
    /// Order of the timestep embedding's halves.
    pub halves: Halves,
    /// Shift of the embedding's frequencies.
    pub freq_shift: f64,
    /// SDXL's additional conditioning.
    pub text_time: Option<TextTime>,
    /// Nominal side of the latents, if the file states it.
    pub sample_size: Option<usize>,
}

impl UNetConfig {
    /// Reads a parsed `config.json`; `file` names it in messages.
    ///
    /// # Errors
    ///
    /// An unknown or unsupported field or value, named with what is supported.
    pub fn from_json(file: &str, value: &Value) -> Result<Self, ModelError> {
        let mut fields = Fields::new(file, value)?;
        refuse_unsupported(&mut fields)?;
        let widths = fields.widths("block_out_channels", &[320, 640, 1280, 1280])?;
        let levels = levels(&mut fields, &widths)?;
        let mid_heads = heads(&mut fields, widths.len())?[widths.len() - 1];
        let config = Self {
            in_channels: fields.usize("in_channels", 4)?,
            out_channels: fields.usize("out_channels", 4)?,
            layers_per_block: fields.usize("layers_per_block", 2)?,
            cross_attention_dim: fields.usize("cross_attention_dim", 1280)?,
            mid_heads,
            linear_projection: fields.switch("use_linear_projection")?.unwrap_or(false),
            norm_groups: fields.usize("norm_num_groups", 32)?,
            norm_eps: fields.f64("norm_eps", 1e-5)?,
            halves: match fields.switch("flip_sin_to_cos")? {
                Some(false) => Halves::SineFirst,
                Some(true) | None => Halves::CosineFirst,
            },
            freq_shift: fields.f64("freq_shift", 0.0)?,
            text_time: text_time(&mut fields)?,
            sample_size: fields.optional_usize("sample_size")?,
            levels,
        };
        for level in &config.levels {
            if !level.channels.is_multiple_of(config.norm_groups) {
                return Err(fields.error(
                    "norm_num_groups",
                    config.norm_groups,
                    "a divisor of every block's channels",
                ));
            }
        }
        fields.finish()?;
        Ok(config)
    }

    /// Latents whose sides are multiples of this are halved without a remainder on every level, as
    /// those of the training were: 2 per level below the top. Others are drawn too.
    pub fn side_multiple(&self) -> usize {
        1 << (self.levels.len() - 1)
    }

    /// Width of the timestep embedding.
    pub fn time_width(&self) -> usize {
        self.levels[0].channels * 4
    }
}

/// Heads per level. `attention_head_dim` is their number, for historical reasons (diffusers #2011);
/// diffusers, too, refuses a `num_attention_heads`.
fn heads(fields: &mut Fields<'_>, n_levels: usize) -> Result<Vec<usize>, ModelError> {
    fields.only("num_attention_heads", &[])?;
    fields.levels("attention_head_dim", 8, n_levels)
}

fn levels(fields: &mut Fields<'_>, widths: &[usize]) -> Result<Vec<Level>, ModelError> {
    let n_levels = widths.len();
    let mut down_default = vec!["CrossAttnDownBlock2D"; n_levels];
    let mut up_default = vec!["CrossAttnUpBlock2D"; n_levels];
    down_default[n_levels - 1] = "DownBlock2D";
    up_default[0] = "UpBlock2D";
    let down = fields.texts("down_block_types", &down_default)?;
    let up = fields.texts("up_block_types", &up_default)?;
    let heads = heads(fields, n_levels)?;
    let depths = fields.levels("transformer_layers_per_block", 1, n_levels)?;
    if down.len() != n_levels || up.len() != n_levels {
        let found = format!("{} down and {} up blocks", down.len(), up.len());
        return Err(fields.error(
            "down_block_types",
            found,
            &format!("{n_levels}, as many as block_out_channels"),
        ));
    }
    let mut levels = Vec::with_capacity(n_levels);
    for (index, &channels) in widths.iter().enumerate() {
        let down_attends = attends(
            fields,
            "down_block_types",
            &down[index],
            ["CrossAttnDownBlock2D", "DownBlock2D"],
        )?;
        let up_name = &up[n_levels - 1 - index];
        let up_attends =
            attends(fields, "up_block_types", up_name, ["CrossAttnUpBlock2D", "UpBlock2D"])?;
        if !channels.is_multiple_of(heads[index]) {
            return Err(fields.error(
                "attention_head_dim",
                heads[index],
                &format!("a divisor of {channels} channels"),
            ));
        }
        levels.push(Level {
            channels,
            down_heads: down_attends.then_some(heads[index]),
            up_heads: up_attends.then_some(heads[index]),
            depth: depths[index],
        });
    }
    Ok(levels)
}

fn attends(
    fields: &Fields<'_>,
    field: &str,
    name: &str,
    [with, without]: [&str; 2],
) -> Result<bool, ModelError> {
    match name {
        _ if name == with => Ok(true),
        _ if name == without => Ok(false),
        _ => Err(fields.error(field, name, &format!("{with} or {without}"))),
    }
}

fn text_time(fields: &mut Fields<'_>) -> Result<Option<TextTime>, ModelError> {
    fields.only("addition_embed_type", &[json!("text_time")])?;
    let time_width = fields.optional_usize("addition_time_embed_dim")?;
    let input_width = fields.optional_usize("projection_class_embeddings_input_dim")?;
    match (fields.text("addition_embed_type", "")?, time_width, input_width) {
        ("", _, _) => Ok(None),
        (_, Some(time_width), Some(input_width)) => Ok(Some(TextTime { time_width, input_width })),
        _ => Err(fields.error(
            "addition_embed_type",
            "text_time",
            "addition_time_embed_dim and projection_class_embeddings_input_dim beside it",
        )),
    }
}

fn refuse_unsupported(fields: &mut Fields<'_>) -> Result<(), ModelError> {
    fields.not_null("norm_num_groups", "a positive integer")?;
    fields.only("act_fn", &[json!("silu"), json!("swish")])?;
    fields.only("downsample_padding", &[json!(1)])?;
    fields.only("mid_block_scale_factor", &[json!(1)])?;
    fields.only("mid_block_type", &[json!("UNetMidBlock2DCrossAttn")])?;
    fields.only("only_cross_attention", &[json!(false)])?;
    fields.only("dual_cross_attention", &[json!(false)])?;
    fields.only("center_input_sample", &[json!(false)])?;
    fields.only("resnet_time_scale_shift", &[json!("default")])?;
    fields.only("resnet_skip_time_act", &[json!(false)])?;
    fields.only("resnet_out_scale_factor", &[json!(1)])?;
    fields.only("time_embedding_type", &[json!("positional")])?;
    fields.only("conv_in_kernel", &[json!(3)])?;
    fields.only("conv_out_kernel", &[json!(3)])?;
    fields.only("attention_type", &[json!("default")])?;
    fields.only("class_embeddings_concat", &[json!(false)])?;
    fields.only("dropout", &[json!(0)])?;
    fields.only("addition_embed_type_num_heads", &[json!(64)])?;
    for field in [
        "class_embed_type",
        "num_class_embeds",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
        "cross_attention_norm",
        "mid_block_only_cross_attention",
        "reverse_transformer_layers_per_block",
    ] {
        fields.only(field, &[json!(false)])?;
    }
    // Scores and softmax are always computed in f32, so the wish for it changes nothing.
    fields.ignore(&["upcast_attention"]);
    Ok(())
}
