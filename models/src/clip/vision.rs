//! CLIP's vision tower.

use burn::tensor::Tensor;

use super::config::ClipVisionConfig;
use super::encoder::Encoder;
use crate::layer::{Bias, Conv2d, Embedding, LayerNorm, Linear, Window};
use crate::ops::Causal;
use crate::source::{Builder, Initial};
use crate::unet::positions_from_map;
use crate::visit::network;

/// Turns pictures into projected embeddings.
///
/// Source: transformers `CLIPVisionModelWithProjection`, proved by the golden case `clip_vision`.
#[derive(Clone, Debug)]
pub struct CLIPVisionModelWithProjection {
    config: ClipVisionConfig,
    class_embedding: Tensor<1>,
    patch_embedding: Conv2d,
    position_embedding: Embedding,
    pre_layer_norm: LayerNorm,
    encoder: Encoder,
    post_layer_norm: LayerNorm,
    visual_projection: Linear,
}
// "pre_layrnorm" is spelled so in every CLIP file.
network!(CLIPVisionModelWithProjection {
    class_embedding: "vision_model.embeddings.class_embedding",
    patch_embedding: "vision_model.embeddings.patch_embedding",
    position_embedding: "vision_model.embeddings.position_embedding",
    pre_layer_norm: "vision_model.pre_layrnorm",
    encoder: "vision_model.encoder",
    post_layer_norm: "vision_model.post_layernorm",
    visual_projection: "visual_projection",
});

impl CLIPVisionModelWithProjection {
    /// Builds the network of `config` with the builder's tensors.
    pub fn new(builder: &Builder<'_>, config: &ClipVisionConfig) -> Self {
        let tower = &config.tower;
        let width = tower.hidden_size;
        let n_patches = (config.image_size / config.patch_size).pow(2);
        let root = builder.at("vision_model");
        let window = Window { kernel: config.patch_size, stride: config.patch_size, padding: 0 };
        let channels = [config.num_channels, width];
        let norm = |name: &str| LayerNorm::new(&root.at(name), width, tower.layer_norm_eps);
        Self {
            class_embedding: root.at("embeddings").tensor(
                "class_embedding",
                [width],
                Initial::Normal(0.02),
            ),
            patch_embedding: Conv2d::with_bias(
                &root.at("embeddings.patch_embedding"),
                channels,
                window,
                Bias::Without,
            ),
            position_embedding: Embedding::new(
                &root.at("embeddings.position_embedding"),
                n_patches + 1,
                width,
            ),
            pre_layer_norm: norm("pre_layrnorm"),
            encoder: Encoder::new(&root.at("encoder"), tower),
            post_layer_norm: norm("post_layernorm"),
            visual_projection: Linear::new(
                &builder.at("visual_projection"),
                width,
                tower.projection_dim,
                Bias::Without,
            ),
            config: config.clone(),
        }
    }

    /// The shape of this network.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// `pixels`: `[batch, 3, image_size, image_size]`, normalised as the model expects; result:
    /// `[batch, projection_dim]`, not normalised.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        let width = self.config.tower.hidden_size;
        let batch = pixels.dims()[0];
        let states = self.encoder.forward(self.embedded(pixels), Causal::No);
        let class = states[states.len() - 1].clone().slice([0..batch, 0..1, 0..width]);
        let pooled: Tensor<2> = self.post_layer_norm.forward(class).squeeze_dim(1);
        self.visual_projection.forward_rows(pooled)
    }

    /// Patch tokens behind the first quarter of the layers, without the class token,
    /// `[batch, patches, width]`: what a picture is painted like more than what it shows.
    pub fn early_tokens(&self, pixels: Tensor<4>) -> Tensor<3> {
        let depth = self.config.tower.num_hidden_layers.div_ceil(4);
        let states = self.encoder.behind(self.embedded(pixels), depth, Causal::No);
        let [batch, tokens, width] = states.dims();
        states.slice([0..batch, 1..tokens, 0..width])
    }

    /// The states before the first layer, class token first.
    fn embedded(&self, pixels: Tensor<4>) -> Tensor<3> {
        let width = self.config.tower.hidden_size;
        let patches = positions_from_map(self.patch_embedding.forward(pixels));
        let [batch, _, _] = patches.dims();
        let class = self.class_embedding.clone().reshape([1, 1, width]).repeat_dim(0, batch);
        let embedded = Tensor::cat(vec![class, patches], 1)
            + self.position_embedding.weight.clone().unsqueeze_dim::<3>(0);
        self.pre_layer_norm.forward(embedded)
    }
}
