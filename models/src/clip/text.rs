//! CLIP's text tower.

use burn::tensor::{Int, Tensor, TensorData};

use super::config::ClipTextConfig;
use super::encoder::Encoder;
use crate::layer::{Bias, Embedding, LayerNorm, Linear};
use crate::ops::{self, Causal};
use crate::source::Builder;
use crate::visit::network;

/// What a text encoder says of a batch of token ids.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// States before the first layer and after each, `[batch, tokens, width]`, without final norm.
    pub hidden: Vec<Tensor<3>>,
    /// States of the last layer after the final norm, `[batch, tokens, width]`.
    pub last: Tensor<3>,
    /// `last` at the end-of-text token, `[batch, width]`.
    pub pooled: Tensor<2>,
    /// `pooled` projected, `[batch, projection_dim]`, if the network has a projection.
    pub projected: Option<Tensor<2>>,
}

/// Turns token ids into text states.
///
/// Source: transformers `CLIPTextModel` and `CLIPTextModelWithProjection`, proved by the golden
/// cases `clip_text`. Padding is attended to, as there.
#[derive(Clone, Debug)]
pub struct CLIPTextModel {
    config: ClipTextConfig,
    token_embedding: Embedding,
    position_embedding: Embedding,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
}
network!(CLIPTextModel {
    token_embedding: "text_model.embeddings.token_embedding",
    position_embedding: "text_model.embeddings.position_embedding",
    encoder: "text_model.encoder",
    final_layer_norm: "text_model.final_layer_norm",
    text_projection: "text_projection",
});

/// Whether pooled states are projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextProjection {
    /// `CLIPTextModelWithProjection`.
    With,
    /// `CLIPTextModel`.
    Without,
}

impl CLIPTextModel {
    /// Builds the network of `config` with the builder's tensors.
    pub fn new(builder: &Builder<'_>, config: &ClipTextConfig, projection: TextProjection) -> Self {
        let tower = &config.tower;
        let width = tower.hidden_size;
        let root = builder.at("text_model");
        let project = || {
            Linear::new(&builder.at("text_projection"), width, tower.projection_dim, Bias::Without)
        };
        Self {
            token_embedding: Embedding::new(
                &root.at("embeddings.token_embedding"),
                config.vocab_size,
                width,
            ),
            position_embedding: Embedding::new(
                &root.at("embeddings.position_embedding"),
                config.max_position_embeddings,
                width,
            ),
            encoder: Encoder::new(&root.at("encoder"), tower),
            final_layer_norm: LayerNorm::new(
                &root.at("final_layer_norm"),
                width,
                tower.layer_norm_eps,
            ),
            text_projection: (projection == TextProjection::With).then(project),
            config: config.clone(),
        }
    }

    /// The shape of this network.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// States of `token_ids`, one row of at most `max_position_embeddings` ids per text, all rows of
    /// the same length.
    pub fn forward(&self, token_ids: &[Vec<u32>]) -> TextOutput {
        let device = self.token_embedding.weight.device();
        let n_tokens = token_ids.first().map_or(0, Vec::len);
        let width = self.config.tower.hidden_size;
        let flat: Vec<i64> = token_ids.iter().flatten().map(|&id| i64::from(id)).collect();
        let ids = Tensor::<2, Int>::from_data(
            TensorData::new(flat, [token_ids.len(), n_tokens]),
            &device,
        );
        let positions = self.position_embedding.weight.clone().slice([0..n_tokens, 0..width]);
        let embedded = self.token_embedding.forward(ids) + positions.unsqueeze_dim::<3>(0);
        let hidden = ops::on_threads(&device, || self.encoder.forward(embedded, Causal::Yes));
        let last = self.final_layer_norm.forward(hidden[hidden.len() - 1].clone());
        let pooled = self.pooled(&last, token_ids);
        let projected =
            self.text_projection.as_ref().map(|layer| layer.forward_rows(pooled.clone()));
        TextOutput { hidden, last, pooled, projected }
    }

    /// The norm that follows the last layer, for states of an earlier one; shape as `states`.
    pub fn final_norm(&self, states: Tensor<3>) -> Tensor<3> {
        self.final_layer_norm.forward(states)
    }

    /// The state at the end-of-text token of each row.
    ///
    /// Source: transformers `CLIPTextTransformer.forward`: the legacy end id 2 means the position of
    /// the largest id, any other its first occurrence (position 0 if there is none).
    fn pooled(&self, last: &Tensor<3>, token_ids: &[Vec<u32>]) -> Tensor<2> {
        let [batch, n_tokens, width] = last.dims();
        let end = |(row, ids): (usize, &Vec<u32>)| {
            let wanted = match self.config.eos_token_id {
                2 => ids.iter().copied().max().unwrap_or(0),
                eos => eos,
            };
            let position = ids.iter().position(|&id| id == wanted).unwrap_or(0);
            (row * n_tokens + position) as i64
        };
        let rows: Vec<i64> = token_ids.iter().enumerate().map(end).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [batch]), &last.device());
        last.clone().reshape([batch * n_tokens, width]).select(0, rows)
    }
}
