use std::path::PathBuf;

use serde_json::json;

use super::text::TextPlan;
use super::unet::{Level, Projection};
use super::vae::{Presence, VaePlan};
use super::*;
use crate::safetensors::write_tensors;
use crate::tensors::{HostTensor, TensorMap};

const FAMILIES: [&str; 3] = ["sd1", "sd2", "sdxl"];

type Naming<'a> = &'a dyn Fn(&str) -> Option<String>;
type Change<'a> = &'a dyn Fn(&mut TensorMap);

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/golden/single_file").join(name)
}

fn stored(name: &str) -> TensorMap {
    TensorFile::open(&golden(name)).unwrap().read_all().unwrap()
}

fn zeros(shape: &[usize]) -> HostTensor {
    HostTensor::from_f32(shape, vec![0.0; shape.iter().product()])
}

fn opened(tensors: &TensorMap, options: &ModelOptions) -> Result<SingleFile, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_tensors(&path, tensors, &BTreeMap::new()).unwrap();
    SingleFile::open(&path, options)
}

/// Opens a golden file after its tensors were changed.
fn changed(
    family: &str,
    change: impl FnOnce(&mut TensorMap),
) -> Result<SingleFile, CheckpointError> {
    let mut tensors = stored(&format!("{family}.safetensors"));
    change(&mut tensors);
    opened(&tensors, &ModelOptions::default())
}

/// Gives every tensor another name; one without is dropped.
fn renamed(tensors: &mut TensorMap, name: impl Fn(&str) -> Option<String>) {
    let before = std::mem::take(tensors);
    tensors.extend(before.into_iter().filter_map(|(old, tensor)| Some((name(&old)?, tensor))));
}

/// Every tensor of every component, bit for bit, and no others.
fn check(file: &SingleFile, expected: &TensorMap) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, tensor) in expected {
        let (part, name) = key.split_once('/').unwrap();
        *counts.entry(part).or_default() += 1;
        let weights = &file.parts[part].weights;
        assert!(weights.read(name).unwrap() == *tensor, "{key}");
        assert_eq!(weights.info(name).unwrap().shape, tensor.shape, "{key}");
    }
    let found = file.parts.iter().map(|(part, stored)| (*part, stored.weights.len()));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), counts);
}

#[test]
fn every_tensor_is_found_bit_for_bit_under_its_diffusers_name() {
    let numbers = stored("case.safetensors");
    for family in FAMILIES {
        let path = golden(&format!("{family}.safetensors"));
        let file = SingleFile::open(&path, &ModelOptions::default()).unwrap();
        assert_eq!(file.family().name(), family);
        check(&file, &stored(&format!("{family}.expected.safetensors")));
        for (part, stored) in &file.parts {
            let number = numbers[&format!("{family}.{part}")].f32()[0] as usize;
            assert_eq!(stored.weights.len(), number, "{family} {part}");
        }
    }
}

#[test]
fn the_moving_average_is_read_when_it_is_asked_for() {
    let options = ModelOptions { which: WhichWeights::Average, ..ModelOptions::default() };
    let file = SingleFile::open(&golden("sd1.safetensors"), &options).unwrap();
    let mut expected = stored("sd1.expected.safetensors");
    expected.retain(|key, _| !key.starts_with("unet/"));
    let average = stored("sd1.average.safetensors");
    assert_eq!(average.len(), 686);
    expected.extend(
        average.into_iter().map(|(key, tensor)| (key.replace("average/", "unet/"), tensor)),
    );
    check(&file, &expected);
    let error = SingleFile::open(&golden("sd2.safetensors"), &options).unwrap_err().to_string();
    assert!(error.contains("found no moving average"), "{error}");
}

/// What shapes, or the family, tell of each network.
const UNET_FIELDS: [&str; 12] = [
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "down_block_types",
    "up_block_types",
    "attention_head_dim",
    "use_linear_projection",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "transformer_layers_per_block",
];
const VAE_FIELDS: [&str; 7] = [
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "latent_channels",
    "down_block_types",
    "up_block_types",
];
const TEXT_FIELDS: [&str; 8] = [
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "eos_token_id",
];

#[test]
fn configurations_follow_from_shapes() {
    for family in FAMILIES {
        let path = golden(&format!("{family}.safetensors"));
        let file = SingleFile::open(&path, &ModelOptions::default()).unwrap();
        let written: Value =
            crate::fs::read_json(&golden(&format!("{family}.configs.json"))).unwrap();
        for (part, stored) in &file.parts {
            let fields = match *part {
                "unet" => UNET_FIELDS.as_slice(),
                "vae" => &VAE_FIELDS,
                _ => &TEXT_FIELDS,
            };
            for field in fields {
                // Old configurations leave out what is as the class has it.
                if let Some(found) = stored.config.get(field) {
                    assert_eq!(*found, written[part][field], "{family} {part} {field}");
                }
            }
        }
        let unet = &file.parts["unet"].config;
        assert_eq!(unet.get("use_linear_projection").is_some(), family != "sd1");
        assert_eq!(unet.get("transformer_layers_per_block").is_some(), family == "sdxl");
        assert_eq!(unet["norm_num_groups"], 32);
        assert_eq!(file.parts["vae"].config.get("scaling_factor").is_some(), family == "sdxl");
    }
    let path = golden("sdxl.safetensors");
    let file = SingleFile::open(&path, &ModelOptions::default()).unwrap();
    let second = &file.parts["text_encoder_2"].config;
    assert_eq!(second["projection_dim"], 20);
    assert_eq!(second["architectures"], json!(["CLIPTextModelWithProjection"]));
}

/// The plan that the configuration of a released network means.
fn unet_plan(config: &Value) -> UNetPlan {
    let number = |field: &str| usize::try_from(config[field].as_u64().unwrap()).unwrap();
    let attends = |field: &str, b: usize| config[field][b].as_str().unwrap().starts_with("Cross");
    let widths = config["block_out_channels"].as_array().unwrap();
    let n_levels = widths.len();
    let depths = config.get("transformer_layers_per_block");
    let depth = |b: usize| depths.map_or(1, |depths| depths[b].as_u64().unwrap() as usize);
    let level = |b: usize| Level {
        width: widths[b].as_u64().unwrap() as usize,
        down_depth: if attends("down_block_types", b) { depth(b) } else { 0 },
        up_depth: if attends("up_block_types", n_levels - 1 - b) { depth(b) } else { 0 },
    };
    let linear = config.get("use_linear_projection") == Some(&json!(true));
    UNetPlan {
        in_channels: number("in_channels"),
        out_channels: number("out_channels"),
        levels: (0..n_levels).map(level).collect(),
        layers_per_block: number("layers_per_block"),
        mid_depth: depth(n_levels - 1),
        cross_attention_dim: number("cross_attention_dim"),
        projection: if linear { Projection::Linear } else { Projection::Convolution },
        added_width: config
            .get("projection_class_embeddings_input_dim")
            .map(|width| width.as_u64().unwrap() as usize),
    }
}

fn n_values(tensors: &[(String, Vec<usize>)]) -> usize {
    tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

#[test]
fn released_networks_have_their_published_sizes_and_follow_from_their_shapes() {
    for (family, n_tensors, n_parameters, pooled_width) in [
        (Family::Sd1, 686, 859_520_964, None),
        (Family::Sd2, 686, 865_910_724, None),
        (Family::Sdxl, 1680, 2_567_463_684, Some(1280)),
    ] {
        let config = family.unet_config().unwrap();
        let plan = unet_plan(&config);
        let tensors = plan.tensors();
        assert_eq!((tensors.len(), n_values(&tensors)), (n_tensors, n_parameters), "{family:?}");
        let ldm: BTreeMap<String, Vec<usize>> = tensors
            .iter()
            .map(|(name, shape)| (plan.ldm_name(name).unwrap(), shape.clone()))
            .collect();
        assert_eq!(ldm.len(), n_tensors);
        let derived = UNetPlan::derive(&|name| ldm.get(name).cloned()).unwrap();
        assert_eq!(derived, plan);
        assert_eq!(derived.config(family, pooled_width), config);
        let upsampler =
            if family == Family::Sdxl { "output_blocks.2.2" } else { "output_blocks.2.1" };
        assert!(ldm.contains_key(&format!("{upsampler}.conv.weight")));
    }
}

#[test]
fn released_shapes_are_the_published_ones() {
    let shape = |family: Family, name: &str| {
        let plan = unet_plan(&family.unet_config().unwrap());
        plan.tensors().into_iter().find(|(other, _)| other == name).unwrap().1
    };
    let attention = "down_blocks.1.attentions.0";
    assert_eq!(shape(Family::Sd1, "conv_in.weight"), [320, 4, 3, 3]);
    assert_eq!(shape(Family::Sd1, &format!("{attention}.proj_in.weight")), [640, 640, 1, 1]);
    assert_eq!(shape(Family::Sdxl, &format!("{attention}.proj_in.weight")), [640, 640]);
    for (family, width) in [(Family::Sd1, 768), (Family::Sd2, 1024), (Family::Sdxl, 2048)] {
        let key = format!("{attention}.transformer_blocks.0.attn2.to_k.weight");
        assert_eq!(shape(family, &key), [640, width]);
        let inner = "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight";
        assert_eq!(shape(family, inner), [10_240, 1280]);
    }
    assert_eq!(shape(Family::Sdxl, "add_embedding.linear_1.weight"), [1280, 2816]);
}

#[test]
fn released_encoders_have_their_published_sizes() {
    let vae = VaePlan {
        in_channels: 3,
        out_channels: 3,
        widths: vec![128, 256, 512, 512],
        layers_per_block: 2,
        latent_channels: 4,
        quant_conv: Presence::Present,
        post_quant_conv: Presence::Present,
        mid_attention: Presence::Present,
    };
    let tensors = vae.tensors();
    assert_eq!((tensors.len(), n_values(&tensors)), (248, 83_653_863));
    for family in [Family::Sd1, Family::Sd2, Family::Sdxl] {
        let config = family.vae_config().unwrap();
        assert_eq!(vae.config(&config), config);
    }
    let configs = [
        (Family::Sd1, 0, None, 196, 123_060_480),
        (Family::Sd2, 0, None, 372, 340_387_840),
        (Family::Sdxl, 0, None, 196, 123_060_480),
        (Family::Sdxl, 1, Some(1280), 517, 694_659_840),
    ];
    for (family, idx, projection, n_tensors, n_parameters) in configs {
        let config = family.text_encoder_configs().swap_remove(idx);
        let number = |field: &str| config[field].as_u64().unwrap() as usize;
        let plan = TextPlan {
            n_tokens: number("vocab_size"),
            n_positions: number("max_position_embeddings"),
            width: number("hidden_size"),
            inner_width: number("intermediate_size"),
            n_layers: number("num_hidden_layers"),
            projection,
        };
        let tensors = plan.tensors();
        assert_eq!((tensors.len(), n_values(&tensors)), (n_tensors, n_parameters), "{family:?}");
        assert_eq!(plan.config(config.clone()), config);
    }
}

#[test]
fn other_spellings_of_a_whole_file_are_read() {
    let bare = |name: &str| Some(name.replace("transformer.text_model.", "transformer."));
    let vae = |name: &str| Some(name.replace("first_stage_model.", "vae."));
    let wrapped = |name: &str| Some(format!("state_dict.{name}"));
    let without_last = |name: &str| {
        let dropped = name.contains(".resblocks.23.") || name.ends_with(".text_projection");
        (!dropped).then(|| name.to_owned())
    };
    let cases: [(&str, Naming<'_>); 6] = [
        ("sd1", &bare),
        ("sd1", &vae),
        ("sd1", &wrapped),
        ("sd2", &vae),
        ("sd2", &without_last),
        ("sdxl", &wrapped),
    ];
    for (family, name) in cases {
        let file = changed(family, |tensors| renamed(tensors, name)).unwrap();
        check(&file, &stored(&format!("{family}.expected.safetensors")));
    }
    let flat = changed("sdxl", |tensors| {
        for (name, tensor) in tensors.iter_mut() {
            if name.contains(".attn_1.") && tensor.shape.len() == 4 {
                tensor.shape.truncate(2);
            }
        }
    });
    check(&flat.unwrap(), &stored("sdxl.expected.safetensors"));
}

#[test]
fn what_is_no_weight_is_left_out() {
    let file = changed("sdxl", |tensors| {
        for name in [
            "v_pred",
            "ztsnr",
            "global_step",
            "conditioner.embedders.0.transformer.text_projection.weight",
            "conditioner.embedders.0.logit_scale",
        ] {
            tensors.insert(name.to_owned(), zeros(&[1]));
        }
    })
    .unwrap();
    check(&file, &stored("sdxl.expected.safetensors"));
    assert_eq!((file.predicts(), file.zero_terminal_snr()), (Some(Predicts::V), true));
    let plain = |family: &str| changed(family, |_| {}).unwrap();
    assert_eq!(plain("sd1").predicts(), Some(Predicts::Epsilon));
    assert_eq!(plain("sd2").predicts(), None);
    assert!(!plain("sdxl").zero_terminal_snr());
}

#[test]
fn every_other_tensor_is_an_error_that_lists_it() {
    let strange = [
        "model.diffusion_model.input_blocks.1.0.adapter.weight",
        "first_stage_model.encoder.down.4.block.0.norm1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc1.lora",
        "surprise",
    ];
    let error = changed("sd1", |tensors| {
        tensors.extend(strange.map(|name| (name.to_owned(), zeros(&[1]))));
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("holds 4 tensors that no part of Stable Diffusion 1.x has"), "{error}");
    for name in strange {
        assert!(error.contains(&format!("`{name}`")), "{error}");
    }
}

#[test]
fn a_component_that_is_not_whole_is_an_error_that_lists_what_is_missing() {
    for (family, name, component) in [
        ("sd1", "model.diffusion_model.output_blocks.5.2.conv.bias", "unet"),
        ("sd1", "first_stage_model.decoder.up.3.block.2.conv1.weight", "vae"),
        ("sd1", "cond_stage_model.transformer.text_model.final_layer_norm.bias", "text_encoder"),
        ("sd2", "cond_stage_model.model.transformer.resblocks.4.attn.in_proj_bias", "text_encoder"),
        ("sdxl", "conditioner.embedders.1.model.ln_final.weight", "text_encoder_2"),
    ] {
        let error = changed(family, |tensors| drop(tensors.remove(name).unwrap())).unwrap_err();
        let expected = format!("lacks 1 tensor of its {component}: `{name}`");
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    for (family, name, shape, expected) in [
        ("sd1", "model.diffusion_model.time_embed.2.weight", vec![32, 31], "[32, 32]"),
        (
            "sd2",
            "model.diffusion_model.middle_block.1.proj_in.weight",
            vec![12, 12, 1, 1],
            "[12, 12]",
        ),
        ("sd1", "first_stage_model.quant_conv.weight", vec![8, 8], "[8, 8, 1, 1]"),
        (
            "sdxl",
            "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
            vec![32, 16],
            "[48, 16]",
        ),
    ] {
        let error = changed(family, |tensors| {
            tensors.insert(name.to_owned(), zeros(&shape));
        })
        .unwrap_err();
        let expected = format!("stores `{name}` with shape {shape:?}, expected {expected}");
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
}

/// The message and the advice of a golden file that was changed.
fn refused(family: &str, change: impl FnOnce(&mut TensorMap)) -> String {
    let error = changed(family, change).unwrap_err();
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

#[test]
fn models_of_another_kind_are_refused_by_name() {
    for (name, expected) in [
        ("double_blocks.0.img_attn.qkv.weight", "FLUX"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "`double_blocks`"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("control_model.time_embed.0.weight", "ControlNet"),
        ("edm_mean", "Playground"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "an adapter"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "an adapter"),
        ("blocks.0.scale_shift_table", "diffusion transformer"),
    ] {
        let only = |tensors: &mut TensorMap| {
            *tensors = TensorMap::from([(name.to_owned(), zeros(&[1]))]);
        };
        let message = refused("sdxl", only);
        assert!(message.contains(expected), "{message}");
        let beside = |tensors: &mut TensorMap| drop(tensors.insert(name.to_owned(), zeros(&[1])));
        assert!(refused("sdxl", beside).contains(expected), "{name}");
    }
    let inputs = |n: usize| {
        move |tensors: &mut TensorMap| {
            let name = "model.diffusion_model.input_blocks.0.0.weight".to_owned();
            tensors.insert(name, zeros(&[8, n, 3, 3]));
        }
    };
    assert!(refused("sd1", inputs(9)).contains("an inpainting model (9 input channels, 4 output"));
    assert!(refused("sd1", inputs(5)).contains("depth"));
    assert!(refused("sd1", inputs(8)).contains("InstructPix2Pix"));
    let refiner = |tensors: &mut TensorMap| {
        renamed(tensors, |name| {
            let kept = !name.starts_with("conditioner.embedders.0.");
            kept.then(|| name.replace("embedders.1.", "embedders.0."))
        });
    };
    assert!(refused("sdxl", refiner).contains("the refiner of SDXL"));
}

#[test]
fn a_part_of_a_model_is_refused_with_what_a_whole_one_holds() {
    let keep = |prefix: &'static str| {
        move |tensors: &mut TensorMap| tensors.retain(|name, _| name.starts_with(prefix))
    };
    let below = |prefix: &'static str| {
        move |tensors: &mut TensorMap| {
            renamed(tensors, |name| name.strip_prefix(prefix).map(str::to_owned));
        }
    };
    for (message, expected) in [
        (refused("sd1", keep("model.diffusion_model.")), "of Stable Diffusion 1.x without text"),
        (refused("sd2", keep("model.diffusion_model.")), "of Stable Diffusion 2.x without text"),
        (refused("sdxl", keep("model.diffusion_model.")), "of Stable Diffusion XL without text"),
        (refused("sd1", keep("first_stage_model.")), "a VAE without a network"),
        (refused("sd1", below("model.diffusion_model.")), "a network alone, in the names of ldm"),
        (refused("sd1", below("first_stage_model.")), "a VAE alone"),
        (refused("sd1", below("cond_stage_model.transformer.")), "a text encoder alone"),
        (refused("sd2", below("cond_stage_model.model.")), "a text encoder alone"),
        (refused("sd1", keep("nothing")), "no tensor below `model.diffusion_model.`"),
        (
            refused("sd1", |tensors| {
                renamed(tensors, |name| Some(name.replace("cond_stage_model", "conditioner")));
            }),
            "with other text encoders",
        ),
    ] {
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("a complete file holds the network"), "{message}");
    }
    let no_vae = |tensors: &mut TensorMap| tensors.retain(|name, _| !name.starts_with("first_"));
    let message = refused("sdxl", no_vae);
    assert!(message.contains("expected a VAE") && message.contains("below `vae`"), "{message}");
}

#[test]
fn a_file_without_vae_is_whole_if_there_is_one_elsewhere() {
    let mut tensors = stored("sd1.safetensors");
    tensors.retain(|name, _| !name.starts_with("first_stage_model."));
    let vae = Some(PathBuf::from("elsewhere.safetensors"));
    let file = opened(&tensors, &ModelOptions { vae, ..ModelOptions::default() }).unwrap();
    assert_eq!(file.parts.keys().copied().collect::<Vec<_>>(), ["text_encoder", "unet"]);
}

fn own_vae(change: impl FnOnce(&mut TensorMap)) -> Result<ComponentFiles, CheckpointError> {
    let mut tensors = stored("sd1.safetensors");
    tensors.retain(|name, _| name.starts_with("first_stage_model."));
    change(&mut tensors);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vae.safetensors");
    write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
    standalone_vae(&path, &json!({"scaling_factor": 0.5, "norm_num_groups": 4}))
}

#[test]
fn a_vae_of_its_own_is_read_in_every_naming() {
    let expected = stored("sd1.expected.safetensors");
    let current = |tensors: &mut TensorMap| {
        *tensors = expected
            .iter()
            .filter_map(|(key, tensor)| {
                Some((key.strip_prefix("vae/")?.to_owned(), tensor.clone()))
            })
            .collect();
    };
    let old = |tensors: &mut TensorMap| {
        current(tensors);
        let spellings = [
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ];
        renamed(tensors, |name| {
            Some(spellings.iter().fold(name.to_owned(), |name, (new, old)| name.replace(new, old)))
        });
    };
    let bare = |tensors: &mut TensorMap| {
        renamed(tensors, |name| name.strip_prefix("first_stage_model.").map(str::to_owned));
        tensors.insert("loss.logvar".to_owned(), zeros(&[]));
        tensors.insert("model_ema.decay".to_owned(), zeros(&[]));
    };
    let short = |tensors: &mut TensorMap| {
        renamed(tensors, |name| Some(name.replace("first_stage_model.", "vae.")));
    };
    let changes: [Change<'_>; 5] = [&current, &old, &bare, &short, &|_| {}];
    for change in changes {
        let files = own_vae(change).unwrap();
        let mut n_checked = 0;
        for (key, tensor) in &expected {
            let Some(name) = key.strip_prefix("vae/") else { continue };
            assert!(files.weights.read(name).unwrap() == *tensor, "{name}");
            n_checked += 1;
        }
        assert_eq!((n_checked, files.weights.len()), (248, 248));
        assert_eq!(files.config["block_out_channels"], json!([4, 8, 8, 12]));
        assert_eq!(files.config["scaling_factor"], 0.5);
        assert_eq!(files.config["norm_num_groups"], 4);
        assert_eq!(files.config["_class_name"], "AutoencoderKL");
        assert!(files.config.get("use_quant_conv").is_none());
    }
}

#[test]
fn a_vae_of_its_own_that_is_not_one_is_refused() {
    let error = |change: &dyn Fn(&mut TensorMap)| own_vae(change).unwrap_err().to_string();
    let message = error(&|tensors| drop(tensors.insert("surprise".to_owned(), zeros(&[1]))));
    assert!(message.ends_with("that no part of a VAE has: `surprise`"), "{message}");
    let bias = "first_stage_model.decoder.norm_out.bias";
    let message = error(&|tensors| drop(tensors.remove(bias)));
    assert!(message.ends_with(&format!("lacks 1 tensor of its vae: `{bias}`")), "{message}");
    let message = error(&|tensors| {
        *tensors = TensorMap::from([("encoder.layers.0.weight".to_owned(), zeros(&[1]))]);
    });
    assert!(message.contains("expected a VAE (`AutoencoderKL`), found no encoder"), "{message}");
}

#[test]
fn a_vae_without_its_outer_convolutions_says_so() {
    let files = own_vae(|tensors| tensors.retain(|name, _| !name.contains("quant_conv"))).unwrap();
    assert_eq!(files.weights.len(), 244);
    assert_eq!(files.config["use_quant_conv"], false);
    assert_eq!(files.config["use_post_quant_conv"], false);
    assert!(files.config.get("mid_block_add_attention").is_none());
}

#[test]
fn hostile_shapes_are_refused_and_never_counted_to_the_end() {
    let huge = |name: &'static str, shape: Vec<usize>| {
        refused("sd1", move |tensors| drop(tensors.insert(name.to_owned(), zeros(&shape))))
    };
    let name = "model.diffusion_model.input_blocks.1.0.out_layers.3.weight";
    for shape in [vec![0, 8], vec![1 << 61, 0], vec![]] {
        let message = huge(name, shape);
        assert!(message.contains("no usable `input_blocks.1.0.out_layers.3.weight`"), "{message}");
    }
    let message = huge("model.diffusion_model.out.2.weight", vec![1 << 40, 0]);
    assert!(message.contains("no usable `out.2.weight`"), "{message}");
    let message = huge("first_stage_model.encoder.conv_in.weight", vec![4]);
    assert!(message.contains("no usable `encoder.conv_in.weight`"), "{message}");
}
