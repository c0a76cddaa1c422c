//! CLIP's `config.json`: one tower, or both with their projection.

use serde_json::{Map, Value, json};

use crate::config::Fields;
use crate::error::ModelError;

/// Activation of a tower's feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipActivation {
    /// x·sigmoid(1.702·x): the models of `OpenAI`.
    QuickGelu,
    /// x·Φ(x) with the exact error function: OpenCLIP's.
    Gelu,
}

/// What both towers have.
#[derive(Clone, Debug, PartialEq)]
pub struct TowerConfig {
    /// Width of the states.
    pub hidden_size: usize,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Activation.
    pub activation: ClipActivation,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Width of the projected embedding.
    pub projection_dim: usize,
}

/// Shape of a [`super::CLIPTextModel`].
///
/// Source: transformers `CLIPTextConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Layers and widths.
    pub tower: TowerConfig,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Selects the pooling rule; 2 means "position of the largest id", as in old configurations.
    pub eos_token_id: u32,
}

/// Shape of a [`super::CLIPVisionModelWithProjection`].
///
/// Source: transformers `CLIPVisionConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Layers and widths.
    pub tower: TowerConfig,
    /// Side of the picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Channels of the picture.
    pub num_channels: usize,
}

/// Fields of transformers that do not change a network.
const IRRELEVANT: &[&str] = &[
    "architectures",
    "model_type",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "initializer_factor",
    "initializer_range",
    "bos_token_id",
    "pad_token_id",
    "attention_dropout",
    "dropout",
    "return_dict",
    "output_hidden_states",
    "output_attentions",
    "use_cache",
    "tie_word_embeddings",
    "is_encoder_decoder",
    "chunk_size_feed_forward",
    "id2label",
    "label2id",
    "problem_type",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "pruned_heads",
    "finetuning_task",
    "tokenizer_class",
    "prefix",
    "task_specific_params",
    "decoder_start_token_id",
    "cross_attention_hidden_size",
    "add_cross_attention",
    "is_decoder",
];

fn tower(fields: &mut Fields<'_>, defaults: [usize; 4]) -> Result<TowerConfig, ModelError> {
    let [width, inner, layers, heads] = defaults;
    fields.ignore(IRRELEVANT);
    let tower = TowerConfig {
        hidden_size: fields.usize("hidden_size", width)?,
        intermediate_size: fields.usize("intermediate_size", inner)?,
        num_hidden_layers: fields.usize("num_hidden_layers", layers)?,
        num_attention_heads: fields.usize("num_attention_heads", heads)?,
        activation: fields.choice(
            "hidden_act",
            "quick_gelu",
            &[("quick_gelu", ClipActivation::QuickGelu), ("gelu", ClipActivation::Gelu)],
        )?,
        layer_norm_eps: fields.f64("layer_norm_eps", 1e-5)?,
        projection_dim: fields.usize("projection_dim", 512)?,
    };
    if !tower.hidden_size.is_multiple_of(tower.num_attention_heads) {
        let expected = format!("a divisor of {}", tower.hidden_size);
        return Err(fields.error("num_attention_heads", tower.num_attention_heads, &expected));
    }
    Ok(tower)
}

impl ClipTextConfig {
    /// Reads a parsed `config.json` of a text encoder; `file` names it in messages.
    ///
    /// # Errors
    ///
    /// An unknown or unsupported field or value.
    pub fn from_json(file: &str, value: &Value) -> Result<Self, ModelError> {
        let mut fields = Fields::new(file, value)?;
        let eos = fields.usize("eos_token_id", 49_407)?;
        let config = Self {
            tower: tower(&mut fields, [512, 2048, 12, 8])?,
            vocab_size: fields.usize("vocab_size", 49_408)?,
            max_position_embeddings: fields.usize("max_position_embeddings", 77)?,
            eos_token_id: u32::try_from(eos)
                .map_err(|_| fields.error("eos_token_id", eos, "a token id"))?,
        };
        fields.finish()?;
        Ok(config)
    }
}

impl ClipVisionConfig {
    /// Reads a parsed `config.json` of a vision tower; `file` names it in messages.
    ///
    /// # Errors
    ///
    /// An unknown or unsupported field or value.
    pub fn from_json(file: &str, value: &Value) -> Result<Self, ModelError> {
        let mut fields = Fields::new(file, value)?;
        let config = Self {
            tower: tower(&mut fields, [768, 3072, 12, 12])?,
            image_size: fields.usize("image_size", 224)?,
            patch_size: fields.usize("patch_size", 32)?,
            num_channels: fields.usize("num_channels", 3)?,
        };
        if !config.image_size.is_multiple_of(config.patch_size) {
            return Err(fields.error(
                "patch_size",
                config.patch_size,
                &format!("a divisor of {}", config.image_size),
            ));
        }
        fields.finish()?;
        Ok(config)
    }
}

/// Both halves of a `CLIPModel` configuration, each with the common `projection_dim`.
///
/// # Errors
///
/// An unknown or unsupported field or value.
pub fn clip_configs(
    file: &str,
    value: &Value,
) -> Result<(ClipTextConfig, ClipVisionConfig), ModelError> {
    let mut fields = Fields::new(file, value)?;
    fields.ignore(IRRELEVANT);
    fields.ignore(&["text_config", "vision_config", "logit_scale_init_value"]);
    let projection_dim = fields.usize("projection_dim", 512)?;
    fields.finish()?;
    let half = |name: &str| {
        let mut half: Map<String, Value> =
            value.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        half.insert("projection_dim".to_owned(), json!(projection_dim));
        Value::Object(half)
    };
    let text = ClipTextConfig::from_json(&format!("{file} (text_config)"), &half("text_config"))?;
    let vision =
        ClipVisionConfig::from_json(&format!("{file} (vision_config)"), &half("vision_config"))?;
    Ok((text, vision))
}
