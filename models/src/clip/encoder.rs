//! The transformer that both towers share.

use burn::tensor::Tensor;

use super::config::{ClipActivation, TowerConfig};
use crate::layer::{Bias, LayerNorm, Linear};
use crate::ops::{self, Causal};
use crate::source::Builder;
use crate::unet::{join_heads, split_heads};
use crate::visit::network;

/// Source: transformers `CLIPAttention`.
#[derive(Clone, Debug)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}
network!(SelfAttention { key: "k_proj", value: "v_proj", query: "q_proj", out: "out_proj" });

impl SelfAttention {
    fn new(builder: &Builder<'_>, config: &TowerConfig) -> Self {
        let width = config.hidden_size;
        let linear = |name: &str| Linear::new(&builder.at(name), width, width, Bias::With);
        Self {
            query: linear("q_proj"),
            key: linear("k_proj"),
            value: linear("v_proj"),
            out: linear("out_proj"),
            heads: config.num_attention_heads,
        }
    }

    fn forward(&self, x: Tensor<3>, causal: Causal) -> Tensor<3> {
        let query = split_heads(self.query.forward(x.clone()), self.heads);
        let key = split_heads(self.key.forward(x.clone()), self.heads);
        let value = split_heads(self.value.forward(x), self.heads);
        let scale = 1.0 / (query.dims()[3] as f64).sqrt();
        self.out.forward(join_heads(ops::attention(query, key, value, scale, causal)))
    }
}

/// Source: transformers `CLIPEncoderLayer`.
#[derive(Clone, Debug)]
struct EncoderLayer {
    self_attn: SelfAttention,
    layer_norm1: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    layer_norm2: LayerNorm,
    activation: ClipActivation,
}
network!(EncoderLayer {
    self_attn: "self_attn",
    layer_norm1: "layer_norm1",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    layer_norm2: "layer_norm2",
});

impl EncoderLayer {
    fn new(builder: &Builder<'_>, config: &TowerConfig) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        Self {
            self_attn: SelfAttention::new(&builder.at("self_attn"), config),
            layer_norm1: LayerNorm::new(&builder.at("layer_norm1"), width, config.layer_norm_eps),
            fc1: Linear::new(&builder.at("mlp.fc1"), width, inner, Bias::With),
            fc2: Linear::new(&builder.at("mlp.fc2"), inner, width, Bias::With),
            layer_norm2: LayerNorm::new(&builder.at("layer_norm2"), width, config.layer_norm_eps),
            activation: config.activation,
        }
    }

    fn forward(&self, x: Tensor<3>, causal: Causal) -> Tensor<3> {
        let x = self.self_attn.forward(self.layer_norm1.forward(x.clone()), causal) + x;
        let inner = self.fc1.forward(self.layer_norm2.forward(x.clone()));
        let inner = match self.activation {
            ClipActivation::QuickGelu => ops::quick_gelu(inner),
            ClipActivation::Gelu => ops::gelu(inner),
        };
        self.fc2.forward(inner) + x
    }
}

/// Source: transformers `CLIPEncoder`.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    layers: Vec<EncoderLayer>,
}
network!(Encoder { layers: "layers" });

impl Encoder {
    pub(super) fn new(builder: &Builder<'_>, config: &TowerConfig) -> Self {
        let layer = |index| EncoderLayer::new(&builder.at(format!("layers.{index}")), config);
        Self { layers: (0..config.num_hidden_layers).map(layer).collect() }
    }

    /// The states behind the first `n` layers, `[batch, tokens, width]`.
    pub(super) fn behind(&self, x: Tensor<3>, n: usize, causal: Causal) -> Tensor<3> {
        self.layers.iter().take(n).fold(x, |x, layer| layer.forward(x, causal))
    }

    /// The states before the first layer and after each one, `[batch, tokens, width]`.
    pub(super) fn forward(&self, x: Tensor<3>, causal: Causal) -> Vec<Tensor<3>> {
        let mut states = vec![x];
        for layer in &self.layers {
            let next = layer.forward(states[states.len() - 1].clone(), causal);
            states.push(next);
        }
        states
    }
}
