//! The VAE of a single file or of a file of its own: its plan from the shapes, its tensors under all names, its
//! configuration.
//!
//! Source: ldm's `Encoder` and `Decoder` for what stands where, diffusers `AutoencoderKL` for names and shapes; proved as
//! those of the UNet are.

use serde_json::{Value, json};

use super::listing::{Listing, Shapes, count, length};
use super::names::Names;
use crate::weights::{View, Wanted};

/// What may stand before the names of a VAE inside a checkpoint.
pub(super) const PREFIXES: [&str; 2] = ["first_stage_model.", "vae."];
/// The same for a file of its own.
pub(super) const OWN_PREFIXES: [&str; 3] = ["first_stage_model.", "vae.", ""];

/// Whether a part that some models leave out is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Absent,
    Present,
}

/// In which names a file holds a VAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    Ldm,
    Diffusers,
}

/// Where a file holds a VAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) prefix: &'static str,
    pub(super) naming: Naming,
}

/// The structure of a VAE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VaePlan {
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    /// Channels per level, from full resolution down.
    pub(super) widths: Vec<usize>,
    pub(super) layers_per_block: usize,
    pub(super) latent_channels: usize,
    pub(super) quant_conv: Presence,
    pub(super) post_quant_conv: Presence,
    pub(super) mid_attention: Presence,
}

impl Place {
    /// Finds the VAE below one of the prefixes.
    pub(super) fn find(names: &Names<'_>, prefixes: &[&'static str]) -> Option<Self> {
        let namings = [
            (Naming::Ldm, "encoder.down.0.block.0.conv1.weight"),
            (Naming::Diffusers, "encoder.down_blocks.0.resnets.0.conv1.weight"),
        ];
        prefixes.iter().find_map(|&prefix| {
            let found = namings.iter().find(|(_, sign)| names.has(&format!("{prefix}{sign}")));
            found.map(|(naming, _)| Self { prefix, naming: *naming })
        })
    }

    /// The name in the file of a tensor; where old and new spellings differ, the one that is there.
    fn file_name(self, names: &Names<'_>, name: &str, n_levels: usize) -> Option<String> {
        let current = match self.naming {
            Naming::Ldm => ldm_name(name, n_levels)?,
            Naming::Diffusers => name.to_owned(),
        };
        let current = format!("{}{current}", self.prefix);
        let old = old_attention_name(name).map(|old| format!("{}{old}", self.prefix));
        Some(old.filter(|old| names.has(old) && !names.has(&current)).unwrap_or(current))
    }

    /// Reads the plan from the shapes, or says what was found instead.
    pub(super) fn plan(self, names: &Names<'_>) -> Result<VaePlan, String> {
        // Nothing that the plan is read from lies in the blocks that ldm numbers backwards.
        VaePlan::derive(&|name| names.shape(&self.file_name(names, name, 0)?))
    }

    /// All tensors of the plan and where the file holds them.
    pub(super) fn wanted(self, names: &Names<'_>, plan: &VaePlan) -> Vec<Wanted> {
        let wanted = plan.tensors().into_iter().filter_map(|(name, shape)| {
            let stored = names.stored(&self.file_name(names, &name, plan.widths.len())?);
            let is_matrix = name.contains(".attentions.") && shape.len() == 2;
            let view = if is_matrix { View::Matrix } else { View::Whole };
            Some(Wanted { name, stored, shape, view })
        });
        wanted.collect()
    }
}

impl VaePlan {
    fn derive(shapes: &Shapes<'_>) -> Result<Self, String> {
        const MOST: usize = 16;
        let block =
            |b: usize, i: usize| format!("encoder.down_blocks.{b}.resnets.{i}.conv1.weight");
        let n_levels = count(shapes, |b| block(b, 0));
        let layers_per_block = count(shapes, |i| block(0, i));
        if !(1..=MOST).contains(&n_levels) || !(1..=MOST).contains(&layers_per_block) {
            return Err(format!("a VAE of {n_levels} levels with {layers_per_block} layers"));
        }
        let widths: Result<Vec<usize>, String> =
            (0..n_levels).map(|b| length(shapes, &block(b, 0), 0)).collect();
        let presence = |name: &str| match shapes(name) {
            Some(_) => Presence::Present,
            None => Presence::Absent,
        };
        Ok(Self {
            in_channels: length(shapes, "encoder.conv_in.weight", 1)?,
            out_channels: length(shapes, "decoder.conv_out.weight", 0)?,
            widths: widths?,
            layers_per_block,
            latent_channels: length(shapes, "decoder.conv_in.weight", 1)?,
            quant_conv: presence("quant_conv.weight"),
            post_quant_conv: presence("post_quant_conv.weight"),
            mid_attention: presence("encoder.mid_block.attentions.0.to_q.weight"),
        })
    }

    /// All tensors, under their diffusers names.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = Listing::default();
        let n_levels = self.widths.len();
        let (top, lowest) = (self.widths[0], self.widths[n_levels - 1]);
        let (latents, moments) = (self.latent_channels, self.latent_channels * 2);
        list.conv("encoder.conv_in", [top, self.in_channels], 3);
        let mut before = top;
        for (b, &width) in self.widths.iter().enumerate() {
            let block = format!("encoder.down_blocks.{b}");
            blocks(&mut list, &block, [before, width], self.layers_per_block);
            if b + 1 < n_levels {
                list.conv(&format!("{block}.downsamplers.0.conv"), [width, width], 3);
            }
            before = width;
        }
        self.middle(&mut list, "encoder", lowest);
        list.norm("encoder.conv_norm_out", lowest);
        list.conv("encoder.conv_out", [moments, lowest], 3);
        list.conv("decoder.conv_in", [lowest, latents], 3);
        self.middle(&mut list, "decoder", lowest);
        before = lowest;
        for (b, &width) in self.widths.iter().rev().enumerate() {
            let block = format!("decoder.up_blocks.{b}");
            blocks(&mut list, &block, [before, width], self.layers_per_block + 1);
            if b + 1 < n_levels {
                list.conv(&format!("{block}.upsamplers.0.conv"), [width, width], 3);
            }
            before = width;
        }
        list.norm("decoder.conv_norm_out", top);
        list.conv("decoder.conv_out", [self.out_channels, top], 3);
        if self.quant_conv == Presence::Present {
            list.conv("quant_conv", [moments, moments], 1);
        }
        if self.post_quant_conv == Presence::Present {
            list.conv("post_quant_conv", [latents, latents], 1);
        }
        list.into_vec()
    }

    fn middle(&self, list: &mut Listing, side: &str, width: usize) {
        resnet(list, &format!("{side}.mid_block.resnets.0"), [width, width]);
        if self.mid_attention == Presence::Present {
            let attention = format!("{side}.mid_block.attentions.0");
            list.norm(&format!("{attention}.group_norm"), width);
            for layer in ["to_q", "to_k", "to_v", "to_out.0"] {
                list.linear(&format!("{attention}.{layer}"), width, width);
            }
        }
        resnet(list, &format!("{side}.mid_block.resnets.1"), [width, width]);
    }

    /// `config.json` of the VAE: `like`, that of a VAE of its family, with what the shapes tell.
    pub(super) fn config(&self, like: &Value) -> Value {
        let mut config = if like.is_object() { like.clone() } else { json!({}) };
        let n_levels = self.widths.len();
        for (field, value) in [
            ("_class_name", json!("AutoencoderKL")),
            ("in_channels", json!(self.in_channels)),
            ("out_channels", json!(self.out_channels)),
            ("block_out_channels", json!(self.widths)),
            ("layers_per_block", json!(self.layers_per_block)),
            ("latent_channels", json!(self.latent_channels)),
            ("down_block_types", json!(vec!["DownEncoderBlock2D"; n_levels])),
            ("up_block_types", json!(vec!["UpDecoderBlock2D"; n_levels])),
        ] {
            config[field] = value;
        }
        for (field, presence) in [
            ("use_quant_conv", self.quant_conv),
            ("use_post_quant_conv", self.post_quant_conv),
            ("mid_block_add_attention", self.mid_attention),
        ] {
            // Present is the default of the class, which the released files do not state.
            if presence == Presence::Absent || config.get(field).is_some() {
                config[field] = json!(presence == Presence::Present);
            }
        }
        config
    }
}

fn blocks(list: &mut Listing, block: &str, [before, width]: [usize; 2], n_resnets: usize) {
    for i in 0..n_resnets {
        let n_in = if i == 0 { before } else { width };
        resnet(list, &format!("{block}.resnets.{i}"), [n_in, width]);
    }
}

fn resnet(list: &mut Listing, path: &str, [n_in, n_out]: [usize; 2]) {
    list.norm(&format!("{path}.norm1"), n_in);
    list.conv(&format!("{path}.conv1"), [n_out, n_in], 3);
    list.norm(&format!("{path}.norm2"), n_out);
    list.conv(&format!("{path}.conv2"), [n_out, n_out], 3);
    if n_in != n_out {
        list.conv(&format!("{path}.conv_shortcut"), [n_out, n_in], 1);
    }
}

/// The ldm name of a tensor of a VAE with so many levels, without prefix; `None` if it has none.
fn ldm_name(name: &str, n_levels: usize) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        [side @ ("encoder" | "decoder"), inner @ ..] => {
            Some(format!("{side}.{}", inside(inner, n_levels)?))
        }
        _ => Some(name.to_owned()),
    }
}

/// The same inside the encoder or the decoder, whose blocks ldm numbers from full resolution on.
fn inside(parts: &[&str], n_levels: usize) -> Option<String> {
    let backwards = |b: &str| n_levels.checked_sub(b.parse::<usize>().ok()? + 1);
    Some(match parts {
        ["conv_norm_out", rest @ ..] => format!("norm_out.{}", rest.join(".")),
        ["down_blocks", b, "downsamplers", "0", rest @ ..] => {
            format!("down.{b}.downsample.{}", rest.join("."))
        }
        ["up_blocks", b, "upsamplers", "0", rest @ ..] => {
            format!("up.{}.upsample.{}", backwards(b)?, rest.join("."))
        }
        ["down_blocks", b, "resnets", i, rest @ ..] => {
            format!("down.{b}.block.{i}.{}", layer(rest))
        }
        ["up_blocks", b, "resnets", i, rest @ ..] => {
            format!("up.{}.block.{i}.{}", backwards(b)?, layer(rest))
        }
        ["mid_block", "resnets", i, rest @ ..] => {
            format!("mid.block_{}.{}", i.parse::<usize>().ok()? + 1, layer(rest))
        }
        ["mid_block", "attentions", "0", rest @ ..] => format!("mid.attn_1.{}", attention(rest)?),
        _ => parts.join("."),
    })
}

fn layer(parts: &[&str]) -> String {
    match parts {
        ["conv_shortcut", rest @ ..] => format!("nin_shortcut.{}", rest.join(".")),
        _ => parts.join("."),
    }
}

fn attention(parts: &[&str]) -> Option<String> {
    let (name, kind) = match parts {
        ["group_norm", kind] => ("norm", kind),
        ["to_q", kind] => ("q", kind),
        ["to_k", kind] => ("k", kind),
        ["to_v", kind] => ("v", kind),
        ["to_out", "0", kind] => ("proj_out", kind),
        _ => return None,
    };
    Some(format!("{name}.{kind}"))
}

/// How diffusers called a tensor of the attention at first; `None` for all others.
fn old_attention_name(name: &str) -> Option<String> {
    let layers = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
    layers.iter().find_map(|(current, old)| {
        let (path, kind) = name.rsplit_once('.')?;
        let attention = path.strip_suffix(*current)?;
        attention.ends_with(".attentions.0.").then(|| format!("{attention}{old}.{kind}"))
    })
}
