//! The UNet of a single file: its plan from the shapes, its tensors under both names, its configuration.
//!
//! Source: the constructor of ldm's and sgm's `UNetModel` for what stands where, diffusers `UNet2DConditionModel` for
//! names and shapes. The golden case `single_file` proves the names, and the released models' sizes the shapes.

use serde_json::{Value, json};

use super::listing::{Listing, Shapes, count, length};
use crate::family::Family;
use crate::key_map::sgm;

/// What stands before every name of the network.
pub(super) const PREFIX: &str = "model.diffusion_model.";

/// What stands before the moving average of every name, whose dots are removed.
pub(super) const AVERAGE_PREFIX: &str = "model_ema.diffusion_model";

/// More than any network of these families has; names of strangers cannot make a reader count on.
const MOST_LEVELS: usize = 8;
const MOST_LAYERS: usize = 16;
const MOST_BLOCKS: usize = 64;

/// Whether the ends of a transformer are matrices or 1×1 convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Projection {
    Convolution,
    Linear,
}

/// One level, from the top.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Level {
    /// Channels.
    pub(super) width: usize,
    /// Transformer blocks of each attention on the way down; 0 for a level without attention.
    pub(super) down_depth: usize,
    /// The same on the way up.
    pub(super) up_depth: usize,
}

/// The structure of a UNet, without heads, which no shape tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UNetPlan {
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) levels: Vec<Level>,
    pub(super) layers_per_block: usize,
    /// Transformer blocks of the middle.
    pub(super) mid_depth: usize,
    pub(super) cross_attention_dim: usize,
    pub(super) projection: Projection,
    /// Width of what is added to the time embedding: pooled text and sizes.
    pub(super) added_width: Option<usize>,
}

impl UNetPlan {
    /// Reads the plan from the shapes of tensors under their ldm names, or says what was found instead.
    pub(super) fn derive(shapes: &Shapes<'_>) -> Result<Self, String> {
        let (layers_per_block, levels) = levels(shapes)?;
        let mid_depth = depth(shapes, "middle_block.1");
        let attention = first_attention(shapes, layers_per_block, &levels);
        let Some(attention) = attention.filter(|_| mid_depth > 0) else {
            return Err("a network without attention to a text in the middle or above".to_owned());
        };
        let projection = match shapes(&format!("{attention}.proj_in.weight")) {
            Some(shape) if shape.len() == 2 => Projection::Linear,
            _ => Projection::Convolution,
        };
        let plan = Self {
            in_channels: length(shapes, "input_blocks.0.0.weight", 1)?,
            out_channels: length(shapes, "out.2.weight", 0)?,
            cross_attention_dim: length(
                shapes,
                &format!("{attention}.transformer_blocks.0.attn2.to_k.weight"),
                1,
            )?,
            added_width: shapes("label_emb.0.0.weight").and_then(|shape| shape.get(1).copied()),
            levels,
            layers_per_block,
            mid_depth,
            projection,
        };
        plan.check_depths()?;
        Ok(plan)
    }

    /// One number of blocks must do for a level's way down and up, as diffusers' configuration has it.
    fn check_depths(&self) -> Result<(), String> {
        let differ = |level: &&Level| {
            level.down_depth != level.up_depth && level.down_depth > 0 && level.up_depth > 0
        };
        if let Some(level) = self.levels.iter().find(differ) {
            return Err(format!(
                "a network with {} transformer blocks on the way down and {} on the same level up",
                level.down_depth, level.up_depth
            ));
        }
        let lowest = self.levels.last().map_or(0, |level| level.down_depth.max(level.up_depth));
        if lowest != 0 && lowest != self.mid_depth {
            return Err(format!(
                "a network with {lowest} transformer blocks on its lowest level and {} in the middle",
                self.mid_depth
            ));
        }
        Ok(())
    }

    /// Transformer blocks per level as diffusers counts them: 1 where a level has none, and the middle's on the lowest.
    fn depths(&self) -> Vec<usize> {
        let mut depths: Vec<usize> =
            self.levels.iter().map(|level| level.down_depth.max(level.up_depth).max(1)).collect();
        if let Some(lowest) = depths.last_mut() {
            *lowest = self.mid_depth;
        }
        depths
    }

    /// All tensors, under their diffusers names.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = Listing::default();
        let top = self.levels.first().map_or(0, |level| level.width);
        let time = top * 4;
        list.conv("conv_in", [top, self.in_channels], 3);
        list.linear("time_embedding.linear_1", time, top);
        list.linear("time_embedding.linear_2", time, time);
        if let Some(added_width) = self.added_width {
            list.linear("add_embedding.linear_1", time, added_width);
            list.linear("add_embedding.linear_2", time, time);
        }
        self.down(&mut list);
        let lowest = self.levels.last().map_or(0, |level| level.width);
        self.resnet(&mut list, "mid_block.resnets.0", [lowest, lowest]);
        self.transformer(&mut list, "mid_block.attentions.0", lowest, self.mid_depth);
        self.resnet(&mut list, "mid_block.resnets.1", [lowest, lowest]);
        self.up(&mut list);
        list.norm("conv_norm_out", top);
        list.conv("conv_out", [self.out_channels, top], 3);
        list.into_vec()
    }

    fn down(&self, list: &mut Listing) {
        let mut before = self.levels.first().map_or(0, |level| level.width);
        for (b, level) in self.levels.iter().enumerate() {
            let block = format!("down_blocks.{b}");
            for i in 0..self.layers_per_block {
                let n_in = if i == 0 { before } else { level.width };
                self.resnet(list, &format!("{block}.resnets.{i}"), [n_in, level.width]);
                let path = format!("{block}.attentions.{i}");
                self.transformer(list, &path, level.width, level.down_depth);
            }
            if b + 1 < self.levels.len() {
                list.conv(&format!("{block}.downsamplers.0.conv"), [level.width, level.width], 3);
            }
            before = level.width;
        }
    }

    fn up(&self, list: &mut Listing) {
        let levels: Vec<&Level> = self.levels.iter().rev().collect();
        let mut before = levels.first().map_or(0, |level| level.width);
        for (b, level) in levels.iter().enumerate() {
            let block = format!("up_blocks.{b}");
            // What the way down left behind: the last of a level was made by the level above.
            let above = levels.get(b + 1).unwrap_or(level).width;
            for i in 0..=self.layers_per_block {
                let n_left = if i == self.layers_per_block { above } else { level.width };
                let n_below = if i == 0 { before } else { level.width };
                let widths = [n_below + n_left, level.width];
                self.resnet(list, &format!("{block}.resnets.{i}"), widths);
                let path = format!("{block}.attentions.{i}");
                self.transformer(list, &path, level.width, level.up_depth);
            }
            if b + 1 < levels.len() {
                list.conv(&format!("{block}.upsamplers.0.conv"), [level.width, level.width], 3);
            }
            before = level.width;
        }
    }

    fn resnet(&self, list: &mut Listing, path: &str, [n_in, n_out]: [usize; 2]) {
        let time = self.levels.first().map_or(0, |level| level.width) * 4;
        list.norm(&format!("{path}.norm1"), n_in);
        list.conv(&format!("{path}.conv1"), [n_out, n_in], 3);
        list.linear(&format!("{path}.time_emb_proj"), n_out, time);
        list.norm(&format!("{path}.norm2"), n_out);
        list.conv(&format!("{path}.conv2"), [n_out, n_out], 3);
        if n_in != n_out {
            list.conv(&format!("{path}.conv_shortcut"), [n_out, n_in], 1);
        }
    }

    /// Attention of a level; none if it has no blocks.
    fn transformer(&self, list: &mut Listing, path: &str, width: usize, depth: usize) {
        if depth == 0 {
            return;
        }
        list.norm(&format!("{path}.norm"), width);
        for end in ["proj_in", "proj_out"] {
            match self.projection {
                Projection::Linear => list.linear(&format!("{path}.{end}"), width, width),
                Projection::Convolution => list.conv(&format!("{path}.{end}"), [width, width], 1),
            }
        }
        for d in 0..depth {
            let block = format!("{path}.transformer_blocks.{d}");
            for (attention, context) in [("attn1", width), ("attn2", self.cross_attention_dim)] {
                list.tensor(format!("{block}.{attention}.to_q.weight"), &[width, width]);
                list.tensor(format!("{block}.{attention}.to_k.weight"), &[width, context]);
                list.tensor(format!("{block}.{attention}.to_v.weight"), &[width, context]);
                list.linear(&format!("{block}.{attention}.to_out.0"), width, width);
            }
            for norm in ["norm1", "norm2", "norm3"] {
                list.norm(&format!("{block}.{norm}"), width);
            }
            list.linear(&format!("{block}.ff.net.0.proj"), width * 8, width);
            list.linear(&format!("{block}.ff.net.2"), width, width * 4);
        }
    }

    /// The ldm name of a tensor of this network, without prefix; `None` if it has none.
    pub(super) fn ldm_name(&self, name: &str) -> Option<String> {
        sgm::path_where(name, self.layers_per_block, &|block| {
            let place = block.parse::<usize>().ok().and_then(|b| self.levels.iter().rev().nth(b));
            place.is_some_and(|level| level.up_depth > 0)
        })
    }

    /// `config.json` of the network: that of the released model of its family, with what the shapes tell.
    ///
    /// No shape tells the heads: SD 1.x has 8, the other families one per 64 channels. A miniature whose channels that
    /// does not divide gets one head. Nor do shapes tell the groups of the norms, which stay 32.
    pub(super) fn config(&self, family: Family, pooled_width: Option<usize>) -> Value {
        let mut config = family.unet_config().unwrap_or_else(|| json!({}));
        let block = |attends: bool, way: &str| {
            format!("{}{way}Block2D", if attends { "CrossAttn" } else { "" })
        };
        let levels = &self.levels;
        let down: Vec<String> =
            levels.iter().map(|level| block(level.down_depth > 0, "Down")).collect();
        let up: Vec<String> =
            levels.iter().rev().map(|level| block(level.up_depth > 0, "Up")).collect();
        let widths: Vec<usize> = levels.iter().map(|level| level.width).collect();
        for (field, value) in [
            ("in_channels", json!(self.in_channels)),
            ("out_channels", json!(self.out_channels)),
            ("block_out_channels", json!(widths)),
            ("layers_per_block", json!(self.layers_per_block)),
            ("cross_attention_dim", json!(self.cross_attention_dim)),
            ("down_block_types", json!(down)),
            ("up_block_types", json!(up)),
            ("attention_head_dim", heads(family, &widths)),
        ] {
            config[field] = value;
        }
        let depths = self.depths();
        let states_depths = config.get("transformer_layers_per_block").is_some();
        if states_depths || depths.iter().any(|&depth| depth != 1) {
            config["transformer_layers_per_block"] = json!(depths);
        }
        if let (Some(added_width), Some(pooled_width)) = (self.added_width, pooled_width) {
            config["projection_class_embeddings_input_dim"] = json!(added_width);
            // Two sizes and a corner, of two numbers each.
            config["addition_time_embed_dim"] = json!(added_width.saturating_sub(pooled_width) / 6);
        }
        config
    }
}

fn heads(family: Family, widths: &[usize]) -> Value {
    match family {
        Family::Postcards | Family::Sd1 => {
            json!(if widths.iter().all(|width| width.is_multiple_of(8)) { 8 } else { 1 })
        }
        Family::Sd2 | Family::Sdxl => {
            let of = |&width: &usize| if width.is_multiple_of(64) { width / 64 } else { 1 };
            json!(widths.iter().map(of).collect::<Vec<usize>>())
        }
    }
}

/// Layers per block, and the levels, which end in a downsampler each.
fn levels(shapes: &Shapes<'_>) -> Result<(usize, Vec<Level>), String> {
    let mut found = vec![(0, Level::default())];
    for i in 1_usize.. {
        let block = format!("input_blocks.{i}");
        if shapes(&format!("{block}.0.op.weight")).is_some() {
            found.push((0, Level::default()));
            continue;
        }
        let conv = format!("{block}.0.out_layers.3.weight");
        let (Some((n_layers, level)), true) = (found.last_mut(), shapes(&conv).is_some()) else {
            break;
        };
        *n_layers += 1;
        level.width = length(shapes, &conv, 0)?;
        level.down_depth = depth(shapes, &format!("{block}.1"));
    }
    let n_layers: Vec<usize> = found.iter().map(|(n_layers, _)| *n_layers).collect();
    let layers_per_block = n_layers[0];
    let alike = layers_per_block > 0 && n_layers.iter().all(|&n| n == layers_per_block);
    if !alike || n_layers.len() > MOST_LEVELS || layers_per_block > MOST_LAYERS {
        return Err(format!("a network whose levels have {n_layers:?} layers"));
    }
    let mut levels: Vec<Level> = found.into_iter().map(|(_, level)| level).collect();
    for (b, level) in levels.iter_mut().rev().enumerate() {
        level.up_depth = depth(shapes, &format!("output_blocks.{}.1", (layers_per_block + 1) * b));
    }
    Ok((layers_per_block, levels))
}

/// Transformer blocks of an attention; 0 if there is none.
fn depth(shapes: &Shapes<'_>, attention: &str) -> usize {
    if shapes(&format!("{attention}.proj_in.weight")).is_none() {
        return 0;
    }
    let n_blocks = count(shapes, |d| format!("{attention}.transformer_blocks.{d}.norm1.weight"));
    n_blocks.min(MOST_BLOCKS)
}

/// The ldm path of the first attention on the way down, or of that in the middle.
fn first_attention(
    shapes: &Shapes<'_>,
    layers_per_block: usize,
    levels: &[Level],
) -> Option<String> {
    let first = levels.iter().position(|level| level.down_depth > 0);
    let path = first.map_or_else(
        || "middle_block.1".to_owned(),
        |b| format!("input_blocks.{}.1", 1 + (layers_per_block + 1) * b),
    );
    shapes(&format!("{path}.proj_in.weight")).map(|_| path)
}
