//! The text encoders of a single file: CLIP in the names of transformers, OpenCLIP in its own.
//!
//! Source: transformers `CLIPTextModel` and OpenCLIP's `TextTransformer` for names and shapes, diffusers
//! `convert_open_clip_checkpoint` for how one follows from the other; proved as those of the UNet are.

use serde_json::{Value, json};

use super::listing::{Listing, Shapes, count, length};
use super::names::Names;
use crate::weights::{View, Wanted};

/// What current names begin with.
const TOWER: &str = "text_model.";

/// In which names a file holds an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Those of transformers.
    Transformers,
    /// The same without `text_model.`, in very old files.
    Bare,
    /// OpenCLIP's.
    OpenClip,
}

/// Which layer's states the model reads, and whether there is a projection behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// All layers, no projection: the first encoder of SD 1.x and SDXL.
    Plain,
    /// All layers but the last, which SD 2.x never runs; no projection.
    WithoutLast,
    /// All layers and the projection: the second encoder of SDXL.
    Projected,
}

/// Where a file holds an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) prefix: &'static str,
    pub(super) naming: Naming,
    pub(super) used: Use,
}

/// The structure of a text encoder as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextPlan {
    pub(super) n_tokens: usize,
    pub(super) n_positions: usize,
    pub(super) width: usize,
    pub(super) inner_width: usize,
    pub(super) n_layers: usize,
    /// Width of the projected embedding.
    pub(super) projection: Option<usize>,
}

impl Place {
    /// Finds an encoder in the names of transformers below a prefix.
    pub(super) fn clip(names: &Names<'_>, prefix: &'static str) -> Option<Self> {
        let sign = "embeddings.token_embedding.weight";
        let naming = if names.has(&format!("{prefix}{TOWER}{sign}")) {
            Naming::Transformers
        } else if names.has(&format!("{prefix}{sign}")) {
            Naming::Bare
        } else {
            return None;
        };
        Some(Self { prefix, naming, used: Use::Plain })
    }

    /// Finds an encoder in the names of OpenCLIP below a prefix.
    pub(super) fn open_clip(names: &Names<'_>, prefix: &'static str, used: Use) -> Option<Self> {
        let found = names.has(&format!("{prefix}token_embedding.weight"));
        found.then_some(Self { prefix, naming: Naming::OpenClip, used })
    }

    /// Reads the plan from the shapes, or says what was found instead.
    pub(super) fn plan(self, names: &Names<'_>) -> Result<TextPlan, String> {
        let shapes = |name: &str| names.shape(&format!("{}{name}", self.prefix));
        match self.naming {
            Naming::Transformers => {
                derive(&|name| shapes(&format!("{TOWER}{name}")), &TRANSFORMERS_SIGNS, self.used)
            }
            Naming::Bare => derive(&shapes, &TRANSFORMERS_SIGNS, self.used),
            Naming::OpenClip => derive(&shapes, &OPEN_CLIP_SIGNS, self.used),
        }
    }

    /// All tensors of the plan and where the file holds them.
    pub(super) fn wanted(self, names: &Names<'_>, plan: &TextPlan) -> Vec<Wanted> {
        let wanted = plan.tensors().into_iter().filter_map(|(name, shape)| {
            let (stored, view) = match self.naming {
                Naming::Transformers => (name.clone(), View::Whole),
                Naming::Bare => (name.strip_prefix(TOWER)?.to_owned(), View::Whole),
                Naming::OpenClip => open_clip_name(&name, plan.width)?,
            };
            let stored = names.stored(&format!("{}{stored}", self.prefix));
            Some(Wanted { name, stored, shape, view })
        });
        wanted.collect()
    }

    /// Whether a tensor belongs to this encoder as it was trained but not as it is used.
    pub(super) fn is_dropped(self, plan: &TextPlan, name: &str) -> bool {
        let Some(inner) = name.strip_prefix(self.prefix) else { return false };
        match self.used {
            // Some programs write the identity there.
            Use::Plain => inner == "text_projection.weight",
            Use::WithoutLast => {
                inner == "text_projection"
                    || inner.starts_with(&format!("transformer.resblocks.{}.", plan.n_layers))
            }
            Use::Projected => false,
        }
    }
}

/// Names of tensors whose shapes tell the plan, and the norm that each layer has.
struct Signs {
    tokens: &'static str,
    positions: &'static str,
    inner: &'static str,
    layer: (&'static str, &'static str),
}

const TRANSFORMERS_SIGNS: Signs = Signs {
    tokens: "embeddings.token_embedding.weight",
    positions: "embeddings.position_embedding.weight",
    inner: "encoder.layers.0.mlp.fc1.weight",
    layer: ("encoder.layers.", ".layer_norm1.weight"),
};

const OPEN_CLIP_SIGNS: Signs = Signs {
    tokens: "token_embedding.weight",
    positions: "positional_embedding",
    inner: "transformer.resblocks.0.mlp.c_fc.weight",
    layer: ("transformer.resblocks.", ".ln_1.weight"),
};

fn derive(shapes: &Shapes<'_>, signs: &Signs, used: Use) -> Result<TextPlan, String> {
    /// Layers of the encoder of SD 2.x as it was trained.
    const TRAINED_LAYERS: usize = 24;
    let (beginning, end) = signs.layer;
    let n_found = count(shapes, |n| format!("{beginning}{n}{end}"));
    // Files that were written from a diffusers folder lack the last layer, and with it the projection.
    let has_last = shapes("text_projection").is_some() || n_found == TRAINED_LAYERS;
    let n_layers = match used {
        Use::WithoutLast if has_last => n_found.saturating_sub(1),
        Use::Plain | Use::WithoutLast | Use::Projected => n_found,
    };
    if n_layers == 0 {
        return Err(format!("a text encoder of {n_found} layers"));
    }
    let projection = match used {
        Use::Projected => Some(length(shapes, "text_projection", 1)?),
        Use::Plain | Use::WithoutLast => None,
    };
    Ok(TextPlan {
        n_tokens: length(shapes, signs.tokens, 0)?,
        n_positions: length(shapes, signs.positions, 0)?,
        width: length(shapes, signs.tokens, 1)?,
        inner_width: length(shapes, signs.inner, 0)?,
        n_layers,
        projection,
    })
}

impl TextPlan {
    /// All tensors, under their current names.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = Listing::default();
        let width = self.width;
        let embeddings = format!("{TOWER}embeddings");
        list.tensor(format!("{embeddings}.token_embedding.weight"), &[self.n_tokens, width]);
        list.tensor(format!("{embeddings}.position_embedding.weight"), &[self.n_positions, width]);
        for n in 0..self.n_layers {
            let layer = format!("{TOWER}encoder.layers.{n}");
            list.norm(&format!("{layer}.layer_norm1"), width);
            for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                list.linear(&format!("{layer}.self_attn.{projection}"), width, width);
            }
            list.norm(&format!("{layer}.layer_norm2"), width);
            list.linear(&format!("{layer}.mlp.fc1"), self.inner_width, width);
            list.linear(&format!("{layer}.mlp.fc2"), width, self.inner_width);
        }
        list.norm(&format!("{TOWER}final_layer_norm"), width);
        if let Some(projected) = self.projection {
            list.tensor("text_projection.weight", &[projected, width]);
        }
        list.into_vec()
    }

    /// `config.json` of the encoder: `like`, that of the released model, with what the shapes tell. No shape tells the
    /// heads: all released encoders have one per 64 values; a miniature whose width that does not divide gets one.
    pub(super) fn config(&self, mut like: Value) -> Value {
        let heads = if self.width.is_multiple_of(64) { self.width / 64 } else { 1 };
        for (field, value) in [
            ("vocab_size", json!(self.n_tokens)),
            ("max_position_embeddings", json!(self.n_positions)),
            ("hidden_size", json!(self.width)),
            ("intermediate_size", json!(self.inner_width)),
            ("num_hidden_layers", json!(self.n_layers)),
            ("num_attention_heads", json!(heads)),
        ] {
            like[field] = value;
        }
        if let Some(projected) = self.projection {
            like["projection_dim"] = json!(projected);
        }
        like
    }
}

/// The OpenCLIP name of a tensor, and what it is of the stored one; `None` if it has none.
fn open_clip_name(name: &str, width: usize) -> Option<(String, View)> {
    if name == "text_projection.weight" {
        return Some(("text_projection".to_owned(), View::Transposed));
    }
    let inner = name.strip_prefix(TOWER)?;
    let whole = |name: String| Some((name, View::Whole));
    let Some(in_layers) = inner.strip_prefix("encoder.layers.") else {
        return match inner {
            "embeddings.token_embedding.weight" => whole("token_embedding.weight".to_owned()),
            "embeddings.position_embedding.weight" => whole("positional_embedding".to_owned()),
            _ => whole(inner.replace("final_layer_norm.", "ln_final.")),
        };
    };
    let parts: Vec<&str> = in_layers.split('.').collect();
    let [n, layer @ .., kind] = parts.as_slice() else { return None };
    let block = format!("transformer.resblocks.{n}");
    let third = |idx: usize| {
        let view = View::Rows { first: idx * width, of: 3 * width };
        Some((format!("{block}.attn.in_proj_{kind}"), view))
    };
    match layer {
        ["layer_norm1"] => whole(format!("{block}.ln_1.{kind}")),
        ["layer_norm2"] => whole(format!("{block}.ln_2.{kind}")),
        ["mlp", "fc1"] => whole(format!("{block}.mlp.c_fc.{kind}")),
        ["mlp", "fc2"] => whole(format!("{block}.mlp.c_proj.{kind}")),
        ["self_attn", "out_proj"] => whole(format!("{block}.attn.out_proj.{kind}")),
        ["self_attn", "q_proj"] => third(0),
        ["self_attn", "k_proj"] => third(1),
        ["self_attn", "v_proj"] => third(2),
        _ => None,
    }
}
