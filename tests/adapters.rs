//! Adapter files as their owners handle them: converted, merged, extracted, resized, inspected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::{HostTensor, ModelFiles, ModelOptions, TensorFile, TensorMap};
use models::adapter::{self, Adapter, Exchanged, Factors, differences};
use models::skeleton;
use recipes::{AdapterDtype, draws};

use crate::world::{World, root};

fn golden(name: &str) -> PathBuf {
    root().join("scripts/golden").join(name)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Reads an adapter for the base in a folder.
fn read(path: &Path, base: &Path) -> Exchanged {
    let files = ModelFiles::open(base, &ModelOptions::default()).unwrap();
    let (layers, unet) = skeleton::file_layers(&files).unwrap();
    let map = adapter::key_map(&layers, &unet).unwrap();
    adapter::adapter_from_file(path, &layers, &map).unwrap()
}

/// An adapter of this rank for the attention and the convolutions of a base, with every value drawn.
fn drawn(base: &Path, rank: usize, seed: u64) -> Adapter {
    let files = ModelFiles::open(base, &ModelOptions::default()).unwrap();
    let (layers, _) = skeleton::file_layers(&files).unwrap();
    let patterns = ["unet.**.attn*.**", "unet.**.conv1", "text_encoder.**.mlp.*"];
    let chosen = adapter::select(&layers, &patterns.map(str::to_owned)).unwrap();
    let module = |layer: &adapter::Layer| {
        let mut stream = draws::keyed(seed, &layer.path);
        let mut tensor = |shape: Vec<usize>| {
            let values = draws::normals(&mut stream, shape.iter().product());
            HostTensor::from_f32(shape, values.into_iter().map(|value| 0.1 * value).collect())
        };
        let (mut down, mut up) = (layer.weight.clone(), vec![1; layer.weight.len()]);
        down[0] = rank;
        (up[0], up[1]) = (layer.weight[0], rank);
        (layer.path.clone(), Factors { down: tensor(down), up: tensor(up), alpha: 1.5 })
    };
    Adapter { modules: chosen.iter().map(module).collect() }
}

/// Writes an adapter for the base in a folder, under kohya's names in f32.
fn write(path: &Path, adapter: &Adapter, base: &Path) {
    let files = ModelFiles::open(base, &ModelOptions::default()).unwrap();
    let (layers, unet) = skeleton::file_layers(&files).unwrap();
    let map = adapter::key_map(&layers, &unet).unwrap();
    let tensors = adapter::kohya_tensors(adapter, &map, AdapterDtype::F32).unwrap();
    let about = [("modelspec.title", "drawn"), ("ss_tag_frequency", "{\"secret\": {}}")];
    let about: BTreeMap<String, String> =
        about.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    checkpoints::write_tensors(path, &tensors, &about).unwrap();
}

/// A tiny base and two adapters for it.
fn world() -> (World, [Adapter; 2]) {
    let world = World::new();
    let base = world.path("base");
    let adapters = [drawn(&base, 2, 1), drawn(&base, 3, 2)];
    for (adapter, name) in adapters.iter().zip(["a.safetensors", "b.safetensors"]) {
        write(&world.path(name), adapter, &base);
    }
    (world, adapters)
}

fn same(found: &Adapter, expected: &Adapter, tolerance: f64) {
    assert_eq!(differences(found, expected, tolerance), Vec::<String>::new());
}

/// The hash by which `inspect` knows a base.
fn base_sha256(world: &World, name: &str) -> String {
    let record = world.run(&["inspect", name, "--json"]).expect(0).last_json();
    record["sha256"].as_str().unwrap().to_owned()
}

#[test]
fn adapters_of_every_family_go_through_every_form_and_stay_what_they_are() {
    for family in ["sd1", "sd2", "sdxl"] {
        let world = World::empty();
        let base = golden(&format!("family_{family}/base"));
        let source = golden(&format!("family_{family}/kohya.safetensors"));
        let expected = read(&source, &base).adapter;
        let (base_text, source) = (text(&base), text(&source));
        let convert = |from: &str, to: &str, out: &str| {
            let flags = ["--base", &base_text, "--dtype", "f32", "--json"];
            let arguments = [&["convert", from, "--to", to, "--out", out][..], &flags].concat();
            world.run(&arguments).expect(0).last_json()
        };
        let record = convert(&source, "diffusers", "d.safetensors");
        assert_eq!(record["from"], "kohya");
        assert_eq!(record["to"], "diffusers");
        assert_eq!(record["modules"], expected.modules.len());
        same(&read(&world.path("d.safetensors"), &base).adapter, &expected, 1e-5);
        let record = convert("d.safetensors", "kohya", "k.safetensors");
        assert_eq!(record["warnings"].as_array().unwrap().len(), 0, "{family}: {record}");
        same(&read(&world.path("k.safetensors"), &base).adapter, &expected, 1e-5);
        // The names are those that kohya's tools give.
        let ours = TensorFile::open(&world.path("k.safetensors")).unwrap();
        let theirs = TensorFile::open(Path::new(&source)).unwrap();
        assert!(ours.names().eq(theirs.names()), "{family}");
    }
}

#[test]
fn readers_are_told_apart_by_the_names_of_a_file() {
    let world = World::empty();
    let base = text(&golden("family_sd1/base"));
    let verdicts = |file: &str| -> Vec<String> {
        let path = text(&golden(&format!("family_sd1/{file}.safetensors")));
        let arguments = ["inspect", &path, "--readers", "--base", &base, "--json"];
        let record = world.run(&arguments).expect(0).last_json();
        let readers = ["ComfyUI", "Forge", "A1111", "diffusers"];
        readers.map(|name| record["readers"][name]["verdict"].as_str().unwrap().to_owned()).into()
    };
    assert_eq!(verdicts("kohya"), ["applied"; 4]);
    assert_eq!(verdicts("diffusers"), ["partly", "refused", "refused", "applied"]);
    let path = text(&golden("family_sd1/diffusers.safetensors"));
    let told = world.run(&["inspect", &path, "--readers", "--base", &base]).expect(0).stdout;
    assert!(told.contains("Forge: refused: 292 keys are unmatched"), "{told}");
    assert!(told.contains("unknown: `text_encoder.encoder.layers.0.mlp.fc1.lora_A.weight`"));
}

/// A file for Stable Diffusion 1.x as it is released, with one module.
fn released(world: &World, name: &str, suffixes: [&str; 2]) -> String {
    let stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k";
    let mut tensors = TensorMap::new();
    for (suffix, shape) in suffixes.into_iter().zip([[4, 768], [1280, 4]]) {
        let n_values = shape.iter().product();
        let values = draws::normals(&mut draws::keyed(1, suffix), n_values);
        tensors.insert(format!("{stem}.{suffix}"), HostTensor::from_f32(shape, values).to_f16());
    }
    tensors.insert(format!("{stem}.alpha"), HostTensor::scalar(2.0));
    checkpoints::write_tensors(&world.path(name), &tensors, &BTreeMap::new()).unwrap();
    name.to_owned()
}

#[test]
fn an_adapter_of_a_released_family_needs_no_base() {
    let world = World::empty();
    let file = released(&world, "sd1.safetensors", ["lora_down.weight", "lora_up.weight"]);
    let told = world.run(&["inspect", &file, "--readers"]).expect(0).stdout;
    for expected in
        ["for Stable Diffusion 1.x", "rank 4, alpha 2", "factors in F16", "A1111: applied (3 of 3"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let arguments = ["convert", &file, "--to", "peft", "--out", "folder", "--json"];
    let record = world.run(&arguments).expect(0).last_json();
    assert_eq!(record["dtype"], "f16");
    assert_eq!(record["modules"], 1);
    let config = std::fs::read_to_string(world.path("folder/adapter_config.json")).unwrap();
    assert!(config.contains("\"peft_type\": \"LORA\""), "{config}");
    // The folder is taken now, and is an adapter itself.
    world.run(&arguments).expect(64);
    let arguments = ["convert", "folder", "--to", "kohya", "--out", "again.safetensors"];
    world.run(&arguments).expect(0);
    let names: Vec<String> = TensorFile::open(&world.path("again.safetensors"))
        .unwrap()
        .names()
        .map(str::to_owned)
        .collect();
    let expected = TensorFile::open(&world.path(&file)).unwrap();
    assert!(expected.names().eq(names.iter().map(String::as_str)), "{names:?}");
}

#[test]
fn what_cannot_be_read_is_refused_in_one_sentence_and_nothing_is_written() {
    let world = World::new();
    let sd1 = released(&world, "sd1.safetensors", ["lora_down.weight", "lora_up.weight"]);
    let loha = released(&world, "loha.safetensors", ["hada_w1_b", "hada_w1_a"]);
    let xl = text(&golden("family_sdxl/kohya.safetensors"));
    let merge = |adapter: &str| {
        let arguments = ["merge", "--base", "base", "--adapter", adapter, "--out", "out"];
        world.run(&arguments).expect(65).stderr
    };
    let convert = world.run(&["convert", &loha, "--to", "diffusers", "--out", "out"]);
    for (told, reason) in [
        (merge(&sd1), "is for Stable Diffusion 1.x"),
        (merge(&xl), "is for Stable Diffusion XL"),
        (convert.expect(65).stderr, "keys of LoHa"),
    ] {
        assert!(told.contains(reason), "{reason}: {told}");
        assert!(told.lines().count() < 6 && told.len() < 800, "{told}");
    }
    let unknown = world.run(&["convert", "a.safetensors", "--to", "kohya", "--out", "x"]);
    assert_eq!(unknown.code, Some(74), "{}", unknown.stderr);
    let left: Vec<_> = std::fs::read_dir(world.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("out") || name.contains("unfinished"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // A miniature is none of the released families.
    let base = world.path("base");
    write(&world.path("tiny.safetensors"), &drawn(&base, 1, 1), &base);
    let told = world.run(&["convert", "tiny.safetensors", "--to", "diffusers", "--out", "x"]);
    assert_eq!(told.code, Some(64));
    assert!(told.stderr.contains("`--base`"), "{}", told.stderr);
}

#[test]
fn a_merged_base_holds_the_adapters_and_dose_zero_is_the_base() {
    let (world, adapters) = world();
    let merge = |first: &str, second: &str, out: &str| {
        let arguments =
            ["merge", "--base", "base", "--adapter", first, "--adapter", second, "--out", out];
        world.run(&[&arguments[..], &["--json"]].concat())
    };
    let record = merge("a.safetensors:0.5", "b.safetensors:-1", "merged").expect(0).last_json();
    assert_eq!(record["changed_layers"], adapters[0].modules.len());
    assert_ne!(base_sha256(&world, "merged"), base_sha256(&world, "base"));
    // What a base became is not overwritten.
    merge("a.safetensors", "b.safetensors", "merged").expect(64);
    merge("a.safetensors:0", "b.safetensors:0", "same").expect(0);
    assert_eq!(base_sha256(&world, "same"), base_sha256(&world, "base"));
    // A folder does not become a file.
    let told = merge("a.safetensors", "b.safetensors", "x.safetensors").expect(64).stderr;
    assert!(told.contains("is a folder"), "{told}");

    // The difference, extracted, is the sum of both.
    let extract = [
        "extract",
        "--base",
        "base",
        "--tuned",
        "merged",
        "--rank",
        "5",
        "--dtype",
        "f32",
        "--targets",
        "unet.**.attn*.**",
        "--targets",
        "unet.**.conv1",
        "--targets",
        "text_encoder.**.mlp.*",
        "--out",
        "extracted.safetensors",
        "--json",
    ];
    let record = world.run(&extract).expect(0).last_json();
    let kept = |name: &str| {
        let of = &record["components"][name];
        of["energy_kept"].as_f64().unwrap() / of["energy"].as_f64().unwrap()
    };
    assert!(kept("unet") > 0.9999 && kept("text_encoder") > 0.9999, "{record}");
    let base = world.path("base");
    let [first, second] = adapters;
    let sum = adapter::concatenated(&[(first, 0.5), (second, -1.0)]).unwrap();
    same(&read(&world.path("extracted.safetensors"), &base).adapter, &sum, 1e-3);
}

#[test]
fn several_adapters_become_one_that_can_be_reduced() {
    let (world, [first, second]) = world();
    let base = world.path("base");
    let merge = |order: [&str; 2], out: &str, more: &[&str]| {
        let arguments = ["merge", "--adapter", order[0], "--adapter", order[1], "--out", out];
        let arguments = [&arguments[..], &["--made-for", "base", "--json"], more].concat();
        world.run(&arguments).expect(0).last_json()
    };
    let (a, b) = ("a.safetensors:0.25", "b.safetensors:2");
    merge([a, b], "forward.safetensors", &[]);
    merge([b, a], "backward.safetensors", &[]);
    let expected = adapter::concatenated(&[(first, 0.25), (second, 2.0)]).unwrap();
    for name in ["forward.safetensors", "backward.safetensors"] {
        let found = read(&world.path(name), &base);
        same(&found.adapter, &expected, 1e-5);
        assert!(found.metadata["modelspec.merged_from"].contains("a.safetensors"));
    }
    let record = merge([a, b], "small.safetensors", &["--rank", "2"]);
    let (kept, energy) =
        (record["energy_kept"].as_f64().unwrap(), record["energy"].as_f64().unwrap());
    assert!(kept > 0.2 * energy && kept < 0.999 * energy, "{record}");
    let small = read(&world.path("small.safetensors"), &base).adapter;
    assert!(small.modules.values().all(|factors| factors.rank() == 2));
}

#[test]
fn a_reduced_adapter_keeps_the_energy_that_is_told() {
    let (world, [_, second]) = world();
    let base = world.path("base");
    let arguments = ["resize", "b.safetensors", "--rank", "1", "--base", "base"];
    let told = world.run(&arguments).expect(0).stdout;
    assert!(told.contains("rank 3 to 1") && told.contains("least is kept of:"), "{told}");
    assert!(!told.contains("wrote"), "{told}");
    let more = ["--out", "small.safetensors", "--json"];
    let record = world.run(&[&arguments[..], &more].concat()).expect(0).last_json();
    let small = read(&world.path("small.safetensors"), &base);
    for (path, factors) in &small.adapter.modules {
        let module = &record["modules"][path];
        let lost =
            1.0 - module["energy_kept"].as_f64().unwrap() / module["energy"].as_f64().unwrap();
        let distance = adapter::relative_difference(factors, &second.modules[path]).powi(2);
        assert!((distance - lost).abs() < 1e-3, "{path}: {distance} and {lost}");
    }
    // What the file said of itself and may say goes along, the rest does not.
    assert_eq!(small.metadata["modelspec.title"], "drawn");
    assert_eq!(small.metadata["ss_network_dim"], "1");
    assert!(!small.metadata.contains_key("ss_tag_frequency"));
    let share = ["resize", "b.safetensors", "--energy", "1", "--base", "base", "--out"];
    world.run(&[&share[..], &["whole.safetensors"]].concat()).expect(0);
    same(&read(&world.path("whole.safetensors"), &base).adapter, &second, 1e-5);
    world.run(&["resize", "b.safetensors", "--base", "base"]).expect(64);
    world.run(&["resize", "b.safetensors", "--energy", "1.5", "--base", "base"]).expect(64);
}

#[test]
fn one_adapter_has_the_same_norms_in_every_form() {
    let world = World::empty();
    let norms = |path: &str| -> BTreeMap<String, f64> {
        let record = world.run(&["inspect", path, "--json"]).expect(0).last_json();
        serde_json::from_value(record["block_norms"].clone()).unwrap()
    };
    let base = text(&golden("family_sd1/base"));
    let kohya = text(&golden("family_sd1/kohya.safetensors"));
    let arguments = ["convert", &kohya, "--to", "diffusers", "--out", "d.safetensors"];
    world.run(&[&arguments[..], &["--base", &base, "--dtype", "f32"]].concat()).expect(0);
    let expected = norms(&kohya);
    assert!(expected.len() > 4 && expected.values().all(|norm| *norm > 0.0), "{expected:?}");
    for path in [text(&golden("family_sd1/diffusers.safetensors")), "d.safetensors".to_owned()] {
        let found = norms(&path);
        assert!(found.keys().eq(expected.keys()), "{path}: {found:?}");
        for (block, norm) in &expected {
            assert!((found[block] / norm - 1.0).abs() < 1e-5, "{path}: {block}");
        }
    }
}

#[test]
fn alpha_far_below_the_rank_goes_into_half_precision() {
    let world = World::new();
    let base = world.path("base");
    let mut adapter = drawn(&base, 2, 1);
    for factors in adapter.modules.values_mut() {
        let values = factors.up.f32().iter().map(|value| 1e-2 * value).collect();
        factors.up = HostTensor::from_f32(factors.up.shape.clone(), values);
        factors.alpha = 2.0 / 256.0;
    }
    write(&world.path("small.safetensors"), &adapter, &base);
    for form in ["diffusers", "kohya"] {
        let out = format!("{form}.safetensors");
        let arguments = ["convert", "small.safetensors", "--to", form, "--out", &out];
        world.run(&[&arguments[..], &["--base", "base", "--dtype", "f16"]].concat()).expect(0);
        same(&read(&world.path(&out), &base).adapter, &adapter, 2e-3);
    }
}

#[test]
fn flags_that_would_do_nothing_and_places_that_are_taken_are_refused() {
    let (world, _) = world();
    let single = text(&golden("single_file/sd1.safetensors"));
    let pair = ["--adapter", "a.safetensors", "--adapter", "b.safetensors", "--made-for", "base"];
    let models = ["extract", "--base", "base", "--tuned", "base", "--out", "x", "--rank"];
    for (arguments, words) in [
        ([&["merge"][..], &pair, &["--out", "b.safetensors"]].concat(), "its own place"),
        (
            vec![
                "merge",
                "--base",
                &single,
                "--adapter",
                "a.safetensors",
                "--prediction",
                "v",
                "--out",
                "x.safetensors",
            ],
            "`--prediction` needs a folder",
        ),
        (
            vec!["resize", "a.safetensors", "--rank", "1", "--base", "base", "--dtype", "f16"],
            "--out",
        ),
        ([&models[..], &["1", "--conv-rank", "2", "--targets", "attn"]].concat(), "found none"),
        ([&models[..], &["513"]].concat(), "512"),
    ] {
        let told = world.run(&arguments).expect(64).stderr;
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    assert!(!world.path("x").exists());
}
