//! The `config.json` files of the released full-size models, as their publishers wrote them.
//!
//! Source: SD 1.5, SD 2.1, SDXL base 1.0 in the layout of diffusers. What a field means belongs to `models`.

use serde_json::{Value, json};

use super::Family;

/// The UNet of SD 1.5.
pub(super) fn unet_sd1() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": false,
        "cross_attention_dim": 768,
        "down_block_types": [
            "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"
        ],
        "downsample_padding": 1,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": [
            "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"
        ]
    })
}

/// The UNet of SD 2.1, 768 px.
pub(super) fn unet_sd2() -> Value {
    let mut config = unet_sd1();
    for (field, value) in [
        ("attention_head_dim", json!([5, 10, 20, 20])),
        ("cross_attention_dim", json!(1024)),
        ("dual_cross_attention", json!(false)),
        ("num_class_embeds", Value::Null),
        ("only_cross_attention", json!(false)),
        ("sample_size", json!(96)),
        ("upcast_attention", json!(true)),
        ("use_linear_projection", json!(true)),
    ] {
        config[field] = value;
    }
    config
}

/// The UNet of SDXL base 1.0.
pub(super) fn unet_sdxl() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "center_input_sample": false,
        "class_embed_type": null,
        "class_embeddings_concat": false,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_dim": 2048,
        "cross_attention_norm": null,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "downsample_padding": 1,
        "dual_cross_attention": false,
        "encoder_hid_dim": null,
        "encoder_hid_dim_type": null,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_only_cross_attention": null,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "num_attention_heads": null,
        "num_class_embeds": null,
        "only_cross_attention": false,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 2816,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": false,
        "resnet_time_scale_shift": "default",
        "sample_size": 128,
        "time_cond_proj_dim": null,
        "time_embedding_act_fn": null,
        "time_embedding_dim": null,
        "time_embedding_type": "positional",
        "timestep_post_act": null,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "upcast_attention": null,
        "use_linear_projection": true
    })
}

/// CLIP ViT-L/14: the encoder of SD 1.x, and the first of SDXL.
pub(super) fn text_clip_l() -> Value {
    json!({
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 1,
        "projection_dim": 768,
        "vocab_size": 49408
    })
}

/// OpenCLIP ViT-H/14 without its last layer: the encoder of SD 2.x.
pub(super) fn text_sd2() -> Value {
    let mut config = text_clip_l();
    for (field, value) in [
        ("hidden_act", json!("gelu")),
        ("hidden_size", json!(1024)),
        ("intermediate_size", json!(4096)),
        ("num_attention_heads", json!(16)),
        ("num_hidden_layers", json!(23)),
        ("projection_dim", json!(512)),
    ] {
        config[field] = value;
    }
    config
}

/// OpenCLIP ViT-bigG/14: the second encoder of SDXL.
pub(super) fn text_big_g() -> Value {
    let mut config = text_clip_l();
    for (field, value) in [
        ("architectures", json!(["CLIPTextModelWithProjection"])),
        ("hidden_act", json!("gelu")),
        ("hidden_size", json!(1280)),
        ("intermediate_size", json!(5120)),
        ("num_attention_heads", json!(20)),
        ("num_hidden_layers", json!(32)),
        ("projection_dim", json!(1280)),
    ] {
        config[field] = value;
    }
    config
}

/// The autoencoder of a large family. The files of SD 1.x and SD 2.x do not state the factor 0.18215, which is the default
/// of the class.
pub(super) fn vae(family: Family) -> Value {
    let mut config = json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": [
            "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"
        ],
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": family.side_px(),
        "up_block_types": [
            "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"
        ]
    });
    if family == Family::Sdxl {
        config["force_upcast"] = json!(true);
        config["scaling_factor"] = json!(0.13025);
    }
    config
}
