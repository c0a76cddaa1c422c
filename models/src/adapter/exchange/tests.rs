use std::path::Path;

use checkpoints::key_map::Part;
use checkpoints::{HostTensor, ModelFiles, ModelOptions, TensorMap};
use recipes::{AdapterDtype, draws};
use serde_json::{Value, json};

use super::write::scaled;
use super::*;
use crate::adapter::{Factors, differences};
use crate::skeleton::file_layers;

const QUERY: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
const PROJECTION: &str = "unet.mid_block.attentions.0.proj_in";
const CONVOLUTION: &str = "unet.mid_block.resnets.0.conv1";
const TEXT: &str = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj";

fn base() -> (Vec<Layer>, KeyMap) {
    let layer =
        |path: &str, weight: &[usize]| Layer { path: path.to_owned(), weight: weight.to_vec() };
    let layers = vec![
        layer(QUERY, &[6, 5]),
        layer(PROJECTION, &[6, 4, 1, 1]),
        layer(CONVOLUTION, &[7, 4, 3, 3]),
        layer(TEXT, &[5, 5]),
    ];
    let map =
        KeyMap::new(Naming::Diffusers, layers.iter().map(|layer| layer.path.as_str())).unwrap();
    (layers, map)
}

fn is_alpha(key: &str) -> bool {
    key.strip_suffix(".alpha").is_some()
}

/// Ranks and alphas differ between modules.
fn adapter() -> Adapter {
    let mut adapter = Adapter::default();
    let plan = [(QUERY, 2, 3.0), (PROJECTION, 2, 3.0), (CONVOLUTION, 3, 1.5), (TEXT, 2, 8.0)];
    for (path, rank, alpha) in plan {
        let weight = base().0.into_iter().find(|layer| layer.path == path).unwrap().weight;
        let mut stream = draws::keyed(1, path);
        let mut tensor = |shape: Vec<usize>| {
            let values = draws::normals(&mut stream, shape.iter().product());
            HostTensor::from_f32(shape, values)
        };
        let (mut down, mut up) = (weight.clone(), vec![1; weight.len()]);
        down[0] = rank;
        (up[0], up[1]) = (weight[0], rank);
        let factors = Factors { down: tensor(down), up: tensor(up), alpha };
        adapter.modules.insert(path.to_owned(), factors);
    }
    adapter
}

/// What an adapter adds: the down factor and (alpha/r)·up.
fn check_same_effect(found: &Adapter, expected: &Adapter, tolerance: f64) {
    assert_eq!(found.modules.len(), expected.modules.len());
    for (path, expected) in &expected.modules {
        let found = &found.modules[path];
        for (found, expected) in [
            (scaled(&found.up, found.scale()), scaled(&expected.up, expected.scale())),
            (found.down.clone(), expected.down.clone()),
        ] {
            assert_eq!(found.shape, expected.shape, "{path}");
            for (found, expected) in found.f32().iter().zip(expected.f32().iter()) {
                assert!(
                    f64::from((found - expected).abs())
                        <= tolerance * f64::from(expected.abs()) + tolerance
                );
            }
        }
    }
}

fn read(tensors: &TensorMap, metadata: &[(&str, &str)]) -> Result<Exchanged, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    let text = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    checkpoints::write_tensors(&path, tensors, &metadata.iter().map(text).collect()).unwrap();
    let (layers, map) = base();
    adapter_from_file(&path, &layers, &map)
}

#[test]
fn kohya_form_keeps_the_effect_and_has_one_alpha_per_component() {
    let (adapter, map) = (adapter(), base().1);
    let tensors = kohya_tensors(&adapter, &map, AdapterDtype::F32).unwrap();
    let alphas: Vec<_> = tensors.iter().filter(|(key, _)| is_alpha(key)).collect();
    assert_eq!(alphas.len(), 4);
    for (key, alpha) in alphas {
        assert!(alpha.shape.is_empty());
        let expected = if key.starts_with("lora_te_") { 8.0 } else { 3.0 };
        assert!((alpha.f32()[0] - expected).abs() < 1e-9, "{key}");
    }
    let read = read(&tensors, &[]).unwrap();
    assert_eq!(read.form, AdapterForm::Kohya);
    assert_eq!(read.tensors_sha256, checkpoints::tensors_sha256(&tensors));
    check_same_effect(&read.adapter, &adapter, 1e-6);
}

#[test]
fn half_precision_rounds_factors_and_not_alpha() {
    let mut adapter = adapter();
    adapter.modules.values_mut().for_each(|factors| factors.alpha = 0.3);
    let tensors = kohya_tensors(&adapter, &base().1, AdapterDtype::F16).unwrap();
    let read = read(&tensors, &[]).unwrap().adapter;
    assert!(read.modules.values().all(|factors| (factors.alpha - 0.3).abs() < 1e-7));
    check_same_effect(&read, &adapter, 1e-3);
}

#[test]
fn an_exact_form_gives_the_same_bits() {
    let adapter = adapter();
    let tensors = exact_tensors(&adapter, &base().1).unwrap();
    assert_eq!(read(&tensors, &[]).unwrap().adapter, adapter);
}

#[test]
fn diffusers_form_is_right_with_and_without_its_metadata() {
    let adapter = adapter();
    let (tensors, config) = diffusers_tensors(&adapter, &base().1, AdapterDtype::F32).unwrap();
    for metadata in [vec![], vec![(ADAPTER_METADATA, config.as_str())]] {
        let read = read(&tensors, &metadata).unwrap();
        assert_eq!(read.form, AdapterForm::Diffusers);
        check_same_effect(&read.adapter, &adapter, 1e-6);
    }
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["unet.r"], 2);
    assert_eq!(config["unet.rank_pattern"]["mid_block.resnets.0.conv1"], 3);
    assert_eq!(config["text_encoder.r"], 2);
}

#[test]
fn alpha_of_a_foreign_configuration_counts() {
    let adapter = adapter();
    let (tensors, _) = diffusers_tensors(&adapter, &base().1, AdapterDtype::F32).unwrap();
    let config = r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"conv1": 6}, "text_encoder.lora_alpha": 4,
        "text_encoder.use_rslora": true}"#;
    let read = read(&tensors, &[(ADAPTER_METADATA, config)]).unwrap().adapter;
    let scale = |path: &str| read.modules[path].scale();
    assert!((scale(QUERY) - 4.0).abs() < 1e-12);
    assert!((scale(CONVOLUTION) - 2.0).abs() < 1e-12);
    assert!((scale(TEXT) - 4.0 / 2.0f64.sqrt()).abs() < 1e-12);
}

#[test]
fn alpha_patterns_are_paths_with_and_without_the_name_of_the_text_model() {
    let adapter = adapter();
    let (tensors, _) = diffusers_tensors(&adapter, &base().1, AdapterDtype::F32).unwrap();
    let found = |pattern: &str| {
        let config = json!({ "text_encoder.alpha_pattern": { pattern: 6 } }).to_string();
        read(&tensors, &[(ADAPTER_METADATA, &config)])
    };
    for pattern in [
        "^encoder.layers.0.self_attn.q_proj",
        "^text_model\\.encoder\\.layers\\.0\\.self_attn\\.q_proj$",
        "text_model.encoder.layers.0.self_attn.q_proj",
        "q_proj",
    ] {
        let scale = found(pattern).unwrap().adapter.modules[TEXT].scale();
        assert!((scale - 3.0).abs() < 1e-12, "{pattern}: {scale}");
    }
    let other = found("^layers.0.self_attn.q_proj").unwrap().adapter.modules[TEXT].scale();
    assert!((other - 1.0).abs() < 1e-12);
    for pattern in [".*q_proj", "encoder\\.layers\\.\\d", "q_proj|k_proj", "layers.[01].mlp"] {
        let message = found(pattern).unwrap_err().to_string();
        assert!(message.contains(&format!("`{pattern}`")), "{message}");
    }
}

#[test]
fn factors_too_small_for_half_precision_share_their_size_exactly() {
    let mut adapter = adapter();
    let factors = adapter.modules.get_mut(QUERY).unwrap();
    // As with rank 128 and alpha 1.
    factors.up = scaled(&factors.up, 1e-4);
    factors.alpha = 2.0 / 128.0;
    let found = balanced(&adapter, AdapterForm::Diffusers);
    let size = |adapter: &Adapter| adapter.modules[QUERY].down.f32()[0];
    let power = (size(&found) / size(&adapter)).log2();
    assert!(power < -8.0 && power.fract() == 0.0, "{power}");
    for path in [PROJECTION, CONVOLUTION, TEXT] {
        assert_eq!(found.modules[path], adapter.modules[path], "{path}");
    }
    let only = |adapter: &Adapter| Adapter {
        modules: [(QUERY.to_owned(), adapter.modules[QUERY].clone())].into(),
    };
    let (adapter, found) = (only(&adapter), only(&found));
    assert_eq!(differences(&found, &adapter, 0.0), Vec::<String>::new());
    let written = |adapter: &Adapter| {
        let (tensors, _) = diffusers_tensors(adapter, &base().1, AdapterDtype::F16).unwrap();
        read(&tensors, &[]).unwrap().adapter
    };
    assert_eq!(differences(&written(&found), &adapter, 2e-3), Vec::<String>::new());
    assert_eq!(differences(&written(&adapter), &adapter, 2e-3).len(), 1);
}

#[test]
fn a_module_without_alpha_has_scale_one() {
    let mut tensors = exact_tensors(&adapter(), &base().1).unwrap();
    tensors.retain(|key, _| !is_alpha(key));
    let read = read(&tensors, &[]).unwrap().adapter;
    assert!(read.modules.values().all(|factors| (factors.scale() - 1.0).abs() < 1e-12));
}

#[test]
fn two_axes_for_a_one_by_one_convolution_are_read() {
    let mut tensors = exact_tensors(&adapter(), &base().1).unwrap();
    for (key, tensor) in &mut tensors {
        if key.contains("proj_in.lora") {
            tensor.shape.truncate(2);
        }
    }
    assert_eq!(read(&tensors, &[]).unwrap().adapter, adapter());
}

#[test]
fn everything_that_is_wrong_is_listed() {
    let mut tensors = exact_tensors(&adapter(), &base().1).unwrap();
    let key = |path: &str, part| base().1.kohya_key(path, part).unwrap();
    tensors.insert("lora_unet_elsewhere.alpha".to_owned(), HostTensor::scalar(1.0));
    tensors.remove(&key(PROJECTION, Part::Up));
    tensors.insert(key(TEXT, Part::Up), HostTensor::from_f32([9, 2], vec![0.0; 18]));
    tensors.insert(key(CONVOLUTION, Part::Alpha), HostTensor::scalar(f32::NAN));
    tensors.insert(key(QUERY, Part::Alpha), HostTensor::from_f32([2], vec![1.0; 2]));
    let message = read(&tensors, &[]).unwrap_err().to_string();
    for expected in [
        "5 problems",
        "lora_unet_elsewhere",
        "only the down one",
        "[9, 2]",
        "undefined",
        "2 values of alpha",
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let empty = read(&TensorMap::new(), &[]).unwrap_err().to_string();
    assert!(empty.contains("holds no module"), "{empty}");
}

#[test]
fn an_alpha_with_one_axis_is_a_number_too() {
    let mut tensors = exact_tensors(&adapter(), &base().1).unwrap();
    for (_, tensor) in tensors.iter_mut().filter(|(key, _)| is_alpha(key)) {
        tensor.shape = vec![1];
    }
    assert_eq!(read(&tensors, &[]).unwrap().adapter, adapter());
}

#[test]
fn another_kind_of_adapter_is_refused_by_name_in_one_sentence() {
    let stem = "lora_unet_mid_block_attentions_0_proj_in";
    for (part, kind) in [
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lora_mid.weight", "a Tucker decomposition"),
        ("dora_scale", "DoRA"),
        ("oft_blocks", "OFT"),
        ("diff", "a full difference"),
    ] {
        let mut tensors = exact_tensors(&adapter(), &base().1).unwrap();
        tensors.insert(format!("{stem}.{part}"), HostTensor::from_f32([1, 1], vec![1.0]));
        let message = read(&tensors, &[]).unwrap_err().to_string();
        assert!(message.contains(&format!("holds 1 key of {kind}")), "{message}");
        assert!(message.contains(&format!("`{stem}.{part}`")) && !message.contains('\n'));
    }
}

#[test]
fn a_peft_folder_keeps_the_effect_and_holds_one_network() {
    let mut adapter = adapter();
    let several = peft_tensors(&adapter, &base().1, AdapterDtype::F32).unwrap_err().to_string();
    assert!(several.contains("text_encoder, unet"), "{several}");
    adapter.modules.remove(TEXT);
    let (tensors, config) = peft_tensors(&adapter, &base().1, AdapterDtype::F32).unwrap();
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(config["r"], 2);
    assert_eq!(config["alpha_pattern"], config["rank_pattern"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PEFT_FILE);
    checkpoints::write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
    checkpoints::fs::atomic_write_json(&folder.path().join(PEFT_CONFIG), &config).unwrap();
    let (layers, map) = base();
    let found = adapter_from_file(&path, &layers, &map).unwrap();
    assert_eq!(found.form, AdapterForm::Peft);
    check_same_effect(&found.adapter, &adapter, 1e-6);
}

/// Layers and names of a golden base, and a file beside it.
fn golden(family: &str, file: &str) -> (Vec<Layer>, KeyMap, std::path::PathBuf) {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../scripts/golden/family_{family}"));
    let files = ModelFiles::open(&folder.join("base"), &ModelOptions::default()).unwrap();
    let (layers, unet) = file_layers(&files).unwrap();
    let map = key_map(&layers, &unet).unwrap();
    (layers, map, folder.join(file))
}

#[test]
fn what_others_write_of_one_adapter_is_one_adapter() {
    for (family, n_modules) in [("sd1", 296), ("sd2", 296), ("sdxl", 294)] {
        let (layers, map, path) = golden(family, "kohya.safetensors");
        let kohya = adapter_from_file(&path, &layers, &map).unwrap();
        let path = path.with_file_name("diffusers.safetensors");
        let diffusers = adapter_from_file(&path, &layers, &map).unwrap();
        assert_eq!((kohya.form, diffusers.form), (AdapterForm::Kohya, AdapterForm::Diffusers));
        assert_eq!(kohya.adapter.modules.len(), n_modules, "{family}");
        assert!(kohya.adapter == diffusers.adapter, "{family}");
    }
}

#[test]
fn what_is_written_of_every_family_is_named_as_others_name_it() {
    for family in ["sd1", "sd2", "sdxl"] {
        let (layers, map, path) = golden(family, "kohya.safetensors");
        let adapter = adapter_from_file(&path, &layers, &map).unwrap().adapter;
        let kohya = kohya_tensors(&adapter, &map, AdapterDtype::F16).unwrap();
        let theirs = checkpoints::TensorFile::open(&path).unwrap();
        // Alpha is stored in f32 here, in f16 there; everything else is the same.
        assert!(kohya.keys().map(String::as_str).eq(theirs.names()), "{family}");
        for (key, tensor) in kohya.iter().filter(|(key, _)| !is_alpha(key)) {
            assert!(*tensor == theirs.read(key).unwrap(), "{family}: {key}");
        }
        let (tensors, config) = diffusers_tensors(&adapter, &map, AdapterDtype::F32).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        for metadata in [vec![], vec![(ADAPTER_METADATA.to_owned(), config)]] {
            let metadata = metadata.into_iter().collect();
            checkpoints::write_tensors(&path, &tensors, &metadata).unwrap();
            let found = adapter_from_file(&path, &layers, &map).unwrap().adapter;
            assert_eq!(differences(&found, &adapter, 1e-6), Vec::<String>::new(), "{family}");
        }
        let second = "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight";
        assert_eq!(tensors.contains_key(second), family == "sdxl");
    }
}

#[test]
fn a_peft_folder_of_either_text_encoder_is_read_as_that_one() {
    let (layers, map, path) = golden("sdxl", "kohya.safetensors");
    let whole = adapter_from_file(&path, &layers, &map).unwrap().adapter;
    for component in ["text_encoder.", "text_encoder_2."] {
        let mut adapter = whole.clone();
        adapter.modules.retain(|path, _| path.starts_with(component));
        assert!(!adapter.modules.is_empty());
        let (tensors, config) = peft_tensors(&adapter, &map, AdapterDtype::F32).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PEFT_FILE);
        checkpoints::write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
        checkpoints::fs::atomic_write_json(&folder.path().join(PEFT_CONFIG), &config).unwrap();
        let found = adapter_from_file(&path, &layers, &map).unwrap().adapter;
        assert_eq!(differences(&found, &adapter, 1e-6), Vec::<String>::new());
    }
}

#[test]
fn an_adapter_of_another_family_is_refused_in_one_sentence() {
    for (of, on, words) in [
        ("sdxl", "sd1", "Stable Diffusion XL"),
        ("sd1", "sdxl", "width 24"),
        ("sd1", "sd2", "width 32"),
    ] {
        let (_, _, path) = golden(of, "kohya.safetensors");
        let (layers, map, _) = golden(on, "");
        let message = adapter_from_file(&path, &layers, &map).unwrap_err().to_string();
        assert!(message.contains("is for") && message.contains(words), "{message}");
        assert!(!message.contains('\n') && message.len() < 500, "{message}");
    }
}
