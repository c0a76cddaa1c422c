//! A whole base of some 60,000 random parameters, for tests and dry runs, and one for each family.
//!
//! It is written as a diffusers folder and loaded like any other, so that whatever is tried on it
//! passes through the same files and checks. It has learned nothing: its pictures are noise.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use checkpoints::folder::{Library, ModelFolder, write_component};
use checkpoints::{Family, HostTensor, TensorMap, clip_vocabulary};
use serde_json::{Map, Value, json};

use crate::base::{Base, host_values, load};
use crate::clip::{CLIPTextModel, ClipTextConfig, TextProjection};
use crate::error::ModelError;
use crate::evaluator::ClipModel;
use crate::parts::{TEXT_ENCODERS, TOKENIZERS};
use crate::source::Builder;
use crate::tokenizer::{BEGIN, END};
use crate::unet::{UNet2DConditionModel, UNetConfig};
use crate::vae::{AutoencoderKL, VaeConfig};
use crate::visit::{Network, Slot, Visitor};

/// Side of its pictures in pixels.
pub const SIDE_PX: usize = 64;

/// Longest text, in letters: every letter is a token of its own.
pub const MAX_LETTERS: usize = MAX_TOKENS - 2;

const MAX_TOKENS: usize = 48;
/// 256 bytes, the same at the end of a word, and the two marks.
const N_TOKENS: usize = 514;
/// What pads the texts of SD 2.x and of SDXL's second encoder.
const EXCLAMATION: &str = "!";
/// The class of SDXL's second text encoder.
const PROJECTED: &str = "CLIPTextModelWithProjection";

/// Writes the base of `seed` into `dir` and loads it.
///
/// # Errors
///
/// [`ModelError::Checkpoint`] if the folder cannot be written.
pub fn base(dir: &Path, seed: u64, device: &Device) -> Result<Base, ModelError> {
    family_base(dir, Family::Postcards, seed, device)
}

/// As [`base`], with the structure of a family.
///
/// # Errors
///
/// [`ModelError::Checkpoint`] if the folder cannot be written.
pub fn family_base(
    dir: &Path,
    family: Family,
    seed: u64,
    device: &Device,
) -> Result<Base, ModelError> {
    write_family(dir, family, seed, device)?;
    load(&ModelFolder::open(dir)?.into(), device)
}

/// Writes the base of `seed` into `dir` as a diffusers folder, with an `evaluator/` of another seed
/// and width. Equal seeds give equal bytes.
///
/// # Errors
///
/// [`ModelError::Checkpoint`] if the folder cannot be written.
pub fn write(dir: &Path, seed: u64, device: &Device) -> Result<(), ModelError> {
    write_family(dir, Family::Postcards, seed, device)
}

/// As [`write()`], with the structure of a family: its levels, projections, text encoders, padding and
/// prediction. Text states are 16 wide, those of SDXL 16 + 24.
///
/// # Errors
///
/// [`ModelError::Checkpoint`] if the folder cannot be written.
pub fn write_family(
    dir: &Path,
    family: Family,
    seed: u64,
    device: &Device,
) -> Result<(), ModelError> {
    let builder = Builder::initial(seed, device);
    let (config, file) = (unet_config(family), "unet/config.json");
    let mut unet =
        UNet2DConditionModel::new(&builder.at("unet"), &UNetConfig::from_json(file, &config)?);
    write_component(&dir.join("unet"), Library::Diffusers, &config, &tensors(&mut unet)?)?;
    let (config, file) = (vae_config(family), "vae/config.json");
    let mut vae = AutoencoderKL::new(&builder.at("vae"), &VaeConfig::from_json(file, &config)?);
    write_component(&dir.join("vae"), Library::Diffusers, &config, &tensors(&mut vae)?)?;
    let texts = ["text", "text_2"].into_iter().zip(text_configs(family));
    for ((key, (config, pad)), place) in texts.zip(TEXT_ENCODERS.into_iter().zip(TOKENIZERS)) {
        let (encoder, tokenizer) = (dir.join(place.0), dir.join(place.1));
        write_text_encoder(&encoder, &builder.at(key), &config)?;
        write_tokenizer(&tokenizer, pad)?;
    }
    checkpoints::fs::atomic_write_json(
        &dir.join("scheduler/scheduler_config.json"),
        &scheduler_config(family),
    )?;
    write_evaluator(&dir.join("evaluator"), seed ^ 1, device)?;
    checkpoints::fs::atomic_write_json(&dir.join("model_index.json"), &model_index(family))?;
    Ok(())
}

fn write_text_encoder(dir: &Path, builder: &Builder<'_>, config: &Value) -> Result<(), ModelError> {
    let settings = ClipTextConfig::from_json("text_encoder/config.json", config)?;
    let projected = config["architectures"] == json!([PROJECTED]);
    let projection = if projected { TextProjection::With } else { TextProjection::Without };
    let mut encoder = CLIPTextModel::new(builder, &settings, projection);
    write_component(dir, Library::Transformers, config, &tensors(&mut encoder)?)?;
    Ok(())
}

/// Writes a `CLIPModel` with its tokenizer, for [`crate::Evaluator::load`].
///
/// # Errors
///
/// [`ModelError::Checkpoint`] if the folder cannot be written.
pub fn write_evaluator(dir: &Path, seed: u64, device: &Device) -> Result<(), ModelError> {
    let vision = json!({
        "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3,
        "image_size": SIDE_PX, "patch_size": 16, "hidden_act": "quick_gelu",
    });
    let config = json!({
        "architectures": ["CLIPModel"], "projection_dim": 12, "text_config": text_config(24), "vision_config": vision,
    });
    let builder = Builder::initial(seed, device);
    let mut model = ClipModel::new(&builder, "evaluator/config.json", &config)?;
    let mut tensors = tensors(&mut model)?;
    // transformers stores this one as a scalar or as one value; the network asks for one value.
    if let Some(scale) = tensors.get_mut("logit_scale") {
        scale.shape = vec![1];
    }
    write_component(dir, Library::Transformers, &config, &tensors)?;
    write_tokenizer(dir, END)
}

fn unet_config(family: Family) -> Value {
    let config = json!({
        "_class_name": "UNet2DConditionModel", "sample_size": 8, "in_channels": 4, "out_channels": 4,
        "layers_per_block": 1, "block_out_channels": [8, 16], "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 16, "attention_head_dim": 2,
    });
    let (down, up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
    let four = json!({
        "block_out_channels": [8, 8, 16, 16],
        "down_block_types": [down, down, down, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", up, up, up],
    });
    match family {
        Family::Postcards => config,
        Family::Sd1 => with(config, four),
        Family::Sd2 => with(
            with(config, four),
            json!({ "use_linear_projection": true, "attention_head_dim": [1, 1, 2, 2] }),
        ),
        Family::Sdxl => with(
            config,
            json!({
                "block_out_channels": [8, 8, 16], "transformer_layers_per_block": [1, 1, 2],
                "down_block_types": ["DownBlock2D", down, down],
                "up_block_types": [up, up, "UpBlock2D"],
                "cross_attention_dim": 40, "attention_head_dim": [1, 1, 2],
                "use_linear_projection": true, "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 60,
            }),
        ),
    }
}

/// `config` with the fields of `changes` in place of its own.
fn with(mut config: Value, changes: Value) -> Value {
    if let (Value::Object(config), Value::Object(changes)) = (&mut config, changes) {
        config.extend(changes);
    }
    config
}

fn vae_config(family: Family) -> Value {
    let scaling_factor = match family {
        Family::Postcards => 0.5,
        Family::Sd1 | Family::Sd2 => 0.18215,
        Family::Sdxl => 0.13025,
    };
    json!({
        "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
        "block_out_channels": [4, 4, 8, 8], "layers_per_block": 1, "norm_num_groups": 4,
        "scaling_factor": scaling_factor,
        "down_block_types": vec!["DownEncoderBlock2D"; 4], "up_block_types": vec!["UpDecoderBlock2D"; 4],
    })
}

fn text_config(width: usize) -> Value {
    json!({
        "architectures": ["CLIPTextModel"], "hidden_size": width, "intermediate_size": 2 * width,
        "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": width, "hidden_act": "quick_gelu",
        "vocab_size": N_TOKENS, "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": N_TOKENS - 2, "eos_token_id": N_TOKENS - 1, "pad_token_id": N_TOKENS - 1,
    })
}

/// The text encoders of a family, each with the padding of its tokenizer. Those of SDXL have a layer
/// more, since it leaves the last one out.
fn text_configs(family: Family) -> Vec<(Value, &'static str)> {
    let gelu = json!({ "hidden_act": "gelu" });
    match family {
        Family::Postcards | Family::Sd1 => vec![(text_config(16), END)],
        Family::Sd2 => vec![(with(text_config(16), gelu), EXCLAMATION)],
        Family::Sdxl => {
            let second = json!({ "architectures": [PROJECTED], "projection_dim": 12 });
            [(text_config(16), END), (with(with(text_config(24), gelu), second), EXCLAMATION)]
                .map(|(config, pad)| (with(config, json!({ "num_hidden_layers": 2 })), pad))
                .into()
        }
    }
}

fn scheduler_config(family: Family) -> Value {
    let prediction = if family == Family::Sd2 { "v_prediction" } else { "epsilon" };
    json!({
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "clip_sample": false, "prediction_type": prediction,
        "set_alpha_to_one": false, "steps_offset": 1, "timestep_spacing": "leading",
    })
}

fn model_index(family: Family) -> Value {
    let index = json!({
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    });
    if family != Family::Sdxl {
        return index;
    }
    let second = json!({
        "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true,
        "text_encoder_2": ["transformers", PROJECTED], "tokenizer_2": ["transformers", "CLIPTokenizer"],
    });
    with(index, second)
}

/// A CLIP vocabulary without merges.
fn write_tokenizer(dir: &Path, pad: &str) -> Result<(), ModelError> {
    let bytes = clip_vocabulary::tokens().into_iter().take(N_TOKENS - 2);
    let tokens = bytes.chain([BEGIN.to_owned(), END.to_owned()]);
    let vocabulary: Map<String, Value> =
        tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
    let settings = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS,
        "bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": pad,
    });
    checkpoints::fs::atomic_write_json(&dir.join("vocab.json"), &Value::Object(vocabulary))?;
    checkpoints::fs::atomic_write(&dir.join("merges.txt"), b"#version: 0.2\n")?;
    checkpoints::fs::atomic_write_json(&dir.join("tokenizer_config.json"), &settings)?;
    Ok(())
}

/// Shows every parameter to a closure.
struct Show<F>(F);

impl<F: FnMut(&str, &mut dyn Slot)> Visitor for Show<F> {
    fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
        (self.0)(path, slot);
    }
}

/// All parameters of a network in f32, under their names.
fn tensors(network: &mut dyn Network) -> Result<TensorMap, ModelError> {
    let mut found = Vec::new();
    network.visit(
        "",
        &mut Show(|path: &str, slot: &mut dyn Slot| {
            found.push((path.to_owned(), slot.shape(), slot.flat()));
        }),
    );
    let host = |(path, shape, values): (String, Vec<usize>, Tensor<1>)| {
        Ok((path, HostTensor::from_f32(shape, host_values(values)?)))
    };
    found.into_iter().map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::base_layers;
    use crate::base::tensor_from_host;
    use crate::conditioning::SizeConditions;
    use crate::evaluator::Evaluator;

    #[test]
    fn the_tiny_base_is_small_complete_and_the_same_for_the_same_seed() {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::flex();
        let mut base = base(dir.path(), 3, &device).unwrap();
        let mut n_values = 0;
        let mut count =
            Show(|_: &str, slot: &mut dyn Slot| n_values += slot.shape().iter().product::<usize>());
        base.unet.visit("unet", &mut count);
        base.text_encoder.visit("text_encoder", &mut count);
        assert!((40_000..70_000).contains(&n_values), "{n_values}");
        assert!(base_layers(&base).len() > 40);
        let other = tempfile::tempdir().unwrap();
        write(other.path(), 3, &device).unwrap();
        let hashes = |dir: &Path| ModelFolder::open(dir).unwrap().hashes().unwrap();
        assert_eq!(hashes(other.path()), hashes(dir.path()));
        write(other.path(), 4, &device).unwrap();
        assert_ne!(hashes(other.path()), hashes(dir.path()));
    }

    #[test]
    fn the_tiny_base_of_every_family_computes() {
        for family in Family::ALL {
            let dir = tempfile::tempdir().unwrap();
            let base = family_base(dir.path(), family, 3, &Device::flex()).unwrap();
            let prompts = base.text_states(&["a tiny prompt", ""]).unwrap();
            let given = base.conditioning(prompts, &[SizeConditions::whole([SIDE_PX; 2])]);
            assert_eq!(given.added.is_some(), family == Family::Sdxl);
            let [channels, height, width] = base.latent_shape([SIDE_PX; 2]).unwrap();
            let noisy = tensor_from_host(
                vec![0.5; 2 * channels * height * width],
                [2, channels, height, width],
                &base.device,
            );
            let output = base.denoise(noisy.clone(), base.timesteps(500.0, 2), &given).unwrap();
            assert_eq!(output.dims(), noisy.dims());
            assert!(host_values(output).unwrap().iter().all(|value| value.is_finite()));
            assert_eq!(base.vae.pixels_from_latents(noisy).dims(), [2, 3, SIDE_PX, SIDE_PX]);
        }
    }

    #[test]
    fn the_tiny_evaluator_gives_unit_vectors() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 3, &Device::flex()).unwrap();
        let evaluator = Evaluator::load(&dir.path().join("evaluator"), &Device::flex()).unwrap();
        let texts = evaluator.text_embeddings(&["a boat", "a house"]).unwrap();
        let picture = vec![90; 3 * SIDE_PX * SIDE_PX];
        let images = evaluator.image_embeddings(&[&picture]).unwrap();
        for row in texts.iter().chain(&images) {
            let length: f32 = row.iter().map(|value| value * value).sum();
            assert!((length - 1.0).abs() < 1e-5);
        }
    }
}
